"""The picture of the pipeline: rules as boxes, edges as arrows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDE, TALL, ACROSS, DOWN = 160, 46, 206, 96  # of a box, and from one to the next, in SVG units


def picture(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """Return boxes and arrows for a template to draw.

    pipeline: "boxes", each with its rule, its column and row (at), what it does and how many jobs there are; "arrows",
    pairs of rules. A box gets x and y, an arrow its path and its ends.
    """
    boxes = [{**box, "x": box["at"][0] * ACROSS, "y": box["at"][1] * DOWN} for box in pipeline["boxes"]]
    places = {box["rule"]: box["at"] for box in boxes}
    arrows = [_arrow(places, *ends) for ends in pipeline["arrows"]]
    return {"boxes": boxes, "arrows": arrows, "wide": WIDE, "tall": TALL}


def _arrow(places: Mapping[str, tuple[int, int]], start: str, end: str) -> dict[str, str]:
    """Draw from the right side of a box to the left side of another; in one column straight, or past boxes between."""
    (c, r), (d, s) = places[start], places[end]
    ends = {"from": start, "to": end}
    if c == d and any((c, between) in map(tuple, places.values()) for between in range(min(r, s) + 1, max(r, s))):
        left, y, v = c * ACROSS, r * DOWN + TALL / 2, s * DOWN + 8.0
        path = f"M{left:g} {y:g}C{left - 30:g} {y:g} {left - 34:g} {v:g} {left - 4:g} {v:g}"
    elif c == d:
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
