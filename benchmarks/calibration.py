"""How often are verdicts false, how often do two halves of a study agree, and how does power grow with draws?

    python benchmarks/calibration.py reports/study/report.json --json benchmarks/results/calibration.json

**Against itself.** The default is compared with itself on disjoint sets of draws, paired at random, on every benchmark:
nothing differs, so every verdict is false. As in the report, all benchmarks are one table to Holm's method. The
comparisons share draws, so that their interval is too narrow; `independent` says how many would not. More reports, such as one of the default alone with many draws, add comparisons.

**Halves.** The draws of the study (the first report) are split at random into two halves, and every claim is judged by
each, with Holm's method, as in the report. `half_agreement` is the share of equal verdicts among the claims that both
halves decide; `half_repeated` the share of claims decided by one half that the other decides, too, and equally.

**Power.** The share of the claims that the whole study decides which some of its draws decide equally.

**Simulated.** Draws, persons and queries are drawn from normal distributions, with test sets shared or not: the share
of false verdicts where nothing differs, and of tables of four claims with any: two without a difference, two that
"something adds little" where the difference is the bound.

Draws of the reports have test sets of their own, as in rendered experiments. What is done is in the file and is not done
again, unless a report has changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from reid_done_right.artifacts import file_digest, read_json, write_json
from reid_done_right.evaluation.statistics import ALPHA, Comparison, Draw, compare
from reid_done_right.reporting.claims import LITTLE, Finding, judged
from reid_done_right.store.ledger import made_with

TABLES, SPLITS, SUBSETS, SIMULATIONS = 1000, 200, 100, 1000
PEOPLE, EACH = 40, 5
SPREAD = {"draws": 0.01, "people": 0.06, "queries": 0.2}
"""Standard deviations of a simulated difference in AP: of draws, of persons, of queries."""

CLAIM = Finding("claim", "Table", "benchmark", "a − b", "-")
Claim = tuple[Finding, NDArray[np.float64]]
"""A finding, and the difference in each draw (n,), fractions."""


def over(by_draw: NDArray[np.float64]) -> Comparison:
    """Compare by the differences of draws (n,) that have test sets of their own."""
    return compare([Draw(np.array([value]), np.zeros(1), np.zeros(1, int)) for value in by_draw], shared=False)


def share(count: int, of: int) -> dict[str, Any]:
    """Return a share with its exact 95 % interval (Clopper and Pearson)."""
    low = float(betaincinv(count, of - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 0.975)) if count < of else 1.0
    return {"share": round(count / of, 4), "interval": [round(low, 4), round(high, 4)], "of": of}


def against_itself(series: Sequence[NDArray[np.float64]], tables: int, rng: np.random.Generator) -> tuple[int, int]:
    """Compare disjoint halves of the draws of one variant, all benchmarks in one table, as the report does.

    series: mAP of the draws (n,) of each benchmark, n at least 4. Gives the number of verdicts, all of them false, and
    of tables with any.
    """
    verdicts = failed = 0
    for _ in range(tables):
        pairs = [np.array_split(rng.permutation(values)[: 2 * (len(values) // 2)], 2) for values in series]
        found = judged([(CLAIM, over(half - other)) for half, other in pairs])
        false = sum(each.verdict != "undecided" for each in found)
        verdicts, failed = verdicts + false, failed + (false > 0)
    return verdicts, failed


def verdicts(claims: Sequence[Claim], draws: NDArray[np.int64]) -> list[str]:
    """Judge the claims by some of the draws."""
    return [found.verdict for found in judged([(replace(finding, why=""), over(d[draws])) for finding, d in claims])]


def halves(claims: Sequence[Claim], splits: int, rng: np.random.Generator) -> dict[str, int]:
    """Judge the claims by two disjoint halves of the draws; count equal, opposite and single verdicts."""
    counts = {"equal": 0, "opposite": 0, "one": 0}
    draws = len(claims[0][1])
    for _ in range(splits):
        order = rng.permutation(draws)
        parts = [verdicts(claims, part) for part in (order[: draws // 2], order[draws // 2 : 2 * (draws // 2)])]
        for pair in zip(*parts, strict=True):
            decided = [verdict for verdict in pair if verdict != "undecided"]
            if len(decided) == 2:
                counts["equal" if decided[0] == decided[1] else "opposite"] += 1
            counts["one"] += len(decided) == 1
    return counts


def power(claims: Sequence[Claim], subsets: int, rng: np.random.Generator) -> dict[str, float]:
    """Return number of draws -> share of the verdicts of all draws that so many of them give, too."""
    draws = len(claims[0][1])
    whole = verdicts(claims, np.arange(draws))
    decided = [i for i, verdict in enumerate(whole) if verdict != "undecided"]
    found = {}
    for count in range(2, draws + 1):
        equal = 0
        for _ in range(subsets):
            some = verdicts(claims, rng.permutation(draws)[:count])
            equal += sum(some[i] == whole[i] for i in decided)
        found[str(count)] = round(equal / (subsets * len(decided)), 4) if decided else 0.0
    return found


def simulated(draws: int, shared: bool, comparisons: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the share of false verdicts of simulated comparisons, and of tables of four with any."""
    person = np.arange(PEOPLE).repeat(EACH)

    def comparison(truth: float) -> Comparison:
        people = rng.normal(0, SPREAD["people"], (1 if shared else draws, PEOPLE)).repeat(EACH, axis=1)
        values = truth + people + rng.normal(0, SPREAD["draws"], (draws, 1))
        values = values + rng.normal(0, SPREAD["queries"], (draws, len(person)))
        return compare([Draw(each, np.zeros(len(person)), person) for each in values], shared=shared)

    def table() -> list[Finding]:
        claims = [replace(CLAIM, bound=bound) for bound in (None, None, 100 * LITTLE, 100 * LITTLE)]
        return judged([(each, comparison(0.0 if each.bound is None else LITTLE)) for each in claims])

    single = sum(comparison(0.0).p < ALPHA for _ in range(comparisons))
    tables = sum(any(each.verdict != "undecided" for each in table()) for _ in range(comparisons))
    return {
        "draws": draws,
        "shared": shared,
        "comparisons": share(single, comparisons),
        "tables": share(tables, comparisons),
    }


