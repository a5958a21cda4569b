"""The card of an exported model: what it is, of what data, how good, for what and for what not (`card.md`).

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
    """What is known of a model.

    file        name of the exported file; form: onnx or torch-export
    model       name of the weights it was made from; digest: their SHA-256
    about       what they say of themselves
    dimension   D
    smallest    side in pixels that the network takes
    difference  how far the file's embeddings are from the module's, at most
    data        what it was trained on, a line each; licence: the terms that bind it, a line each
    scores      a row a protocol and re-ranking: protocol, rerank, ap_rule, queries; mAP and rank1, each with its
                interval (value, low, high)
    scored      where the scores are from
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
