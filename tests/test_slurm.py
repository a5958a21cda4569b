"""The smoke experiment through a real Slurm of one node with made-up GPUs; a training is cancelled on the way.

`make test-slurm` installs Slurm where it may, and runs this.
"""

import os
import re
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
LONG, UPDATES = "market-side-48-seed0", 400  # a training that lasts long enough to be cancelled in the middle


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The experiment as one machine computes it."""
    checkout = Checkout(copy_of_the_project(tmp_path_factory.mktemp("local")))
    prepare(checkout)
    checkout.run(f"snakemake --cores 2 --configfile {SMOKE}")
    return checkout


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("the tests' Slurm has to be run by root")
    if missing := cluster.missing():
        pytest.skip(f"no Slurm here ({', '.join(missing)}): make test-slurm installs it where there is apt-get")
    with cluster.slurm(tmp_path_factory.mktemp("slurm"), cores=4, gpus=2):
        yield


@pytest.fixture(scope="module")
def through_slurm(node: None, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The experiment through Slurm in one call, in which one training was cancelled."""
    checkout = Checkout(copy_of_the_project(tmp_path_factory.mktemp("through_slurm")))
    prepare(checkout)
    printed = checkout.folder / "printed.txt"
    started = checkout.start(f"exec {THROUGH_SLURM} > {printed} 2>&1", TQDM_MININTERVAL="0.1")
    number = wait_for_the_long_training(checkout, started, printed)
    subprocess.run(["scancel", number], check=True)
    assert started.wait(timeout=900) == 0, printed.read_text()[-6000:]
    return checkout


def prepare(checkout: Checkout) -> None:
    checkout.change(SMOKE, "variants/side-48", {"largest_side": 48, "updates": UPDATES})
    checkout.change(SMOKE, "resources", {"train": {"gpu": 1, "mem_mb": 2000, "runtime": 10}})


def wait_for_the_long_training(checkout: Checkout, started: "subprocess.Popen[str]", printed: Path) -> str:
    """Give the number of the job in which the long training has made some updates."""
    log = checkout.folder / f"results/smoke/logs/train/{LONG}.log"
    deadline = time.monotonic() + 600
    while not (log.is_file() and re.search(rf"\b[1-9]\d*/{UPDATES} \[", log.read_text(errors="replace"))):
        assert started.poll() is None, f"it ended before it trained\n{printed.read_text()}"
        assert time.monotonic() < deadline, f"no training within ten minutes\n{printed.read_text()}"
        time.sleep(0.05)
    (job,) = (job for job in cluster.jobs() if LONG in job.comment and job.state == "RUNNING")
    return job.number


def of_training(name: str) -> list[cluster.Job]:
    return [job for job in cluster.jobs() if job.comment.startswith("rule_train") and name in job.comment]


def reports(checkout: Checkout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (checkout.folder / "reports/smoke").iterdir()}


def test_the_reports_are_those_of_one_machine(local: Checkout, through_slurm: Checkout) -> None:
    expected, found = reports(local), reports(through_slurm)
    assert expected.keys() == found.keys() >= {"table1.md", "table4.csv", "report.json", "report.html", "figure7.svg"}
    assert [name for name in expected if expected[name] != found[name]] == []
