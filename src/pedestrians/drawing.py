"""Shapes on a canvas: (H, W, 3) uint8 RGB arrays changed in place, coordinates in pixels with sub-pixel precision."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]
K = TypeVar("K")

_SHIFT = 4  # OpenCV takes fixed-point coordinates with this many fractional bits
_SCALE = 1 << _SHIFT
_TURN = np.linspace(0, 2 * math.pi, 24, endpoint=False)
# A superellipse, halfway between a circle and a square: bags, barriers and everything else with soft corners.
_SOFT_BOX = np.stack(
    [np.sign(np.cos(_TURN)) * np.abs(np.cos(_TURN)) ** 0.4, np.sign(np.sin(_TURN)) * np.abs(np.sin(_TURN)) ** 0.4], 1
)


def pick(rng: np.random.Generator, weights: Mapping[K, float]) -> K:
    """Draw a key with probability proportional to its weight."""
    *keys, last = weights
    left = rng.random() * sum(weights.values())
    for key in keys:
        left -= weights[key]
        if left < 0:
            return key
    return last


def clipped(values: Sequence[float] | NDArray[np.float64]) -> Colour:
    """Round three channel values to a colour within 0..255."""
    red, green, blue = values
    return _level(red), _level(green), _level(blue)


def shaded(colour: Colour, factor: float) -> Colour:
    """Return the colour darkened (factor < 1) or lightened (factor > 1)."""
    red, green, blue = colour
    return _level(factor * red), _level(factor * green), _level(factor * blue)


def polygon(canvas: Canvas, points: Sequence[Point] | NDArray[np.float64], colour: Colour) -> None:
    """Fill a polygon with corners (n, 2)."""
    cv2.fillPoly(canvas, [_fixed(points)], colour, shift=_SHIFT)


def ellipse(canvas: Canvas, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
    """Fill an ellipse with centre (x, y) and radii rx, ry."""
    _arc(canvas, x, y, rx, ry, colour, 0, 360)


def dome(canvas: Canvas, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
    """Fill the upper half of an ellipse with centre (x, y) and radii rx, ry."""
    _arc(canvas, x, y, rx, ry, colour, 180, 360)


def box(canvas: Canvas, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fill an axis-parallel rectangle."""
    cv2.rectangle(canvas, _fixed_point(x0, y0), _fixed_point(x1, y1), colour, -1, shift=_SHIFT)


def soft_box(canvas: Canvas, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fill a rectangle with rounded corners."""
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    polygon(canvas, _SOFT_BOX * ((x1 - x0) / 2, (y1 - y0) / 2) + centre, colour)


def line(canvas: Canvas, points: Sequence[Point], colour: Colour, width: float) -> None:
    """Draw an open line through the points, at least one pixel wide."""
    cv2.polylines(canvas, [_fixed(points)], False, colour, max(1, round(width)), shift=_SHIFT)


def limb(canvas: Canvas, start: Point, end: Point, r0: float, r1: float, colour: Colour) -> None:
    """Fill a tapered tube from start (radius r0) to end (radius r1) with round ends."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0) + 1e-6
    nx, ny = (y0 - y1) / length, (x1 - x0) / length
    sides = [
        (x0 + nx * r0, y0 + ny * r0),
        (x1 + nx * r1, y1 + ny * r1),
        (x1 - nx * r1, y1 - ny * r1),
        (x0 - nx * r0, y0 - ny * r0),
    ]
    cv2.fillConvexPoly(canvas, _fixed(sides), colour, shift=_SHIFT)
    for x, y, radius in ((x0, y0, r0), (x1, y1, r1)):
        cv2.circle(canvas, _fixed_point(x, y), max(1, int(radius * _SCALE)), colour, -1, shift=_SHIFT)


def between(start: Point, end: Point, fraction: float) -> Point:
    """Return the point this fraction of the way from start to end."""
    return start[0] + (end[0] - start[0]) * fraction, start[1] + (end[1] - start[1]) * fraction


def cloth(
    canvas: Canvas,
    outline: NDArray[np.float64],
    colour: Colour,
    *,
    weave: str = "plain",
    thread: Colour = (0, 0, 0),
    step: float = 8.0,
    squeeze: float = 1.0,
    light: float = 0.0,
) -> None:
    """Fill an outline (n, 2) with patterned cloth, shaded as if wrapped round a cylinder.

    `step` is the repeat of the pattern in pixels, `squeeze` its horizontal foreshortening (0, 1], `light` in -1..1
    moves the bright side to the left or right. The pattern is anchored at the top and the middle of the outline.
    """
    (left, top), (right, bottom) = np.floor(outline.min(0)).astype(int), np.ceil(outline.max(0)).astype(int) + 1
    x0, y0 = max(left, 0), max(top, 0)
    patch = canvas[y0 : max(bottom, 0), x0 : max(right, 0)]
    height, width = patch.shape[:2]
    if height == 0 or width == 0:
        return
    across = np.linspace(-1, 1, right - left)[x0 - left :][:width]
    shade = (1.05 + 0.06 * light * across - 0.2 * across**2)[:, None]
    fill = _shaded_rows(colour, shade, height)
    if weave != "plain":
        rows = (np.arange(height) + (y0 - top)) / step
        columns = (np.arange(width) + (x0 - left) - (right - left) / 2) / (step * squeeze)
        woven = _woven(weave, rows[:, None], columns[None], (bottom - top) / step)
        over = np.ascontiguousarray(np.broadcast_to(woven, (height, width)), dtype=np.uint8)
        cv2.copyTo(_shaded_rows(thread, shade, height), over, fill)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [_fixed(outline - (x0, y0))], 255, shift=_SHIFT)
    cv2.copyTo(fill, mask, patch)


