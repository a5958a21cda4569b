"""The paper's claims, and whether an experiment supports them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import Any

import numpy as np

from reid_done_right.dag import run_stem, stem_of
from reid_done_right.evaluation.statistics import Comparison, compare
from reid_done_right.reporting.comparisons import Measure, Queries, compared
from reid_done_right.reporting.paper import Paper
from reid_done_right.reporting.runs import Runs
from reid_done_right.reporting.shapes import DATASETS, TABLES
from reid_done_right.reporting.tables import signed

LITTLE = 0.01
"""A difference of mAP that the paper calls none, negligible or marginal: its own are -0.4 to +1.1 points."""

KEPT_WITH_500K = 69.1
"""mAP in percent: the best model with 500K distractors is "on par with" TriNet [17] without any (section 4.5)."""
DOUBLINGS_TO_500K = log2((19_732 + 500_000) / 19_732)
ALLOWED = (81.2 - KEPT_WITH_500K) / 100 / DOUBLINGS_TO_500K
GRACEFUL = "Decay under distractors is graceful"


@dataclass(frozen=True)
class Claim:
    """The paper's row `better` beats its row `worse` in one of Tables 1-3, or, if `little`, differs hardly from it."""

    text: str
    table: str
    better: str
    worse: str
    little: bool = False


CLAIMS = (
    Claim("Cut-out helps", "table1", "- - ✓", "- - -"),
    Claim("Flips and crops add little to cut-out", "table1", "✓ ✓ ✓", "- - ✓", little=True),
    Claim("416 pixels beat 256", "table2", "416 pixels", "256 pixels"),
    Claim("640 pixels add little to 416", "table2", "640 pixels", "416 pixels", little=True),
    Claim("Max pooling beats average pooling", "table3", "max", "average"),
    Claim("ResNet-101 beats ResNet-50", "table3", "ResNet-101", "ResNet-50"),
    Claim("ResNet-152 adds little to ResNet-101", "table3", "ResNet-152", "ResNet-101", little=True),
    Claim("Pretraining for classification helps", "table3", "yes", "no"),
)


@dataclass(frozen=True)
class Finding:
    """One claim on one benchmark: the paper's value, the measurement here, and the verdict.

    Differences are in points of mAP. low, high and p are None where nothing could be compared. sources: the datasets
    and variants whose runs it comes from.
    """

    claim: str
    source: str
    benchmark: str
    here: str
    paper: str
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    by_seed: tuple[float, ...]
    verdict: str
    why: str = ""
    sources: tuple[str, ...] = ()


