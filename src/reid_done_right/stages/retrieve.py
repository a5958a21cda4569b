"""Retrieval: the first ten ranks of every list of one run, to be looked at, and its similarities."""

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
    """Write who came first for each query, a row a rank, and histograms of the similarities.

    settings: {"run": dataset, variant, backbone and seed, "format", "protocol" (of one's own data only),
    "person_search_gallery"} as in the parameters.
    Plain ranking of single images: not of tracklets, which no one picture shows.
    """
    rows = read_index(index)
    embedded = read_embeddings(embeddings)
    found = first_ranks(image_task(rows, embedded, settings))
    _write_ranks(out, rows, found)
    content: dict[str, Any] = {"run": settings["run"], "collapsed": bool(embedded.about.get("collapsed", False))}
    content |= {name: getattr(found, name).tolist() for name in ("edges", "positives", "negatives")}
    write_json(similarities, content)


def _write_ranks(path: Path, index: Index, found: Retrieved) -> None:
    """Write a row for each query and rank; ranks that a short gallery does not fill are left out."""
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
