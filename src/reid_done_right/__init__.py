"""A reproduction of "Re-ID done right", from photos to the paper's tables and figures.

The public interface, loaded on first use:

load_embedder  a trained model that embeds files, arrays and Pillow images
rank           the most similar gallery items of each query
score          mAP and CMC by a benchmark's rule; Labels, Rule and RULES define which items count for a query
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reid_done_right.evaluation.embedded import Labels
    from reid_done_right.evaluation.ranking import score
    from reid_done_right.evaluation.rules import RULES, Rule
    from reid_done_right.evaluation.topk import top_k as rank
    from reid_done_right.photos import load_embedder

__all__ = ["RULES", "Labels", "Rule", "load_embedder", "rank", "score"]

_HOMES = {
    "RULES": "evaluation.rules.RULES",
    "Labels": "evaluation.embedded.Labels",
    "Rule": "evaluation.rules.Rule",
    "load_embedder": "photos.load_embedder",
    "rank": "evaluation.topk.top_k",
    "score": "evaluation.ranking.score",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: PyTorch takes seconds to load, and ranking and scoring do not need it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reid_done_right import extras, numerics

    numerics.choose()  # before the libraries load, unless the program has loaded them already
    module, _, found = _HOMES[name].rpartition(".")
    try:
        globals()[name] = getattr(importlib.import_module(f"reid_done_right.{module}"), found)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(extras.advice(error) or str(error), name=error.name) from error
    return globals()[name]


def __dir__() -> list[str]:
    """List all public names, imported or not."""
    return sorted({*globals(), *__all__})
