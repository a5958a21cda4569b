"""The paper's claims, and whether an experiment supports them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log2
from typing import Any

from reid_done_right.dag import stem_of
from reid_done_right.evaluation.statistics import ALPHA, Comparison, holm
from reid_done_right.params.report import Effect, Table, TableClaim, TableColumn, title_of
from reid_done_right.reporting.comparisons import Queries, compared, over_draws, paired
from reid_done_right.reporting.paper import DATASETS, Paper
from reid_done_right.reporting.runs import Measure, Runs
from reid_done_right.reporting.tables import signed

LITTLE = 0.015
"""The bound of "adds little", in mAP: the least half point that holds every difference that the paper calls none,
negligible or marginal, which are 0.0 to +1.1 points."""

KEPT_WITH_500K = 69.1
"""mAP in percent: the best model with 500K distractors is "on par with" TriNet [17] without any (section 4.5)."""
DOUBLINGS_TO_500K = log2((19_732 + 500_000) / 19_732)
COST = (81.2 - KEPT_WITH_500K) / DOUBLINGS_TO_500K
"""Points of mAP that a doubling of the gallery costs the paper's best model on average."""
MEASURED: Effect = "measured"
"""Stands in the place of a verdict where nothing is claimed."""


@dataclass(frozen=True)
class Finding:
    """One claim on one benchmark: the paper's value, the measurement here, and the verdict.

    Differences are in points of mAP; what could not be measured is None.

    p         against the claim's null hypothesis, see `verdict`; None for a single draw
    adjusted  the same, by Holm's method over the claims of its source
    smallest  the difference that as many draws with this spread would have shown with a probability of 80 %
    bound     of "adds little", None for other claims
    sources   the datasets and variants whose runs it comes from
    effect    what is claimed of the difference
    """

    claim: str
    source: str
    benchmark: str
    here: str
    paper: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None
    smallest: float | None = None
    bound: float | None = None
    by_draw: tuple[float, ...] = ()
    verdict: str = "undecided"
    why: str = ""
    sources: tuple[str, ...] = ()
    effect: Effect = "helps"


def findings(
    runs: Runs, queries: Queries, paper: Paper, decays: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[Finding]:
    """Judge every claim of the tables on every benchmark of this experiment.

    decays: for each planned curve {"run": its name} and, if it is there, what `decay` needs.
    """
    return [*judged([*_measure(runs, queries, paper, settings)]), *_decays(decays)]


def judged(measured: Sequence[tuple[Finding, Comparison | None]]) -> list[Finding]:
    """Add p-values and verdicts to findings; the claims of one table, on all benchmarks, are a family to Holm.

    What is only measured is none of them.
    """
    p = {
        i: _p_value(comparison, finding.bound)
        for i, (finding, comparison) in enumerate(measured)
        if comparison is not None and len(comparison.by_draw) > 1 and finding.effect != MEASURED
    }
    adjusted: dict[int, float] = {}
    for source in dict.fromkeys(finding.source for finding, _ in measured):
        family = [i for i in p if measured[i][0].source == source]
        adjusted |= zip(family, holm([p[i] for i in family]), strict=True)
    return [_judged(*each, p.get(i), adjusted.get(i)) for i, each in enumerate(measured)]


def _p_value(comparison: Comparison, bound: float | None) -> float:
    """Return p of the verdict that the comparison leans to; that of its opposite is 0.5 or more."""
    if bound is None:
        return comparison.p
    return min(comparison.within(bound / 100), comparison.outside(bound / 100))


def _judged(finding: Finding, comparison: Comparison | None, p: float | None, adjusted: float | None) -> Finding:
    if finding.effect == MEASURED:
        finding = replace(finding, verdict=MEASURED)
    if comparison is None:
        return replace(finding, why=finding.why or "no two runs to compare")
    finding = _measured(finding, comparison)
    if finding.effect == MEASURED:
        return finding
    if p is None or adjusted is None:
        return replace(finding, why=_joined(finding.why, "rests on one draw, which says nothing of others"))
    smallest = 100 * comparison.smallest_effect
    found = verdict(comparison, adjusted, finding.bound, -1 if finding.effect == "costs" else 1)
    if found == "undecided":
        unclear = f"smallest difference that {len(finding.by_draw)} draws can show: {smallest:.1f}"
        finding = replace(finding, why=_joined(finding.why, unclear))
    return replace(finding, p=p, adjusted=adjusted, smallest=smallest, verdict=found)


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))


def _measured(finding: Finding, comparison: Comparison) -> Finding:
    """Add a difference in points; the ends of an interval that is not known stay None."""
    interval = comparison.interval
    low, high = (100 * end if isfinite(end) else None for end in (interval.low, interval.high))
    by_draw = tuple(100 * value for value in comparison.by_draw)
    return replace(finding, mean=100 * interval.mean, low=low, high=high, by_draw=by_draw)


def verdict(comparison: Comparison, adjusted: float, bound: float | None = None, sign: int = 1) -> str:
    """Judge a difference that should have a sign, or, given a bound in points, one that should lie within ± bound.

    adjusted: the p-value against no difference at all, or against whatever the difference is not, within the bound or
    outside. A difference within it is supported only if that of every single draw is.
    """
    if adjusted >= ALPHA:
        return "undecided"
    if bound is None:
        return "supported" if sign * comparison.mean > 0 else "contradicted"
    if abs(comparison.mean) > bound / 100:
        return "contradicted"
    return "supported" if all(abs(value) <= bound / 100 for value in comparison.by_draw) else "undecided"


Measured = Iterator[tuple[Finding, Comparison | None]]


