"""The scored runs behind a report, looked up by table cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid_done_right.artifacts import InputError
from reid_done_right.dag import drawn, run_name, run_stem

MEASURED = ("mAP", "mAP_step", "rank1", "rank5", "rank10")
NEEDED = (*MEASURED, "queries", "queries_without_match", "ap_rule")


@dataclass(frozen=True)
class Run:
    """One scores file: what was trained, whether training collapsed, and a result per (protocol, rerank).

    dataset     whose test set it was scored on
    trained_on  whose training set it has seen
    """

    file: Path
    dataset: str
    variant: str
    draw: int
    collapsed: bool
    numerics: str
    results: Mapping[tuple[str, str], Mapping[str, Any]]
    trained_on: str

    @property
    def name(self) -> str:
        """The run's name in file names, `market-default-draw0`."""
        return run_name(self.trained_on, self.variant, self.draw, self.dataset)

    @property
    def training(self) -> str:
        """The name of the training that it comes from: its own, unless it is scored on another dataset's test set."""
        return run_name(self.trained_on, self.variant, self.draw)

    @property
    def model(self) -> str:
        """What is scored on the dataset: the variant and, if that is another dataset, what it was trained on."""
        return model_name(self.variant, "" if self.trained_on == self.dataset else self.trained_on)


def model_name(variant: str, trained_on: str) -> str:
    """Return a variant's name, with the dataset that it was trained on, if one is given."""
    return f"{variant}, trained on {trained_on}" if trained_on else variant


Runs = Mapping[str, Run]
"""Runs by name."""


@dataclass(frozen=True)
class Measure:
    """What one cell of a table measures, apart from the draw; trained_on: if not on the dataset."""

    dataset: str
    variant: str
    protocol: str
    rerank: str
    metric: str
    trained_on: str = ""

    @property
    def stem(self) -> str:
        """The common part of the names of its runs."""
        return run_stem(self.trained_on or self.dataset, self.variant, self.dataset)

    @property
    def source(self) -> str:
        """Its runs, as the page finds them: the dataset that they were trained on, then the rest of their names."""
        trained_on = self.trained_on or self.dataset
        return f"{trained_on}/{self.stem.removeprefix(f'{trained_on}-')}"


@dataclass(frozen=True)
class Cell:
    """The values of a table cell, fractions in [0, 1], one per draw; and the draws whose training collapsed."""

    values: Mapping[int, float]
    collapsed: frozenset[int] = frozenset()

    @property
    def healthy(self) -> list[float]:
        """The values without those of collapsed runs."""
        return [value for draw, value in self.values.items() if draw not in self.collapsed]


def planned_draws(settings: Mapping[str, Any], measure: Measure) -> list[int]:
    """Return the draws of a measure's planned runs."""
    return [draw for draw in settings["draws"] if drawn(measure.stem, draw) in settings["runs"]]


def index_runs(contents: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[str, Run]:
    """Index the contents of scores files by run, sorted by dataset, variant, what it was trained on, and draw.

    Raises InputError for a file that lacks a field, for a result given twice and for two files of one run.
    """
    runs: dict[str, Run] = {}
    for file, content in contents:
        run = _parse_run(file, content)
        if run.name in runs:
            raise InputError(f"{file}: run {run.name} is already in {runs[run.name].file}; keep one of the two files")
        runs[run.name] = run
    ordered = sorted(runs.values(), key=lambda run: (run.dataset, run.variant, run.trained_on, run.draw))
    return {run.name: run for run in ordered}


def _parse_run(file: Path, content: Mapping[str, Any]) -> Run:
    try:
        about = content["run"]
        results = {(result["protocol"], result["rerank"]): result for result in content["results"]}
        run = Run(
            file,
            about["dataset"],
            about["variant"],
            about["draw"],
            content["collapsed"],
            content.get("numerics", "native"),
            results,
            about.get("trained_on", about["dataset"]),
        )
        absent = [name for result in results.values() for name in NEEDED if name not in result]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file}: not a scores file ({error!r}); run `reid evaluate` again") from None
    if absent:
        raise InputError(f"{file}: a result lacks {', '.join(absent)}; run `reid evaluate` again")
    if len(results) != len(content["results"]):
        raise InputError(f"{file}: a protocol and rerank stand twice in results; run `reid evaluate` again")
    return run


