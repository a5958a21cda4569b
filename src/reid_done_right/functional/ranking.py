"""Ranks of the relevant items of every query, exactly, by counting: no sort and no Q x G matrix.

The rank of a relevant item is one more than the number of undeleted gallery items that beat it; equal scores
keep gallery order. Scores are computed block by block. A query's relevant items take their scores out of the
same matrix product as the items that compete with them, so equal embeddings of one block are equal scores,
whatever the rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.functional.counting import cumulate
from reid_done_right.functional.metrics import ApRule, average_precision, cmc
from reid_done_right.functional.neighbours import Progress
from reid_done_right.functional.processors import Processor, processor
from reid_done_right.functional.protocols import (
    Labels,
    Lists,
    Rule,
    check_labels,
    check_pair,
    deleted,
    relevant_and_junk,
    same_person,
)

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


def rank(
    query: NDArray[np.floating],
    query_labels: Labels,
    gallery: NDArray[np.floating],
    gallery_labels: Labels,
    rule: Rule,
    *,
    lists: Sequence[NDArray[np.int64]] | None = None,
    block: int = BLOCK,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> Ranking:
    """Rank the gallery for every query by dot product.

    Args:
        query: (Q, D) embeddings.
        query_labels: Q rows.
        gallery: (G, D) embeddings; a memory map is read once from beginning to end. float16 is widened block by block.
        gallery_labels: G rows.
        rule: who counts for whom.
        lists: for each query, the gallery rows that are its gallery (Person Search); all rows if absent.
        block: how many scores to hold at a time (4 bytes each).
        threads: how many count at once. The matrix products are numpy's and use what BLAS is set to.
        device: where PyTorch is to compute instead, such as ``cuda``; the gallery passes through it block by block.
        progress: wraps the list of blocks, as tqdm does.

    Raises:
        ValueError: naming the row, for embeddings or labels that cannot be evaluated (`protocols.check_pair`).
    """
    check_pair(query, query_labels, gallery, gallery_labels, rule)
    place = processor(threads, device)
    score = dot_scorer(query, gallery, place)
    return rank_by(score, query_labels, gallery_labels, rule, lists=lists, block=block, place=place, progress=progress)


def dot_scorer(query: NDArray[np.floating], gallery: NDArray[np.floating], place: Processor) -> Scorer:
    """Dot products of queries (Q, D) and gallery (G, D), float32."""
    left = place.held(query)

    def score(rows: slice, columns: slice, out: Any) -> None:
        place.multiply(left[rows], place.held(gallery[columns]), out)

    return score


def rank_by(
    scorer: Scorer,
    query_labels: Labels,
    gallery_labels: Labels,
    rule: Rule,
    *,
    lists: Sequence[NDArray[np.int64]] | None = None,
    block: int = BLOCK,
    place: Processor | None = None,
    progress: Progress = iter,
) -> Ranking:
    """Rank by the scores of any `scorer`, which are in `place` (the host, if absent); otherwise as `rank`.

    The gallery is cut into ranges. Those *near* hold somebody's relevant or junk items: all of them are scored
    together, for as many queries as fit into a block. In the others every item is a negative of every query,
    and all queries are scored against one range at a time, each range once.
    """
    check_labels(query_labels, gallery_labels, rule)
    gone = deleted(gallery_labels, rule)
    relevant, junk = relevant_and_junk(query_labels, gallery_labels, rule)
    if lists is not None:
        relevant = _within(relevant, lists)
    near, far = _ranges(query_labels, gallery_labels, rule, lists is not None, max(1, block // len(query_labels)))
    columns = np.concatenate([np.arange(each.start, each.stop) for each in near])
    place = place or processor()
    board = _Board.empty(relevant, place)
    full = _Board.empty(relevant, place) if rule.cut is not None else None
    buffer = place.empty(max(block, len(columns), len(query_labels)))
    groups = split(slice(0, len(query_labels)), max(1, block // max(1, len(columns))))

    for rows, ranges in progress(
        [*((rows, near) for rows in groups), *((slice(0, len(query_labels)), [each]) for each in far)]
    ):
        height, width = rows.stop - rows.start, sum(each.stop - each.start for each in ranges)
        scores = buffer[: height * width].reshape(height, width)
        columns = np.concatenate([np.arange(each.start, each.stop) for each in ranges])
        for each in ranges:
            first = int(np.searchsorted(columns, each.start))
            scorer(rows, each, scores[:, first : first + each.stop - each.start])
        if lists is not None:
            _strike_out(scores, columns, lists[rows], len(gone), place)
        if ranges is near:
            board.seat(rows, columns, scores)
            if full is not None:
                full.seat(rows, columns, scores)
        if full is not None:
            full.count(rows, columns, scores)
        place.delete(scores, slice(None), np.flatnonzero(gone[columns]))
        if ranges is near:
            own = junk.part(rows)
            place.delete(scores, own.rows, np.searchsorted(columns, own.items))
        board.count(rows, columns, scores)

    found = np.full(len(relevant.items), True) if full is None else full.ranks() <= (rule.cut or 0)
    kept = relevant.keep(found)
    return Ranking(kept.pointers, board.ranks()[found], board.thresholds[found], relevant.counts)


def rank_detections(
    similarity: Sequence[NDArray[np.floating]], hits: Sequence[NDArray[np.bool_]], relevant: Sequence[int]
) -> Ranking:
    """Ranking of detections (Person Search): the AP of the result is AP x recall of the official code.

    Args:
        similarity: for each query, (n,) of the detections in its gallery.
        hits: for each query, (n,) which of them are true positives (`protocols.detection_hits`).
        relevant: (Q,) true boxes of the person in the query's gallery, detected or not.
    """
    order = [np.argsort(-each, kind="stable") for each in similarity]
    ranks = [np.flatnonzero(hit[places]) for hit, places in zip(hits, order, strict=True)]
    table = Lists.of(ranks)
    scores = [each[places][found] for each, places, found in zip(similarity, order, ranks, strict=True)]
    return Ranking(
        table.pointers,
        table.items + 1,
        np.concatenate([np.empty(0), *scores]).astype(np.float32),
        np.asarray(relevant, dtype=np.int64),
    )


@dataclass
class _Board:
    """Scores and places of the relevant items, and how many items were seen to beat each."""

    pointers: NDArray[np.int64]
    items: NDArray[np.int64]
    thresholds: NDArray[np.float32]
    counts: NDArray[np.int32]
    place: Processor

    @classmethod
    def empty(cls, relevant: Lists, place: Processor) -> "_Board":
        size = len(relevant.items)
        counts = np.zeros((size, 1), dtype=np.int32)
        return cls(relevant.pointers, relevant.items.copy(), np.empty(size, np.float32), counts, place)

    def seat(self, rows: slice, columns: NDArray[np.int64], scores: Any) -> None:
        """Read the scores of the relevant items out of the block and sort them, best first."""
        part = slice(self.pointers[rows.start], self.pointers[rows.stop])
        row = Lists(self.pointers, self.items).part(rows).rows
        items = self.items[part]
        thresholds = self.place.read(scores, row, np.searchsorted(columns, items))
        order = np.lexsort((items, -thresholds, row))
        self.items[part], self.thresholds[part] = items[order], thresholds[order]

    def count(self, rows: slice, columns: NDArray[np.int64], scores: Any) -> None:
        """Count the items of a block against the relevant items of its queries."""
        pointers = self.pointers[rows.start : rows.stop + 1]
        cells = np.zeros((len(columns), 1), dtype=np.uint16)
        self.place.count(scores, columns, pointers, self.thresholds, self.items, cells, self.counts)

    def ranks(self) -> NDArray[np.int64]:
        """(P,) one more than the number of items that beat each relevant item."""
        return cumulate(self.counts[:, 0], self.pointers) + 1


def _ranges(query: Labels, gallery: Labels, rule: Rule, all_near: bool, width: int) -> tuple[list[slice], list[slice]]:
    """Ranges of at most `width` gallery rows, near and far; long runs of rows deleted for everyone are left out."""
    near = np.full(len(gallery), all_near)
    near[same_person(query, gallery).items] = True
    kept = np.flatnonzero(~deleted(gallery, rule)) if rule.cut is None else np.arange(len(gallery))
    ends = np.flatnonzero(np.diff(kept) > _GAP)
    starts = kept[np.concatenate([[0], ends + 1])]
    stops = kept[np.concatenate([ends, [len(kept) - 1]])] + 1
    pieces = [each for run in zip(starts, stops, strict=True) for each in split(slice(*map(int, run)), width)]
    return [each for each in pieces if near[each].any()], [each for each in pieces if not near[each].any()]


def split(span: slice, width: int) -> list[slice]:
    """Consecutive slices of at most `width` that cover a span."""
    return [slice(first, min(first + width, span.stop)) for first in range(span.start, span.stop, width)]


def _within(relevant: Lists, lists: Sequence[NDArray[np.int64]]) -> Lists:
    """Only the relevant items that are in their query's gallery list."""
    inside = [np.isin(relevant.items[a:b], each) for a, b, each in _spans(relevant, lists)]
    return relevant.keep(np.concatenate([np.empty(0, bool), *inside]))


def _spans(table: Lists, lists: Sequence[NDArray[np.int64]]) -> list[tuple[int, int, NDArray[np.int64]]]:
    return list(zip(table.pointers[:-1].tolist(), table.pointers[1:].tolist(), lists, strict=True))


def _strike_out(
    scores: Any, columns: NDArray[np.int64], lists: Sequence[NDArray[np.int64]], gallery: int, place: Processor
) -> None:
    """Delete what is not in the query's own gallery list."""
    for row, items in enumerate(lists):
        outside = np.full(gallery, True)
        outside[items] = False
        place.delete(scores, row, np.flatnonzero(outside[columns]))
