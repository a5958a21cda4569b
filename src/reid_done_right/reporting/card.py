"""The card of an exported model: description, data, scores, intended use and limits (`card.md`).

After Mitchell et al., "Model cards for model reporting" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from reid_done_right.reporting.templates import render


@dataclass(frozen=True)
class Card:
    """The content of a model card.

    file        name of the exported file; form: onnx or torch-export
    model       name of the weights it was made from; digest: their SHA-256
    about       their metadata
    dimension   D
    smallest    smallest image side that the network accepts, in pixels
    size        height and width of all images, which are then normalised floats; None for any size
    difference  largest difference between the embeddings of the file and the module
    data        training data, one line each; licence: its terms, one line each
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


def write_card(card: Card) -> str:
    """Write the card as Markdown."""
    rows = [
        [each["protocol"], each["rerank"], each["queries"], *(_percent(*each[name]) for name in ("mAP", "rank1"))]
        for each in card.scores
    ]
    header = ["protocol", "re-ranking", "queries", "mAP", "rank-1"]
    table = tabulate(rows, header, "github", colalign=("left",) * len(header)) if rows else ""
    return render("card.md", escape=False, card=card, network=_network(card.about["backbone"]), table=table)


def _network(backbone: Mapping[str, Any]) -> str:
    if "family" in backbone:
        return str(backbone["family"])
    depth = sum(backbone["blocks"]) * (2 if backbone["block"] == "basic" else 3) + 2
    kind = "ResNeXt" if backbone.get("groups", 1) > 1 else "ResNet"
    return f"{kind}-{depth}, {backbone.get('width', 64)} channels wide, last stride {backbone.get('last_stride', 2)}"


def _percent(value: float, low: float, high: float) -> str:
    interval = "" if low != low else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * value:.1f}{interval}"
