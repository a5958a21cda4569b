"""Figure 7: retrieval in galleries with growing numbers of distractors, all sizes and orders in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reid_done_right.artifacts import InputError, read_embeddings, read_index, replacing, write_json
from reid_done_right.data.tasks import image_task
from reid_done_right.evaluation.distractors import count_beating, order_positions, sweep
from reid_done_right.evaluation.ranking import rank_gallery


def distract(
    *, settings: Mapping[str, Any], index: Path, embeddings: Path, shards: list[Path], out: Path, queries: Path
) -> None:
    """Write mAP and rank-1 of single queries for every number of distractors in every random order.

    Writes person, matches and AP of each query, with the fewest and with the most distractors, to `queries`.

    settings: {"run", "format": market1501-500k, "sizes": numbers of distractors, ascending, "orders", "seed" of the
    orders, "shards", "threads"}
    shards: embeddings of every n-th distractor each, in order; only one is in memory at a time.
    """
    rows = read_index(index)
    embedded = read_embeddings(embeddings)
    task = image_task(rows, embedded, settings)
    how = {"threads": settings["threads"], "device": settings.get("device")}
    ranking = rank_gallery(task, **how)
    total = sum(len(read_embeddings(shard).rows) for shard in shards)
    if total < settings["sizes"][-1]:
        raise InputError(
            f"{shards[0].parent}: {total} distractors, but distract.sizes asks for {settings['sizes'][-1]}"
        )
    positions = order_positions(total, settings["orders"], np.random.default_rng(settings["seed"]))
    counts = np.zeros((len(ranking.ranks), len(settings["sizes"]), settings["orders"]), np.int32)
    for shard in tqdm(shards, desc="distract", unit="shard"):
        part = read_embeddings(shard)
        which = (part.embeddings, positions[part.rows], settings["sizes"])
        counts += count_beating(task.query.embeddings, ranking, *which, **how)
    curves = sweep(ranking, counts, task.rule.ap_rule)
    curve = {
        "run": settings["run"],
        "collapsed": bool(embedded.about.get("collapsed", False)),
        "protocol": "single-query",
        "ap_rule": task.rule.ap_rule,
        "gallery": len(task.gallery),
        "sizes": settings["sizes"],
        "orders": settings["orders"],
        "mAP": curves.average_precision.tolist(),
        "mAP_step": curves.average_precision_step.tolist(),
        "rank1": curves.rank1.tolist(),
    }
    write_json(out, curve)
    _write_queries(queries, curves.of_queries, task.query.labels.person_id, ranking.relevant)


def _write_queries(
    path: Path, precision: NDArray[np.float64], person_id: NDArray[np.int64], relevant: NDArray[np.int64]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "query": np.arange(len(precision)),
        "person_id": person_id,
        "relevant": relevant,
        "ap_fewest": precision[:, 0],
        "ap_most": precision[:, 1],
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
