"""The report's figures, with the same bytes wherever matplotlib has the same version."""

from __future__ import annotations

import re
import textwrap
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image as pillow

from reid_done_right.evaluation.statistics import binned_means
from reid_done_right.reporting.curves import Training
from reid_done_right.reporting.paper import DATASETS

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart by colour-blind readers too."""
MARKERS = "osD^vP"
INK, FAINT = "#222222", "#8a8a8a"
NOTHING = "nothing to show"
BINS = 48  # of a training curve: enough for a panel two inches wide

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.labelcolor": INK,
    "figure.dpi": 160,
    "font.size": 8.5,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "savefig.dpi": 160,
    "svg.hashsalt": "reid",
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}


def house_style() -> AbstractContextManager[None]:
    """Draw with matplotlib's defaults and ours, whatever the machine's matplotlibrc says."""
    return style.context(STYLE, after_reset=True)


def image(figure: Figure, kind: str, dpi: int = 160) -> bytes:
    """Render a figure as "svg" or "png", without a date or the name of a program."""
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    rendered = BytesIO()
    figure.savefig(rendered, format=kind, metadata=metadata, dpi=dpi)
    if kind == "png":
        pictures = any(axes.images for axes in figure.axes)  # few colours would speckle them
        return rendered.getvalue() if pictures else in_few_colours(rendered.getvalue())
    with_jpeg = re.sub(rb"data:image/png;base64,([\w+/=\s]+)", _as_jpeg, rendered.getvalue())
    return _with_dark_colours(with_jpeg)


def in_few_colours(drawn: bytes) -> bytes:
    """Make a PNG smaller: 256 colours, dithered."""
    reduced = BytesIO()
    with pillow.open(BytesIO(drawn)) as opened:
        whole = opened.convert("RGB")
        palette = whole.quantize(256, pillow.Quantize.FASTOCTREE)
        whole.quantize(palette=palette, dither=pillow.Dither.FLOYDSTEINBERG).save(reduced, format="png", optimize=True)
    return reduced.getvalue()


def _as_jpeg(found: re.Match[bytes]) -> bytes:
    written = BytesIO()
    with pillow.open(BytesIO(b64decode(found[1]))) as opened:
        opened.convert("RGB").save(written, format="jpeg", quality=72, optimize=True)
    return b"data:image/jpeg;base64," + b64encode(written.getvalue())


DARK = {INK: "#e8e8e8", "#555555": "#b5b5b5", "#e6e6e6": "#3a3f45", "#ffffff": "#15181c", "#0072B2": "#4aa8e0"}
"""Dark-mode colours for ink, grid, paper and the darkest line."""


def _with_dark_colours(drawn: bytes) -> bytes:
    """Let an SVG follow the reader's dark mode; print and light screens see it as drawn."""
    rules = [
        f'[style*="{name}: {light.lower()}"]{{{name}:{dark}!important}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    ]
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"
    head, opening, body = drawn.partition(b"<defs>")
    return head + style.encode() + opening + body


def figure7(lines: pd.DataFrame, title: str, subtitle: str, rival: Mapping[str, float], rival_name: str) -> Figure:
    """Draw mAP and rank-1 against the distractors in the gallery: mean, and a band from the least to the greatest.

    lines: from `distractor_lines`; without any row the axes say that there is no run to show. rival: mAP and rank1 in
    percent to hold them against as a dashed line, or nothing.
    """
    figure, header = titled(9, 3.3, title, subtitle)
    height = figure.get_figheight()
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.045, right=0.9, top=1 - (header + 0.3) / height, bottom=0.49 / height, wspace=0.36)
    for axes, metric, name in zip(panels, ("mAP", "rank1"), ("mAP (%)", "rank-1 (%)"), strict=True):
        axes.set_title(name)
        if lines.empty:
            axes.set(xlabel="distractors added to the gallery", ylim=(0, 100), xticks=[])
            say(axes, NOTHING)
            continue
        ends = _distractor_panel(axes, lines, metric)
        if metric in rival:
            axes.axhline(rival[metric], color=INK, linewidth=1, linestyle=(0, (4, 3)))
            ends.append((rival[metric], rival_name, INK))
        axes.set_ylim(bottom=0)  # on a cut axis, a small loss looks like one of all
        label_ends(axes, ends, lines["distractors"].max())
        axes.set_xlabel(f"distractors added to the gallery of {lines['gallery'].iloc[0]:,} images")
    return figure


