"""Tables from hand-made scores: exact Markdown, missing and collapsed runs, report.json, equal bytes."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from conftest import needs
from reid_done_right.artifacts import InputError
from reid_done_right.params.report import paper_table
from reid_done_right.reporting.latex import tex
from reid_done_right.reporting.runs import Cell
from reid_done_right.reporting.tables import cell_text, interval_text, signed
from reid_done_right.stages.tabulate import tabulate

PAPER = Path(__file__).parents[1] / "reports" / "paper.csv"
NBSP = "\N{NO-BREAK SPACE}"

SETTINGS = {
    "experiment": "embedded",
    "title": "Results",
    "command": "make it",
    "synthetic": True,
    "contact_sheet": True,
    "parameters_digest": "3f9c41d2",
    "draws": [0, 1],
    "claims": "the paper's claims",
    "runs": [f"{run}-draw{seed}" for run in ("market-default", "market-flip", "duke-default") for seed in (0, 1)],
    "curves": ["market-default-draw0", "market-default-draw1"],
    "shown": ["market-default-draw0"],
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


def write_scores(folder: Path, collapsed: tuple[str, ...] = (), native: tuple[str, ...] = ()) -> list[Path]:
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for (dataset, variant), values in MAP.items():
        for seed, value in enumerate(values):
            protocols = ("single-query", "multi-query") if dataset == "market" else ("single-query",)
            reranks = {"none": 0.0, "qe-dba": 0.05, "k-reciprocal": 0.06}
            name = f"{dataset}-{variant}-draw{seed}"
            content = {
                "run": {"dataset": dataset, "variant": variant, "draw": seed, "backbone": "resnet10"},
                "collapsed": name in collapsed,
                "numerics": "native" if name in native else "portable",
                "results": [result(p, r, value + gain) for p in protocols for r, gain in reranks.items()],
            }
            files.append(folder / f"{name}.json")
            files[-1].write_text(json.dumps(content))
            of_queries = [
                {
                    "protocol": p,
                    "rerank": r,
                    "query": q,
                    "person_id": q // 2,
                    "relevant": 1,
                    "ap": value + gain,
                    "ap_step": 0.5,
                    "first_hit_rank": 1,
                }
                for p in protocols
                for r, gain in reranks.items()
                for q in range(6)
            ]
            pd.DataFrame(of_queries).to_parquet(folder / f"{name}.parquet")
    return files


def write_curves(folder: Path, collapsed: tuple[str, ...] = ()) -> dict[str, list[Path]]:
    """Curves whose mAP falls by one point where 100 distractors join a gallery of 100."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {"curves": [], "decays": []}
    for name in SETTINGS["curves"]:
        run = {"dataset": "market", "variant": "default", "draw": int(name[-1]), "backbone": "resnet10"}
        content = {"run": run, "collapsed": name in collapsed, "gallery": 100, "sizes": [0, 100]}
        files["curves"].append(folder / f"{name}.json")
        files["curves"][-1].write_text(json.dumps(content))
        files["decays"].append(folder / f"{name}.parquet")
        ends = {"query": range(6), "person_id": range(6), "relevant": 1, "ap_fewest": [0.6] * 6, "ap_most": [0.59] * 6}
        pd.DataFrame(ends).to_parquet(files["decays"][-1])
    return files


@pytest.fixture
def scores(tmp_path: Path) -> list[Path]:
    return write_scores(tmp_path / "scores")


def table(number: int, scores: list[Path], out: Path, **changed: object) -> str:
    run(scores, out, **changed)
    return (out / f"table{number}.md").read_text(encoding="utf-8").replace(NBSP, " ")


def test_own_data_scores_have_separate_table(scores, tmp_path):
    own = json.loads(scores[0].read_text())
    for seed in (0, 1):
        own["run"] |= {"dataset": "photos", "draw": seed}
        own["results"] = [result("single-query", "none", 0.5 + 0.1 * seed)]
        scores.append(tmp_path / f"scores/photos-default-draw{seed}.json")
        scores[-1].write_text(json.dumps(own))
        of_queries = pd.read_parquet(scores[0].with_suffix(".parquet"))
        of_queries.to_parquet(scores[-1].with_suffix(".parquet"))
    runs = [f"photos-default-draw{seed}" for seed in (0, 1)]
    none = {
        "runs": runs,
        "claims": "",
        "curves": [],
        "shown": [],
        **{f"table{number}": [] for number in (1, 2, 3, 4)},
    }
    assert "No run of this experiment belongs here." in table(1, scores, tmp_path / "out", **none)
    assert "No run of this experiment belongs here." in (tmp_path / "out/findings.md").read_text()
    page = (tmp_path / "out/README.md").read_text(encoding="utf-8").replace(NBSP, " ")
    assert (
        """\
### Scores on datasets that the paper does not have

| Dataset   | Variant   | Protocol     | Re-ranking   |        mAP |     rank-1 |     rank-5 |    rank-10 |
|:----------|:----------|:-------------|:-------------|-----------:|-----------:|-----------:|-----------:|
| photos    | default   | single-query | none         | 55.0 ± 7.1 | 65.0 ± 7.1 | 75.0 ± 7.1 | 85.0 ± 7.1 |

- mAP and CMC in percent; ± is the sample standard deviation over draws.
- AP: trapezoid; 60 queries.
"""
        in page
    )
    for absent in ("Table 1", "Findings:", "forest", "figure7", "figure4", "similarities"):
        assert absent not in page
    (sheet,) = json.loads((tmp_path / "out/report.json").read_text())["tables"]
    assert sheet["name"] == "others"