def score_key(metric: str) -> str:
    """Return the key in score files of a metric as printed in the paper: rank-1 -> rank1."""
    return metric.replace("-", "")


def gather(runs: Runs, measure: Measure, draws: Sequence[int], allow_missing: bool) -> Cell:
    """Collect what is measured over the draws.

    Raises InputError naming the run and its file if a result is missing, unless `allow_missing`.
    """
    values: dict[int, float] = {}
    collapsed = set()
    for draw in draws:
        name = drawn(measure.stem, draw)
        run = runs.get(name)
        result = run.results.get((measure.protocol, measure.rerank)) if run else None
        if run and result:
            values[draw] = float(result[score_key(measure.metric)])
            if run.collapsed:
                collapsed.add(draw)
        elif not allow_missing:
            file = run.file if run else next((r.file.parent for r in runs.values()), Path()) / f"{name}.json"
            raise InputError(
                f"{file}: no scores of run {name}, protocol {measure.protocol}, rerank {measure.rerank}; "
                "run `reid evaluate` for it, or set allow_missing to print an em dash"
            )
    return Cell(values, frozenset(collapsed))


def summarise(runs: Runs) -> dict[str, Any]:
    """Nest the runs' scores as {dataset: {model: {protocol: {rerank: {metric: statistics}}}}}, fractions.

    The statistics are n, mean, sd (sample standard deviation, two runs or more), min and max over all runs, the number
    of those that collapsed and the mean without them; what is undefined is left out.
    """
    gathered: dict[tuple[str, ...], list[Run]] = {}
    for run in runs.values():
        for protocol, rerank in run.results:
            gathered.setdefault((run.dataset, run.model, protocol, rerank), []).append(run)
    nested: dict[str, Any] = {}
    for (dataset, model, protocol, rerank), members in gathered.items():
        place = nested.setdefault(dataset, {}).setdefault(model, {}).setdefault(protocol, {})
        place[rerank] = {metric: _statistics(members, protocol, rerank, metric) for metric in MEASURED}
    return nested


def about_run(run: Run) -> dict[str, Any]:
    """Return a run's name and description, and mAP and rank-1 of its first protocol, without re-ranking."""
    protocol, rerank = next(iter(run.results))
    about = {"name": run.name, "dataset": run.dataset, "variant": run.model, "draw": run.draw}
    about |= {"training": run.training} if run.training != run.name else {}
    scores = {metric: round(float(run.results[protocol, rerank][metric]), 6) for metric in ("mAP", "rank1")}
    return {**about, "collapsed": run.collapsed, "protocol": protocol, **scores}


def headline(runs: Runs, variant: str) -> dict[str, dict[str, float]]:
    """Return {dataset: {protocol mAP, protocol rank1}} of one variant where it was trained, without re-ranking."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs.values():
        for (protocol, rerank), result in run.results.items():
            if run.model == variant and rerank == "none":
                for metric in ("mAP", "rank1"):
                    found.setdefault(run.dataset, {}).setdefault(f"{protocol} {metric}", []).append(result[metric])
    return {
        dataset: {name: round(float(np.mean(values)), 4) for name, values in metrics.items()}
        for dataset, metrics in found.items()
    }


def _statistics(members: Sequence[Run], protocol: str, rerank: str, metric: str) -> dict[str, float]:
    values = [float(run.results[protocol, rerank][metric]) for run in members]
    healthy = [value for run, value in zip(members, values, strict=True) if not run.collapsed]
    statistics = {"n": len(values), "mean": float(np.mean(values)), "min": min(values), "max": max(values)}
    if len(values) > 1:
        statistics["sd"] = float(np.std(values, ddof=1))
    statistics["collapsed"] = len(values) - len(healthy)
    if 0 < len(healthy) < len(values):
        statistics["mean_without"] = float(np.mean(healthy))
    return {name: round(value, 6) for name, value in statistics.items()}
