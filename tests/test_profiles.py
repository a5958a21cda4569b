"""Snakemake's profiles: common settings, and requests to a cluster, in dry runs."""

import re
from typing import Any

import pytest
import yaml

from conftest import ROOT, Checkout
from reid_done_right.dag import STAGES
from reid_done_right.params import load

SMOKE = "experiments/smoke/params.yaml"
DRY = f"snakemake --dry-run --workflow-profile profiles/slurm --configfile {SMOKE}"
RULES = set(STAGES)


def profile(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text())
    return content


def test_profiles_differ_only_in_where_jobs_run() -> None:
    """Snakemake reads one of them, so what they have in common stands in each."""
    default, slurm = profile("default"), profile("slurm")
    assert {key for key in default if default[key] != slurm.get(key)} == {"resources"}


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
    assert first.keys() == second.keys() == RULES | {"all"}
    for rule in RULES:
        assert all(second[rule][name] == 2 * first[rule][name] for name in ("mem_mb", "runtime")), rule
        assert second[rule]["gpu"] == first[rule]["gpu"], rule


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