def test_table_like_the_papers_prints_the_same(scores, tmp_path):
    """The paper's tables are an instance of what an experiment may have: only the number differs."""
    out = tmp_path / "out"
    again = {
        name.replace("table", "table1"): paper_table(name, SETTINGS[name]) for name in ("table1", "table3", "table4")
    }
    run(scores, out, tables={name: design.model_dump() for name, design in again.items()})
    for name in again:
        paper = name.replace("table1", "table", 1)
        for kind in ("md", "html", "tex", "csv"):
            text = (out / f"{name}.{kind}").read_text(encoding="utf-8")
            text = text.replace(name, paper).replace(f"Table 1{paper[-1]}", f"Table {paper[-1]}")
            text = re.sub(rf"^1{paper[-1]}(?=,)", paper[-1], text, flags=re.MULTILINE)
            assert text == (out / f"{paper}.{kind}").read_text(encoding="utf-8")


WILDLIFE = {
    "caption": "Turtles and whales",
    "headers": ["Network", "Side"],
    "columns": [
        {"title": "Turtles", "dataset": "turtles", "protocol": "single-query", "metrics": ["mAP", "rank-1"]},
        {"title": "Whales", "dataset": "whales", "protocol": "single-query"},
    ],
    "rows": [{"variant": "default", "label": "small 64"}, {"variant": "wide", "label": "wide 64"}],
    "claims": [{"text": "Wide costs", "better": "wide", "effect": "costs"}],
}


def test_table_of_other_datasets_needs_no_value_of_the_paper(tmp_path, monkeypatch):
    # Every query scores its run's mean: wide less default is -1 and +2 points on turtles; nothing of whales was planned.
    monkeypatch.setitem(MAP, ("turtles", "default"), (0.58, 0.60))
    monkeypatch.setitem(MAP, ("turtles", "wide"), (0.57, 0.62))
    runs = [f"turtles-{variant}-draw{seed}" for variant in ("default", "wide") for seed in (0, 1)]
    own = {"tables": {"table6": WILDLIFE}, "runs": runs, "claims": "claims", "synthetic": False}
    text = table(6, write_scores(tmp_path / "scores"), tmp_path / "out", **own)
    assert text.startswith(
        """\
### Table 6. Turtles and whales

| Network   | Side   |   Turtles mAP |   Turtles rank-1 |
|:----------|:-------|--------------:|-----------------:|
| small     | 64     |    59.0 ± 1.4 |       69.0 ± 1.4 |
| wide      | 64     |    59.5 ± 3.5 |       69.5 ± 3.5 |

Difference to the `default` row in points, ours paired by query and draw:

| Network   | Side   |       Δ Turtles mAP |   Δ Turtles rank-1 |
|:----------|:-------|--------------------:|-------------------:|
| wide      | 64     | +0.5 [−18.6, +19.6] |   0.0 [+0.0, +0.0] |

"""
    )
    assert "paper" not in text
    findings = " ".join((tmp_path / "out/findings.md").read_text(encoding="utf-8").split())
    assert "### Findings: claims on this experiment | Claim | Source |" in findings
    assert "| Wide costs (wide − default) | Table 6 | Turtles | **undecided** | +0.5 [−18.6, +19.6] |" in findings
    assert "that the paper does not have" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_what_is_trained_elsewhere_is_a_row_and_its_loss_a_difference(scores, tmp_path):
    # Duke: 45 and 46 of its own, 30 and 33 of Market's, so -15 and -13 points: -14 ± 12.7.
    names = [f"market-default-on-duke-draw{seed}" for seed in (0, 1)]
    for seed, value in enumerate((0.30, 0.33)):
        own = tmp_path / f"scores/duke-default-draw{seed}.json"
        content = json.loads(own.read_text())
        content["run"]["trained_on"] = "market"
        content["results"] = [result("single-query", "none", value)]
        scores.append(own.with_stem(names[seed]))
        scores[-1].write_text(json.dumps(content))
        rows = pd.read_parquet(own.with_suffix(".parquet"))
        rows[rows["rerank"] == "none"].assign(ap=value).to_parquet(scores[-1].with_suffix(".parquet"))
    planned = {"runs": SETTINGS["runs"] + names}
    before = table(6, scores, tmp_path / "out", tables={"table6": WILDLIFE}, **planned)
    page = (tmp_path / "out/README.md").read_text(encoding="utf-8").replace(NBSP, " ")
    assert "No run of this experiment belongs here." in before and "### Scores that no other table has" in page
    assert "| duke      | default, trained on market | single-query | none         | 31.5 ± 2.1 |" in page
    design = {
        "caption": "Across",
        "headers": ["Trained on"],
        "columns": [
            {"title": "Market", "dataset": "market", "protocol": "single-query"},
            {"title": "Duke", "dataset": "duke", "protocol": "single-query", "metrics": ["mAP", "rank-1"]},
        ],
        "rows": [{"variant": "default", "trained_on": name.lower(), "label": name} for name in ("Market", "Duke")],
        "claims": [{"text": "Elsewhere costs", "effect": "costs"}],
    }
    text = table(6, scores, tmp_path / "out", tables={"table6": design}, **planned)
    assert (
        """\
| Trained on   |   Market mAP |       Duke mAP |   Duke rank-1 |
|:-------------|-------------:|---------------:|--------------:|
| Market       |   59.0 ± 1.4 |     31.5 ± 2.1 |    41.5 ± 2.1 |
| Duke         |            - | **45.5 ± 0.7** |    55.5 ± 0.7 |

Difference to training on the column's own dataset in points, ours paired by query and draw:

| Trained on   |   Δ Market mAP |              Δ Duke mAP |    Δ Duke rank-1 |
|:-------------|---------------:|------------------------:|-----------------:|
| Market       |              - | **−14.0 [−26.7, −1.3]** | 0.0 [+0.0, +0.0] |
"""
        in text
    )
    findings = " ".join((tmp_path / "out/findings.md").read_text(encoding="utf-8").replace(NBSP, " ").split())
    assert (
        "| Elsewhere costs (trained on market) (default: market − duke) | Table 6 | Duke | **supported** | −14.0"
        in findings
    )
    assert "no other table has" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "out/report.json").read_text())
    (moved, _) = (each for each in report["runs"] if "training" in each)
    assert (moved["name"], moved["training"]) == (names[0], "market-default-draw0")
    assert report["scores"]["duke"]["default, trained on market"]["single-query"]["none"]["mAP"]["mean"] == 0.315
    assert json.loads((tmp_path / "out/metrics.json").read_text())["duke"]["single-query mAP"] == 0.455
    lines = pd.read_csv(tmp_path / "out/table6.csv").set_index(["trained_on", "column", "metric"])
    assert lines.loc[("market", "Duke", "mAP"), ["mean", "change"]].tolist() == pytest.approx([0.315, -0.14])


