"""The picture of the verdicts: a line for every claim and benchmark, with its interval and the paper's value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath

from reid_done_right.reporting.claims import MEASURED, Finding
from reid_done_right.reporting.figures import FAINT, INK, PALETTE, nothing, titled
from reid_done_right.reporting.markdown import finding_texts

LOOKS = {
    "supported": ("o", PALETTE[0], PALETTE[0]),
    "contradicted": ("X", PALETTE[1], PALETTE[1]),
    "undecided": ("o", FAINT, "#ffffff"),
}
"""Verdict -> marker, colour of the line, and of the marker's inside: told apart without colour too."""
BAND = "#e6e6e6"
LINE = 0.19  # inches from one line to the next
CLAIM, BENCHMARK, PLOT, VERDICT, NUMBERS = 0.1, 2.68, 3.62, 6.55, 7.5  # inches from the left
GAP = 0.08  # inches between a claim and its benchmark, at least


def forest(found: Sequence[Finding], title: str, subtitle: str) -> Figure:
    """Draw the verdicts, one line each, those of a claim together; what is only measured is left out.

    An interval that would leave the picture ends in an arrow there.
    """
    claims: dict[str, list[Finding]] = {}
    for finding in found:
        if finding.verdict != MEASURED:
            claims.setdefault(finding.claim, []).append(finding)
    if not claims:
        return nothing(title, subtitle)
    words = {claim: _wrapped(claim, BENCHMARK - CLAIM - GAP) for claim in claims}
    heights = {claim: max(len(members), len(words[claim])) for claim, members in claims.items()}
    lines = sum(heights.values()) + 0.5 * (len(claims) - 1)
    tall = LINE * (lines + 0.5)
    figure, header = titled(9, tall + 0.85, title, subtitle)
    height = figure.get_figheight()
    place = (PLOT / 9, 0.45 / height, (VERDICT - 0.15 - PLOT) / 9, tall / height)
    axes = figure.add_axes(place, ylim=(lines - 0.25, -0.75), yticks=[], xlabel="difference of mAP in points")
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    reach = _reach([each for members in claims.values() for each in members])
    axes.set_xlim(*reach)
    axes.axvline(0, color=INK, linewidth=0.8)
    y = 0.0
    for claim, members in claims.items():
        for line, some in enumerate(words[claim]):
            _write(axes, CLAIM, y + line, some, weight="bold")
        for line, finding in enumerate(members):
            _row(axes, finding, y + line, reach)
        y += heights[claim] + 0.5
    figure.legend(
        handles=_key(any(finding.bound for finding in found)),
        loc="upper left",
        bbox_to_anchor=(CLAIM / 9 - 0.012, 1 - header / height),
        ncols=5,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.5,
        columnspacing=1.6,
    )
    return figure


def _wrapped(words: str, inches: float) -> list[str]:
    """Return bold words as the lines that they need in such a width."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        drawn = TextPath((0, 0), longer, size=rcParams["font.size"], prop=FontProperties(weight="bold"))
        if lines and drawn.get_extents().width / 72 <= inches:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _reach(shown: Sequence[Finding]) -> tuple[float, float]:
    """Return the ends of the axis: beyond every difference, ours and the paper's, and most ends of intervals."""
    values = [value for each in shown for value in (each.mean, _printed(each), each.bound) if value is not None]
    lows = sorted((each.low for each in shown if each.low is not None), reverse=True)
    highs = sorted(each.high for each in shown if each.high is not None)
    most = 4 * len(highs) // 5
    low, high = min([-2.0, *values, *lows[:most]]), max([2.0, *values, *highs[:most]])
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _printed(finding: Finding) -> float | None:
    return None if finding.paper == "-" else float(finding.paper.replace("−", "-"))


def _row(axes: Axes, finding: Finding, y: float, reach: tuple[float, float]) -> None:
    marker, colour, inside = LOOKS[finding.verdict]
    _write(axes, BENCHMARK, y, finding.benchmark)
    if finding.bound is not None:
        axes.fill_between((-finding.bound, finding.bound), y - 0.5, y + 0.5, color=BAND, linewidth=0, zorder=0.5)
    printed = _printed(finding)
    if printed is not None:
        axes.plot([printed], [y], marker="|", color=INK, markersize=9, markeredgewidth=2, linestyle="none", zorder=4)
    _write(axes, VERDICT, y, finding.verdict, color="#555555" if colour == FAINT else colour, weight="bold")
    _write(axes, NUMBERS, y, finding_texts(finding)[0])
    if finding.mean is None:
        return
    if finding.low is not None and finding.high is not None:
        low, high = max(finding.low, reach[0]), min(finding.high, reach[1])
        axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        for end, tip, whole in ((low, "<", finding.low), (high, ">", finding.high)):
            if end != whole:
                axes.plot([end], [y], marker=tip, color=colour, markersize=5, clip_on=False)
    axes.plot([finding.mean], [y], marker=marker, color=colour, markerfacecolor=inside, markersize=6, zorder=3)


def _write(axes: Axes, inches: float, y: float, words: str, **how: Any) -> None:
    """Write into a line of the figure, so many inches from its left."""
    axes.annotate(
        words, (inches / 9, y), xycoords=("figure fraction", "data"), va="center", annotation_clip=False, **how
    )


def _key(bounded: bool) -> list[Line2D | Patch]:
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=inside, markersize=6, label=verdict)
        for verdict, (marker, colour, inside) in LOOKS.items()
    ]
    entries.append(
        Line2D(
            [], [], color=INK, marker="|", markersize=9, markeredgewidth=2, linestyle="none", label="the paper's value"
        )
    )
    return entries + ([Patch(color=BAND, label="bound of “adds little”")] if bounded else [])
