"""`reid compare` on files, names and folders, and its errors."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from reid_done_right.artifacts import InputError
from reid_done_right.cli import app
from reid_done_right.stages.compare import compare


def write(folder: Path, name: str, ap: list[float], rule: str = "trapezoid", collapsed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "protocol": "single-query",
        "rerank": "none",
        "query": range(len(ap)),
        "person_id": range(len(ap)),
        "ap": ap,
    }
    rows |= {"relevant": 2, "ap_step": np.array(ap) / 2, "first_hit_rank": [1, *[4] * (len(ap) - 1)]}
    pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
    scores = {"collapsed": collapsed, "results": [{"protocol": "single-query", "ap_rule": rule}]}
    (folder / f"{name}.json").write_text(json.dumps(scores))
    return folder / f"{name}.parquet"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two draws of two variants: flip gains 2 points of AP in draw 0 and 4 in draw 1, on every query."""
    folder = tmp_path / "results" / "toy" / "evaluate"
    for seed, gain in ((0, 0.02), (1, 0.04)):
        base = [0.2, 0.4, 0.6, 0.8]
        write(folder, f"market-default-draw{seed}", base)
        write(folder, f"market-flip-draw{seed}", [value + gain for value in base])
    write(folder, "market-raw-draw0", [0.1] * 4, collapsed=True)
    write(folder, "market-late-draw7", [0.5] * 4)
    write(folder, "duke-default-draw0", [0.5] * 3)
    return tmp_path / "results"


def test_two_variants_are_paired_by_query_and_draw(results, tmp_path):
    text = compare("market-flip", "market-default", results=results, csv=tmp_path / "out.csv")
    rows = pd.read_csv(tmp_path / "out.csv").set_index("metric")
    # a t-interval of two draws: 12.7 times their standard error of 1 point; the queries of a draw all gain the same
    expected = {"ours": 0.53, "theirs": 0.5, "difference": 0.03, "low": 0.03 - 0.12706, "high": 0.03 + 0.12706}
    assert rows.loc["mAP", list(expected)].to_dict() == pytest.approx(expected, abs=1e-5)
    assert rows.loc["mAP", "queries"] == 8
    assert rows.loc["rank-1", "difference"] == 0 and rows.loc["rank-1", "ours"] == 0.25  # one query of four hits first
    head, _, first, second = text.splitlines()
    assert "ours" in head and "difference [95 %]" in head and "each draw" in head
    assert "market-flip less market-default" in first and "+2.0, +4.0" in first and "+3.0" in first
    assert "rank-1" in second


def test_benchmarks_ap_rule_is_used(results, tmp_path):
    files = [write(tmp_path, name, ap, rule="step") for name, ap in (("a", [0.4, 0.8]), ("b", [0.2, 0.4]))]
    compare(*map(str, files), metrics=["mAP"], results=results, csv=tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["ours"].tolist() == [pytest.approx(0.3)]


def test_two_experiments_are_compared_run_by_run(results, tmp_path):
    text = compare(str(results / "toy"), str(results / "toy"), metrics=["rank-4"], results=results)
    *lines, blank, note = text.splitlines()[2:]
    assert [line.split()[0] for line in lines] == [
        "duke-default",
        "market-default",
        "market-flip",
        "market-late",
        "market-raw",
    ]
    assert (blank, note) == ("", "Collapsed in training, their scores count: market-raw-draw0")


def test_files_of_reid_score_are_compared(results, tmp_path):
    for name, ap in (("a", [0.4, 0.8]), ("b", [0.2, 0.4])):
        rows = {"query": [0, 1], "ap": ap, "ap_step": ap, "first_hit_rank": [1, 2], "relevant": [1, 1]}
        rows["person_id"] = [7, 8]
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    text = compare(str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), metrics=["mAP"], results=results)
    assert "60.0" in text and "30.0" in text


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (
            "market-flop",
            "market-default",
            r"market-flop: no queries of such a run under .*; there are toy/duke-default, ",
        ),
        (
            "market-default",
            "duke-default",
            r"market-default less duke-default, single-query: 4 queries against 3, or of other persons",
        ),
        ("market-late", "market-default", r"market-late less market-default: no draw that both sides have"),
        ("none.parquet", "market-default", r"none\.parquet: no such file"),
    ],
)
def test_incomparable_runs_are_reported(results, ours, theirs, message):
    with pytest.raises(InputError, match=message):
        compare(ours, theirs, results=results)


def test_ambiguous_run_name_is_reported(results):
    write(results / "other" / "evaluate", "market-flip-draw0", [0.5] * 4)
    with pytest.raises(InputError, match=r"say which: other/market-flip, toy/market-flip"):
        compare("market-flip", "market-default", results=results)
    assert "market-flip" in compare("toy/market-flip", "market-default", results=results)


def test_command_prints_the_table(results):
    arguments = ["compare", "market-flip", "market-default", "--results", str(results), "--metrics", "mAP"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0 and "+3.0" in printed.output
    wrong = CliRunner().invoke(app, [*arguments[:-1], "mAP,cmc"])
    assert isinstance(wrong.exception, InputError) and "--metrics 'cmc'" in str(wrong.exception)


def test_draws_with_test_sets_of_their_own_are_paired_each_on_its_own(results, tmp_path):
    for draw, count in ((2, 3), (3, 6)):
        for variant, gain in (("a", 0.02), ("b", 0.0)):
            write(results / "worlds" / "evaluate", f"market-{variant}-draw{draw}", [0.5 + gain] * count)
    compare("worlds/market-a", "worlds/market-b", results=results, csv=tmp_path / "out.csv", metrics=["mAP"])
    (row,) = pd.read_csv(tmp_path / "out.csv").to_dict("records")
    assert (row["queries"], row["difference"]) == (9, pytest.approx(0.02))


def test_minp_is_compared_where_it_was_written(tmp_path):
    files = [write(tmp_path, name, [0.2, 0.4]) for name in ("a", "b")]
    for file, penalty in zip(files, (0.3, 0.1), strict=True):
        pd.read_parquet(file).assign(inp=[penalty, 0.5]).to_parquet(file)
    compare(*map(str, files), metrics=["mINP"], results=tmp_path, csv=tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv").loc[0, ["ours", "theirs"]].tolist() == pytest.approx([0.4, 0.3])
    write(tmp_path, "b", [0.2, 0.4])
    with pytest.raises(InputError, match=r"b\.parquet: has no mINP; compare files of `reid score --per-query`"):
        compare(*map(str, files), metrics=["mINP"], results=tmp_path)
