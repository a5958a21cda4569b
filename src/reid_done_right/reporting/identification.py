"""Open sets: a table with a row for each variant, and FNIR against FPIR as a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import ConfigDict, Field, model_validator

from reid_done_right.artifacts import InputError
from reid_done_right.params.messages import validated
from reid_done_right.params.section import Fraction, Name, Natural, Positive, Strict
from reid_done_right.reporting.figures import MARKERS, NOTHING, PALETTE, say, titled
from reid_done_right.reporting.paper import DATASETS
from reid_done_right.reporting.runs import Cell
from reid_done_right.reporting.tables import COLLAPSED, Grid, Sheet, Text, cell_text, listed, percent, spanned

CAPTION = "Open set: searches for persons whom the gallery does not hold"
METRICS = {"fnir": "FNIR", "fnir_rank1": "rank-1 FNIR"}
POINTS = 121  # of a curve, evenly spaced over the logarithm of FPIR
AGAIN = "run `reid identify` again"
Rates = Annotated[list[Fraction], Field(min_length=1)]


class Told(Strict):
    """What is read from a file of `reid identify`; it says more."""

    model_config = ConfigDict(extra="ignore")


class Run(Told):
    """Whose open set it is."""

    dataset: Name
    variant: Name
    draw: Natural


class Operating(Told):
    """Error rates at one rate of false alarms."""

    false_alarms: Fraction
    threshold: float
    fnir: Fraction
    fnir_low: Fraction
    fnir_high: Fraction
    fnir_rank1: Fraction
    fnir_rank1_low: Fraction
    fnir_rank1_high: Fraction


class Curve(Told):
    """Error rates at every threshold where FPIR changes, FPIR ascending from 0."""

    fpir: Rates
    fnir: Rates
    fnir_rank1: Rates

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.fpir[0] != 0 or sorted(self.fpir) != self.fpir:
            raise ValueError("fpir does not ascend from 0")
        if not len(self.fpir) == len(self.fnir) == len(self.fnir_rank1):
            raise ValueError("fpir, fnir and fnir_rank1 differ in length")
        return self

    def at(self, rates: Sequence[float], metric: str) -> list[float]:
        """Return FNIR at the lowest threshold that keeps FPIR at most at each rate."""
        places = np.searchsorted(np.array(self.fpir), np.array(rates) + 1e-9, side="right") - 1
        return [float(value) for value in np.array(getattr(self, metric))[places]]


class OpenSet(Told):
    """The open set of one run."""

    run: Run
    collapsed: bool
    unknown: Fraction
    gallery_items: Positive
    known_queries: Positive
    known_persons: Positive
    unknown_queries: Positive
    unknown_persons: Positive
    at: Annotated[list[Operating], Field(min_length=1)]
    curve: Curve


def read_open_sets(
    contents: Iterable[tuple[Path, Mapping[str, Any]]], planned: Sequence[str], allow_missing: bool
) -> list[OpenSet]:
    """Return the open sets of the planned runs, in their order.

    Raises InputError for a file that is something else, and for one that is missing, unless `allow_missing`.
    """
    given = {path.stem: (path, content) for path, content in contents if path.stem in planned}
    found = {name: validated(OpenSet, content, str(path), AGAIN) for name, (path, content) in given.items()}
    if missing := [name for name in planned if name not in found and not allow_missing]:
        raise InputError(f"{missing[0]}.json: no open set of this planned run; run `reid identify` for it")
    ordered = [found[name] for name in planned if name in found]
    for name, each in found.items():
        if (rates := [at.false_alarms for at in each.at]) != (others := [at.false_alarms for at in ordered[0].at]):
            raise InputError(f"{given[name][0]}: rates {rates}, those of another run are {others}; {AGAIN}")
    return ordered


# --- the table


def open_set_sheet(found: Sequence[OpenSet], settings: Mapping[str, Any]) -> Sheet:
    """Lay out error rates and threshold of each variant at each rate; without grids if there is no open set."""
    if not found:
        return Sheet("identification", CAPTION, "", ())
    rows: dict[tuple[str, str], list[OpenSet]] = {}
    for each in found:
        rows.setdefault((each.run.dataset, each.run.variant), []).append(each)
    header = ["Benchmark", "Variant", "FPIR at most", *METRICS.values(), "Threshold"]
    body = [
        _row(draws, number, len(settings["draws"])) for draws in rows.values() for number in range(len(draws[0].at))
    ]
    first = next((draws for key, draws in rows.items() if key[1] == settings["baseline"]), next(iter(rows.values())))
    notes = _notes(found, len(settings["draws"]))
    return Sheet("identification", CAPTION, "", [Grid(_sentence(first), header, 3, body)], notes)


def _row(draws: Sequence[OpenSet], number: int, planned: int) -> list[Text]:
    run = draws[0].run
    points = {each.run.draw: each.at[number] for each in draws}
    collapsed = frozenset(each.run.draw for each in draws if each.collapsed)

    def cell(name: str, printed: Callable[[float], str]) -> str:
        return cell_text(Cell({draw: getattr(at, name) for draw, at in points.items()}, collapsed), planned, printed)

    line = [Text(_benchmark(run)), Text(run.variant), Text(rate_text(draws[0].at[number].false_alarms))]
    for metric in METRICS:
        text = cell(metric, percent)
        if planned == 1:
            low, high = (percent(getattr(points[run.draw], f"{metric}_{end}")) for end in ("low", "high"))
            text += f" [{low}, {high}]"
        line.append(Text(text.replace(" ", "\N{NO-BREAK SPACE}"), source=f"{run.dataset}/{run.variant}"))
    return [*line, Text(cell("threshold", "{:.4f}".format), source=f"{run.dataset}/{run.variant}")]


def _benchmark(run: Run) -> str:
    return DATASETS.get(run.dataset, run.dataset)


def rate_text(rate: float) -> str:
    """Print a rate as people say it: 0.01 -> 1 %."""
    return f"{100 * rate:g}\N{NO-BREAK SPACE}%"


def _sentence(draws: Sequence[OpenSet]) -> str:
    """Say of one variant what the first rate of false alarms costs, and what the others do."""
    points = [each.at for each in draws]
    missed = [f"{percent(float(np.mean([at.fnir for at in column])))} %" for column in zip(*points, strict=True)]
    (first, *rates), (most, *others) = [rate_text(at.false_alarms) for at in points[0]], missed
    beside = "".join(f", {share} at {rate}" for rate, share in zip(rates, others, strict=True))
    return (
        f"`{draws[0].run.variant}` on {_benchmark(draws[0].run)}: of the searches for persons who are not in the "
        f"gallery, at most {first} raise an alarm; then {most} of the searches for those who are in it miss "
        f"them{beside}."
    )


def _notes(found: Sequence[OpenSet], planned: int) -> list[str]:
    counts = {
        name: spanned([getattr(each, name) for each in found])
        for name in OpenSet.model_fields
        if name.endswith(("_items", "_queries", "_persons"))
    }
    shares = listed(sorted({f"{100 * each.unknown:g}" for each in found}))
    spread = (
        "in brackets the 95 % interval over persons" if planned == 1 else "mean ± sample standard deviation over draws"
    )
    notes = [
        f"{shares} % of the test persons are left out of the gallery, chosen by a hash of their numbers: "
        f"{counts['unknown_queries']} searches for {counts['unknown_persons']} persons should return nobody, and "
        f"{counts['known_queries']} for {counts['known_persons']} persons should return an item of theirs, of "
        f"{counts['gallery_items']} items.",
        "FPIR, false-positive identification rate: share of the former that return anything. FNIR, false-negative: "
        "share of the latter that return no own item; rank-1: none in the first place. A search returns what is more "
        f"similar than the threshold, the lowest that keeps the FPIR. Rates in percent, {spread}; without re-ranking.",
        "A threshold holds for queries and a gallery like these, and of this size.",
    ]
    if coarse := sorted(
        {at.false_alarms for each in found for at in each.at if at.false_alarms * each.unknown_queries < 1}
    ):
        notes.append(
            f"So few searches resolve no rate of {listed([rate_text(rate) for rate in coarse])}: none raises an alarm."
        )
    if any(each.collapsed for each in found):
        notes.append(f"{COLLAPSED} Some of these runs collapsed in training; they count.")
    return notes


# --- the figure


def error_rates(found: Sequence[OpenSet]) -> pd.DataFrame:
    """Pool the curves of each variant over draws at rates that all of them resolve, evenly spaced on a log axis.

    Gives one row per variant and FPIR, the rates asked for included: the runs, and mean, least and greatest of each
    metric, in percent; `asked` marks those rates.
    """
    if not found:
        return pd.DataFrame(columns=["variant", "fpir", "runs", "asked"])
    asked = {at.false_alarms for each in found for at in each.at}
    finest = max(1 / each.unknown_queries for each in found)
    rates = sorted({*np.geomspace(finest, 1, POINTS).tolist(), *(rate for rate in asked if rate >= finest)})
    frames = [
        pd.DataFrame(
            {"variant": each.run.variant, "fpir": rates}
            | {metric: 100 * np.array(each.curve.at(rates, metric)) for metric in METRICS}
        )
        for each in found
    ]
    columns = {"runs": ("fnir", "size")}
    for metric in METRICS:
        columns |= {metric: (metric, "mean"), f"{metric}_min": (metric, "min"), f"{metric}_max": (metric, "max")}
    lines = pd.concat(frames).groupby(["variant", "fpir"], sort=False).agg(**columns).reset_index()
    return lines.assign(asked=lines["fpir"].isin(asked))


def tradeoff(lines: pd.DataFrame, title: str, subtitle: str) -> Figure:
    """Draw FNIR against FPIR, each variant's mean with a band from the least to the greatest of its draws.

    lines: from `error_rates`; without any row the axes say that there is no run to show.
    """
    figure, header = titled(9, 3.6, title, subtitle)
    height = figure.get_figheight()
    axes = figure.subplots()
    figure.subplots_adjust(left=0.06, right=0.965, top=1 - (header + 0.3) / height, bottom=0.49 / height)
    axes.set_title("searches for persons in the gallery that miss them (FNIR, %)")
    axes.set_xlabel("searches for persons not in the gallery that raise an alarm (FPIR)")
    if lines.empty:
        say(axes, NOTHING)
        return figure
    axes.set(xscale="log", xlim=(lines["fpir"].min(), 1), ylim=(0, 109), yticks=range(0, 101, 20))
    axes.xaxis.set_major_formatter(lambda rate, _: rate_text(rate))
    labels = []
    for number, (variant, line) in enumerate(lines.groupby("variant", sort=False)):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        axes.plot(line["fpir"], line["fnir"], color=colour)
        low, high = line["fnir_min"].to_numpy(float), line["fnir_max"].to_numpy(float)
        axes.fill_between(line["fpir"], low, high, color=colour, alpha=0.14, linewidth=0)
        points = line[line["asked"]]
        axes.plot(points["fpir"], points["fnir"], color=colour, marker=marker, linestyle="")
        labels += [
            (fpir, fnir, str(variant), colour) for fpir, fnir in zip(points["fpir"], points["fnir"], strict=True)
        ]
    _label(axes, labels)
    return figure


def _label(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write values (FPIR, FNIR, variant, colour) beside their points, and the variants at the last rate."""
    for rate in sorted({rate for rate, *_ in labels}):
        at = sorted((fnir, variant, colour) for other, fnir, variant, colour in labels if other == rate)
        last, lowest = rate == max(each[0] for each in labels), -np.inf
        for fnir, variant, colour in at:
            y = lowest = max(fnir + 1, lowest + 7.5)
            told = f"{fnir:.1f}  {variant}" if last else f"{fnir:.1f}"
            behind = {"facecolor": "#ffffff", "alpha": 0.7, "linewidth": 0, "pad": 0.6}
            axes.text(1.04 * rate, y, told, color=colour, va="bottom", fontweight="bold", bbox=behind)
