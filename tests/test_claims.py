"""Verdicts on the paper's claims, from differences of known size."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reid_done_right.evaluation.statistics import Comparison, Interval
from reid_done_right.reporting.claims import CLAIMS, DOUBLINGS_TO_500K, decay, findings, verdict
from reid_done_right.reporting.markdown import findings_sheet, sheet_markdown
from reid_done_right.reporting.paper import parse_paper
from reid_done_right.reporting.runs import Run
from reid_done_right.reporting.shapes import TABLES

FILE = Path(__file__).parents[1] / "reports" / "paper.csv"
PAPER = parse_paper(FILE, FILE.read_text())
SETTINGS = {
    "experiment": "toy",
    "synthetic": True,
    "parameters_digest": "3f9c41d2",
    "draws": [0, 1],
    "runs": [f"market-{variant}-draw{draw}" for variant in ("default", "plain", "raw") for draw in (0, 1)],
    "baseline": "default",
    "table1": [{"variant": "plain", "paper": "- - -"}, {"variant": "default", "paper": "- - ✓"}],
    "table2": [],
    "table3": [{"variant": "raw", "paper": "no"}, {"variant": "default", "paper": "yes"}],
    "table4": [],
}


def comparison(mean: float, half: float, *by_seed: float) -> Comparison:
    return Comparison(Interval(mean, mean - half, mean + half), 0.01, by_seed)


@pytest.mark.parametrize(
    ("difference", "little", "expected"),
    [
        (comparison(0.02, 0.01, 0.01, 0.03), None, "supported"),
        (comparison(0.02, 0.01, -0.01, 0.05), None, "undecided"),  # the seeds do not agree
        (comparison(0.02, 0.03, 0.01, 0.03), None, "undecided"),  # the interval holds 0
        (Comparison(Interval(0.02, 0.01, 0.03), 0.06, (0.02,)), None, "undecided"),  # p does not agree with it
        (comparison(-0.02, 0.01, -0.01, -0.03), None, "contradicted"),
        (comparison(0.002, 0.005, 0.0, 0.004), 0.01, "supported"),
        (comparison(-0.02, 0.005, -0.01, -0.03), 0.01, "contradicted"),
        (comparison(0.008, 0.005, 0.0, 0.01), 0.01, "undecided"),
    ],
)
def test_verdicts(difference, little, expected):
    assert verdict(difference, little) == expected


def runs_of(collapsed: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """Market alone: default beats plain by 2 points on every query, raw collapsed; QE and DBA cost it 3 points."""
    runs, queries = {}, {}
    for variant, value in (("default", 0.6), ("plain", 0.58), ("raw", 0.3)):
        for seed in (0, 1):
            kinds = [("none", 0.0), ("qe-dba", -0.03)]
            result = {"ap_rule": "trapezoid"}
            results = {("single-query", rerank): result for rerank, _ in kinds}
            key = ("market", variant, seed)
            runs[key] = Run(Path("x.json"), *key, variant in collapsed, "portable", results)
            ap = value + 0.01 * seed + np.linspace(-0.1, 0.1, 20)
            queries[key] = pd.concat(
                pd.DataFrame({"protocol": "single-query", "rerank": rerank, "query": range(20), "ap": ap + gain})
                for rerank, gain in kinds
            ).assign(ap_step=0.0, first_hit_rank=1)
    return runs, queries


def test_claim_is_judged_where_it_was_measured():
    runs, queries = runs_of(collapsed=("raw",))
    found = findings(runs, queries, PAPER, [], SETTINGS)
    told = {(each.claim, each.benchmark): (each.verdict, each.mean, each.paper) for each in found}
    assert told == {
        ("Cut-out helps", "Market"): ("supported", pytest.approx(2.0), "+5.3"),  # 81.2 - 75.9
        ("Pretraining for classification helps", "Market"): ("undecided", None, "+4.1"),
        ("Re-ranking helps (QE and DBA)", "Market SQ"): ("contradicted", pytest.approx(-3.0), "+8.8"),
        ("Re-ranking helps (QE and DBA)", "Market MQ"): ("undecided", None, "+3.9"),
        ("Re-ranking helps (k-reciprocal)", "Market SQ"): ("undecided", None, "-"),
        ("Re-ranking helps (k-reciprocal)", "Market MQ"): ("undecided", None, "-"),
    }
    text = sheet_markdown(findings_sheet(found, SETTINGS))
    assert "collapsed in training: `market-raw-draw0`, `market-raw-draw1`" in text
    assert "is rendered" in text and "Digest of the parameters: 3f9c41d2" in text
    assert text.count("| **supported**") == 1


def test_missing_run_is_named():
    runs, queries = runs_of()
    del runs["market", "plain", 0], runs["market", "raw", 0], runs["market", "raw", 1]
    (cutout, pretraining, *_) = findings(runs, queries, PAPER, [], SETTINGS)
    assert (cutout.verdict, cutout.why) == ("supported", "not run yet: `market-plain-draw0`")
    assert (pretraining.mean, pretraining.why) == (None, "not run yet: `market-raw-draw0`, `market-raw-draw1`")


def test_every_claim_names_rows_that_the_paper_has():
    for claim in CLAIMS:
        table = TABLES[claim.table]
        values = [float(PAPER.value(table.number, row, "market", "mAP")) for row in (claim.better, claim.worse)]
        assert values[0] - values[1] > 1 or (claim.little and abs(values[0] - values[1]) <= 1)


@pytest.mark.parametrize(("lost", "expected"), [(0.02, "supported"), (0.03, "contradicted")])
def test_decay_is_held_to_the_papers_cost_of_a_doubling(lost, expected):
    """The paper loses 81.2 - 69.1 points over log2(519732 / 19732) doublings: 2.56 points each."""
    assert pytest.approx(2.564, abs=1e-3) == 12.1 / DOUBLINGS_TO_500K
    ap = np.linspace(0.2, 0.8, 30)
    one = {"dataset": "market", "variant": "deep", "gallery": 100, "distractors": 300}  # two doublings
    found = decay([one | {"fewest": ap, "most": ap - 2 * lost} for _ in (0, 1)])
    assert (found.verdict, found.mean, found.paper) == (expected, pytest.approx(-100 * lost), "−2.6")
