"""Tables from hand-made scores: the exact Markdown, missing and collapsed runs, metrics.json, equal bytes."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from reid.artifacts import InputError
from reid.functional.tables import binned_means, mean_and_spread, paired_differences
from reid.reporting.markdown import cell_text, signed
from reid.reporting.runs import Cell
from reid.stages.tabulate import tabulate

PAPER = Path(__file__).parents[1] / "reports" / "paper.csv"
NBSP = "\N{NO-BREAK SPACE}"

SETTINGS = {
    "experiment": "embedded",
    "title": "Results",
    "command": "make it",
    "synthetic": True,
    "commit": "1a2b3c4",
    "parameters_digest": "3f9c41d2",
    "curves": True,
    "seeds": [0, 1],
    "runs": [f"{run}-seed{seed}" for run in ("market-default", "market-flip", "duke-default") for seed in (0, 1)],
    "allow_missing": False,
    "baseline": "default",
    "table1": [
        {"variant": "flip", "label": "✓ - -", "paper": "✓ - -"},
        {"variant": "default", "label": "- - ✓", "paper": "- - ✓"},
    ],
    "table2": [{"variant": "default", "label": "64 pixels (paper: 416)", "paper": "416 pixels"}],
    "table3": [
        {"group": "a) pooling", "variant": "default", "label": "max", "paper": "max"},
        {"group": "b) backbone", "variant": "default", "label": "ResNet-10", "paper": "ResNet-50"},
        {"group": "b) backbone", "variant": "flip", "label": "ResNet-14", "paper": "ResNet-101"},
    ],
    "table4": [{"variant": "default", "label": "Default", "paper": "Ours"}],
}

# (dataset, variant) -> mAP of seed 0, of seed 1
MAP = {("market", "default"): (0.58, 0.60), ("market", "flip"): (0.57, 0.62), ("duke", "default"): (0.45, 0.46)}


def result(protocol: str, rerank: str, value: float) -> dict[str, object]:
    return {
        "protocol": protocol,
        "rerank": rerank,
        "mAP": value,
        "mAP_step": value - 0.004,
        "rank1": value + 0.1,
        "rank5": value + 0.2,
        "rank10": value + 0.3,
        "queries": 60,
        "queries_without_match": 2 if protocol == "multi-query" else 0,
        "ap_rule": "trapezoid",
    }


def write_scores(folder: Path, collapsed: tuple[str, ...] = ()) -> list[Path]:
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for (dataset, variant), values in MAP.items():
        for seed, value in enumerate(values):
            protocols = {"market": ("single-query", "multi-query"), "duke": ("single-query",)}[dataset]
            reranks = {"none": 0.0, "qe-dba": 0.05, "k-reciprocal": 0.06}
            name = f"{dataset}-{variant}-seed{seed}"
            content = {
                "run": {"dataset": dataset, "variant": variant, "seed": seed, "backbone": "resnet10"},
                "collapsed": name in collapsed,
                "results": [result(p, r, value + gain) for p in protocols for r, gain in reranks.items()],
            }
            files.append(folder / f"{name}.json")
            files[-1].write_text(json.dumps(content))
    return files


@pytest.fixture
def scores(tmp_path: Path) -> list[Path]:
    return write_scores(tmp_path / "scores")


def table(number: int, scores: list[Path], out: Path, **changed: object) -> str:
    tabulate(scores=scores, paper=PAPER, settings=SETTINGS | changed, out=out)
    return (out / f"table{number}.md").read_text(encoding="utf-8").replace(NBSP, " ")


def test_scores_of_ones_own_data_have_a_table_of_their_own(scores, tmp_path):
    own = json.loads(scores[0].read_text())
    for seed in (0, 1):
        own["run"] |= {"dataset": "photos", "seed": seed}
        own["results"] = [result("single-query", "none", 0.5 + 0.1 * seed)]
        scores.append(tmp_path / f"scores/photos-default-seed{seed}.json")
        scores[-1].write_text(json.dumps(own))
    runs = [f"photos-default-seed{seed}" for seed in (0, 1)]
    none = {"runs": runs, "curves": False, **{f"table{number}": [] for number in (1, 2, 3, 4)}}
    assert "No run of this experiment belongs here." in table(1, scores, tmp_path / "out", **none)
    page = (tmp_path / "out/README.md").read_text(encoding="utf-8").replace(NBSP, " ")
    assert (
        """\