def test_rows_one_by_one_differ_from_the_row_before_as_well(scores, tmp_path, monkeypatch):
    # Of +cut-out, to +flip: 58 - 57 and 60 - 62 points, the opposite of the others' +0.5 ± 19.1.
    column = {"title": "Market", "dataset": "market", "protocol": "single-query", "paper": "market"}
    rows = [("b", "default", "plain"), ("b", "flip", "+ flip"), ("b", "default", "+ cut-out"), ("a", "flip", "flip")]
    design = {
        "caption": "One by one",
        "headers": ["", ""],
        "columns": [column],
        "paper": "1",
        "rows": [{"group": group, "variant": variant, "label": label} for group, variant, label in rows],
        "groups": {"b": {"to": "previous"}},
    }
    design["rows"][1]["paper"] = "✓ - -"
    text = table(6, scores, tmp_path / "out", tables={"table6": design})
    assert (
        """\
|    |           |     Market |   paper |
|:---|:----------|-----------:|--------:|
| b  | plain     | 59.0 ± 1.4 |       - |
|    | + flip    | 59.5 ± 3.5 |    77.2 |
|    | + cut-out | 59.0 ± 1.4 |       - |
| a  | flip      | 59.5 ± 3.5 |       - |

Difference to the `default` row in points, ours paired by query and draw:

|    |           |            Δ Market |   Δ paper |
|:---|:----------|--------------------:|----------:|
| b  | + flip    | +0.5 [−18.6, +19.6] |         - |
|    | + cut-out |    0.0 [+0.0, +0.0] |         - |

Difference to the row before in points, ours paired by query and draw:

|    |           |            Δ Market |   Δ paper |
|:---|:----------|--------------------:|----------:|
| b  | + flip    | +0.5 [−18.6, +19.6] |         - |
|    | + cut-out | −0.5 [−19.6, +18.6] |         - |

"""
        in text
    )
    rows = pd.read_csv(tmp_path / "out/table6.csv").set_index("row")
    assert rows.loc["+ cut-out", ["step", "step_low"]].tolist() == pytest.approx([-0.005, -0.1956], abs=1e-4)
    assert rows["step"].count() == 2 and "step" not in pd.read_csv(tmp_path / "out/table1.csv")
    latex = (tmp_path / "out/table6.tex").read_text()
    assert [f"tab:table6{part}}}" in latex for part in ("", "-changes", "-steps")] == [True] * 3


