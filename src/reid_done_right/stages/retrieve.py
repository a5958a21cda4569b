"""Retrieval: the first ten places of every ranked list of one run, to be looked at, and its similarities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reid_done_right.artifacts import Embeddings, Index, InputError, read_embeddings, read_index, replacing, write_json
from reid_done_right.functional.protocols import Labels, rule_of
from reid_done_right.functional.retrieval import Retrieved
from reid_done_right.functional.retrieval import retrieve as first_places


def retrieve(*, settings: Mapping[str, Any], index: Path, embeddings: Path, out: Path, similarities: Path) -> None:
    """Write who came first for each query, a row a place, and histograms of the similarities.

    settings: {"run": dataset, variant, backbone and seed, "format", "protocol" (of one's own data only),
    "person_search_gallery"} as in the parameters.
    Plain ranking of single images: not of tracklets, which no one picture shows.
    """
    rows = read_index(index)
    embedded = read_embeddings(embeddings)
    lists = None
    if settings["format"] == "person-search":
        size = str(settings["person_search_gallery"])
        if rows.gallery_lists is None or size not in rows.gallery_lists:
            raise InputError(f"{index}: no gallery lists of size {size}; set evaluate.person_search_gallery")
        lists = [np.searchsorted(rows.gallery, members) for members in rows.gallery_lists[size]]
    found = first_places(
        embedded.of(rows.query),
        _labels(rows, rows.query),
        embedded.of(rows.gallery),
        _labels(rows, rows.gallery),
        rule_of(settings["format"], settings.get("protocol")),
        lists=lists,
    )
    _write_places(out, rows, found)
    content: dict[str, Any] = {"run": settings["run"], "collapsed": _collapsed(embedded)}
    content |= {name: getattr(found, name).tolist() for name in ("edges", "positives", "negatives")}
    write_json(similarities, content)


def _labels(index: Index, rows: Any) -> Labels:
    return Labels(index.person_id[rows], index.camera_id[rows])


def _collapsed(embedded: Embeddings) -> bool:
    return bool(embedded.about.get("collapsed", False))


def _write_places(path: Path, index: Index, found: Retrieved) -> None:
    """Write a row for each query and place; places that a short gallery does not fill are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    query, place = np.nonzero(found.items >= 0)
    columns = {
        "query": query,
        "query_row": index.query[query],
        "place": place + 1,
        "gallery_row": index.gallery[found.items[query, place]],
        "similarity": found.similarity[query, place],
        "relevant": found.relevant[query, place],
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
