"""The shape of the paper's Tables 1-4: captions, headers, columns; the settings list their rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A benchmark's columns in a table: which results they print, and what the paper's values are filed under.

    reranks: the re-rankings that exist here; rows with another print "-", as the paper does.
    """

    title: str
    dataset: str
    protocol: str
    paper: str
    metrics: tuple[str, ...] = ("mAP",)
    reranks: tuple[str, ...] = ("none",)


@dataclass(frozen=True)
class Shape:
    """A table of the paper: its caption in short, the headers of a row's labels, and its columns."""

    number: str
    caption: str
    headers: tuple[str, ...]
    columns: tuple[Column, ...]
    legend: str = ""


RERANKS = {"none": "", "qe-dba": " + QE and DBA", "k-reciprocal": " + k-reciprocal"}
"""The re-rankings of Table 4 in its order, and what each adds to a row's label."""

_ABLATION = (
    Column("Market", "market", "single-query", "market"),
    Column("Duke", "duke", "single-query", "duke"),
)
_CMC = ("mAP", "rank-1", "rank-5")
_STATE_OF_THE_ART = (
    Column("Market SQ", "market", "single-query", "market-sq", _CMC, tuple(RERANKS)),
    Column("Market MQ", "market", "multi-query", "market-mq", _CMC, tuple(RERANKS)),
    Column("MARS", "mars", "tracklet", "mars", _CMC, tuple(RERANKS)),
    Column("Duke", "duke", "single-query", "duke", _CMC, tuple(RERANKS)),
    Column("Person Search", "person-search", "gallery-100", "person-search"),
)

TABLES = {
    "table1": Shape("1", "Data augmentation (mAP)", ("flip", "crop", "cut-out"), _ABLATION),
    "table2": Shape("2", "Size of the input image (mAP)", ("Largest side",), _ABLATION),
    "table3": Shape("3", "Pooling, backbone, pretraining for classification (mAP)", ("", ""), _ABLATION),
    "table4": Shape(
        "4",
        "Comparison with the state of the art",
        ("", "Type"),
        _STATE_OF_THE_ART,
        "“Ours” and “Improvement” are the paper's own. Type: P part-based representation with extra annotations, "
        "A attention, At attribute annotations at training time. * published on arXiv only, as of the paper. “Ours "
        "(re-rank)” averages neighbours: query expansion (QE) and database augmentation (DBA), its footnote 2.",
    ),
}

DATASETS = {"market": "Market", "duke": "Duke", "mars": "MARS", "person-search": "Person Search"}
"""Benchmarks as the paper calls them, by their names in the settings."""