def write_inspections(folder: Path) -> list[Path]:
    """Draw 0 of flip loses 20 points to the hottest tiles and 5 to random ones, draw 1 loses 30 and collapsed."""
    files = []
    for variant, draw, hottest in (("default", 0, 0.3), ("default", 1, 0.1), ("flip", 0, 0.3), ("flip", 1, 0.2)):
        content = {
            "run": {"dataset": "market", "variant": variant, "draw": draw, "backbone": "resnet10"},
            **{"collapsed": (variant, draw) == ("flip", 1), "numerics": "portable", "above": 0.1},
            **{
                "clean": {"queries": 50 + draw, "mAP": 0.6},
                "occluded": {"queries": 10 - draw, "mAP": 0.4 + 0.1 * draw},
            },
            "heat": {"queries": 20, "without": draw, "inside": 0.5, "person": 0.3},
            "mAP": {"whole": 0.5, "hottest": hottest, "random": 0.45},
            "tiles": {"blanked": 8, "of": 32},
        }
        if (variant, draw) == ("flip", 1):
            content["occluded"] = {"queries": 9, "mAP": None}
        files.append(folder / f"market-{variant}-draw{draw}.json")
        files[-1].write_text(json.dumps(content))
    return files


def test_inspected_variants_have_a_table_of_what_they_look_at(scores, tmp_path):
    files = write_inspections(tmp_path)
    inspected = [path.stem for path in files]
    run(scores, tmp_path / "out", files, inspected=inspected)
    page = (tmp_path / "out/README.md").read_text(encoding="utf-8").replace(NBSP, " ")
    assert (
        """\
### What the networks look at

| Benchmark   | Variant   |    clean mAP |   occluded mAP |   heat on the person |   the person's share |   mAP of these |   loss, hottest blanked |   loss, random blanked |
|:------------|:----------|-------------:|---------------:|---------------------:|---------------------:|---------------:|------------------------:|-----------------------:|
| Market      | default   |   60.0 ± 0.0 |     45.0 ± 7.1 |           50.0 ± 0.0 |           30.0 ± 0.0 |     50.0 ± 0.0 |             30.0 ± 14.1 |              5.0 ± 0.0 |
| Market      | flip      | 60.0 ± 0.0 † |     40.0 (n=1) |         50.0 ± 0.0 † |         30.0 ± 0.0 † |   50.0 ± 0.0 † |            25.0 ± 7.1 † |            5.0 ± 0.0 † |

- mAP, shares and losses of mAP in percent; mean ± sample standard deviation over draws. Occluded: an obstacle covers \
more than 10 % of the person in the image (9 to 10 queries; clean: 50 to 51), as the renderer drew it.
"""
        in page
    )
    assert "Mean over 20 queries, evenly spaced." in page and "if the hottest 8 of 32 tiles of each" in page
    assert (
        "Queries without any heat are left out: 2.\n- † Some of these runs collapsed in training; they count." in page
    )
    assert "inspection" in [sheet["name"] for sheet in json.loads((tmp_path / "out/report.json").read_text())["tables"]]
    run(scores, tmp_path / "none", files)  # not planned
    assert "What the networks look at" not in (tmp_path / "none/README.md").read_text(encoding="utf-8")


def test_missing_inspection_is_an_error_unless_allowed(scores, tmp_path):
    files = write_inspections(tmp_path)
    inspected = [path.stem for path in files]
    with pytest.raises(InputError, match=r"market-flip-draw1\.json: nothing measured .*; run `reid inspect` for it"):
        run(scores, tmp_path / "out", files[:3], inspected=inspected)
    run(scores, tmp_path / "out", files[:3], inspected=inspected, allow_missing=True)
    page = (tmp_path / "out/README.md").read_text(encoding="utf-8").replace(NBSP, " ")
    assert re.search(r"\| Market +\| flip +\| +60\.0 \(n=1\) \|", page)
    files[0].write_text("{}")
    with pytest.raises(
        InputError, match=r"market-default-draw0\.json: not what `reid inspect` writes \(KeyError\('clean'\)\); run it"
    ):
        run(scores, tmp_path / "out", files, inspected=inspected)


def planned(**changed: object) -> dict[str, object]:
    """Settings with the paper's tables, as the plan writes them."""
    settings = SETTINGS | changed
    rows = {name: settings.pop(name) for name in ("table1", "table2", "table3", "table4")}
    tables = {name: paper_table(name, given).model_dump() for name, given in rows.items()}
    return settings | {"tables": tables | settings.get("tables", {})}


def run(scores: list[Path], out: Path, inspections: list[Path] | None = None, **changed: object) -> list[Path]:
    inputs = {"scores": scores, "queries": [path.with_suffix(".parquet") for path in scores]}
    inputs |= write_curves(out.parent / "curves") | {"inspections": inspections or [], "identified": []}
    return tabulate(**inputs, paper=PAPER, settings=planned(**changed), out=out)


