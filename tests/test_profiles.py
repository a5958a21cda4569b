"""Snakemake's profiles, and what it asks of a cluster or finds in a storage, as far as can be told without one."""

import re
from typing import Any

import pytest
import yaml

from conftest import ROOT, Checkout
from reid.params import load

DRY = "snakemake --dry-run --workflow-profile profiles/slurm --configfile experiments/paper/params.yaml"

RULES = {
    rule
    for path in (ROOT / "workflow/rules").glob("*.smk")
    for rule in re.findall(r"^ *rule (\w+):", path.read_text(), re.MULTILINE)
}


def profile(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text())
    return content


def test_profiles_differ_only_in_where_jobs_run() -> None:
    """Snakemake reads one of them, so what they have in common stands in each."""
    default, slurm = profile("default"), profile("slurm")
    assert {key for key in default if default[key] != slurm.get(key)} == {"resources"}


def asked(printed: str) -> dict[str, dict[str, int]]:
    """Give what the first job of each rule asks for."""
    found: dict[str, dict[str, int]] = {}
    for rule, lines in re.findall(r"^ *rule (\w+):\n((?: +\w+: .*\n)*)", printed, re.MULTILINE):
        found.setdefault(rule, {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)(?=,|\n)", lines)})
    return found


def test_another_attempt_asks_for_more_memory_and_time(checkout: Checkout) -> None:
    first, second = (asked(checkout.run(f"{DRY} --attempt {attempt}")) for attempt in (1, 2))
    stated = load(ROOT / "experiments/paper/params.yaml").resources
    assert {name: first["train"][name] for name in ("mem_mb", "runtime", "gpu")} == {
        "mem_mb": stated["train"].mem_mb, "runtime": stated["train"].runtime, "gpu": 1
    }  # fmt: skip
    assert first.keys() == second.keys() == RULES | {"all"}
    for rule in first.keys() - {"all"}:
        assert all(second[rule][name] == 2 * first[rule][name] for name in ("mem_mb", "runtime")), rule
        assert second[rule]["gpu"] == first[rule]["gpu"], rule


@pytest.mark.parametrize(
    "experiment", sorted(path.parent.name for path in (ROOT / "experiments").glob("*/params.yaml"))
)
def test_what_goes_to_slurm_together_asks_for_no_gpu(experiment: str) -> None:
    resources = load(ROOT / f"experiments/{experiment}/params.yaml")
    together = dict(each.split("=") for each in profile("slurm")["groups"])
    assert together["evaluate"] == together["retrieve"] == "score"
    assert [stage for stage in together if resources.resources_of(stage).gpu] == []


def test_groups_are_of_rules() -> None:
    assert {each.split("=")[0] for each in profile("slurm")["groups"]} < RULES
