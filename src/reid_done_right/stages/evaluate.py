"""Evaluation: each benchmark's own protocols, plain and re-ranked, from one set of embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Embeddings, Index, InputError, read_embeddings, read_index, replacing, write_json
from reid_done_right.functional.evaluation import Rerank
from reid_done_right.functional.evaluation import evaluate as rank_gallery
from reid_done_right.functional.protocols import Labels, Pooling, Rule, pool_queries, pool_tracklets, rule_of
from reid_done_right.functional.ranking import Ranking
from reid_done_right.numerics import in_force, weakest


@dataclass(frozen=True)
class Task:
    """One protocol's queries and gallery: embeddings (Q, D) and (G, D), their labels, and who counts for whom."""

    protocol: str
    rule: Rule
    query: NDArray[np.float32]
    query_labels: Labels
    gallery: NDArray[np.float32]
    gallery_labels: Labels
    lists: Sequence[NDArray[np.int64]] | None = None


def evaluate(*, settings: Mapping[str, Any], index: Path, embeddings: Path, out: Path, queries: Path) -> None:
    """Score every protocol of the dataset; write the scores and a row for every query.

    settings: {"run": dataset, variant, backbone and seed, "format", "protocol" (of one's own data only), "multi_query",
    "tracklets", "person_search_gallery", "qe_dba", "k_reciprocal"} as in the parameters, and "threads"
    """
    rows = read_index(index)
    embedded = read_embeddings(embeddings)
    results = []
    by_query: list[dict[str, Any]] = []
    for task in tasks(rows, embedded, settings):
        for rerank, ranking in rankings(task, settings):
            name = {"protocol": task.protocol, "rerank": rerank}
            results.append({**name, **ranking.scores(task.rule.ap_rule)})
            by_query.append({**name, "ranking": ranking})
    collapsed = bool(embedded.about.get("collapsed", False))
    computed = weakest(embedded.about.get("numerics"), in_force())
    write_json(out, {"run": settings["run"], "collapsed": collapsed, "numerics": computed, "results": results})
    write_queries(queries, by_query)


def tasks(index: Index, embedded: Embeddings, settings: Mapping[str, Any]) -> Iterator[Task]:
    """Give the protocols of a dataset's format. Raises InputError for an index without queries or lists."""
    form = settings["format"]
    if len(index.query) == 0 or len(index.gallery) == 0:
        raise InputError(
            f"index of {index.root}: {len(index.query)} queries, {len(index.gallery)} gallery rows to score"
        )
    own = settings.get("protocol")
    rule = rule_of(form, own)
    query, gallery = _select(index, embedded, index.query), _select(index, embedded, index.gallery)
    if form == "mars" or (own is not None and own["items"] == "tracklet"):
        queries, items = (
            _pool_tracklets(*frames, index.tracklet_id[rows], settings["tracklets"])
            for frames, rows in ((query, index.query), (gallery, index.gallery))
        )
        yield Task("tracklet", rule, *queries, *items)
        return
    if form == "person-search":
        wanted = str(settings["person_search_gallery"])
        if index.gallery_lists is None or wanted not in index.gallery_lists:
            known = ", ".join(index.gallery_lists or {}) or "none"
            raise InputError(f"index of {index.root}: no gallery lists of size {wanted}; it has {known}")
        lists = [np.searchsorted(index.gallery, members) for members in index.gallery_lists[wanted]]
        yield Task(f"gallery-{wanted}", rule, *query, *gallery, lists)
        return
    yield Task("single-query", rule, *query, *gallery)
    boxes = index.rows("boxes")
    if len(boxes):
        pooled = pool_queries(*_select(index, embedded, boxes), query[1], settings["multi_query"])
        yield Task("multi-query", rule, pooled, query[1], *gallery)


def rankings(task: Task, settings: Mapping[str, Any]) -> Iterator[tuple[str, Ranking]]:
    """Rank plainly, with QE + DBA (the paper's re-ranking) and with k-reciprocal re-ranking.

    Person Search is only ranked plainly: expansion would mix the images of other queries' galleries.
    """
    options = {"none": {}, "qe-dba": settings["qe_dba"], "k-reciprocal": settings["k_reciprocal"]}
    for rerank in get_args(Rerank) if task.lists is None else ("none",):
        yield (
            rerank,
            rank_gallery(
                task.query,
                task.query_labels,
                task.gallery,
                task.gallery_labels,
                task.rule,
                rerank=rerank,
                options=options[rerank],
                lists=task.lists,
                threads=settings["threads"],
            ),
        )


def _select(index: Index, embedded: Embeddings, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], Labels]:
    return embedded.of(rows), Labels(index.person_id[rows], index.camera_id[rows])


def _pool_tracklets(
    frames: NDArray[np.float32], labels: Labels, tracklet_id: NDArray[np.int64], pool: Pooling
) -> tuple[NDArray[np.float32], Labels]:
    pooled, first = pool_tracklets(frames, tracklet_id, pool)
    return pooled, labels[first]


def write_queries(path: Path, by_query: Sequence[Mapping[str, Any]]) -> None:
    """Write AP by both rules, rank of the first hit (0 = none) and number of relevant items of every query."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for entry in by_query:
        ranking: Ranking = entry["ranking"]
        count = len(ranking.relevant)
        columns = {
            "protocol": pa.array([entry["protocol"]] * count).dictionary_encode(),
            "rerank": pa.array([entry["rerank"]] * count).dictionary_encode(),
            "query": np.arange(count),
            "ap": ranking.average_precision("trapezoid"),
            "ap_step": ranking.average_precision("step"),
            "first_hit_rank": ranking.first_hit_rank,
            "relevant": ranking.relevant,
        }
        tables.append(pa.table(columns))
    with replacing(path) as temporary:
        pq.write_table(pa.concat_tables(tables).unify_dictionaries(), temporary, compression="zstd")
