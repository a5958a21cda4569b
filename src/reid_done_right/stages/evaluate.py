"""Evaluation: score embeddings by each benchmark's own protocols, with and without re-ranking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from reid_done_right.artifacts import read_embeddings, read_index, replacing, write_json
from reid_done_right.data.tasks import protocol_tasks
from reid_done_right.evaluation.ranking import Ranking, Rerank, rank_gallery
from reid_done_right.evaluation.task import Task, without_deleted
from reid_done_right.numerics import ranked_on, weakest


def evaluate(*, settings: Mapping[str, Any], index: Path, embeddings: Path, out: Path, queries: Path) -> None:
    """Score every protocol of the dataset; write the scores and one row per query.

    settings: {"run": dataset, variant, backbone and draw, "format", "protocol" (own data only), "multi_query",
    "tracklets", "person_search_gallery", "qe_dba", "k_reciprocal", "rerank_junk"} as in the parameters, "threads" and,
    to rank with PyTorch, "device"
    """
    rows = read_index(index)
    embedded = read_embeddings(embeddings)
    results = []
    by_query: list[dict[str, Any]] = []
    for protocol, task in protocol_tasks(rows, embedded, settings):
        for rerank, ranking in rankings(task, settings):
            name = {"protocol": protocol, "rerank": rerank}
            results.append({**name, **ranking.scores(task.rule.ap_rule)})
            by_query.append({**name, "ranking": ranking, "person_id": task.query.labels.person_id})
    collapsed = bool(embedded.about.get("collapsed", False))
    computed = weakest(embedded.about.get("numerics"), ranked_on(settings.get("device")))
    write_json(out, {"run": settings["run"], "collapsed": collapsed, "numerics": computed, "results": results})
    write_queries(queries, by_query)


def rankings(task: Task, settings: Mapping[str, Any]) -> Iterator[tuple[str, Ranking]]:
    """Rank without re-ranking, with QE + DBA (the paper's re-ranking) and with k-reciprocal re-ranking.

    Person Search is not re-ranked: expansion would mix the galleries of different queries.
    """
    options = {"none": {}, "qe-dba": settings["qe_dba"], "k-reciprocal": settings["k_reciprocal"]}
    for rerank in get_args(Rerank) if task.lists is None else ("none",):
        seen = task if rerank == "none" or settings["rerank_junk"] else without_deleted(task)
        how = {"options": options[rerank], "threads": settings["threads"], "device": settings.get("device")}
        yield rerank, rank_gallery(seen, rerank=rerank, **how)


def write_queries(path: Path, by_query: Sequence[Mapping[str, Any]]) -> None:
    """Write person, AP by both rules, rank of the first hit (0 = none) and number of relevant items of every query."""
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
            "person_id": entry["person_id"],
            "ap": ranking.average_precision("trapezoid"),
            "ap_step": ranking.average_precision("step"),
            "first_hit_rank": ranking.first_hit_rank,
            "relevant": ranking.relevant,
        }
        tables.append(pa.table(columns))
    with replacing(path) as temporary:
        pq.write_table(pa.concat_tables(tables).unify_dictionaries(), temporary, compression="zstd")
