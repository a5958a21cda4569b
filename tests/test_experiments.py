"""Experiments outside the checkout: laid out by `reid new`, and the workflow used from another folder."""

import os
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest

from conftest import ROOT, WITHOUT_CLUSTERS, Checkout, Reid, needs_git
from reid_done_right.experiments import IGNORED, Example
from reid_done_right.params import load

SOURCES = {"embedded": "params.yaml"}


class Folder(Checkout):
    """A folder to run commands in with the code of this checkout."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environment["PYTHONPATH"] = os.pathsep.join(map(str, [ROOT / "src", WITHOUT_CLUSTERS]))


@pytest.mark.parametrize("example", get_args(Example))
def test_new_experiment_is_the_one_it_starts_from(example: str, tmp_path: Path, reid: Reid) -> None:
    folder = tmp_path / "mine"
    assert reid(tmp_path, "new", "mine", "--from", example).returncode == 0
    source = ROOT / SOURCES.get(example, f"experiments/{example}/params.yaml")
    made, expected = (load(path).model_dump() for path in (folder / "params.yaml", source))
    assert made == {**expected, "report": {**expected["report"], "command": "snakemake --cores all"}}
    first = (folder / "params.yaml").read_text().partition("\n")[0]
    assert (folder / first.partition("$schema=")[2]).is_file()
    assert f"experiments/{example}" not in (folder / "params.yaml").read_text()
    assert {"/data/", "/reports/*/", "/results/", "/.store/"} <= set((folder / ".gitignore").read_text().splitlines())


def test_new_experiment_ignores_what_the_project_ignores() -> None:
    project = set((ROOT / ".gitignore").read_text().splitlines())
    assert set(IGNORED.splitlines()) <= project


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("full",), "full: is not an empty folder; name another one"),
        (("file",), "file: is not an empty folder; name another one"),
        (("new", "--from", "mine"), "--from mine: use one of embedded, paper, market, own, own-cpu, smoke"),
    ],
)
def test_new_refuses_in_one_line(arguments: tuple[str, ...], told: str, tmp_path: Path, reid: Reid) -> None:
    (tmp_path / "full").mkdir()
    for name in ("full/notes.txt", "file"):
        (tmp_path / name).write_text("kept")
    ended = reid(tmp_path, "new", *arguments)
    assert ended.returncode == 1 and ended.stderr == f"reid: error: {told}\n"
    assert (tmp_path / "full/notes.txt").read_text() == (tmp_path / "file").read_text() == "kept"
    assert not (tmp_path / "new").exists()


@pytest.mark.workflow
def test_new_experiment_runs_in_its_folder(tmp_path: Path, reid: Reid) -> None:
    assert reid(tmp_path, "new", "mine", "--from", "smoke").returncode == 0
    mine = Folder(tmp_path / "mine")
    mine.run("snakemake --cores 1 results/smoke/dataset/mars-draw0.json")
    assert (tmp_path / "mine/results/smoke/dataset/mars-draw0.json").is_file()
    assert "train" in mine.run("reid plan params.yaml --dvc") and (tmp_path / "mine/dvc.yaml").is_file()


MODULE = """
configfile: "params.yaml"

module reid:
    snakefile: "git+file://{repository}/workflow/Snakefile@HEAD"
    config: config

use rule * from reid
"""


@needs_git
@pytest.mark.workflow
def test_workflow_is_a_module_of_a_remote_repository(tmp_path: Path, checkout: Checkout) -> None:
    """What Snakemake reads from git lies nowhere: code is the installed package's, the paper's values are copied."""
    shutil.copy(ROOT / "experiments/smoke/params.yaml", tmp_path)
    (tmp_path / "Snakefile").write_text(MODULE.format(repository=checkout.folder))
    planned = Folder(tmp_path).run("snakemake --dry-run --quiet rules")
    assert re.search(r"total +48\n", planned)
    values = [(folder / "reports/paper.csv").read_text().splitlines() for folder in (tmp_path, ROOT)]
    assert values[0] == values[1]
