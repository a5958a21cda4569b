"""Retrieval: the first ten results of every query of one run, for display, and its similarities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reid_done_right.artifacts import Index, read_embeddings, read_index, replacing, write_json
from reid_done_right.data.tasks import image_task
from reid_done_right.evaluation.topk import Retrieved
from reid_done_right.evaluation.topk import retrieve as first_ranks


def retrieve(*, settings: Mapping[str, Any], index: Path, embeddings: Path, out: Path, similarities: Path) -> None:
    """Write the first results of each query, one row per rank, and histograms of the similarities.

    settings: {"run": dataset, variant, backbone and draw, "format", "protocol" (own data only),
    "person_search_gallery"} as in the parameters and, to rank with PyTorch, "device".
    Ranks single images without re-ranking; no single picture shows a tracklet.
    """
    rows = read_index(index)
    embedded = read_embeddings(embeddings)
    found = first_ranks(image_task(rows, embedded, settings), device=settings.get("device"))
    _write_ranks(out, rows, found)
    content: dict[str, Any] = {"run": settings["run"], "collapsed": bool(embedded.about.get("collapsed", False))}
    content |= {name: getattr(found, name).tolist() for name in ("edges", "positives", "negatives")}
    write_json(similarities, content)


def _write_ranks(path: Path, index: Index, found: Retrieved) -> None:
    """Write one row per query and rank; ranks beyond the end of a short gallery are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    query, position = np.nonzero(found.items >= 0)
    columns = {
        "query": query,
        "query_row": index.query[query],
        "place": position + 1,
        "gallery_row": index.gallery[found.items[query, position]],
        "similarity": found.similarity[query, position],
        "relevant": found.relevant[query, position],
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
