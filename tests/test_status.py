"""`reid status`: what is done, runs, failed and is left, from the plan, the store and the logs, under either engine."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Checkout, Reid, copy_of_the_project
from reid_done_right import store
from reid_done_right.artifacts import InputError
from reid_done_right.cli import experiment
from reid_done_right.dag import STAGES
from reid_done_right.params import Params
from reid_done_right.plan import Jobs, plan, write_settings
from reid_done_right.readiness.status import QUIET, Status, find_params, status
from reid_done_right.store.ledger import Ledger, read_copy
from reid_done_right.store.notes import NOTE, notes
from tiny import PARAMS, changed

MANIFEST = {
    "dataset": "market",
    "format": "market1501",
    "root": "results/tiny",
    "files": 0,
    "bytes": 0,
    "sha256": "0" * 64,
}


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Jobs]:
    """Work in a folder with the settings of the tiny experiment, whose jobs did not run yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_STORE", raising=False)
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    planned = plan(Params.model_validate(PARAMS))
    for file in write_settings(planned, Path("results/tiny/settings")):
        os.utime(file, (time.time() - 1000,) * 2)
    return planned


def make(jobs: dict[str, Jobs], stage: str, name: str, compute: Callable[[Path], None] = lambda folder: None) -> None:
    """Run a job's command as `reid` does, except for what it computes: its outputs are empty."""
    job = jobs[stage][name]
    outputs = [Path(path) for path in job.outputs.values()]

    def write(folder: Path) -> None:
        compute(folder)
        for output in outputs:
            (folder / output.name).write_text(json.dumps(MANIFEST) if stage == "dataset" else "")

    known: dict[str, Any] = {"parameters": job.parameters, "inputs": {}, "outputs": outputs}
    store.make(STAGES[stage].command or stage, compute=write, job=name, settings=Path(job.settings), **known)


def log(stage: str, name: str, text: str, age: float = 0) -> Path:
    file = Path(f"results/tiny/logs/{stage}/{name}.log")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (time.time() - age,) * 2)
    return file


def of(jobs: dict[str, Jobs], stage: str) -> tuple[int, int, int, int]:
    (found,) = [each for each in status("tiny", jobs).stages if each.stage == stage]
    return found.done, found.running, found.failed, found.left


PROGRAM = """
    import sys, time
    from pathlib import Path
    from reid_done_right import store

    def compute(folder):
        print("computes", flush=True)
        time.sleep(60)

    settings = Path("results/tiny/settings/initialise/shallow-draw0.json")
    request = {"parameters": {}, "inputs": {}, "outputs": [Path("results/tiny/initialise/shallow-draw0.safetensors")]}
    store.make("initialise", compute=compute, job="shallow-draw0", settings=settings, **request)
"""


@contextmanager
def computing() -> Iterator["subprocess.Popen[str]"]:
    """A process that computes initial weights until the end of the block."""
    environment = {**os.environ, "SLURM_JOB_ID": "17"}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "computes\n"
            yield process
        finally:
            process.kill()


def test_status_before_a_run_counts_every_job_as_left(jobs: dict[str, Jobs]) -> None:
    found = status("tiny", jobs)
    assert sum(stage.left for stage in found.stages) == sum(map(len, jobs.values()))
    assert not found.finished and found.running == [] == found.failed and found.seconds == 0
    assert "train" in found.unmeasured


