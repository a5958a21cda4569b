"""Figures 1, 4, 5 and 6: ranked lists and heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from reid_done_right.reporting.figures import INK, nothing, titled

Image = NDArray[np.uint8]
Heat = NDArray[np.float32]
RIGHT, WRONG = "#009E73", "#D55E00"
"""Of Okabe and Ito's palette: a green and a red that colour-blind readers tell apart; a sign says the same."""
UPRIGHT, WIDER = (0.5, 1.0), (0.9, 0.6)
"""Inches of a picture's place, its width and height: for people, and for images that are wider than tall."""


@dataclass(frozen=True)
class List_:
    """A query's ranked list: its image, AP, how many images are relevant, and the first places, right or wrong."""

    query: Image
    precision: float
    relevant: int
    places: Sequence[tuple[Image, bool]]


def figure4(blocks: Sequence[tuple[str, Sequence[List_]]], title: str, subtitle: str) -> Figure:
    """Draw blocks of ranked lists: query, then the first places, framed and signed; AP and relevant images beside."""
    rows = sum(len(lists) for _, lists in blocks)
    wide, tall = _size([each.query for _, lists in blocks for each in lists])
    columns = 1 + max((len(each.places) for _, lists in blocks for each in lists), default=4)
    body = 0.05 + 0.3 * len(blocks) + rows * (tall + 0.12)
    figure, top = titled(1.3 + columns * (wide + 0.13), body, title, subtitle)
    height = figure.get_figheight()
    for name, lists in blocks:
        figure.text(0.1 / figure.get_figwidth(), 1 - (top + 0.14) / height, name, fontweight="bold", va="center")
        top += 0.3
        for each in lists:
            place = [0.1, top, wide, tall]
            _picture(figure, place, each.query)
            label = f"AP {100 * each.precision:.1f}\n({each.relevant})"
            figure.text((0.2 + wide) / figure.get_figwidth(), 1 - (top + tall / 2) / height, label, va="center")
            for k, (image, right) in enumerate(each.places):
                axes = _picture(figure, [0.9 + wide + k * (wide + 0.13), top, wide, tall], image)
                frame(axes, right)
            top += tall + 0.12
    return figure


def frame(axes: Axes, right: bool) -> None:
    """Frame a picture: a whole green line and a tick, or a broken red line and a cross."""
    colour = RIGHT if right else WRONG
    line = Rectangle(
        (0, 0), 1, 1, transform=axes.transAxes, fill=False, clip_on=False,
        edgecolor=colour, linewidth=2.2, linestyle="-" if right else (0, (3, 1.2)),
    )  # fmt: skip
    axes.add_patch(line)
    axes.text(
        0.94, 0.03, "✓" if right else "✗", transform=axes.transAxes, ha="right", va="bottom", color="white",
        fontsize=8, fontweight="bold", bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2},
    )  # fmt: skip


Row = tuple[str, Sequence[tuple[Image, Heat | None, str]]]
"""A label, and pictures with what is laid over them and a word beneath."""


def gallery(rows: Sequence[Row], across: int, title: str, subtitle: str) -> Figure:
    """Draw rows of pictures, `across` rows side by side, heat laid over those that have any (Figures 1, 5 and 6).

    Without any row it says so.
    """
    if not rows:
        return nothing(title, subtitle)
    wide, tall = _size([image for _, pictures in rows for image, _, _ in pictures])
    block = 0.25 + max(len(pictures) for _, pictures in rows) * (wide + 0.08)
    lines = [rows[i : i + across] for i in range(0, len(rows), across)]
    labels = [0.24 if any(name for name, _ in line) else 0.02 for line in lines]
    tops = np.cumsum([0.0, *(tall + 0.18 + label for label in labels)])
    figure, header = titled(across * block + 0.1, float(tops[-1]), title, subtitle)
    height, tops = figure.get_figheight(), tops + header
    for i, (name, pictures) in enumerate(rows):
        left, top, label = 0.1 + (i % across) * block, float(tops[i // across]), labels[i // across]
        figure.text(left / figure.get_figwidth(), 1 - (top + 0.1) / height, name, va="center", fontweight="bold")
        for k, (image, heat, below) in enumerate(pictures):
            place = [left + k * (wide + 0.08), top + label, wide, tall]
            axes = _picture(figure, place, image if heat is None else overlay(image, heat))
            axes.text(0.5, -0.02, below, transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure


def overlay(image: Image, heat: Heat) -> Image:
    """Lay heat (H, W) over an image (H, W, 3), scaled to its own greatest value: grey where cold, bright where hot.

    The colours rise in lightness, so that they read without colour too.
    """
    strength = np.clip(heat / max(float(heat.max()), 1e-12), 0, 1)[..., None]
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    colour = 255 * colormaps["inferno"](0.25 + 0.7 * strength[..., 0])[..., :3]
    return np.asarray(np.round(grey * (1 - 0.75 * strength) + colour * 0.75 * strength), dtype=np.uint8)


def _size(images: Sequence[Image]) -> tuple[float, float]:
    """Return the place that fits most of the images, if there are any."""
    return WIDER if sum(image.shape[1] > image.shape[0] for image in images) > len(images) / 2 else UPRIGHT


def _picture(figure: Figure, place: Sequence[float], image: Image) -> Axes:
    """Put a picture into a place: left, top, width and height in inches; it keeps its aspect ratio."""
    width, height = figure.get_size_inches()
    left, top, wide, tall = place
    axes = figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))
    axes.imshow(image, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=INK, linewidth=0.4)
    return axes