### Scores on datasets that the paper does not have

| Dataset   | Variant   | Protocol     | Re-ranking   |        mAP |     rank-1 |     rank-5 |    rank-10 |
|:----------|:----------|:-------------|:-------------|-----------:|-----------:|-----------:|-----------:|
| photos    | default   | single-query | none         | 55.0 ± 5.0 | 65.0 ± 5.0 | 75.0 ± 5.0 | 85.0 ± 5.0 |

- mAP and CMC in percent; ± is half the range of two seeds.
- AP: trapezoid; 60 queries.
"""
        in page
    )
    assert "Table 1" not in page and "figure7" not in page


def test_table_1_word_for_word(scores, tmp_path):
    # Market, default: mean of 58 and 60, half the range 1. Flip less default: -1 and +2, so +0.5 with half range 1.5.
    # The paper: 77.2 - 81.2 = -4.0. Flip was not planned on Duke.
    expected = """\
### Table 1. Data augmentation (mAP)

> **Our values are measured on the embedded rendered benchmark. They are NOT comparable with the paper's;** compare \
the direction and the size of the differences.

| flip   | crop   | cut-out   |     Market |   paper |       Duke |   paper |
|:-------|:-------|:----------|-----------:|--------:|-----------:|--------:|
| ✓      | -      | -         | 59.5 ± 2.5 |    77.2 |          - |    69.7 |
| -      | -      | ✓         | 59.0 ± 1.0 |    81.2 | 45.5 ± 0.5 |    72.9 |

Difference to the `default` row in points, ours paired by seed:

| flip   | crop   | cut-out   |   Δ Market |   Δ paper |   Δ Duke |   Δ paper |
|:-------|:-------|:----------|-----------:|----------:|---------:|----------:|
| ✓      | -      | -         | +0.5 ± 1.5 |      −4.0 |        - |      −3.2 |