def test_table_1_word_for_word(scores, tmp_path):
    # Market, default: mean of 58 and 60, deviation 2 / sqrt(2). Every query scores its run's mean, so that intervals come
    # from draws alone. Flip less default: -1 and +2, so +0.5 ± 12.7 x 1.5, and nothing is bold.
    # The paper: 77.2 - 81.2 = -4.0. Flip was not planned on Duke.
    expected = """\
### Table 1. Data augmentation (mAP)

> **Our values are measured on the embedded rendered benchmark. They are NOT comparable with the paper's;** compare \
the direction and the size of the differences.

| flip   | crop   | cut-out   |     Market |   paper |       Duke |   paper |
|:-------|:-------|:----------|-----------:|--------:|-----------:|--------:|
| ✓      | -      | -         | 59.5 ± 3.5 |    77.2 |          - |    69.7 |
| -      | -      | ✓         | 59.0 ± 1.4 |    81.2 | 45.5 ± 0.7 |    72.9 |

Difference to the `default` row in points, ours paired by query and draw:

| flip   | crop   | cut-out   |            Δ Market |   Δ paper |   Δ Duke |   Δ paper |
|:-------|:-------|:----------|--------------------:|----------:|---------:|----------:|
| ✓      | -      | -         | +0.5 [−18.6, +19.6] |      −4.0 |        - |      −3.2 |

- Experiment embedded, draws 0 and 1; mAP and CMC in percent; ± is the sample standard deviation over draws.
- [a, b]: 95 % interval of the paired difference, by Student's t over draws; where these share their test set, over its \
persons as well. Bold: p is below 0.05 for the difference, or for the lead of the best of a column over the next. The \
number of cells is not corrected for; that of claims, in the findings, is.
- AP: trapezoid. Step x recall instead of the trapezoid changes a run's mAP by −0.4 points (`report.json` has both).
- Protocol: Market single-query, 60 queries; Duke single-query, 60 queries.
- Digest of the parameters: 3f9c41d2.
"""
    assert table(1, scores, tmp_path / "out") == expected


def test_table_3_of_real_data_prints_a_group_once_and_subtracts_the_paper(scores, tmp_path):
    # 59.0 - 81.2 = -22.2, 59.0 - 76.3 = -17.3, 59.5 - 81.2 = -21.7
    market = [run for run in SETTINGS["runs"] if "market" in run]
    text = table(3, scores, tmp_path / "out", runs=market, synthetic=False)
    assert "Duke" not in text  # no run of it is planned, so it has no columns
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "|             |           |     Market |   paper |   less paper |",
        "|:------------|:----------|-----------:|--------:|-------------:|",
        "| a) pooling  | max       | 59.0 ± 1.4 |    81.2 |        −22.2 |",
        "| b) backbone | ResNet-10 | 59.0 ± 1.4 |    76.3 |        −17.3 |",
        "|             | ResNet-14 | 59.5 ± 3.5 |    81.2 |        −21.7 |",
        "|             |           |            Δ Market |   Δ paper |",
        "|:------------|:----------|--------------------:|----------:|",
        "| b) backbone | ResNet-14 | +0.5 [−18.6, +19.6] |      +4.9 |",
    ]


def test_table_4_prints_all_published_rows_then_ours(scores, tmp_path):
    text = table(4, scores, tmp_path / "out")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    header, _, *body = cells
    benchmarks = ("Market SQ", "Market MQ", "Duke")
    assert header == ["", "Type", *(f"{b} {metric}" for b in benchmarks for metric in ("mAP", "rank-1", "rank-5"))]
    body = [row for row in body if "Δ" not in row[2] and ":" not in row[2]]
    assert body[0][0] == "**As printed in the paper**"
    assert [row[0] for row in body[21:26]] == [
        "Ours",
        "Improvement",
        "Re-ranking [57]",
        "TriNet (re-rank) [17]*",
        "Ours (re-rank)",
    ]
    assert body[1] == ["MG [41]", "-", "39.6", "65.9", "-", "48.4", "76.0", "-", "-", "-", "-"]
    assert [row[0] for row in body[26:32]] == [
        "**This repository, embedded benchmark: NOT comparable**",
        "Default",
        "Default + QE and DBA",
        "Default + k-reciprocal",
        "Default + QE and DBA",
        "Default + k-reciprocal",
    ]
    assert body[27][2:] == [*["59.0 ± 1.4", "69.0 ± 1.4", "79.0 ± 1.4"] * 2, "45.5 ± 0.7", "55.5 ± 0.7", "65.5 ± 0.7"]
    assert body[28][2] == "64.0 ± 1.4" and body[29][2] == "**65.0 ± 1.4**"
    assert [row[:3] for row in body[30:]] == [
        ["Default + QE and DBA", "-", "**+5.0 [+5.0, +5.0]**"],
        ["Default + k-reciprocal", "-", "**+6.0 [+6.0, +6.0]**"],
    ]
    assert "They are NOT comparable with the published rows" in text
    assert "Market MQ multi-query, 60 queries, of which 2 without a match score 0" in text


