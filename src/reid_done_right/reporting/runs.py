"""The scored runs behind a report, looked up by table cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid_done_right.artifacts import InputError
from reid_done_right.dag import run_name

MEASURED = ("mAP", "mAP_step", "rank1", "rank5", "rank10")
NEEDED = (*MEASURED, "queries", "queries_without_match", "ap_rule")


@dataclass(frozen=True)
class Run:
    """One scores file: what was trained, whether training collapsed, and a result per (protocol, rerank)."""

    file: Path
    dataset: str
    variant: str
    draw: int
    collapsed: bool
    numerics: str
    results: Mapping[tuple[str, str], Mapping[str, Any]]

    @property
    def name(self) -> str:
        """The run's name in file names, `market-default-draw0`."""
        return run_name(self.dataset, self.variant, self.draw)


Runs = Mapping[tuple[str, str, int], Run]
"""Runs by (dataset, variant, draw)."""


@dataclass(frozen=True)
class Cell:
    """The values of a table cell, fractions in [0, 1], one per draw; and the draws whose training collapsed."""

    values: Mapping[int, float]
    collapsed: frozenset[int] = frozenset()

    @property
    def healthy(self) -> list[float]:
        """The values without those of collapsed runs."""
        return [value for draw, value in self.values.items() if draw not in self.collapsed]


def planned_draws(settings: Mapping[str, Any], dataset: str, variant: str) -> list[int]:
    """Return the draws of a variant's planned runs."""
    return [draw for draw in settings["draws"] if run_name(dataset, variant, draw) in settings["runs"]]


def index_runs(contents: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[tuple[str, str, int], Run]:
    """Index the contents of scores files by (dataset, variant, draw), sorted.

    Raises InputError for a file that lacks a field, for a result given twice and for two files of one run.
    """
    runs: dict[tuple[str, str, int], Run] = {}
    for file, content in contents:
        run = _parse_run(file, content)
        key = (run.dataset, run.variant, run.draw)
        if key in runs:
            raise InputError(f"{file}: run {run.name} is already in {runs[key].file}; keep one of the two files")
        runs[key] = run
    return dict(sorted(runs.items()))


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


def gather(
    runs: Runs,
    *,
    dataset: str,
    variant: str,
    protocol: str,
    rerank: str,
    metric: str,
    draws: Sequence[int],
    allow_missing: bool,
) -> Cell:
    """Collect one metric of one variant over the draws.

    Raises InputError naming the run and its file if a result is missing, unless `allow_missing`.
    """
    values: dict[int, float] = {}
    collapsed = set()
    for draw in draws:
        run = runs.get((dataset, variant, draw))
        result = run.results.get((protocol, rerank)) if run else None
        if run and result:
            values[draw] = float(result[score_key(metric)])
            if run.collapsed:
                collapsed.add(draw)
        elif not allow_missing:
            name = run_name(dataset, variant, draw)
            file = run.file if run else next((r.file.parent for r in runs.values()), Path()) / f"{name}.json"
            raise InputError(
                f"{file}: no scores of run {name}, protocol {protocol}, rerank {rerank}; "
                "run `reid evaluate` for it, or set allow_missing to print an em dash"
            )
    return Cell(values, frozenset(collapsed))


def summarise(runs: Runs) -> dict[str, Any]:
    """Nest the runs' scores as {dataset: {variant: {protocol: {rerank: {metric: statistics}}}}}, fractions.

    The statistics are n, mean, sd (sample standard deviation, two runs or more), min and max over all runs, the number
    of those that collapsed and the mean without them; what is undefined is left out.
    """
    gathered: dict[tuple[str, ...], list[Run]] = {}
    for run in runs.values():
        for protocol, rerank in run.results:
            gathered.setdefault((run.dataset, run.variant, protocol, rerank), []).append(run)
    nested: dict[str, Any] = {}
    for (dataset, variant, protocol, rerank), members in gathered.items():
        place = nested.setdefault(dataset, {}).setdefault(variant, {}).setdefault(protocol, {})
        place[rerank] = {metric: _statistics(members, protocol, rerank, metric) for metric in MEASURED}
    return nested


def about_run(run: Run) -> dict[str, Any]:
    """Return a run's name and description, and mAP and rank-1 of its first protocol, without re-ranking."""
    protocol, rerank = next(iter(run.results))
    about = {"name": run.name, "dataset": run.dataset, "variant": run.variant, "draw": run.draw}
    scores = {metric: round(float(run.results[protocol, rerank][metric]), 6) for metric in ("mAP", "rank1")}
    return {**about, "collapsed": run.collapsed, "protocol": protocol, **scores}


def headline(runs: Runs, variant: str) -> dict[str, dict[str, float]]:
    """Return {dataset: {protocol mAP, protocol rank1}} of one variant, without re-ranking."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs.values():
        for (protocol, rerank), result in run.results.items():
            if run.variant == variant and rerank == "none":
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
