"""Calibration of verdicts, on differences whose truth is known."""

import json
import subprocess
import sys
from runpy import run_path

import numpy as np
import pytest

from conftest import ROOT
from reid_done_right.reporting.claims import Finding

CALIBRATION = run_path(str(ROOT / "benchmarks/calibration.py"))


def claim(difference: float, draws: int = 8, spread: float = 0.005) -> tuple[Finding, np.ndarray]:
    noise = np.random.default_rng(3).permutation(np.linspace(-spread, spread, draws))
    return Finding("c", f"Table {difference}", "Market", "a − b", "-"), difference + noise


def test_share_has_the_interval_of_clopper_and_pearson():
    assert CALIBRATION["share"](0, 10) == {"share": 0, "interval": [0, 0.3085], "of": 10}
    assert CALIBRATION["share"](5, 10)["interval"] == [0.1871, 0.8129]
    assert CALIBRATION["share"](10, 10)["interval"] == [0.6915, 1]


def test_table_of_comparisons_with_itself_has_a_false_verdict_in_one_of_twenty():
    rng = np.random.default_rng(0)
    found = np.array(
        [CALIBRATION["against_itself"]([rng.normal(0.5, 0.02, 17) for _ in range(4)], 2, rng) for _ in range(600)]
    )
    verdicts, failed = found.sum(0) / 1200
    assert 0.03 <= failed <= 0.07 and failed <= verdicts <= 1.3 * failed


def test_halves_agree_on_what_is_clear_and_leave_the_rest():
    rng = np.random.default_rng(0)
    counts = CALIBRATION["halves"]([claim(0.05), claim(-0.05), claim(0.0)], 20, rng)
    assert counts["equal"] == 40 and counts["opposite"] == 0


def test_power_grows_with_draws_to_one():
    found = CALIBRATION["power"]([claim(0.012, spread=0.02), claim(0.2)], 40, np.random.default_rng(0))
    assert list(found) == [str(n) for n in range(2, 9)]
    assert found["2"] < found["5"] <= found["8"] == 1


@pytest.mark.parametrize("shared", [False, True])
def test_simulated_verdicts_are_seldom_false(shared):
    found = CALIBRATION["simulated"](4, shared, 300, np.random.default_rng(0))
    assert found["comparisons"]["share"] <= 0.08 and found["tables"]["share"] <= 0.08


def test_calibration_reads_a_report_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    runs = [
        {"dataset": "market", "variant": variant, "mAP": value}
        for variant, mean in (("default", 0.5), ("flip", 0.6))
        for value in rng.normal(mean, 0.01, 6)
    ]
    finding = {"claim": "c", "source": "Table 1", "benchmark": "Market", "here": "flip − default", "paper": "-"}
    finding |= {"by_draw": rng.normal(10, 1, 6).tolist(), "p": 0.001}
    report = {"about": {"draws": list(range(6))}, "runs": runs, "findings": [finding]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    main = CALIBRATION["main"]
    for name in ("TABLES", "SPLITS", "SUBSETS", "SIMULATIONS"):
        monkeypatch.setitem(main.__globals__, name, 20)
    monkeypatch.setattr(sys, "argv", ["calibration", str(tmp_path / "report.json"), "--json", str(tmp_path / "c.json")])
    main()
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["half_agreement"] == 1 and found["comparisons"] == 20 and len(found["simulated"]) == 8
    assert found["power"]["6"] == 1 and found["draws"] == 6
    assert "done" in capsys.readouterr().out
    main()
    assert json.loads((tmp_path / "c.json").read_text()) == found and "done" not in capsys.readouterr().out


def test_calibration_without_enough_draws_says_so(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"about": {"draws": [0, 1]}, "runs": [], "findings": []}))
    command = [
        sys.executable,
        ROOT / "benchmarks/calibration.py",
        tmp_path / "report.json",
        "--json",
        tmp_path / "c.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "2 draws; a study of at least 4 is needed" in done.stderr
