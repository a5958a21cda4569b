"""The smoke experiment on four nodes of a real Slurm with simulated GPUs, some of which fail on the way.

`make test-slurm` installs Slurm where it may, and runs this.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

import cluster
import nodes
from conftest import Checkout, copy_of_the_project
from nodes import LONG, NODES, Run

pytestmark = pytest.mark.slurm

TRAINING = f"rule_train_wildcards_{LONG}"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Slurm]:
    if os.geteuid() != 0:
        pytest.skip("needs root, as whom the tests' Slurm runs")
    if cluster.missing():
        pytest.skip("needs Slurm")
    if subprocess.run([*cluster.NAMESPACES, "true"], capture_output=True).returncode:
        pytest.skip("needs namespaces, in which the nodes run")
    folder = tmp_path_factory.mktemp("slurm")
    with cluster.slurm(folder, NODES) as running:
        yield running
    assert cluster.processes(folder) == [] and not (cluster.SITE / "slurm.conf").is_symlink()


@pytest.fixture(scope="module")
def copies(slurm: cluster.Slurm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkout]:
    """Three copies of one state of the project."""
    found = {}
    for name in ("local", *nodes.PROFILES):
        found[name] = Checkout(copy_of_the_project(tmp_path_factory.mktemp(name)), clusters=name != "local")
        nodes.prepare(found[name])
    return found


@pytest.fixture(scope="module")
def expected(copies: dict[str, Checkout]) -> dict[str, bytes]:
    """The report as one machine computes it."""
    copies["local"].run(nodes.LOCAL)
    return nodes.reports(copies["local"])


@pytest.fixture(scope="module")
def alone(slurm: cluster.Slurm, copies: dict[str, Checkout]) -> tuple[Run, dict[str, str]]:
    """The experiment with long jobs alone; one node is full, one drained, one lost, and a training cancelled."""
    return nodes.suffer(slurm, copies["slurm"], "slurm")


@pytest.fixture(scope="module")
def grouped(slurm: cluster.Slurm, alone: object, copies: dict[str, Checkout]) -> tuple[Run, dict[str, str]]:
    """The experiment with all jobs in groups; one node hangs."""
    return nodes.suffer(slurm, copies["slurm-grouped"], "slurm-grouped")


def test_reports_are_those_of_one_machine(
    expected: dict[str, bytes], alone: tuple[Run, object], grouped: tuple[Run, object]
) -> None:
    assert expected.keys() >= {"table1.md", "table4.csv", "report.json", "report.html", "figure7.svg"}
    for run, _ in (alone, grouped):
        found = nodes.reports(run.checkout)
        assert found.keys() == expected.keys(), run.profile
        assert [name for name in expected if expected[name] != found[name]] == [], run.profile


def test_nodes_ask_for_different_kernels(alone: tuple[Run, object]) -> None:
    """Else the test above would not mean much."""
    run, _ = alone
    program = "import platform, torch; print(platform.node(), torch.backends.cpu.get_cpu_capability())"
    printed = run.checkout.run(f"srun --nodelist=n1,n2 --nodes=2 python -c '{program}'")
    assert "n2 DEFAULT" in printed.splitlines() and "n1 DEFAULT" not in printed
    for found in run.given:
        (node,) = (node for node in NODES if node.name == found["SLURMD_NODENAME"])
        kernels = {name: value for name, value in node.environment.items() if not name.endswith("_NUM_THREADS")}
        assert found.items() >= kernels.items()  # of threads, Snakemake gives a job as many as it asks for


def test_jobs_run_on_all_nodes(alone: tuple[Run, object]) -> None:
    run, _ = alone
    assert {job.node for job in run.jobs("rule_")} == {node.name for node in NODES}


def test_cancelled_training_is_retried_elsewhere_with_more_resources(alone: tuple[Run, dict[str, str]]) -> None:
    run, hit = alone
    first, second = run.jobs(TRAINING)
    assert (first.state, first.memory, first.time) == ("CANCELLED", "2000M", "10:00")
    assert (second.state, second.memory, second.time) == ("COMPLETED", "4000M", "20:00")
    assert hit["drain"] == hit["cancel"] == first.node != hit["lose"]  # its own is drained


def test_training_of_a_lost_node_resumes_once_and_on_no_drained_one(alone: tuple[Run, dict[str, str]]) -> None:
    run, hit = alone
    *_, last = run.jobs(TRAINING)
    assert last.restarts == "1" and last.node != hit["drain"]  # the lost one is back by then
    assert min(run.progress()) > nodes.SECOND - nodes.EVERY


def test_training_of_a_node_that_hangs_resumes_on_another(grouped: tuple[Run, dict[str, str]]) -> None:
    run, _ = grouped
    *_, last = run.jobs("rule_learn")
    assert last.state == "COMPLETED"
    assert min(run.progress()) > nodes.SECOND - nodes.EVERY


def test_slurm_counts_the_gpus_that_rules_ask_for(alone: tuple[Run, object]) -> None:
    run, _ = alone
    asked = {job.comment: job.gpus for job in run.jobs("rule_")}
    trainings = {job.comment for job in run.jobs("rule_train_")}
    assert len(trainings) == 7
    assert {comment for comment in asked if asked[comment] == "gres:gpu:1"} == trainings
    assert {asked[comment] for comment in asked.keys() - trainings} == {"N/A"}


def test_short_jobs_go_to_slurm_together(alone: tuple[Run, object]) -> None:
    run, _ = alone
    together = Counter(job.comment for job in run.jobs("rule_") if "_wildcards_" not in job.comment)
    report = "rule_report_draw_illustrate_publish_tabulate"
    scored = sum(together.pop(name) for name in [*together] if name.startswith("rule_score_"))
    assert together == {"rule_prepare_dataset_index": 5, report: 1} and scored == 2  # nine jobs, at most eight together


def test_all_jobs_go_to_slurm_in_groups(grouped: tuple[Run, object]) -> None:
    run, _ = grouped
    assert len(run.jobs("rule_")) == 15 + sum(job.state != "COMPLETED" for job in run.jobs())
    assert [job.comment for job in run.jobs() if "_wildcards_" in job.comment] == []


def test_one_machine_takes_over_with_nothing_to_do(alone: tuple[Run, object]) -> None:
    run, _ = alone
    assert "Nothing to be done" in run.checkout.run(nodes.LOCAL)


def test_two_slurm_jobs_that_want_the_same_compute_it_once(alone: tuple[Run, object]) -> None:
    run, _ = alone
    command = "reid initialise --settings results/smoke/settings/initialise/resnet10-draw0.json"
    started = [
        run.checkout.start(
            f"srun --mem 1000 --nodelist {node} {command} --out {node}/resnet10.safetensors", REID_STORE="another store"
        )
        for node in ("n1", "n2")
    ]
    printed = [each.communicate(timeout=300)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0], printed
    assert sorted("found in the store" in each for each in printed) == [False, True], printed
    one, two = (run.checkout.folder / node / "resnet10.safetensors" for node in ("n1", "n2"))
    assert one.samefile(two)
