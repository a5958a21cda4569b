"""A clean checkout stays clean: committed reports depend only on the parameters; others are ignored."""

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from conftest import IN_REPOSITORY, ROOT, needs
from traces import traces

REPORTS = ("embedded", "study", "across", "herd", "readings-embedded", "modern-embedded")
COMMITTED = sorted(path for name in REPORTS for path in (ROOT / "reports" / name).iterdir() if path.is_file())
in_repository = needs("a git repository", IN_REPOSITORY)


def git(*arguments: str) -> list[str]:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode in (0, 1), ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_committed_report_has_no_date_commit_or_host(path: Path) -> None:
    about = json.loads(path.with_name("report.json").read_text())["about"]
    assert traces(path, about["parameters_digest"]) == set()


def test_traces_finds_forbidden_report_content(tmp_path: Path) -> None:
    text = "Commit 76d751a of 2026-11-26 in /home/me on x86_64"
    (tmp_path / "table1.md").write_text(text)
    assert traces(tmp_path / "table1.md") == {"Commit", "76d751a", "2026-11-26", "/home/", "x86_64"}
    (tmp_path / "report.json").write_text('{"p": 3.2288037736045e-05, "q": 2e-08}')
    assert traces(tmp_path / "report.json") == set()
    told = PngImagePlugin.PngInfo()
    told.add_text("Software", "a program")
    Image.new("L", (1, 1)).save(tmp_path / "figure1.png", pnginfo=told)
    assert traces(tmp_path / "figure1.png") == {"Software"}


@in_repository
def test_reports_that_show_people_are_ignored_and_those_of_rendered_people_are_not() -> None:
    names = ["reports/own/figure1.png", "reports/paper/README.md", "reports/smoke/report.html", "reports/mine/x.md"]
    assert git("check-ignore", *names) == names
    kept = ["reports/embedded/figure1.png", "reports/study/new.svg", "reports/paper.csv"]
    assert git("check-ignore", "--no-index", *kept) == []
    tracked = {name.split("/")[1] for name in git("ls-files", "reports")}
    assert tracked == {*REPORTS, "paper.csv"}


@in_repository
def test_no_lock_of_dvc_is_committed() -> None:
    """It is rewritten by every run: digests of the code are in it."""
    assert git("ls-files", "dvc.lock", "*/dvc.lock") == []