def say(axes: Axes, words: str) -> None:
    """Write the reason into empty axes."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color="#555555")


Ends = list[tuple[float, str, str]]
"""The right ends of lines: height, name, colour."""


def _distractor_panel(axes: Axes, lines: pd.DataFrame, metric: str) -> Ends:
    ends = []
    for i, (_, line) in enumerate(lines.groupby("variant", sort=False)):
        x, mean = line["distractors"].to_numpy(), 100 * line[metric].to_numpy()
        least, greatest = 100 * line[f"{metric}_min"].to_numpy(), 100 * line[f"{metric}_max"].to_numpy()
        axes.fill_between(x, least, greatest, color=PALETTE[i], alpha=0.18, linewidth=0)
        axes.plot(x, mean, color=PALETTE[i], marker=MARKERS[i])
        ends.append((float(mean[-1]), str(line["label"].iloc[0]), PALETTE[i]))
    last = lines["distractors"].max()
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}K" if last >= 10_000 and x else f"{x:,.0f}")
    return ends


def label_ends(axes: Axes, ends: Ends, last: float, below: bool = True) -> None:
    """Write name and value beside each line's right end, moved up where it would touch another; or in one line."""
    low, high = axes.get_ylim()
    lowest = -np.inf
    for height, name, colour in sorted(ends):
        y = lowest = max(height, lowest + (0.12 if below else 0.065) * (high - low))
        told = f"{name}\n{height:.1f}" if below else f"{height:.1f}  {name}"
        axes.text(1.035 * last, y, told, color=colour, va="center", fontweight="bold")