def test_time_left_is_the_mean_of_computed_jobs_times_those_left(
    jobs: dict[str, Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, clock = list(jobs["initialise"]), iter([0.0, 10.0, 0.0, 30.0])
    with monkeypatch.context() as patched:
        patched.setattr(store.objects.time, "monotonic", lambda: next(clock))
        make(jobs, "initialise", names[0])
        make(jobs, "initialise", names[1])
    found = status("tiny", jobs)
    (stage,) = [each for each in found.stages if each.stage == "initialise"]
    assert (stage.done, stage.left) == (2, len(names) - 2)
    assert (stage.seconds, stage.source) == (20.0 * (len(names) - 2), "ledger")
    assert found.seconds == stage.seconds and "initialise" not in found.unmeasured


def test_job_found_in_the_store_keeps_the_seconds_of_its_computation(jobs: dict[str, Jobs]) -> None:
    (name, *_) = jobs["initialise"]
    make(jobs, "initialise", name, lambda folder: time.sleep(0.05))
    (before,) = [entry.seconds for entry in Ledger.here().entries]
    Path(jobs["initialise"][name].outputs["out"]).unlink()
    make(jobs, "initialise", name, lambda folder: pytest.fail("computed again"))
    assert [entry.seconds for entry in Ledger.here().entries] == [before]
    assert before is not None and before >= 0.05


def test_copy_beside_a_report_has_no_seconds(jobs: dict[str, Jobs], tmp_path: Path) -> None:
    make(jobs, "tabulate", "tables")
    Path("report").mkdir()
    Path("report/table1.md").touch()
    Ledger.here().write_copy(Path("report"))
    assert "seconds" not in Path("report/ledger.json").read_text()
    assert [entry.seconds for entry in read_copy(Path("report/ledger.json"))] == [None]


def test_benchmarks_of_snakemake_serve_where_the_ledger_has_no_times(jobs: dict[str, Jobs]) -> None:
    folder = Path("results/tiny/benchmarks/train")
    folder.mkdir(parents=True)
    (folder / "a.tsv").write_text("s\th:m:s\n7.0\t0:00:07\n")
    (stage,) = [each for each in status("tiny", jobs).stages if each.stage == "train"]
    assert (stage.seconds, stage.source) == (7.0 * len(jobs["train"]), "benchmarks")


def test_job_that_holds_its_lock_runs_where_its_note_says(jobs: dict[str, Jobs]) -> None:
    log("initialise", "shallow-draw0", "objects:  12%|█   | 1/8\robjects:  25%|██  | 2/8 [00:01<00:03]", age=5 * QUIET)
    with computing():
        (running,) = status("tiny", jobs).running
        assert (running.stage, running.job, running.share) == ("initialise", "shallow-draw0", 0.25)
        assert running.where == f"{os.uname().nodename}, Slurm 17"
        assert running.seconds is not None and 0 <= running.seconds < 60
        assert of(jobs, "initialise")[:3] == (0, 1, 0)


def test_looking_at_a_running_job_does_not_take_its_lock(jobs: dict[str, Jobs]) -> None:
    with computing():
        partial = Path(".store/partial")
        before = {path: path.stat().st_mtime_ns for path in partial.rglob("*")}
        for _ in range(20):
            assert notes()["results/tiny/settings/initialise/shallow-draw0.json"].held
        assert {path: path.stat().st_mtime_ns for path in partial.rglob("*")} == before


def test_killed_job_has_failed_at_once_and_runs_again_when_restarted(jobs: dict[str, Jobs]) -> None:
    with computing() as process:
        file = log("initialise", "shallow-draw0", "objects:  25%|██  | 2/8")
        process.send_signal(signal.SIGKILL)
        process.wait()
    (failed,) = status("tiny", jobs).failed
    assert (failed.job, failed.log) == ("shallow-draw0", file.as_posix())
    assert failed.told == "ended without a word: killed, or out of memory"
    log("initialise", "shallow-draw0", "")  # as Snakemake empties it when it starts the job again
    assert of(jobs, "initialise")[:3] == (0, 1, 0)


def test_killed_job_without_a_log_has_failed_as_under_dvc(jobs: dict[str, Jobs]) -> None:
    with computing():
        pass
    (failed,) = status("tiny", jobs).failed
    assert failed.told == f"failed or killed on {os.uname().nodename}, Slurm 17"
    os.utime("results/tiny/settings/initialise/shallow-draw0.json")  # changed settings: it is another job now
    assert status("tiny", jobs).failed == []


def test_note_goes_with_the_result(jobs: dict[str, Jobs]) -> None:
    (name, *_) = jobs["dataset"]
    make(jobs, "dataset", name, lambda folder: assert_noted(folder))
    assert list(Path(".store").rglob(NOTE)) == [] and notes() == {}


def assert_noted(folder: Path) -> None:
    assert (folder / NOTE).is_file()


NO_TIME = '{"settings": "a", "host": "b", "pid": 1, "since": NaN}'


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": 1}', NO_TIME])
def test_damaged_note_is_as_good_as_none(jobs: dict[str, Jobs], content: str) -> None:
    Path(".store/partial/0").mkdir(parents=True)
    Path(".store/partial/0", NOTE).write_text(content)
    assert notes() == {} and status("tiny", jobs).failed == []


def test_failed_job_is_told_by_the_last_line_of_its_log(jobs: dict[str, Jobs]) -> None:
    (name, *_) = jobs["train"]
    log("train", name, "some line\nreid: error: i.parquet: no such \x1b[31m file\n")
    (failed,) = status("tiny", jobs).failed
    assert failed.told == r"reid: error: i.parquet: no such \x1b[31m file"
    log("train", name, "Traceback (most recent call last):\n  File\nKeyError: 'x'\n", age=5 * QUIET)
    assert status("tiny", jobs).failed[0].told == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("text", "age", "expected"),
    [
        ("", 0, (0, 1, 0)),  # starting
        ("a bar", QUIET / 2, (0, 1, 0)),  # without a store, or on a machine whose locks are not seen
        ("a bar", 2 * QUIET, (0, 0, 1)),
        ("train x: computed in 1.0 s, wrote y\n", 0, (0, 0, 0)),  # since then something before it has changed
        ("train x: found in the store, wrote y\n", 0, (0, 0, 0)),
        ("reid: error: of older settings", 2000, (0, 0, 0)),
    ],
)
def test_log_without_a_note_tells_what_it_can(
    jobs: dict[str, Jobs], text: str, age: float, expected: tuple[int, int, int]
) -> None:
    log("train", next(iter(jobs["train"])), text, age)
    assert of(jobs, "train")[:3] == expected


def test_running_jobs_share_the_time_left() -> None:
    from reid_done_right.readiness.status import Progress, Running

    running = [Running("train", name, "here", 10.0, None) for name in "ab"]
    assert Status("x", [Progress("train", 4, 1, 2, 0, 60.0, "ledger")], running, []).seconds == 30.0


def test_elapsed_seconds_of_running_jobs_are_not_to_go(jobs: dict[str, Jobs], monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(jobs["train"])
    log("train", names[0], "a bar")
    folder = Path("results/tiny/benchmarks/train")
    folder.mkdir(parents=True)
    (folder / "a.tsv").write_text("s\n100\n")
    with computing():
        (note,) = Path(".store/partial").glob(f"*/{NOTE}")
        told = json.loads(note.read_text())
        settings = f"results/tiny/settings/train/{names[0]}.json"
        note.write_text(json.dumps(told | {"settings": settings, "since": told["since"] - 40}))
        (stage,) = [each for each in status("tiny", jobs).stages if each.stage == "train"]
    assert stage.seconds == pytest.approx(100 * len(names) - 40, abs=5)


# --- the command


def test_params_are_found_by_the_folder_of_results(tmp_path: Path) -> None:
    other = changed({"experiment": "other"})
    Path("experiments/of-other").mkdir(parents=True)
    Path("experiments/of-other/params.yaml").write_text(yaml.safe_dump(other))
    Path("results/other").mkdir(parents=True)
    Path("results/none").mkdir(parents=True)
    assert find_params(Path("results/tiny")).experiment == "tiny"
    assert find_params(Path("results/other")).experiment == "other"
    assert find_params(Path("experiments/of-other")).experiment == "other"
    assert find_params(Path("params.yaml")).experiment == "tiny"
    with pytest.raises(InputError, match=r"results/none: no params\.yaml here or in experiments/ is of 'none'"):
        find_params(Path("results/none"))


def test_command_shows_stages_running_and_failed_jobs_and_writes_json(
    jobs: dict[str, Jobs], tmp_path: Path, reid: Reid
) -> None:
    (name, *_) = jobs["train"]
    log("train", name, "reid: error: out of luck\n")
    before = sorted(Path("results").rglob("*"))
    with computing():
        result = reid(tmp_path, "status", "results/tiny", "--json", "status.json")
    total = sum(map(len, jobs.values()))
    assert result.returncode == 1 and result.stderr == ""
    assert f"Experiment tiny: 0 of {total} jobs done, 1 running, 1 failed, {total - 2} left" in result.stdout
    assert f"failed  train {name}: results/tiny/logs/train/{name}.log" in result.stdout
    assert "initialise shallow-draw0" in result.stdout and "Slurm 17" in result.stdout
    written = json.loads(Path("status.json").read_text())
    assert [job["job"] for job in written["running"]] == ["shallow-draw0"]
    assert [job["told"] for job in written["failed"]] == ["reid: error: out of luck"]
    assert {stage["stage"]: stage["left"] for stage in written["stages"]}["train"] == len(jobs["train"]) - 1
    assert sorted(Path("results").rglob("*")) == before  # asking changes nothing


def test_watch_looks_again_until_all_is_done(
    jobs: dict[str, Jobs], tmp_path: Path, reid: Reid, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    def finish_one(seconds: float) -> None:
        waited.append(seconds)
        assert len(waited) < 3
        for stage, members in jobs.items():
            for name in list(members)[:: 1 if len(waited) == 2 else 2]:
                make(jobs, stage, name)

    monkeypatch.setattr("time.sleep", finish_one)
    result = reid(tmp_path, "status", "--watch")
    assert result.returncode == 0 and waited == [experiment.AGAIN] * 2
    done = [line for line in result.stdout.splitlines() if line.startswith("Experiment tiny")]
    total = sum(map(len, jobs.values()))
    assert len(done) == 3 and done[-1] == f"Experiment tiny: {total} of {total} jobs done, 0 running, 0 failed, 0 left"


@pytest.mark.workflow
def test_status_follows_snakemake(tmp_path: Path) -> None:
    tree = Checkout(copy_of_the_project(tmp_path / "tree"))
    target = "results/smoke/index/market-draw0.parquet"
    started = tree.start(f"snakemake --cores 1 {target} --configfile experiments/smoke/params.yaml")
    seen = set()
    while started.poll() is None:
        tree.run("reid status results/smoke --json status.json")
        found = json.loads((tree.folder / "status.json").read_text())
        assert found["failed"] == []
        seen |= {(job["stage"], job["job"]) for job in found["running"]}
    assert started.wait() == 0 and ("dataset", "market-draw0") in seen
    tree.run("reid status results/smoke --json status.json")
    stages = {stage["stage"]: stage for stage in json.loads((tree.folder / "status.json").read_text())["stages"]}
    for name in ("dataset", "index"):
        assert (stages[name]["done"], stages[name]["source"]) == (1, "ledger")
        assert stages[name]["seconds"] > 0
