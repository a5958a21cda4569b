"""The picture of the pipeline: its rules, laid out by hand, and what feeds what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RULES = {  # rule -> column, row, what it does
    "dataset": (0, 0, "render, or check yours"),
    "initialise": (0, 2, "first weights"),
    "index": (1, 0, "who, camera, split"),
    "pretrain": (1, 2, "classify identities"),
    "train": (2, 2, "triplet loss, hard triplets"),
    "embed": (2, 1, "images to unit vectors"),
    "embed_distractors": (3, 2, "a shard at a time"),
    "retrieve": (3, 0, "the first ten places"),
    "evaluate": (3, 1, "official protocols"),
    "distract": (4, 2, "every gallery size"),
    "tabulate": (4, 1, "Tables 1-4, findings"),
    "illustrate": (4, 0, "Figures 1, 4, 5, 6"),
    "draw": (5, 2, "Figure 7, curves"),
    "publish": (5, 0, "this page"),
}
EDGES = (
    ("dataset", "index"),
    ("initialise", "pretrain"),
    ("initialise", "train"),
    ("index", "pretrain"),
    ("index", "train"),
    ("pretrain", "train"),
    ("index", "embed"),
    ("train", "embed"),
    ("index", "embed_distractors"),
    ("train", "embed_distractors"),
    ("index", "retrieve"),
    ("embed", "retrieve"),
    ("index", "evaluate"),
    ("embed", "evaluate"),
    ("index", "distract"),
    ("embed", "distract"),
    ("embed_distractors", "distract"),
    ("evaluate", "tabulate"),
    ("distract", "tabulate"),
    ("index", "illustrate"),
    ("train", "illustrate"),
    ("retrieve", "illustrate"),
    ("evaluate", "illustrate"),
    ("evaluate", "draw"),
    ("distract", "draw"),
    ("train", "draw"),
    ("retrieve", "draw"),
    ("index", "publish"),
    ("evaluate", "publish"),
    ("retrieve", "publish"),
    ("tabulate", "publish"),
    ("illustrate", "publish"),
    ("draw", "publish"),
)
WIDE, TALL, ACROSS, DOWN = 160, 46, 206, 96  # of a box, and from one to the next, in SVG units


def picture(jobs: Mapping[str, int]) -> dict[str, Any]:
    """Give boxes and arrows for a template to draw: x, y, rule, what it does, how many jobs; paths with their ends."""
    boxes = [
        {"rule": rule, "x": column * ACROSS, "y": row * DOWN, "does": does, "jobs": jobs.get(rule, 0)}
        for rule, (column, row, does) in RULES.items()
    ]
    return {"boxes": boxes, "arrows": [_arrow(*edge) for edge in EDGES], "wide": WIDE, "tall": TALL}


def _arrow(start: str, end: str) -> dict[str, str]:
    """Draw from the right side of a box to the left side of another, or straight up or down in one column."""
    (c, r, _), (d, s, _) = RULES[start], RULES[end]
    ends = {"from": start, "to": end}
    if c == d:
        x, down = c * ACROSS + WIDE / 2, s > r
        path = f"M{x:g} {r * DOWN + (TALL if down else 0)}L{x:g} {s * DOWN + (-4 if down else TALL + 4)}"
    else:
        x, y = c * ACROSS + WIDE, r * DOWN + TALL / 2
        u, v = d * ACROSS - 4, s * DOWN + TALL / 2
        bend = (u - x) / 2 if d - c == 1 else 40
        if r == s and d - c > 1:  # over the boxes between
            y, v = r * DOWN + 8, s * DOWN + 8
            return {**ends, "path": f"M{x:g} {y:g}C{x + 30:g} {y - 44:g} {u - 30:g} {v - 44:g} {u:g} {v:g}"}
        path = f"M{x:g} {y:g}C{x + bend:g} {y:g} {u - bend:g} {v:g} {u:g} {v:g}"
    return {**ends, "path": path}