def test_table_4_of_real_data_subtracts_the_rows_of_the_same_kind(scores, tmp_path):
    lines = table(4, scores, tmp_path / "out", synthetic=False).splitlines()
    (start,) = (place for place, line in enumerate(lines) if "This repository less the paper's row" in line)
    first, second = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 1 : start + 3])
    assert first[:5] == ["Default − Ours", "-", "−22.2", "−23.2", "−18.9"]  # 59.0 - 81.2, 69.0 - 92.2, 79.0 - 97.9
    assert second[0] == "Default + QE and DBA − Ours (re-rank)" and second[2] == "−26.0"  # 64.0 - 90.0


def test_table_4_omits_missing_and_names_both_ap_rules(scores, tmp_path):
    search = scores[0].with_name("person-search-default-draw0.json")
    only = result("gallery-100", "none", 0.8) | {"ap_rule": "step"}
    run = {"dataset": "person-search", "variant": "default", "draw": 0, "backbone": "resnet10"}
    search.write_text(json.dumps({"run": run, "collapsed": False, "numerics": "portable", "results": [only]}))
    rows = {
        "protocol": ["gallery-100"],
        "rerank": ["none"],
        "query": [0],
        "person_id": [0],
        "relevant": [1],
        "ap": [0.8],
        "ap_step": [0.8],
    }
    pd.DataFrame(rows | {"first_hit_rank": [1]}).to_parquet(search.with_suffix(".parquet"))
    names = ["market-default-draw0", "person-search-default-draw0"]
    text = table(4, [scores[0], search], tmp_path / "out", draws=[0], runs=names)
    ours = [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("| Default")]
    assert ours[:3] == ["80.0", "-", "-"]
    assert "AP: trapezoid (Market SQ, Market MQ); step x recall (Person Search)." in text
    assert "draw 0; mAP and CMC in percent; one run a cell, so no spread." in text
    assert "One draw says nothing of others: no bold." in text and "**+" not in text


def test_paper_experiment_carries_no_warning(scores, tmp_path):
    assert "comparable" not in table(4, scores, tmp_path / "out", synthetic=False)