def findings(
    runs: Runs, queries: Queries, paper: Paper, decays: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[Finding]:
    """Judge every claim on every benchmark of this experiment.

    decays: for each planned curve {"run": its name, "variant", "dataset"} and either AP of every query with the fewest
    and with the most distractors, see `decay`, or {"lost": why there is none}; of a curve not there the name alone.
    """
    return [
        *_choices(runs, queries, paper, settings),
        *_reranking(runs, queries, paper, settings),
        *_decays(decays),
    ]


def verdict(comparison: Comparison, little: float | None = None) -> str:
    """Judge a difference that should be positive, or, given `little`, one that should lie within ± little."""
    low, high = comparison.interval.low, comparison.interval.high
    if little is None:
        if not comparison.sure:
            return "undecided"
        return "supported" if low > 0 else "contradicted"
    if -little <= low and high <= little:
        return "supported"
    return "contradicted" if low > little or high < -little else "undecided"


def _choices(runs: Runs, queries: Queries, paper: Paper, settings: Mapping[str, Any]) -> Iterator[Finding]:
    for claim in CLAIMS:
        rows = {row["paper"]: row for row in settings[claim.table]}
        if claim.better not in rows or claim.worse not in rows:
            continue
        better, worse = rows[claim.better], rows[claim.worse]
        for column in TABLES[claim.table].columns:
            sides = [Measure(column.dataset, row["variant"], column.protocol, "none", "mAP") for row in (better, worse)]
            if not any(stem_of(name) in _stems(sides) for name in settings["runs"]):
                continue
            number = TABLES[claim.table].number
            printed = [float(paper.value(number, row, column.paper, "mAP")) for row in (claim.better, claim.worse)]
            comparison = compared(runs, queries, sides[0], sides[1], settings["draws"])
            found = _finding(
                (claim.text, f"Table {number}", column.title, f"{better['variant']} − {worse['variant']}"),
                signed(printed[0] - printed[1]),
                comparison,
                LITTLE if claim.little else None,
                _failed(runs, sides, settings["runs"]),
            )
            yield replace(found, sources=_sources(sides))


def _reranking(runs: Runs, queries: Queries, paper: Paper, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """QE and DBA are the paper's re-ranking; k-reciprocal is held to the same claim, without a value of the paper."""
    variant = settings["baseline"]
    for rerank, name in (("qe-dba", "QE and DBA"), ("k-reciprocal", "k-reciprocal")):
        for column in TABLES["table4"].columns:
            sides = [Measure(column.dataset, variant, column.protocol, each, "mAP") for each in (rerank, "none")]
            if rerank not in column.reranks or not any(stem_of(name) in _stems(sides) for name in settings["runs"]):
                continue
            printed = "-"
            if rerank == "qe-dba":
                ours = [float(paper.value("4", row, column.paper, "mAP")) for row in ("Ours (re-rank)", "Ours")]
                printed = signed(ours[0] - ours[1])
            about = (f"Re-ranking helps ({name})", "Table 4", column.title, f"{variant}: {rerank} − none")
            comparison = compared(runs, queries, sides[0], sides[1], settings["draws"])
            found = _finding(about, printed, comparison, None, _failed(runs, sides, settings["runs"]))
            yield replace(found, sources=_sources(sides))


def _failed(runs: Runs, sides: Sequence[Measure], planned: Sequence[str]) -> str:
    """Name the runs of two sides that collapsed in training or were not run yet."""
    stems = _stems(sides)
    scored = {run.name for run in runs.values()}
    collapsed = [run.name for run in runs.values() if run.collapsed and stem_of(run.name) in stems]
    missing = [name for name in planned if stem_of(name) in stems and name not in scored]
    return _told({"collapsed in training": collapsed, "not run yet": missing})


def _stems(sides: Sequence[Measure]) -> set[str]:
    return {run_stem(side.dataset, side.variant) for side in sides}


def _sources(sides: Sequence[Measure]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{side.dataset}/{side.variant}" for side in sides))


def _told(lost: Mapping[str, Sequence[str]]) -> str:
    """Say which runs were lost, by reason."""
    return "; ".join(f"{why}: {', '.join(f'`{name}`' for name in names)}" for why, names in lost.items() if names)


def _finding(
    about: tuple[str, str, str, str], printed: str, comparison: Comparison | None, little: float | None, why: str
) -> Finding:
    if comparison is None:
        return Finding(*about, printed, None, None, None, None, (), "undecided", why or "no two runs to compare")
    interval = comparison.interval
    mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
    by_seed = tuple(100 * value for value in comparison.by_seed)
    return Finding(*about, printed, mean, low, high, comparison.p, by_seed, verdict(comparison, little), why)


def _decays(decays: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    for stem in dict.fromkeys(stem_of(each["run"]) for each in decays):
        members = [each for each in decays if stem_of(each["run"]) == stem]
        lost: dict[str, list[str]] = {}
        for each in members:
            if "lost" in each:
                lost.setdefault(each["lost"], []).append(each["run"])
        whole = [each for each in members if "lost" not in each]
        if whole:
            sources = (f"{whole[0]['dataset']}/{whole[0]['variant']}",)
            yield replace(decay(whole), why=_told(lost), sources=sources)
            continue
        known = next((each for each in members if "dataset" in each), {"dataset": "—", "variant": stem})
        benchmark = DATASETS.get(known["dataset"], known["dataset"])
        here = f"{known['variant']}: a doubling of the gallery"
        about = (GRACEFUL, "Figure 7", benchmark, here)
        yield _finding(about, signed(-100 * ALLOWED), None, None, _told(lost))


def decay(members: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge "graceful": each doubling of the gallery by distractors costs at most what it costs the paper.

    members: for each seed of one variant {"variant", "dataset", "gallery", "distractors", "fewest" and "most": AP of
    every query with the fewest and with the most distractors}. The paper prints one point of its Figure 7 in words,
    from which its cost per doubling follows; galleries differ in size, so only costs per doubling compare.
    """
    first = members[0]
    doublings = log2(1 + first["distractors"] / first["gallery"])
    most, fewest = (np.stack([np.asarray(each[name]) / doublings for each in members]) for name in ("most", "fewest"))
    against = compare(most + ALLOWED, fewest, np.random.default_rng(0))
    low, high = against.interval.low, against.interval.high
    return Finding(
        claim=GRACEFUL,
        source="Figure 7",
        benchmark=DATASETS.get(first["dataset"], first["dataset"]),
        here=f"{first['variant']}: a doubling of the gallery, by up to {first['distractors']:,} distractors",
        paper=signed(-100 * ALLOWED),
        mean=100 * (against.interval.mean - ALLOWED),
        low=100 * (low - ALLOWED),
        high=100 * (high - ALLOWED),
        p=against.p,
        by_seed=tuple(100 * (value - ALLOWED) for value in against.by_seed),
        verdict="supported" if low >= 0 else "contradicted" if high < 0 else "undecided",
    )
