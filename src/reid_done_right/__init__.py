"""A reproduction of "Re-ID done right": photos in, the paper's tables and figures out.

What a program of one's own needs is imported from here, and loaded when it is first used:

load_embedder  a trained model, which embeds files, arrays and Pillow images
rank           the most similar gallery items of each query
score          mAP and CMC by a benchmark's rule; Labels, Rule and RULES say who counts for whom
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
    """Import what is asked for: PyTorch takes seconds, and who ranks or scores needs none."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reid_done_right import numerics

    numerics.choose()  # before the libraries load, unless the program has loaded them
    module, _, found = _HOMES[name].rpartition(".")
    globals()[name] = getattr(importlib.import_module(f"reid_done_right.{module}"), found)
    return globals()[name]


def __dir__() -> list[str]:
    """List what there is, imported or not."""
    return sorted({*globals(), *__all__})