def read_claims(report: Mapping[str, Any]) -> list[Claim]:
    """Return the claims of a report that all its draws measured."""
    draws = len(report["about"]["draws"])
    found = [Finding(**each) for each in report["findings"]]
    return [(each, np.array(each.by_draw) / 100) for each in found if len(each.by_draw) == draws and each.p is not None]


def read_series(report: Mapping[str, Any], variant: str) -> list[NDArray[np.float64]]:
    """Return the mAP of a variant's draws on every benchmark."""
    values: dict[str, list[float]] = {}
    for run in report["runs"]:
        if run["variant"] == variant:
            values.setdefault(run["dataset"], []).append(run["mAP"])
    return [np.array(each) for each in values.values()]


def of_study(reports: Sequence[Mapping[str, Any]], variant: str) -> dict[str, Any]:
    """Calibrate by reports; the first is the study."""
    rng = np.random.default_rng(0)
    series = [each for report in reports for each in read_series(report, variant)]
    claims = read_claims(reports[0])
    draws = len(reports[0]["about"]["draws"])
    if not claims or min(map(len, series), default=0) < 4 or draws < 4:
        sys.exit(f"calibration: {draws} draws; a study of at least 4 is needed, all of them scored")
    false, failed = against_itself(series, TABLES, rng)
    comparisons = TABLES * len(series)
    counts = halves(claims, SPLITS, rng)
    both = counts["equal"] + counts["opposite"]
    return {
        "draws": draws,
        "claims": len(claims),
        "comparisons": comparisons,
        "independent": len(series),
        "false_verdicts": false / comparisons,
        "false_verdicts_interval": share(false, comparisons)["interval"],
        "tables_with_a_false_verdict": share(failed, TABLES),
        "half_agreement": round(counts["equal"] / both, 4) if both else None,
        "half_repeated": round(2 * counts["equal"] / (2 * both + counts["one"]), 4) if both else None,
        "halves": {"splits": SPLITS, **counts},
        "power": power(claims, SUBSETS, rng),
    }


def main() -> None:
    """Do what is not done yet, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", help="report.json of a study with many draws; then others")
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures; what is there is kept")
    parser.add_argument("--variant", default="default", help="the variant that is compared with itself")
    arguments = parser.parse_args()
    found = read_json(arguments.json) if arguments.json.is_file() else {}
    digests = [file_digest(path) for path in arguments.reports]

    def step(name: str, do: Callable[[], dict[str, Any]]) -> None:
        started = time.process_time()
        found.update(do())
        found["cpu_hours"] = round(found.get("cpu_hours", 0.0) + (time.process_time() - started) / 3600, 4)
        found["processor"] = made_with().processor
        write_json(arguments.json, found)
        print(f"{name}: done", flush=True)

    if found.get("reports") != digests:
        reports = [read_json(path) for path in arguments.reports]
        step("study", lambda: {"reports": digests, **of_study(reports, arguments.variant)})
    for shared in (False, True):
        for draws in (2, 4, 8, 16):
            done = found.setdefault("simulated", [])
            if not any((each["draws"], each["shared"]) == (draws, shared) for each in done):
                rng = np.random.default_rng([draws, shared])
                more = [*done, simulated(draws, shared, SIMULATIONS, rng)]
                step(f"{draws} draws, {'one' if shared else 'a'} test set", lambda more=more: {"simulated": more})
    for key in ("draws", "comparisons", "false_verdicts", "false_verdicts_interval", "half_agreement", "power"):
        print(f"{key}: {found[key]}")
    for each in found["simulated"]:
        print(each)


if __name__ == "__main__":
    main()
