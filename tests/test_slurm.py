"""The smoke experiment on a real one-node Slurm with simulated GPUs; one training is cancelled on the way.

`make test-slurm` installs Slurm where it may, and runs this.
"""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster
from conftest import Checkout, copy_of_the_project

pytestmark = pytest.mark.slurm

SMOKE = "experiments/smoke/params.yaml"
THROUGH_SLURM = (
    f"snakemake --workflow-profile profiles/slurm --configfile {SMOKE} --cores 4 --slurm-no-account"
    " --slurm-status-command squeue --slurm-init-seconds-before-status-checks 2"
)
LONG, UPDATES, MIDDLE = "market-side-48-draw0", 400, 20  # a training that lasts long enough to be cancelled in between


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root, as whom the tests' Slurm runs")
    if cluster.missing():
        pytest.skip("needs Slurm")
    folder = tmp_path_factory.mktemp("slurm")
    with cluster.slurm(folder, cores=4, gpus=2):
        yield
    assert cluster.processes(folder) == [] and not (cluster.SITE / "slurm.conf").is_symlink()


@pytest.fixture(scope="module")
def copies(node: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Checkout]:
    """Two copies of one state of the project."""
    local, through_slurm = (tmp_path_factory.mktemp(name) for name in ("local", "through_slurm"))
    return Checkout(copy_of_the_project(local)), Checkout(copy_of_the_project(through_slurm), clusters=True)


@pytest.fixture(scope="module")
def local(copies: tuple[Checkout, Checkout]) -> Checkout:
    """The experiment as one machine computes it."""
    checkout, _ = copies
    prepare(checkout)
    checkout.run(f"snakemake --cores 2 --configfile {SMOKE}")
    return checkout


@pytest.fixture(scope="module")
def through_slurm(copies: tuple[Checkout, Checkout]) -> Checkout:
    """The experiment through Slurm in one call, in which one training was cancelled."""
    _, checkout = copies
    prepare(checkout)
    printed = checkout.folder / "printed.txt"
    # the GPUs are simulated
    started = checkout.start(f"exec {THROUGH_SLURM} > {printed} 2>&1", TQDM_MININTERVAL="0.1", REID_DEVICE="cpu")
    try:
        wait_for_the_long_training(checkout, started, printed)
        (job,) = of_training(LONG)
        subprocess.run(["scancel", job.number], check=True)
        assert started.wait(timeout=1500) == 0, printed.read_text()[-6000:]
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
    return checkout


def prepare(checkout: Checkout) -> None:
    checkout.change(SMOKE, "variants/side-48", {"largest_side": 48, "updates": UPDATES})
    checkout.change(SMOKE, "resources", {"train": {"gpu": 1, "mem_mb": 2000, "runtime": 10}})


def wait_for_the_long_training(checkout: Checkout, started: "subprocess.Popen[str]", printed: Path) -> None:
    deadline = time.monotonic() + 900
    while max(progress(checkout), default=0) < MIDDLE:
        assert started.poll() is None, f"it ended before it trained\n{printed.read_text()}"
        assert time.monotonic() < deadline, f"no training within a quarter of an hour\n{printed.read_text()}"
        time.sleep(0.05)


def progress(checkout: Checkout) -> list[int]:
    """Return the updates that the progress bar of the long training has shown since its job's start, but 0."""
    log = checkout.folder / f"results/smoke/logs/train/{LONG}.log"
    shown = log.read_text(errors="replace") if log.is_file() else ""
    return [int(done) for done in re.findall(rf"\b([1-9]\d*)/{UPDATES} \[", shown)]


def of_training(name: str = "") -> list[cluster.Job]:
    return [job for job in cluster.jobs() if job.comment.startswith("rule_train_") and name in job.comment]


def reports(checkout: Checkout) -> dict[str, bytes]:
    files = [path for path in (checkout.folder / "reports/smoke").iterdir() if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


def test_reports_are_those_of_one_machine(local: Checkout, through_slurm: Checkout) -> None:
    expected, found = reports(local), reports(through_slurm)
    assert expected.keys() == found.keys() >= {"table1.md", "table4.csv", "report.json", "report.html", "figure7.svg"}
    assert [name for name in expected if expected[name] != found[name]] == []


def test_cancelled_training_is_retried_with_more_resources(through_slurm: Checkout) -> None:
    first, second = of_training(LONG)
    assert (first.state, first.memory, first.time) == ("CANCELLED", "2000M", "10:00")
    assert (second.state, second.memory, second.time) == ("COMPLETED", "4000M", "20:00")


def test_cancelled_training_resumes(through_slurm: Checkout) -> None:
    assert min(progress(through_slurm)) > MIDDLE


def test_slurm_counts_the_gpus_that_rules_ask_for(through_slurm: Checkout) -> None:
    asked = {job.comment: job.gpus for job in cluster.jobs()}
    trainings = {job.comment for job in of_training()}
    assert len(trainings) == 7
    assert {comment for comment in asked if asked[comment] == "gres:gpu:1"} == trainings
    assert {asked[comment] for comment in asked.keys() - trainings} == {"N/A"}


def test_short_jobs_go_to_slurm_together(through_slurm: Checkout) -> None:
    together = Counter(job.comment for job in cluster.jobs() if "_wildcards_" not in job.comment)
    report = "rule_report_draw_illustrate_publish_tabulate"
    assert together == {"rule_prepare_dataset_index": 5, "rule_score_evaluate_retrieve": 1, report: 1}


def test_one_machine_takes_over_with_nothing_to_do(through_slurm: Checkout) -> None:
    assert "Nothing to be done" in through_slurm.run(f"snakemake --cores 2 --configfile {SMOKE}")


def test_two_slurm_jobs_that_want_the_same_compute_it_once(through_slurm: Checkout) -> None:
    command = "srun --mem 1000 reid initialise --settings results/smoke/settings/initialise/resnet10-draw0.json"
    started = [
        through_slurm.start(f"{command} --out {place}/resnet10.safetensors", REID_STORE="another store")
        for place in ("one", "two")
    ]
    printed = [each.communicate(timeout=300)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0], printed
    assert sorted("found in the store" in each for each in printed) == [False, True], printed
    one, two = (through_slurm.folder / place / "resnet10.safetensors" for place in ("one", "two"))
    assert one.samefile(two)
