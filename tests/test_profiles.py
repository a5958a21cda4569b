"""Snakemake's profiles: common settings, and requests to a cluster, in dry runs."""

import re
from collections import Counter
from typing import Any

import pytest
import yaml

from conftest import NOT_IN_SMOKE, ROOT, Checkout
from reid_done_right.dag import STAGES
from reid_done_right.params import load

SMOKE = "experiments/smoke/params.yaml"
DRY = f"snakemake --dry-run --workflow-profile profiles/slurm --configfile {SMOKE}"
RULES = set(STAGES)
IN_SMOKE = RULES - NOT_IN_SMOKE


def profile(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text())
    return content


def test_profiles_differ_only_in_where_jobs_run() -> None:
    """Snakemake reads one of them, so what they have in common stands in each."""
    default = profile("default")
    for name in ("slurm", "slurm-grouped", "kubernetes"):
        assert {key for key in default if default[key] != profile(name).get(key)} == {"resources"}, name


def asked(printed: str) -> dict[str, dict[str, int]]:
    """Return what the first job of each rule asks for."""
    found: dict[str, dict[str, int]] = {}
    for rule, lines in re.findall(r"^ *rule (\w+):\n((?: +\w+: .*\n)*)", printed, re.MULTILINE):
        found.setdefault(rule, {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)(?=,|\n)", lines)})
    return found


@pytest.mark.workflow
def test_another_attempt_asks_for_more_memory_and_time(checkout_with_clusters: Checkout) -> None:
    first, second = (asked(checkout_with_clusters.run(f"{DRY} --attempt {attempt}")) for attempt in (1, 2))
    stated = load(ROOT / SMOKE).resources_of("train").model_dump(exclude={"threads"})
    assert {name: first["train"][name] for name in stated} == stated
    assert first.keys() == second.keys() == IN_SMOKE | {"all"}
    for rule in IN_SMOKE:
        assert all(second[rule][name] == 2 * first[rule][name] for name in ("mem_mb", "runtime")), rule
        assert second[rule]["gpu"] == first[rule]["gpu"], rule


@pytest.mark.workflow
def test_jobs_of_a_cluster_take_the_plan_that_was_made(checkout_with_clusters: Checkout) -> None:
    checkout, job = checkout_with_clusters, f"{DRY} --mode remote"
    checkout.run(DRY)
    gone = checkout.folder / "results/smoke/settings/train/market-default-draw0.json"  # which a plan would write
    gone.unlink()
    checkout.run(f"{job} results/smoke/train/market-average-pooling-draw0.safetensors")
    assert not gone.exists()
    checkout.run(f"{job} results/smoke/train/market-average-pooling-draw0.safetensors --config numerics=native")
    assert gone.exists()  # of another configuration


@pytest.mark.parametrize(
    "experiment", sorted(path.parent.name for path in (ROOT / "experiments").glob("*/params.yaml"))
)
def test_slurm_groups_request_no_gpu(experiment: str) -> None:
    params = load(ROOT / f"experiments/{experiment}/params.yaml")
    together = dict(each.split("=") for each in profile("slurm")["groups"])
    assert together["evaluate"] == together["retrieve"] == "score"
    assert [stage for stage in together if params.resources_of(stage).gpu] == []


def test_groups_are_of_rules() -> None:
    assert {each.split("=")[0] for each in profile("slurm")["groups"]} < RULES
    assert {each.split("=")[0] for each in profile("slurm-grouped")["groups"]} == RULES


SUBMISSIONS = {
    **{"prepare": 5, "weights": 1, "classify": 6, "learn": 18, "crowd": 6, "score": 10, "curves": 1, "report": 1}
}
GROUPS = """
import sys
from snakemake import cli, jobs

def tell(group, **_):  # what a cluster would be asked for: a dry run counts as this machine
    group.dag.workflow.__class__.local_exec = False
    asked, rules = group.resources, sorted(job.rule.name for job in group.jobs)
    print("GROUP", group.groupid, *(asked[name] for name in ("_cores", "gpu", "runtime", "mem_mb")), *rules)

jobs.GroupJob.log_info = tell
cli.main(sys.argv[1:])
"""


@pytest.mark.workflow
def test_the_papers_313_jobs_are_48_submissions_where_long_jobs_are_grouped_too(
    checkout_with_clusters: Checkout,
) -> None:
    """What each asks Slurm for fits a node of 16 cores and two GPUs, and no GPU waits for a job that needs none."""
    checkout_with_clusters.folder.joinpath("groups.py").write_text(GROUPS)
    options = "--workflow-profile profiles/slurm-grouped --configfile experiments/paper/params.yaml"
    printed = checkout_with_clusters.run(f"python groups.py --dry-run {options}")
    lines = [line.split()[1:] for line in printed.splitlines() if line.startswith("GROUP ")]
    assert Counter(name for name, *_ in lines) == SUBMISSIONS and sum(SUBMISSIONS.values()) == 48
    assert re.findall(r"^rule (\w+):", printed, re.MULTILINE) == ["all"]  # nothing is submitted alone
    assert sum(len(rules) for _, _, _, _, _, *rules in lines) == 313
    params = load(ROOT / "experiments/paper/params.yaml")
    for name, cores, gpus, _, _, *rules in lines:
        wanting = {bool(params.resources_of(STAGES[rule].command or rule).gpu) for rule in rules}
        assert wanting == {gpus != "0"}, name
        assert int(cores) <= 16 and int(gpus) <= 2, name
    (learning,) = {tuple(asked) for name, *asked in lines if name == "learn"}
    assert learning == ("16", "2", "1920", "64000", *["embed"] * 4, *["train"] * 4)


@pytest.mark.workflow
def test_a_training_on_several_gpus_has_one_machine_for_itself_and_asks_slurm_for_all(
    checkout_with_clusters: Checkout,
) -> None:
    checkout = checkout_with_clusters
    content = {**yaml.safe_load((ROOT / SMOKE).read_text()), "resources": {"train": {"gpu": 4}}}
    (checkout.folder / "several.yaml").write_text(yaml.safe_dump(content))
    for name, gpus in (("default", 1), ("slurm", 4)):  # of the first machine's total, or of a node's
        printed = checkout.run(f"snakemake --dry-run --workflow-profile profiles/{name} --configfile several.yaml")
        assert asked(printed)["train"]["gpu"] == gpus