- Experiment embedded, seeds 0 and 1; mAP and CMC in percent; ± is half the range of two seeds.
- AP: trapezoid. Step x recall instead of the trapezoid changes a run's mAP by −0.4 points (`metrics.json` has both).
- Protocol: Market single-query, 60 queries; Duke single-query, 60 queries.
- Commit 1a2b3c4, parameters 3f9c41d2.
"""
    assert table(1, scores, tmp_path / "out") == expected


def test_table_3_prints_a_group_once_and_compares_within_it(scores, tmp_path):
    text = table(3, scores, tmp_path / "out", runs=[run for run in SETTINGS["runs"] if "market" in run])
    assert "Duke" not in text  # no run of it is planned, so it has no columns
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "|             |           |     Market |   paper |",
        "|:------------|:----------|-----------:|--------:|",
        "| a) pooling  | max       | 59.0 ± 1.0 |    81.2 |",
        "| b) backbone | ResNet-10 | 59.0 ± 1.0 |    76.3 |",
        "|             | ResNet-14 | 59.5 ± 2.5 |    81.2 |",
        "|             |           |   Δ Market |   Δ paper |",
        "|:------------|:----------|-----------:|----------:|",
        "| b) backbone | ResNet-14 | +0.5 ± 1.5 |      +4.9 |",
    ]


def test_table_4_prints_all_published_rows_then_ours(scores, tmp_path):
    text = table(4, scores, tmp_path / "out")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    header, _, *body = cells
    assert header == [
        "",
        "Type",
        *("Market SQ<br>mAP", "<br>rank-1", "<br>rank-5"),
        *("Market MQ<br>mAP", "<br>rank-1", "<br>rank-5"),
        *("Duke<br>mAP", "<br>rank-1", "<br>rank-5"),
    ]
    assert body[0][0] == "**As printed in the paper**"
    assert [row[0] for row in body[21:26]] == [
        "Ours",
        "Improvement",
        "Re-ranking [57]",
        "TriNet (re-rank) [17]*",
        "Ours (re-rank)",
    ]
    assert body[1] == ["MG [41]", "-", "39.6", "65.9", "-", "48.4", "76.0", "-", "-", "-", "-"]
    assert [row[0] for row in body[26:]] == [
        "**This repository, embedded benchmark: NOT comparable**",
        "Default",
        "Default + QE and DBA",
        "Default + k-reciprocal",
    ]
    assert body[27][2:] == [*["59.0 ± 1.0", "69.0 ± 1.0", "79.0 ± 1.0"] * 2, "45.5 ± 0.5", "55.5 ± 0.5", "65.5 ± 0.5"]
    assert body[28][2] == "64.0 ± 1.0" and body[29][2] == "65.0 ± 1.0"
    assert "They are NOT comparable with the published rows" in text
    assert "Market MQ multi-query, 60 queries, of which 2 without a match score 0" in text


def test_table_4_leaves_out_what_a_benchmark_does_not_have_and_names_both_ap_rules(scores, tmp_path):
    search = scores[0].with_name("person-search-default-seed0.json")
    only = result("gallery-100", "none", 0.8) | {"ap_rule": "step"}
    run = {"dataset": "person-search", "variant": "default", "seed": 0, "backbone": "resnet10"}
    search.write_text(json.dumps({"run": run, "collapsed": False, "results": [only]}))
    names = ["market-default-seed0", "person-search-default-seed0"]
    text = table(4, [scores[0], search], tmp_path / "out", seeds=[0], runs=names)
    ours = [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("| Default")]
    assert ours == ["80.0", "-", "-"]
    assert "AP: trapezoid (Market SQ, Market MQ); step x recall (Person Search)." in text
    assert "seed 0; mAP and CMC in percent; one run a cell, so no spread." in text


def test_the_paper_experiment_carries_no_warning(scores, tmp_path):
    assert "comparable" not in table(4, scores, tmp_path / "out", synthetic=False)


def test_a_missing_run_is_named_with_its_file(scores, tmp_path):
    with pytest.raises(InputError, match=r"scores/market-flip-seed1\.json: no scores of run market-flip-seed1"):
        table(1, [path for path in scores if path.stem != "market-flip-seed1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_protocol_is_named_with_its_file(scores, tmp_path):
    content = json.loads(scores[0].read_text())
    content["results"] = content["results"][:1]
    scores[0].write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"market-default-seed0\.json: .* protocol multi-query, rerank none;"):
        table(4, scores, tmp_path / "out")


def test_a_missing_run_prints_an_em_dash_on_request(scores, tmp_path):
    absent = ("market-flip-seed1", "duke-default-seed0", "duke-default-seed1")
    text = table(1, [path for path in scores if path.stem not in absent], tmp_path / "out", allow_missing=True)
    assert "| ✓      | -      | -         | 57.0 (n=1) |    77.2 |      - |    69.7 |" in text
    assert "| -      | -      | ✓         | 59.0 ± 1.0 |    81.2 |      — |    72.9 |" in text
    assert "| −1.0 (n=1) |" in text
    assert text.endswith("- — Not run yet.\n- n: the seeds behind a value, where it is not all of them.\n")


def test_a_collapsed_run_is_marked_named_and_not_averaged(tmp_path):
    scores = write_scores(tmp_path / "scores", ("market-flip-seed1", "duke-default-seed0", "duke-default-seed1"))
    text = table(1, scores, tmp_path / "out")
    assert "| 57.0 (n=1) † |    77.2 |      - |" in text
    assert "|   59.0 ± 1.0 |    81.2 |      † |    72.9 |" in text
    assert "| −1.0 (n=1) † |" in text
    assert text.splitlines()[-2] == (
        "- † Collapsed in training (the loss ended at the margin): left out of every mean, no finding: "
        "Market flip seed 1 (mAP 62.0); Duke default seed 0 (mAP 45.0); Duke default seed 1 (mAP 46.0)."
    )


def test_metrics(tmp_path):
    out = tmp_path / "out"
    table(1, write_scores(tmp_path / "scores", ("market-flip-seed1",)), out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["duke", "market"]
    assert metrics["market"]["default"]["multi-query"]["qe-dba"]["mAP"] == {
        "n": 2,
        "mean": 0.64,
        "min": 0.63,
        "max": 0.65,
        "sd": 0.014142,
        "collapsed": 0,
    }
    flip = metrics["market"]["flip"]["single-query"]["none"]
    assert flip["rank10"] == {"n": 1, "mean": 0.87, "min": 0.87, "max": 0.87, "collapsed": 1}
    assert list(flip) == ["mAP", "mAP_step", "rank1", "rank5", "rank10"]


def test_a_run_that_is_not_planned_is_passed_over(scores, tmp_path):
    runs = [run for run in SETTINGS["runs"] if "flip" not in run]
    table(2, scores, tmp_path / "out", runs=runs)
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["market"]) == ["default"]


def test_readme_joins_tables_and_figures(scores, tmp_path):
    out = tmp_path / "out"
    paths = tabulate(scores=scores, paper=PAPER, settings=SETTINGS, out=out)
    assert [path.name for path in paths] == [*(f"table{i}.md" for i in (1, 2, 3, 4)), "metrics.json", "README.md"]
    page = (out / "README.md").read_text(encoding="utf-8")
    for i in (1, 2, 3, 4):
        assert (out / f"table{i}.md").read_text(encoding="utf-8").rstrip("\n") in page
    for figure in ("contact_sheet.png", "figure7.svg", "training_curves.svg"):
        assert f"]({figure})" in page
    assert page.startswith("# Results\n") and "```sh\nmake it\n```" in page


def test_bytes_depend_on_neither_order_nor_time(scores, tmp_path):
    first = tabulate(scores=scores, paper=PAPER, settings=SETTINGS, out=tmp_path / "first")
    again = tabulate(scores=scores[::-1], paper=PAPER, settings=SETTINGS, out=tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_one_run_twice_is_an_error_that_names_both_files(scores, tmp_path):
    twice = tmp_path / "copy.json"
    twice.write_bytes(scores[0].read_bytes())
    with pytest.raises(InputError, match=r"copy\.json: run market-default-seed0 is already in .*default-seed0\.json"):
        table(1, [*scores, twice], tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"results": []}, r"bad\.json: not a scores file \(KeyError\('run'\)\)"),
        (
            {
                "run": {"dataset": "duke", "variant": "x", "seed": 0},
                "collapsed": False,
                "results": [{"protocol": "tracklet", "rerank": "none", "mAP": 0.5}],
            },
            r"bad\.json: a result lacks mAP_step, rank1",
        ),
    ],
)
def test_a_damaged_scores_file_is_named(content, message, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        table(1, [bad], tmp_path / "out")


def test_a_label_of_table_1_has_three_marks(scores, tmp_path):
    with pytest.raises(InputError, match=r"table1: label '✓ ✓' has 2 words"):
        table(1, scores, tmp_path / "out", table1=[{"variant": "flip", "label": "✓ ✓", "paper": "✓ - -"}])


def test_the_commit_is_asked_of_git(scores, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert "Commit unknown," in table(2, scores, tmp_path / "out", commit=None)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    told = table(2, scores, tmp_path / "out", commit=None).split("Commit ")[1].split(",")[0]
    assert len(told) >= 7 and head.startswith(told)
    monkeypatch.setenv("PATH", str(work))
    assert "Commit unknown," in table(2, scores, tmp_path / "out", commit=None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.5], (0.5, None)), ([0.5, 0.6], (0.55, 0.05)), ([1.0, 2.0, 4.0], (7 / 3, (7 / 3) ** 0.5))],
)
def test_mean_and_spread(values, expected):
    # 1, 2, 4: deviations -4/3, -1/3, 5/3; squares sum to 42/9; over n - 1 = 2 that is 7/3.
    mean, spread = mean_and_spread(values)
    assert mean == pytest.approx(expected[0])
    assert spread == (None if expected[1] is None else pytest.approx(expected[1]))


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="no values"):
        mean_and_spread([])


def test_differences_pair_the_seeds_both_have():
    assert paired_differences({0: 3.0, 1: 5.0, 2: 1.0}, {2: 4.0, 0: 1.0}) == {0: 2.0, 2: -3.0}


def test_bins_average_all_items_once():
    assert binned_means(np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 2).tolist() == [2.0, 7.0]
    assert binned_means(np.array([1.0, 3.0]), 48).tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell({0: 0.5, 1: 0.6, 2: 0.7}, {}), f"60.0 ±{NBSP}10.0"),
        (Cell({0: 0.5, 1: 0.6}, {}), f"55.0 ±{NBSP}5.0 (n=2)"),
        (Cell({0: 0.5}, {1: 0.1, 2: 0.1}), "50.0 (n=1) †"),
        (Cell({}, {0: 0.1}), "†"),
        (Cell({}, {}), "—"),
    ],
)
def test_cell_text_of_three_seeds(cell, text):
    assert cell_text(cell, 3) == text


def test_signs():
    assert [signed(points) for points in (8.06, -0.06, 0.04, -0.04)] == ["+8.1", "−0.1", "0.0", "0.0"]
