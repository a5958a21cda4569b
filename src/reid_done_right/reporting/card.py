"""The card of an exported model: description, data, scores, intended use and limits (`card.md`).

After Mitchell et al., "Model cards for model reporting" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from tabulate import tabulate

from reid_done_right.reporting.templates import render


@dataclass(frozen=True)
class Card:
    """The content of a model card.

    file        name of the exported file or folder; form: onnx, torch-export or hub
    model       name of the weights it was made from; digest: their SHA-256
    about       their metadata
    dimension   D
    smallest    smallest image side that the network accepts, in pixels
    size        height and width of all images, which are then normalised floats; None for any size
    difference  largest difference between the embeddings of the file and the module; 0 for the module itself
    data        training data, one line each; licence: its terms, one line each
    datasets    short names of the data; terms: the licence in the hub's words, none if not recorded
    digests     SHA-256 of what the model came from, by name
    scores      one row per protocol and re-ranking: protocol, rerank, ap_rule, queries; mAP and rank1, each with its
                interval (value, low, high)
    scored      origin of the scores
    multiple    pixels to whose multiples the network rounds sides
    """

    file: str
    form: str
    model: str
    digest: str
    about: Mapping[str, Any]
    dimension: int
    smallest: int
    difference: float
    data: Sequence[str] = ()
    licence: Sequence[str] = ()
    scores: Sequence[Mapping[str, Any]] = ()
    scored: str = ""
    multiple: int = 1
    size: tuple[int, int] | None = None
    datasets: Sequence[str] = ()
    terms: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)


def write_card(card: Card) -> str:
    """Write the card as Markdown; one for the hub begins with what the hub reads (YAML)."""
    rows = [
        [each["protocol"], each["rerank"], each["queries"], *(_percent(*each[name]) for name in ("mAP", "rank1"))]
        for each in card.scores
    ]
    header = ["protocol", "re-ranking", "queries", "mAP", "rank-1"]
    table = tabulate(rows, header, "github", colalign=("left",) * len(header)) if rows else ""
    text = render("card.md", escape=False, card=card, network=_network(card.about["backbone"]), table=table)
    return f"---\n{yaml.safe_dump(_metadata(card), sort_keys=False)}---\n{text}" if card.form == "hub" else text


def _metadata(card: Card) -> dict[str, Any]:
    """Return what the hub reads of a model: its words for library, task, licence, data and scores, and the origin."""
    told: dict[str, Any] = {
        "library_name": "reid-done-right",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["person-re-identification", "arxiv:1801.05339"],
    }
    if card.terms:
        told["license"] = card.terms
    if card.terms == "other":
        told |= {"license_name": "see-card", "license_link": "README.md"}
    if card.datasets:
        told["datasets"] = list(card.datasets)
    if card.scores:
        told["model-index"] = [{"name": card.file, "results": [_result(card, each) for each in card.scores]}]
    return told | {"provenance": {"weights": card.digest, **card.digests}}


def _result(card: Card, score: Mapping[str, Any]) -> dict[str, Any]:
    """Return a protocol's scores as the hub has them, in percent; intervals stand with the arguments of a metric."""
    name, of = score["run"]["dataset"], {key: score[key] for key in ("protocol", "rerank", "queries")}
    metrics = []
    for key in ("mAP", "rank1"):
        value, *interval = (round(100 * each, 2) for each in score[key])
        how: dict[str, Any] = {"interval": interval, "level": 0.95} if interval[0] == interval[0] else {}
        how |= {"ap_rule": score["ap_rule"]} if key == "mAP" else {}
        metrics.append({"type": key, "name": f"{key}, percent", "value": value, "args": how})
    kind = card.datasets[0] if card.datasets and "trained_on" not in score["run"] else name
    return {
        "task": {"type": "image-feature-extraction", "name": "Person re-identification"},
        "dataset": {"type": kind, "name": name, "split": "test", "args": of},
        "metrics": metrics,
    }


def _network(backbone: Mapping[str, Any]) -> str:
    if "family" in backbone:
        return str(backbone["family"])
    depth = sum(backbone["blocks"]) * (2 if backbone["block"] == "basic" else 3) + 2
    kind = "ResNeXt" if backbone.get("groups", 1) > 1 else "ResNet"
    return f"{kind}-{depth}, {backbone.get('width', 64)} channels wide, last stride {backbone.get('last_stride', 2)}"


def _percent(value: float, low: float, high: float) -> str:
    interval = "" if low != low else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * value:.1f}{interval}"
