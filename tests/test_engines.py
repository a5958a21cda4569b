"""Before anything runs: the engines agree on every command and file, mistakes stop them, the rules are linted."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from conftest import ROOT, Checkout
from photos import write_photos
from reid_done_right.artifacts import read_index, remove

if TYPE_CHECKING:
    from dvc.stage import Stage

pytestmark = pytest.mark.workflow

EXPERIMENTS = {"embedded": "."} | {name: f"experiments/{name}" for name in ("smoke", "paper", "own")}


@pytest.fixture(scope="module")
def dry_run(checkout: Checkout) -> Callable[[str], str]:
    """Return what Snakemake would do for an experiment, whatever is there; looked at once each."""

    @cache
    def printed(experiment: str) -> str:
        configfile = f"--configfile {EXPERIMENTS[experiment]}/params.yaml" if experiment != "embedded" else ""
        return checkout.run(f"snakemake --cores 64 --forceall --dry-run --printshellcmds {configfile}")

    return printed


def planned(printed: str) -> dict[str, tuple[set[str], set[str]]]:
    """Return Snakemake's commands, without the redirection to their logs, and the files that each reads and writes."""
    job = r"^ +input: (.*)\n +output: (.*)\n(?: +.*\n)*Shell command: .*?(reid .*?) > .*$"
    return {
        " ".join(command.split()): (set(read.split(", ")), set(written.split(", ")))
        for read, written, command in re.findall(job, printed, re.MULTILINE)
    }


@pytest.fixture(scope="module")
def stages_of_dvc(checkout: Checkout) -> "list[Stage]":
    from dvc.repo import Repo

    for folder in EXPERIMENTS.values():
        checkout.run(f"reid plan {folder}/params.yaml --dvc")
    return list(Repo(checkout.folder).index.stages)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_engines_agree_on_every_command_and_file(
    checkout: Checkout, stages_of_dvc: "list[Stage]", dry_run: Callable[[str], str], experiment: str
) -> None:
    file = f"{EXPERIMENTS[experiment]}/dvc.yaml".removeprefix("./")
    stages = [stage for stage in stages_of_dvc if stage.path_in_repo == file]
    (plan,) = (stage for stage in stages if stage.name == "plan")
    jobs = planned(dry_run(experiment))
    assert {" ".join(stage.cmd.split()) for stage in stages if stage is not plan} == set(jobs)
    assert len(stages) == len(jobs) + 1
    for stage in stages:
        if stage is not plan:
            read, written = jobs[" ".join(stage.cmd.split())]
            deps = {dep.def_path for dep in stage.deps}  # a folder stands for the files in it
            assert {out.def_path for out in stage.outs} == written, stage.name
            assert all(deps & {name, *map(str, Path(name).parents)} for name in read), stage.name
            assert all(any(Path(name).is_relative_to(dep) for name in read) for dep in deps), stage.name
    check, listing = plan.cmd.split(" && ")
    checkout.run(listing)  # fails if the file is not of the parameters
    checkout.run(check, status=int(experiment in ("paper", "own")))  # whose data are not here


def test_the_papers_experiment_is_drawn_whole(dry_run: Callable[[str], str]) -> None:
    printed = dry_run("paper")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE))
    runs = 2 * 11 + 2
    assert counts["train"] == counts["embed"] == counts["evaluate"] == str(3 * runs)
    assert counts["pretrain"] == str(3 * (2 * 3 + 2))
    assert counts["embed_distractors"] == str(3 * 2 * 8)
    assert not re.search(r"(results|reports)/(embedded|smoke)/", printed)


def test_the_workflow_is_linted(checkout: Checkout) -> None:
    assert "good condition" in checkout.run("snakemake --lint")
    checkout.run("snakefmt --check Snakefile workflow")


@pytest.mark.parametrize("command", ["snakemake --dry-run --configfile", "reid plan"])
def test_a_mistake_in_the_parameters_is_one_line(checkout: Checkout, command: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "experiments/smoke/params.yaml").read_text())
    content["train"]["margn"] = 0.1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    printed = checkout.run(f"{command} {tmp_path}/params.yaml", status=1)
    lines = [line for line in printed.splitlines() if line and not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1
    assert lines[0].endswith(": train.margn: unknown key; did you mean 'margin'?")


def test_parameter_that_snakemake_takes_twice_is_one_line(checkout: Checkout, tmp_path: Path) -> None:
    """Its own reader keeps the last; ours reads the file again."""
    text = (ROOT / "experiments/smoke/params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text + "\nexperiment: another\n")
    printed = checkout.run(f"snakemake --dry-run --configfile {tmp_path}/params.yaml", status=1)
    lines = [line for line in printed.splitlines() if line and not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1
    assert lines[0].startswith("reid: error: ")
    assert re.search(r"/params.yaml: not valid YAML: line \d+: the key 'experiment' is there twice; leave", lines[0])


@pytest.mark.parametrize(
    "engine", ["snakemake --cores 2 --configfile experiments/own/params.yaml", "dvc repro experiments/own/dvc.yaml"]
)
def test_a_missing_folder_stops_an_engine_before_any_job(checkout: Checkout, engine: str) -> None:
    """Without photos; a dry run still shows the graph, as above."""
    checkout.run("reid plan experiments/own/params.yaml --dvc")
    printed = checkout.run(engine, status=1 if engine.startswith("snakemake") else 255)
    assert (
        "dataset photos is missing: data/photos: no such folder; these are photos of your own; put it at data/photos"
        in printed
    )
    assert "Traceback" not in printed and not (checkout.folder / "results/own/dataset").exists()


@pytest.mark.parametrize(
    "command",
    [
        "snakemake results/own/index/photos.parquet --cores 2 --configfile experiments/own/params.yaml",
        "dvc repro experiments/own/dvc.yaml:index@photos",
    ],
    ids=["snakemake", "dvc"],
)
def test_photos_that_come_later_are_noticed(checkout: Checkout, command: str) -> None:
    """By the plan, which looks at the folder again, though no parameter has changed."""
    photos = write_photos(checkout.folder / "data/photos")
    try:
        checkout.run("reid plan experiments/own/params.yaml --dvc")
        before = _rows(checkout, command)
        there = next(photos.rglob("*.jpg"))
        there.with_name("IMG_more.jpg").write_bytes(there.read_bytes())
        assert _rows(checkout, command) == before + 1
    finally:
        remove(checkout.folder / "data")
        remove(checkout.folder / "results/own")


def _rows(checkout: Checkout, command: str) -> int:
    checkout.run(command)
    return len(read_index(checkout.folder / "results/own/index/photos.parquet"))
