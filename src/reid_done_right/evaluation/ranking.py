"""Ranks of the relevant items of every query, exactly, by counting: no sort and no Q x G matrix.

The rank of a relevant item is one more than the number of remaining gallery items that beat it; equal scores
keep gallery order. Scores are computed block by block. A query's relevant items take their scores out of the
same matrix product as the items that compete with them, so equal embeddings of one block are equal scores,
whatever the rounding.

Three queries and four gallery items; `j` marks a query's junk, `*` its relevant items:

             item 0   item 1   item 2   item 3
    query A   0.9 j    0.6 *    0.7      0.1     item 2 beats item 1, junk does not count: rank 2
    query B   0.9 *    0.8 j    0.1      0.2     nothing beats item 0: rank 1
    query C   0.5      0.5      0.5 *    0.6     item 3 is higher, items 0 and 1 are equal and earlier: rank 4
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.backend import backend
from reid_done_right.evaluation.blocks import Progress, split
from reid_done_right.evaluation.counting import Backend, cumulate
from reid_done_right.evaluation.embedded import Embedded, Labels, UnnormalisedError
from reid_done_right.evaluation.expansion import expand
from reid_done_right.evaluation.metrics import ApRule, average_precision, cmc
from reid_done_right.evaluation.ragged import Ragged
from reid_done_right.evaluation.reciprocal import k_reciprocal
from reid_done_right.evaluation.rules import Rule, deleted, relevant_and_junk, same_person
from reid_done_right.evaluation.task import Task

Rerank = Literal["none", "qe-dba", "k-reciprocal"]

Scorer = Callable[[slice, slice, Any], object]
"""``scorer(queries, items, out)`` writes the scores of a range of queries and gallery items into the block `out`;
higher is closer."""

BLOCK = 2**25
_GAP = 1024


@dataclass(frozen=True)
class Ranking:
    """Where the relevant items of each query ended up; everything the metrics need."""

    pointers: NDArray[np.int64]
    """(Q + 1,) where each query's items begin and end in the next two."""
    ranks: NDArray[np.int64]
    """(P,) 1-based ranks of the relevant items after deletion, ascending within a query."""
    similarity: NDArray[np.float32]
    """(P,) their scores."""
    relevant: NDArray[np.int64]
    """(Q,) relevant items of each query, also those cut off or never retrieved."""

    def average_precision(self, rule: ApRule = "trapezoid") -> NDArray[np.float64]:
        """(Q,) average precision."""
        return average_precision(self.ranks, self.pointers, self.relevant, rule)

    @property
    def first_hit_rank(self) -> NDArray[np.int64]:
        """(Q,) rank of the best relevant item, 0 if there is none."""
        first = np.zeros(len(self.relevant), dtype=np.int64)
        found = np.diff(self.pointers) > 0
        first[found] = self.ranks[self.pointers[:-1][found]]
        return first

    def cmc(self, at: Sequence[int]) -> NDArray[np.float64]:
        """Fraction of the queries with a hit at each of the ranks `at`."""
        return cmc(self.first_hit_rank, at)

    def scores(self, ap_rule: ApRule = "trapezoid") -> dict[str, float | int | str]:
        """The headline numbers as fractions; `mAP` is by `ap_rule`."""
        rank1, rank5, rank10 = self.cmc([1, 5, 10])
        return {
            "mAP": float(self.average_precision(ap_rule).mean()),
            "mAP_trapezoid": float(self.average_precision("trapezoid").mean()),
            "mAP_step": float(self.average_precision("step").mean()),
            "ap_rule": ap_rule,
            "rank1": float(rank1),
            "rank5": float(rank5),
            "rank10": float(rank10),
            "queries": len(self.relevant),
            "queries_without_match": int((self.relevant == 0).sum()),
        }