def _shaded_rows(colour: Colour, shade: NDArray[np.float64], height: int) -> Canvas:
    """Return (height, width, 3): the colour times the shade (width, 1) of each column."""
    row = np.minimum(np.asarray(colour) * shade, 255).astype(np.uint8)
    return np.repeat(row[None], height, axis=0)


def _woven(weave: str, rows: NDArray[np.float64], columns: NDArray[np.float64], repeats: float) -> NDArray[np.bool_]:
    """Return where the second colour shows; rows (h, 1) and columns (1, w) count repeats of the pattern."""
    match weave:
        case "rings":
            return (rows + 0.5) % 1 < 0.42
        case "bars":
            return (columns + 0.2) % 1 < 0.4
        case "check":
            return ((rows + 0.5) % 1 < 0.3) | ((columns + 0.15) % 1 < 0.3)
        case "block":
            return rows < 0.45 * repeats
        case "dots":
            down, along = (rows / 0.8) % 1 - 0.5, (columns + 0.5 * ((rows / 0.8) // 1 % 2)) % 1 - 0.5
            return (0.64 * down**2 + along**2) < 0.05
    raise ValueError(f"unknown weave {weave!r}")


def shadow(canvas: Canvas, x: float, y: float, rx: float, ry: float, strength: float) -> None:
    """Darken an ellipse to `strength` in (0, 1) of its brightness."""
    x0, y0 = max(0, int(x - rx)), max(0, int(y - ry))
    patch = canvas[y0 : max(0, int(y + ry) + 1), x0 : max(0, int(x + rx) + 1)]
    if patch.size == 0:
        return
    mask = np.zeros(patch.shape[:2], np.uint8)
    _arc(mask, x - x0, y - y0, rx, ry, 255, 0, 360)
    cv2.copyTo(cv2.convertScaleAbs(patch, alpha=strength), mask, patch)


def _level(value: float) -> int:
    return 0 if value < 0 else 255 if value > 255 else int(value)


def _arc(
    canvas: Canvas, x: float, y: float, rx: float, ry: float, colour: Colour | int, start: float, end: float
) -> None:
    radii = max(1, int(rx * _SCALE)), max(1, int(ry * _SCALE))
    cv2.ellipse(canvas, _fixed_point(x, y), radii, 0, start, end, colour, -1, shift=_SHIFT)


def _fixed(points: Sequence[Point] | NDArray[np.float64]) -> NDArray[np.int32]:
    return (np.asarray(points) * _SCALE).astype(np.int32)


def _fixed_point(x: float, y: float) -> tuple[int, int]:
    return int(x * _SCALE), int(y * _SCALE)