def _measure(runs: Runs, queries: Queries, paper: Paper, settings: Mapping[str, Any]) -> Measured:
    """Yield the claims whose rows are there, on every benchmark with a planned run of either; of transfers, of both."""
    tables: Mapping[str, Table] = settings["tables"]
    planned = {stem_of(run) for run in settings["runs"]}
    for name, table in tables.items():
        enough = all if table.transfers else any
        for claim in table.claims:
            for column in table.columns:
                for ours, theirs in _sides(claim, table, column, settings["baseline"]):
                    if not enough(side.stem in planned for side in (ours, theirs)):
                        continue
                    finding = Finding(
                        f"{claim.text} (trained on {ours.trained_on})" if ours.trained_on else claim.text,
                        title_of(name),
                        column.title,
                        _here(claim, ours, theirs),
                        _printed(claim, table, column, paper),
                        bound=100 * LITTLE if claim.effect == "adds little" else None,
                        why=_failed(runs, (ours, theirs), settings["runs"]),
                        sources=_sources((ours, theirs)),
                        effect=claim.effect,
                    )
                    yield finding, compared(runs, queries, ours, theirs, settings["draws"])


def _here(claim: TableClaim, ours: Measure, theirs: Measure) -> str:
    """Say what is compared: two variants, two trainings of one or, without and with re-ranking, the same."""
    if ours.trained_on != theirs.trained_on:
        return f"{ours.variant}: {ours.trained_on} − {theirs.trained_on}"
    if claim.rerank == "none":
        return f"{ours.variant} − {theirs.variant}"
    return f"{ours.variant}: {claim.rerank} − none"


def _sides(claim: TableClaim, table: Table, column: TableColumn, baseline: str) -> Iterator[tuple[Measure, Measure]]:
    """Yield what a claim compares in a column; nothing if it is not about it, or a row is not there.

    In a table of transfers these are, for every dataset that is trained on, a variant with another or, if the claim
    names none, with itself as trained on the column's dataset.
    """
    better, worse = (table.variant_of(row, baseline) for row in (claim.better, claim.worse))
    if better is None or worse is None or claim.rerank not in column.reranks:
        return
    if claim.columns and column.title not in claim.columns:
        return

    def measure(variant: str, rerank: str, trained_on: str) -> Measure:
        return Measure(column.dataset, variant, column.protocol, rerank, "mAP", trained_on)

    if not table.transfers:
        yield measure(better, claim.rerank, ""), measure(worse, "none", "")
        return
    there = {(row.trained_on, row.variant) for row in table.rows}
    for trained_on in dict.fromkeys(row.trained_on for row in table.rows):
        if claim.trained_on and trained_on not in claim.trained_on:
            continue
        other = (trained_on, worse) if claim.worse else (column.dataset, better)
        if {(trained_on, better), other} <= there and (claim.worse or trained_on != column.dataset):
            yield measure(better, claim.rerank, trained_on), measure(other[1], "none", other[0])


def _printed(claim: TableClaim, table: Table, column: TableColumn, paper: Paper) -> str:
    """Return the paper's difference as it is printed, "-" where it prints none."""
    if isinstance(claim.paper, float):
        return signed(claim.paper)
    rows = claim.paper or ([claim.better, claim.worse] if claim.rerank == "none" else [])
    if not rows or not column.paper or not all((table.paper, row) in paper.types for row in rows):
        return "-"
    better, worse = (float(paper.value(table.paper, row, column.paper, "mAP")) for row in rows)
    return signed(better - worse)


def _failed(runs: Runs, sides: Sequence[Measure], planned: Sequence[str]) -> str:
    """Say how many runs of two sides collapsed in training, and name those that were not run yet."""
    stems = {side.stem for side in sides}
    here = [run for name, run in runs.items() if stem_of(name) in stems]
    collapsed = sum(run.collapsed for run in here)
    missing = [name for name in planned if stem_of(name) in stems and name not in runs]
    told = f"{collapsed} of {len(here)} runs collapsed in training" if collapsed else ""
    return _joined(told, _missing(missing))


def _sources(sides: Sequence[Measure]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(side.source for side in sides))


def _missing(names: Sequence[str]) -> str:
    return f"not run yet: {', '.join(f'`{name}`' for name in names)}" if names else ""


def _decays(decays: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    for stem in dict.fromkeys(stem_of(each["run"]) for each in decays):
        members = [each for each in decays if stem_of(each["run"]) == stem]
        why = _missing([each["run"] for each in members if "fewest" not in each])
        yield replace(decay([each for each in members if "fewest" in each], stem), why=why)


def decay(members: Sequence[Mapping[str, Any]], stem: str) -> Finding:
    """Measure what a doubling of the gallery by distractors costs, on average; the paper claims nothing of it.

    members: for each draw of one variant {"run", "variant", "dataset", "gallery", "distractors", "fewest" and "most":
    AP of every query with the fewest and with the most distractors (`Scored`)}. The paper prints one point of its
    Figure 7 in words, from which its cost per doubling follows; galleries differ in size, so only costs per doubling
    compare.
    """
    finding = Finding(
        "Cost of a doubling of the gallery by distractors",
        "Figure 7",
        "—",
        stem,
        signed(-COST),
        verdict=MEASURED,
        effect=MEASURED,
    )
    if not members:
        return finding
    pairs = []
    for each in members:
        doublings = log2(1 + each["distractors"] / each["gallery"])
        most, fewest = (replace(each[end], values=each[end].values / doublings) for end in ("most", "fewest"))
        pairs.append(paired(each["run"], most, fewest))
    first = members[0]
    finding = replace(
        finding,
        benchmark=DATASETS.get(first["dataset"], first["dataset"]),
        here=f"{first['variant']}: with up to {first['distractors']:,} distractors",
        sources=(f"{first['dataset']}/{first['variant']}",),
    )
    return _measured(finding, over_draws(pairs))