def test_missing_run_is_named_with_its_file(scores, tmp_path):
    with pytest.raises(InputError, match=r"scores/market-flip-draw1\.json: no scores of run market-flip-draw1"):
        table(1, [path for path in scores if path.stem != "market-flip-draw1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_protocol_is_named_with_its_file(scores, tmp_path):
    content = json.loads(scores[0].read_text())
    content["results"] = content["results"][:1]
    scores[0].write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"market-default-draw0\.json: .* protocol multi-query, rerank none;"):
        table(4, scores, tmp_path / "out")


def test_missing_run_prints_an_em_dash_on_request(scores, tmp_path):
    absent = ("market-flip-draw1", "duke-default-draw0", "duke-default-draw1")
    text = table(1, [path for path in scores if path.stem not in absent], tmp_path / "out", allow_missing=True)
    assert "| ✓      | -      | -         | 57.0 (n=1) |    77.2 |      - |    69.7 |" in text
    assert "| -      | -      | ✓         | 59.0 ± 1.4 |    81.2 |      — |    72.9 |" in text
    assert "| −1.0 [−1.0, −1.0] |" in text  # of one draw: not bold
    assert text.endswith("- — Not run yet.\n- n: the draws behind a value, where it is not all of them.\n")


def test_collapsed_run_counts_and_is_marked_with_the_mean_without_it(tmp_path):
    scores = write_scores(tmp_path / "scores", ("market-flip-draw1", "duke-default-draw0", "duke-default-draw1"))
    text = table(1, scores, tmp_path / "out")
    assert "| 59.5 ± 3.5 † |    77.2 |" in text
    assert "|   59.0 ± 1.4 |    81.2 | 45.5 ± 0.7 † |    72.9 |" in text
    assert "+0.5 [−18.6, +19.6]" in text
    assert text.splitlines()[-1] == (
        "- † Runs collapsed in training (the loss ended at the margin) and count. Market flip: 1 of 2, mAP 59.5 with, "
        "57.0 without them; Duke default: 2 of 2, mAP 45.5 with, none left without them."
    )
    rows = pd.read_csv(tmp_path / "out" / "table1.csv").set_index(["variant", "column"])
    assert rows.loc[("flip", "Market"), ["mean", "without"]].tolist() == pytest.approx([0.595, 0.57])


def test_tabulate_names_the_runs_of_native_arithmetic(tmp_path):
    run = "market-flip-draw1"
    table(1, write_scores(tmp_path / "scores", native=(run,)), tmp_path / "out")
    assert json.loads((tmp_path / "out/report.json").read_text())["about"]["native"] == [run]
    assert (
        "1 of 6 runs computed with native arithmetic: run again on another machine, they differ by as much as seeds do:** "
        "market-flip (1 of 2 draws)." in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    )


def test_report_of_collapsed_runs_says_so(tmp_path):
    scores = write_scores(tmp_path / "scores", tuple(SETTINGS["runs"]))
    curves = write_curves(tmp_path / "curves", tuple(SETTINGS["curves"]))
    inputs = {"scores": scores, "queries": [path.with_suffix(".parquet") for path in scores], **curves}
    tabulate(**inputs, inspections=[], identified=[], paper=PAPER, settings=planned(), out=tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["about"]["collapsed"] == sorted(SETTINGS["runs"]) and report["about"]["missing"] == []
    *judged, decay = report["findings"]
    assert all(re.match("[24] of [24] runs collapsed in training", finding["why"]) for finding in judged)
    assert (decay["source"], decay["verdict"], decay["mean"]) == ("Figure 7", "measured", pytest.approx(-1.0))
    page = (tmp_path / "out/README.md").read_text("utf-8")
    assert "**6 of 6 runs collapsed in training; their scores count, marked †:** duke-default (2 of 2 draws), " in page


def test_report_without_runs_is_allowed_on_request(tmp_path):
    nothing = {"scores": [], "queries": [], "curves": [], "decays": [], "inspections": [], "identified": []}
    tabulate(**nothing, paper=PAPER, settings=planned(allow_missing=True), out=tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["about"]["missing"] == SETTINGS["runs"]
    assert all(finding["why"].startswith("not run yet: `") for finding in report["findings"])
    assert report["findings"][-1]["source"] == "Figure 7"
    assert "— Not run yet." in (tmp_path / "out/table1.md").read_text(encoding="utf-8")


def test_report_and_metrics(tmp_path):
    out = tmp_path / "out"
    run(write_scores(tmp_path / "scores", ("market-flip-draw1",)), out)
    report = json.loads((out / "report.json").read_text())
    scores = report["scores"]
    assert list(scores) == ["duke", "market"]
    assert scores["market"]["default"]["multi-query"]["qe-dba"]["mAP"] == {
        "n": 2,
        "mean": 0.64,
        "min": 0.63,
        "max": 0.65,
        "sd": 0.014142,
        "collapsed": 0,
    }
    flip = scores["market"]["flip"]["single-query"]["none"]
    without = {"collapsed": 1, "mean_without": 0.87}
    assert flip["rank10"] == {"n": 2, "mean": 0.895, "min": 0.87, "max": 0.92, "sd": 0.035355} | without
    assert list(flip) == ["mAP", "mAP_step", "rank1", "rank5", "rank10"]
    assert report["about"]["parameters_digest"] == "3f9c41d2" and len(report["runs"]) == 6
    assert json.loads((out / "metrics.json").read_text()) == {
        "duke": {"single-query mAP": 0.455, "single-query rank1": 0.555},
        "market": {
            "single-query mAP": 0.59,
            "single-query rank1": 0.69,
            "multi-query mAP": 0.59,
            "multi-query rank1": 0.69,
        },
    }


def test_numbers_of_a_table_are_its_csv(scores, tmp_path):
    run(scores, tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "table1.csv")
    flip = rows[(rows["variant"] == "flip") & (rows["column"] == "Market")].iloc[0]
    expected = {
        "n": 2,
        "mean": 0.595,
        "sd": 0.05 / 2**0.5,
        "paper": 0.772,
        "difference": 0.595 - 0.772,
        "change": 0.005,
    }
    assert flip[list(expected)].to_dict() == pytest.approx(expected, abs=1e-6)
    assert not flip["best"] and len(rows) == 3
    published = pd.read_csv(tmp_path / "out" / "table4.csv")
    ours = published[(published["row"] == "Ours") & (published["column"] == "Market SQ")]
    assert ours["paper"].tolist() == [0.812, 0.922, 0.979]


def test_latex_has_booktabs_rules_and_escapes(scores, tmp_path):
    run(scores, tmp_path / "out", experiment="em_bedded")
    text = (tmp_path / "out" / "table1.tex").read_text()
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    assert r"\checkmark{} & - & - & 59.5 $\pm$~3.5 & 77.2 & - & 69.7 \\" in text
    assert r"Experiment em\_bedded" in text and r"95 \%" in text
    assert tex(r"50 % of {a}_b & `c` \ **d**") == r"50 \% of \{a\}\_b \& \texttt{c} \textbackslash{} \textbf{d}"


def test_table_is_a_page_of_its_own_for_snakemakes_report(scores, tmp_path):
    run(scores, tmp_path / "out", experiment="<em>")
    page = (tmp_path / "out/table1.html").read_text(encoding="utf-8").replace(NBSP, " ")
    assert "<h1>Table 1. Data augmentation (mAP)</h1>" in page and "&lt;em&gt;" in page and "<em>" not in page
    assert '<td class="number">59.5 ± 3.5</td>' in page and "<code>report.json</code>" in page
    assert 'colspan="11">As printed in the paper</th>' in (tmp_path / "out/table4.html").read_text(encoding="utf-8")
    assert "<b>supported</b>" in (tmp_path / "out/findings.html").read_text(encoding="utf-8")


DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage{booktabs,amssymb,graphicx}
\begin{document}
%s
\end{document}
"""


@needs("pdflatex", shutil.which("pdflatex") is not None)
def test_latex_tables_compile(tmp_path):
    """With every sign that a table can have: marks, dashes, daggers, quotes, intervals."""
    scores = write_scores(tmp_path / "scores", ("market-flip-draw1", "duke-default-draw0", "duke-default-draw1"))
    some = [path for path in scores if path.stem != "market-default-draw0"]
    run(some, tmp_path / "out", experiment="em_bedded & more", allow_missing=True)
    for number in (1, 2, 3, 4):
        document = DOCUMENT % rf"\input{{table{number}}}"
        (tmp_path / f"out/all{number}.tex").write_text(document)
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", f"all{number}.tex"]
        done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
        assert not re.search(r"Missing character|Overfull", done.stdout)


def test_latex_spans_columns_groups_metrics_and_turns_wide_differences(scores, tmp_path):
    run(scores, tmp_path / "out")
    table4 = (tmp_path / "out/table4.tex").read_text()
    assert r"\begin{table*}[t]" in table4 and r"\multicolumn{3}{c}{Market SQ} & \multicolumn{3}{c}{Market MQ}" in table4
    assert r"\cmidrule(lr){3-5}\cmidrule(lr){6-8}" in table4
    assert r"``Ours'' and ``Improvement'' are the paper's own" in table4 and r"\texttt{report.json}" in table4
    changes = table4.split("tab:table4-changes")[1]
    assert r" & Default + QE and DBA & Default + k-reciprocal \\" in changes and changes.count(r"\\") == 10
    table3 = (tmp_path / "out/table3.tex").read_text()
    assert table3.count("b) backbone") == 2  # once a grid


def test_run_that_is_not_planned_is_passed_over(scores, tmp_path):
    runs = [run for run in SETTINGS["runs"] if "flip" not in run]
    table(2, scores, tmp_path / "out", runs=runs)
    assert list(json.loads((tmp_path / "out" / "report.json").read_text())["scores"]["market"]) == ["default"]


def test_readme_joins_tables_and_figures(scores, tmp_path):
    out = tmp_path / "out"
    names = [path.name for path in run(scores, out)]
    kinds = ("md", "html", "tex", "csv")
    texts = ["findings.md", "findings.html", "metrics.json", "report.json", "README.md", "forest.svg", "forest.png"]
    assert sorted(names) == sorted([*(f"table{i}.{kind}" for kind in kinds for i in (1, 2, 3, 4)), *texts])
    page = (out / "README.md").read_text(encoding="utf-8")
    for i in (1, 2, 3, 4):
        assert (out / f"table{i}.md").read_text(encoding="utf-8").rstrip("\n") in page
    assert page.index("](forest.svg)") < page.index("make it") < page.index("](figure7.svg)")
    assert page.count("](forest.svg)") == 1
    for figure in ("contact_sheet.png", "figure4.svg", "figure7.svg", "training_curves.svg"):
        assert f"]({figure})" in page
    assert page.startswith("# Results\n") and "```sh\nmake it\n```" in page
    run(scores, out, contact_sheet=False)
    assert "](contact_sheet.png)" not in (out / "README.md").read_text(encoding="utf-8")


def test_bytes_depend_on_neither_order_nor_time(scores, tmp_path):
    first = run(scores, tmp_path / "first")
    for path in scores:
        os.utime(path, (1.5e9, 1.5e9))
    again = run(scores[::-1], tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_one_run_twice_is_an_error_that_names_both_files(scores, tmp_path):
    twice = tmp_path / "copy.json"
    twice.write_bytes(scores[0].read_bytes())
    with pytest.raises(InputError, match=r"copy\.json: run market-default-draw0 is already in .*default-draw0\.json"):
        table(1, [*scores, twice], tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"results": []}, r"bad\.json: not a scores file \(KeyError\('run'\)\)"),
        (
            {
                "run": {"dataset": "duke", "variant": "x", "draw": 0},
                "collapsed": False,
                "results": [{"protocol": "tracklet", "rerank": "none", "mAP": 0.5}],
            },
            r"bad\.json: a result lacks mAP_step, rank1",
        ),
    ],
)
def test_damaged_scores_file_is_named(content, message, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        table(1, [bad], tmp_path / "out")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell({0: 0.5, 1: 0.6, 2: 0.7}), f"60.0 ±{NBSP}10.0"),
        (Cell({0: 0.5, 1: 0.6}), f"55.0 ±{NBSP}7.1 (n=2)"),
        (Cell({0: 0.5, 1: 0.6, 2: 0.7}, frozenset({1, 2})), f"60.0 ±{NBSP}10.0 †"),
        (Cell({0: 0.1}, frozenset({0})), "10.0 (n=1) †"),
        (Cell({}), "—"),
    ],
)
def test_cell_text_of_three_draws(cell, text):
    assert cell_text(cell, 3) == text


def test_signs():
    assert [signed(points) for points in (8.06, -0.06, 0.04, -0.04)] == ["+8.1", "−0.1", "0.0", "0.0"]
    assert interval_text(-1.7, -3.51, -0.02) == f"−1.7{NBSP}[−3.5,{NBSP}−0.0]"  # an end keeps the side of 0 it is on
