"""Verdicts on the paper's claims, from differences of known size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reid_done_right.evaluation.statistics import Comparison
from reid_done_right.params.report import TableClaim, paper_table
from reid_done_right.reporting.claims import COST, LITTLE, MEASURED, Finding, decay, findings, judged
from reid_done_right.reporting.comparisons import Scored
from reid_done_right.reporting.markdown import findings_sheet, sheet_markdown
from reid_done_right.reporting.paper import parse_paper
from reid_done_right.reporting.runs import Run

FILE = Path(__file__).parents[1] / "reports" / "paper.csv"
PAPER = parse_paper(FILE, FILE.read_text())


def row(variant: str, paper: str) -> dict[str, str]:
    return {"variant": variant, "label": paper, "paper": paper}


SETTINGS = {
    "experiment": "toy",
    "synthetic": True,
    "parameters_digest": "3f9c41d2",
    "draws": [0, 1],
    "runs": [f"market-{variant}-draw{draw}" for variant in ("default", "plain", "raw") for draw in (0, 1)],
    "baseline": "default",
    "claims": "the paper's claims",
    "tables": {
        "table1": paper_table("table1", [row("plain", "- - -"), row("default", "- - ✓")]),
        "table3": paper_table("table3", [row("raw", "no"), row("default", "yes")]),
        "table4": paper_table("table4", []),
    },
}


def comparison(*by_draw: float) -> Comparison:
    """Draws with test sets of their own."""
    freedom = len(by_draw) - 1
    return Comparison(by_draw, np.std(by_draw, ddof=1) / len(by_draw) ** 0.5, freedom)


def of(by_draw: Comparison | None, source: str = "Table 1", little: bool = False) -> tuple[Finding, Comparison | None]:
    return Finding("claim", source, "Market", "a − b", "+5.0", bound=1.5 if little else None), by_draw


BETTER = comparison(0.020, 0.022, 0.018, 0.021)
WORSE = comparison(-0.020, -0.022, -0.018, -0.021)
TIE = comparison(0.001, -0.002, 0.003, 0.0)


@pytest.mark.parametrize(
    ("difference", "little", "expected"),
    [
        (BETTER, False, "supported"),
        (comparison(0.02, -0.01, 0.05, 0.01), False, "undecided"),  # draws vary more
        (WORSE, False, "contradicted"),
        (TIE, False, "undecided"),
        (TIE, True, "supported"),
        (WORSE, True, "contradicted"),
        (BETTER, True, "contradicted"),
        (comparison(0.014, 0.012, 0.016, 0.014), True, "undecided"),  # at the bound
        (comparison(*[0.0] * 30, 0.016), True, "undecided"),  # p is below 0.001, but a draw is outside
        (comparison(0.05, -0.05), True, "undecided"),  # draws that differ in opposite directions
    ],
)
def test_verdict_of_a_claim_alone(difference, little, expected):
    (found,) = judged([of(difference, little=little)])
    assert found.verdict == expected and found.adjusted == found.p is not None
    assert ("can show" in found.why) == (expected == "undecided")


@pytest.mark.parametrize(
    ("difference", "expected"), [(WORSE, "supported"), (BETTER, "contradicted"), (TIE, "undecided")]
)
def test_claim_that_something_costs_wants_less(difference, expected):
    finding, _ = of(difference)
    (found,) = judged([(replace(finding, effect="costs"), difference)])
    assert found.verdict == expected


def test_what_is_only_measured_has_no_verdict_and_is_in_no_family():
    finding, difference = of(BETTER)
    found, other = judged([(replace(finding, effect=MEASURED), difference), of(BETTER)])
    assert (found.verdict, found.p, found.adjusted, found.why) == (MEASURED, None, None, "")
    assert found.mean == pytest.approx(2.025) and found.low < found.mean < found.high
    assert other.adjusted == other.p


def test_verdicts_of_a_table_share_its_level():
    """p = 0.03 decides a claim alone, but not one of two that are both no clearer; other tables do not count."""
    weak = comparison(0.01, 0.03, 0.014, 0.027, 0.0)
    assert 0.02 < weak.p < 0.05
    assert [each.verdict for each in judged([of(weak), of(weak, "Table 2")])] == ["supported"] * 2
    both = judged([of(weak), of(weak)])
    assert [each.verdict for each in both] == ["undecided"] * 2 and both[0].adjusted == pytest.approx(2 * weak.p)
    assert [each.verdict for each in judged([of(BETTER), of(weak)])] == ["supported"] * 2  # Holm, not Bonferroni


def test_one_draw_decides_nothing_and_is_in_no_family():
    one = Comparison((0.2,), 0.001, 99)
    alone, other = judged([of(one), of(BETTER)])
    assert (alone.verdict, alone.p, alone.smallest) == ("undecided", None, None) and "rests on one draw" in alone.why
    assert alone.low == pytest.approx(20 - 0.198, abs=1e-3) and other.adjusted == other.p


def test_undecided_claim_says_what_its_draws_could_have_shown():
    (found,) = judged([of(TIE)])
    assert found.smallest == pytest.approx(100 * TIE.smallest_effect)
    assert found.why == f"smallest difference that 4 draws can show: {found.smallest:.1f}"


def runs_of(collapsed: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """Market alone: default beats plain by 2 points on every query, raw by 30; QE and DBA cost it 3 points."""
    runs, queries = {}, {}
    for variant, value in (("default", 0.6), ("plain", 0.58), ("raw", 0.3)):
        for seed in (0, 1):
            kinds = [("none", 0.0), ("qe-dba", -0.03)]
            result = {"ap_rule": "trapezoid"}
            results = {("single-query", rerank): result for rerank, _ in kinds}
            key = f"market-{variant}-draw{seed}"
            about = ("market", variant, seed, variant in collapsed, "portable", results, "market")
            runs[key] = Run(Path("x.json"), *about)
            ap = value + 0.01 * seed + np.linspace(-0.1, 0.1, 20)
            queries[key] = pd.concat(
                pd.DataFrame({"protocol": "single-query", "rerank": rerank, "query": range(20), "ap": ap + gain})
                for rerank, gain in kinds
            ).assign(person_id=lambda rows: rows["query"] // 2, relevant=1, ap_step=0.0, first_hit_rank=1)
    return runs, queries


def test_claim_is_judged_where_it_was_measured():
    runs, queries = runs_of(collapsed=("raw",))
    found = findings(runs, queries, PAPER, [], SETTINGS)
    told = {(each.claim, each.benchmark): (each.verdict, each.mean, each.paper) for each in found}
    assert told == {
        ("Cut-out helps", "Market"): ("supported", pytest.approx(2.0), "+5.3"),  # 81.2 - 75.9
        ("Pretraining for classification helps", "Market"): ("supported", pytest.approx(30.0), "+4.1"),
        ("Re-ranking helps (QE and DBA)", "Market SQ"): ("contradicted", pytest.approx(-3.0), "+8.8"),
        ("Re-ranking helps (QE and DBA)", "Market MQ"): ("undecided", None, "+3.9"),
        ("Re-ranking helps (k-reciprocal)", "Market SQ"): ("undecided", None, "-"),
        ("Re-ranking helps (k-reciprocal)", "Market MQ"): ("undecided", None, "-"),
    }
    text = sheet_markdown(findings_sheet(found, SETTINGS))
    assert "| 2 of 4 runs collapsed in training |" in text.replace("  ", "")  # they are outcomes
    assert "is rendered" in text and "Digest of the parameters: 3f9c41d2" in text
    assert text.count("| **supported**") == 2


def test_missing_run_is_named():
    runs, queries = runs_of()
    del runs["market-plain-draw0"], runs["market-raw-draw0"], runs["market-raw-draw1"]
    (cutout, pretraining, *_) = findings(runs, queries, PAPER, [], SETTINGS)
    assert cutout.verdict == "undecided" and cutout.mean == pytest.approx(2.0)
    assert cutout.why == "not run yet: `market-plain-draw0`; rests on one draw, which says nothing of others"
    assert (pretraining.mean, pretraining.why) == (None, "not run yet: `market-raw-draw0`, `market-raw-draw1`")


@pytest.mark.parametrize("paper", [-2.5, ["max", "average"]])
def test_claim_may_say_what_the_paper_prints(paper):
    runs, queries = runs_of()
    design = paper_table("table3", [row("raw", "no"), row("default", "yes")])
    claims = [TableClaim(text="x", worse="raw", paper=paper, columns=["Market"])]
    settings = SETTINGS | {"tables": {"table6": design.model_copy(update={"claims": claims})}}
    (found,) = findings(runs, queries, PAPER, [], settings)
    assert (found.here, found.source, found.paper) == ("default − raw", "Table 6", "−2.5" if paper == -2.5 else "+1.1")


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_every_claim_names_rows_that_the_paper_has(name):
    table = paper_table(name, [])
    assert table.claims
    for claim in table.claims:
        for column in table.columns:
            better, worse = (
                float(PAPER.value(table.paper, row, column.paper, "mAP")) for row in (claim.better, claim.worse)
            )
            assert (better - worse > 1) if claim.effect == "helps" else (abs(better - worse) <= 100 * LITTLE)


def test_decay_is_measured_beside_the_papers_cost_of_a_doubling():
    """The paper loses 81.2 - 69.1 points over log2(519732 / 19732) doublings: 2.56 points each."""
    assert pytest.approx(2.564, abs=1e-3) == COST
    ap, tested = np.linspace(0.2, 0.8, 30), (np.arange(30), np.ones(30, int))
    one = {"dataset": "market", "variant": "deep", "gallery": 100, "distractors": 300}  # two doublings
    members = [
        one | {"run": f"r{draw}", "fewest": Scored(ap, *tested), "most": Scored(ap - 2 * lost, *tested)}
        for draw, lost in enumerate((0.02, 0.04))
    ]
    found = decay(members, "market-deep")
    assert (found.verdict, found.mean, found.paper) == ("measured", pytest.approx(-3.0), "−2.6")
    assert found.by_draw == pytest.approx((-2, -4)) and found.p is None
    assert decay([], "market-deep").mean is None