def rank_gallery(
    task: Task,
    *,
    rerank: Rerank = "none",
    options: Mapping[str, Any] | None = None,
    block: int = BLOCK,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> Ranking:
    """Rank the gallery for every query by dot product; ``.scores(rule.ap_rule)`` are the numbers.

    Args:
        task: queries, gallery and rule. A memory map is read block by block; float16 is widened there.
        rerank: ``none``, ``qe-dba`` (the paper's re-ranking, `expansion`) or ``k-reciprocal`` (`reciprocal`).
        options: keyword arguments of `expansion.expand` or `reciprocal.k_reciprocal`, if not their defaults.
        block: number of scores held in memory (4 bytes each).
        threads: number of threads. The matrix products are numpy's and use what BLAS is set to.
        device: PyTorch device to use instead, such as ``cuda``, with the same ranks; the gallery passes through
            it block by block.
        progress: wraps the list of blocks, as tqdm does.

    Raises:
        ValueError: for a re-ranking of gallery lists, which would mix the galleries of different queries; for a
            gallery that is checked late, naming the row.
    """
    check_rerank(rerank, options)
    if rerank != "none" and task.lists is not None:
        raise ValueError(f"{rerank} would mix the galleries of different queries; rank gallery lists plainly")
    how: dict[str, Any] = {**(options or {}), "threads": threads, "device": device, "progress": progress}
    there = backend(threads, device)

    def ranked(query: Embedded, gallery: Embedded) -> Ranking:
        if rerank == "none":
            scorer = dot_scorer(query.embeddings, gallery, there)
        else:
            gallery.check_unread()
            if rerank == "k-reciprocal":
                scorer = k_reciprocal(query.embeddings, gallery.embeddings, **how).score
            else:
                scorer = dot_scorer(*expand(query.embeddings, gallery.embeddings, **how), there)
        labels = (query.labels, gallery.labels)
        ranking = rank_by(scorer, *labels, task.rule, lists=task.lists, block=block, backend=there, progress=progress)
        gallery.check_unread()  # of rows that count for nobody
        return ranking

    try:
        return ranked(task.query, task.gallery)
    except UnnormalisedError:
        checked = replace(task, gallery=replace(task.gallery, late=False))
        return ranked(checked.query, checked.gallery)


def score(
    query: NDArray[np.floating],
    query_labels: Labels,
    gallery: NDArray[np.floating],
    gallery_labels: Labels,
    rule: Rule,
    *,
    lists: Sequence[NDArray[np.int64]] | None = None,
    **how: Any,
) -> Ranking:
    """Rank a gallery (G, D) for queries (Q, D), both of unit norm, by a rule, one of `rules.RULES` or your own.

    lists: for each query, the gallery rows that are its gallery. how: as `rank_gallery` takes it.
    Raises ValueError naming the row, for embeddings and labels that cannot be evaluated.
    """
    pair = Embedded(query, query_labels, "query"), Embedded(gallery, gallery_labels, "gallery", late=True)
    return rank_gallery(Task(*pair, rule, lists), **how)


def check_rerank(rerank: str, options: Mapping[str, Any] | None) -> None:
    """Raise ValueError for an unknown re-ranking, and for options where there is none."""
    if rerank not in get_args(Rerank):
        raise ValueError(f"re-ranking {rerank!r} is unknown: use one of {', '.join(get_args(Rerank))}")
    if rerank == "none" and options:
        raise ValueError(f"options {', '.join(options)} belong to a re-ranking, but there is none")


def resolved(rerank: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return every option of a re-ranking: those given, and the defaults of the others."""
    functions: dict[str, Callable[..., Any]] = {"qe-dba": expand, "k-reciprocal": k_reciprocal}
    given = signature(functions[rerank]).parameters if rerank in functions else {}
    arithmetic = ("threads", "device", "progress")
    defaults = {name: each.default for name, each in given.items() if each.kind is each.KEYWORD_ONLY}
    return {name: value for name, value in defaults.items() if name not in arithmetic} | dict(options or {})


def dot_scorer(query: NDArray[np.floating], gallery: NDArray[np.floating] | Embedded, backend: Backend) -> Scorer:
    """Return a scorer of dot products of queries (Q, D) and gallery (G, D), float32."""
    left = backend.put(query)

    def score(rows: slice, columns: slice, out: Any) -> None:
        backend.multiply(left[rows], backend.put(gallery[columns]), out)

    return score


def rank_by(
    scorer: Scorer,
    query_labels: Labels,
    gallery_labels: Labels,
    rule: Rule,
    *,
    lists: Sequence[NDArray[np.int64]] | None = None,
    block: int = BLOCK,
    backend: Backend | None = None,
    progress: Progress = iter,
) -> Ranking:
    """Rank by the scores of any `scorer`, which are in `backend` (NumPy's, if absent); otherwise as `rank_gallery`.

    Labels are as `rules.check_labels` wants them. The gallery is cut into ranges. Those *near* hold somebody's relevant
    or junk items: all of them are scored together, for as many queries as fit into a block. In the others every item is
    a negative of every query, and all queries are scored against one range at a time, each range once.
    """
    everywhere = deleted(gallery_labels, rule)
    relevant, junk = relevant_and_junk(query_labels, gallery_labels, rule)
    if lists is not None:
        relevant = _within(relevant, lists)
    near, far = _ranges(query_labels, gallery_labels, rule, lists is not None, max(1, block // len(query_labels)))
    columns = np.concatenate([np.arange(span.start, span.stop) for span in near])
    backend = backend or Backend()
    tally = _Tally.empty(relevant, backend)
    undeleted = _Tally.empty(relevant, backend) if rule.cut is not None else None
    buffer = backend.empty(max(block, len(columns), len(query_labels)))
    groups = split(slice(0, len(query_labels)), max(1, block // max(1, len(columns))))

    # near ranges come first: every threshold is known before a far range is counted
    work = [*((rows, near) for rows in groups), *((slice(0, len(query_labels)), [span]) for span in far)]
    for rows, ranges in progress(work):
        height, width = rows.stop - rows.start, sum(span.stop - span.start for span in ranges)
        scores = buffer[: height * width].reshape(height, width)
        columns = np.concatenate([np.arange(span.start, span.stop) for span in ranges])
        for span in ranges:
            first = int(np.searchsorted(columns, span.start))
            scorer(rows, span, scores[:, first : first + span.stop - span.start])
        if lists is not None:
            _strike_out(scores, columns, lists[rows], len(everywhere), backend)
        if ranges is near:
            tally.read(rows, columns, scores)
            if undeleted is not None:
                undeleted.read(rows, columns, scores)
        if undeleted is not None:  # a cut counts ranks before junk is deleted
            undeleted.count(rows, columns, scores)
        backend.delete(scores, slice(None), np.flatnonzero(everywhere[columns]))
        if ranges is near:
            own = junk.part(rows)
            backend.delete(scores, own.rows, np.searchsorted(columns, own.items))
        tally.count(rows, columns, scores)

    reached = np.full(len(relevant.items), True) if undeleted is None else undeleted.ranks() <= (rule.cut or 0)
    kept = relevant.keep(reached)
    return Ranking(kept.pointers, tally.ranks()[reached], tally.thresholds[reached], relevant.counts)


@dataclass
class _Tally:
    """Scores of the relevant items, best first, and how many items were seen to beat each."""

    pointers: NDArray[np.int64]
    items: NDArray[np.int64]
    thresholds: NDArray[np.float32]
    counts: NDArray[np.int32]
    backend: Backend

    @classmethod
    def empty(cls, relevant: Ragged, backend: Backend) -> "_Tally":
        size = len(relevant.items)
        counts = np.zeros((size, 1), dtype=np.int32)
        return cls(relevant.pointers, relevant.items.copy(), np.empty(size, np.float32), counts, backend)

    def read(self, rows: slice, columns: NDArray[np.int64], scores: Any) -> None:
        """Read the scores of the relevant items out of the block and sort them, best first."""
        part = slice(self.pointers[rows.start], self.pointers[rows.stop])
        row = Ragged(self.pointers, self.items).part(rows).rows
        items = self.items[part]
        thresholds = self.backend.read(scores, row, np.searchsorted(columns, items))
        order = np.lexsort((items, -thresholds, row))
        self.items[part], self.thresholds[part] = items[order], thresholds[order]

    def count(self, rows: slice, columns: NDArray[np.int64], scores: Any) -> None:
        """Count the items of a block against the relevant items of its queries."""
        pointers = self.pointers[rows.start : rows.stop + 1]
        cells = np.zeros((len(columns), 1), dtype=np.uint16)
        self.backend.count(scores, columns, pointers, self.thresholds, self.items, cells, self.counts)

    def ranks(self) -> NDArray[np.int64]:
        """Return (P,) one more than the number of items that beat each relevant item."""
        return cumulate(self.counts[:, 0], self.pointers) + 1


def _ranges(query: Labels, gallery: Labels, rule: Rule, all_near: bool, width: int) -> tuple[list[slice], list[slice]]:
    """Return ranges of at most `width` gallery rows, near and far; long runs that are deleted for all are left out."""
    near = np.full(len(gallery), all_near)
    near[same_person(query, gallery).items] = True
    kept = np.flatnonzero(~deleted(gallery, rule)) if rule.cut is None else np.arange(len(gallery))
    ends = np.flatnonzero(np.diff(kept) > _GAP)
    starts = kept[np.concatenate([[0], ends + 1])]
    stops = kept[np.concatenate([ends, [len(kept) - 1]])] + 1
    pieces = [each for run in zip(starts, stops, strict=True) for each in split(slice(*map(int, run)), width)]
    return [each for each in pieces if near[each].any()], [each for each in pieces if not near[each].any()]


def _within(relevant: Ragged, lists: Sequence[NDArray[np.int64]]) -> Ragged:
    """Return only the relevant items that are in their query's gallery list."""
    inside = [np.isin(relevant.items[a:b], each) for a, b, each in _spans(relevant, lists)]
    return relevant.keep(np.concatenate([np.empty(0, bool), *inside]))


def _spans(table: Ragged, lists: Sequence[NDArray[np.int64]]) -> list[tuple[int, int, NDArray[np.int64]]]:
    return list(zip(table.pointers[:-1].tolist(), table.pointers[1:].tolist(), lists, strict=True))


def _strike_out(
    scores: Any, columns: NDArray[np.int64], lists: Sequence[NDArray[np.int64]], gallery: int, backend: Backend
) -> None:
    """Delete what is not in the query's own gallery list."""
    for row, items in enumerate(lists):
        outside = np.full(gallery, True)
        outside[items] = False
        backend.delete(scores, row, np.flatnonzero(outside[columns]))