def training_curves(runs: Sequence[Training], margin: float, title: str, subtitle: str) -> Figure:
    """Draw loss and share of active triplets of every run, one panel a variant, one colour a dataset.

    Collapsed runs are dashed and named; a line at the margin shows where they stay.
    """
    variants = list(dict.fromkeys(run.variant for run in runs))
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    colours = dict(zip(datasets, PALETTE, strict=False))
    if not runs:
        return nothing(title, subtitle)
    columns = min(4, len(variants))
    rows = -(-len(variants) // columns)
    figure, header = titled(9, 0.55 + 1.9 * rows, title, subtitle)
    height = figure.get_figheight()
    _key(figure, {DATASETS.get(dataset, dataset): colour for dataset, colour in colours.items()}, 1 - header / height)
    top = 1 - (header + 0.45) / height
    grid = figure.add_gridspec(
        rows, columns, left=0.06, right=0.985, top=top, bottom=0.38 / height, wspace=0.14, hspace=0.38
    )
    told = max(len({run.dataset for run in runs if run.collapsed and run.variant == variant}) for variant in variants)
    highest = (1.05 + 0.16 * told) * max(
        [margin, *(binned_means(run.log["loss"].to_numpy(float), BINS).max() for run in runs)]
    )
    for i, variant in enumerate(variants):
        pair = grid[i // columns, i % columns].subgridspec(2, 1, height_ratios=(2, 1), hspace=0.2)
        loss, active = figure.add_subplot(pair[0]), figure.add_subplot(pair[1])
        loss.axhline(margin, color=INK, linewidth=0.8)
        members = [run for run in runs if run.variant == variant]
        for run in members:
            dashes = (0, (3, 1.5)) if run.collapsed else "-"
            x = binned_means(run.log["update"].to_numpy(float), BINS)
            for axes, column in ((loss, "loss"), (active, "active")):
                y = binned_means(run.log[column].to_numpy(float), BINS)
                axes.plot(x, y, color=colours[run.dataset], linewidth=1, linestyle=dashes)
        loss.set(title=variant, ylim=(0, highest))
        active.set(ylim=(0, 1.05), yticks=(0, 1))
        _mark_collapsed(loss, members, colours)
        loss.tick_params(labelbottom=False, labelleft=i % columns == 0)
        active.tick_params(labelleft=i % columns == 0)
        if i % columns == 0:
            loss.set_ylabel("loss")
            active.set_ylabel("active")
        if i + columns >= len(variants):
            active.set_xlabel("update")
    return figure


def _mark_collapsed(axes: Axes, members: Sequence[Training], colours: Mapping[str, str]) -> None:
    """Name the collapsed runs, one line per dataset, in room made for it above the curves."""
    draws: dict[str, list[str]] = {}
    for run in members:
        if run.collapsed:
            draws.setdefault(run.dataset, []).append(str(run.draw))
    for line, (dataset, failed) in enumerate(draws.items()):
        told = f"collapsed: {DATASETS.get(dataset, dataset)}, draw{'s' if len(failed) > 1 else ''} {', '.join(failed)}"
        place = (0.99, 0.99 - 0.14 * line)
        axes.annotate(told, place, xycoords="axes fraction", ha="right", va="top", color=colours[dataset], fontsize=8)


def similarities(runs: Sequence[Mapping[str, Any]], title: str, subtitle: str) -> Figure:
    """Draw how similar queries are to images of the same and of other people, one panel per run.

    runs: {"run", "collapsed", "edges" (bins + 1), "positives" and "negatives" (bins)} of `reid retrieve`. Each outline
    holds an area of 1. A collapsed run is named as such.
    """
    if not runs:
        return nothing(title, subtitle)
    figure, header = titled(9, 2.5, title, subtitle)
    height = figure.get_figheight()
    panels = np.atleast_1d(figure.subplots(1, len(runs)))
    figure.subplots_adjust(left=0.06, right=0.985, top=1 - (header + 0.3) / height, bottom=0.5 / height, wspace=0.2)
    for axes, run in zip(panels, runs, strict=True):
        edges = np.asarray(run["edges"])
        densities = [
            np.asarray(run[name]) / max(1, sum(run[name])) / np.diff(edges) for name in ("positives", "negatives")
        ]
        for density, colour, hatch in zip(densities, PALETTE, ("", "////"), strict=False):
            axes.stairs(density, edges, color=colour, linewidth=1.6)
            axes.stairs(
                density, edges, fill=True, facecolor=colour, alpha=0.18, hatch=hatch, edgecolor=colour, linewidth=0
            )
        for place, (word, colour) in enumerate(zip(("same person", "other people"), PALETTE, strict=False)):
            told = f"{word}: {sum(run[('positives', 'negatives')[place]]):,} pairs"
            axes.text(
                0.02, 0.97 - 0.1 * place, told, transform=axes.transAxes, color=colour, va="top", fontweight="bold"
            )
        used = edges[:-1][densities[0] + densities[1] > 1e-3]
        name = DATASETS.get(run["run"]["dataset"], run["run"]["dataset"])
        axes.set(title=f"{name}{', collapsed in training' if run['collapsed'] else ''}")
        axes.set(xlabel="similarity (dot product)")
        axes.set(xlim=(float(used.min()), 1), ylabel="density" if axes is panels[0] else "")
        axes.set_ylim(0, 1.35 * max(density.max() for density in densities))
    return figure


def titled(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, float]:
    """Return a figure with a title and a wrapped subtitle above `height` inches, and the inches they take."""
    lines = [part for line in subtitle.splitlines() for part in textwrap.wrap(line, round(14 * width))]
    header = 0.4 + 0.155 * len(lines)
    figure = Figure(figsize=(width, header + height))
    figure.text(0.1 / width, 1 - 0.12 / (header + height), title, va="top", fontsize=11, fontweight="bold")
    figure.text(0.1 / width, 1 - 0.36 / (header + height), "\n".join(lines), va="top", color="#555555")
    return figure, header


def nothing(title: str, subtitle: str) -> Figure:
    """Draw a figure with only a title and the reason why it is empty."""
    figure, header = titled(9, 1.5, title, subtitle)
    say(figure.add_axes((0, 0, 1, 1 - header / figure.get_figheight()), frameon=False, xticks=[], yticks=[]), NOTHING)
    return figure


def _key(figure: Figure, colours: Mapping[str, str], top: float) -> None:
    """Write the names of the colours in their colours."""
    for i, (name, colour) in enumerate(colours.items()):
        figure.text(0.012 + 0.13 * i, top, f"— {name}", va="top", color=colour, fontweight="bold")
