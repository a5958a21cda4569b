"""The documented commands for Kubernetes and an object store: a real S3, and a stand-in for the cluster.

Planned only in `make test`; `make test-kubernetes` also runs jobs in pods that share nothing but what is documented.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Checkout, copy_of_the_project
from pods import Cluster, kubernetes
from s3 import Store, s3

SMOKE = "experiments/smoke/params.yaml"
SCORES = "results/smoke/evaluate/market-side-48-draw0.json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with s3(tmp_path) as found:
        yield found


def documented() -> str:
    """Return the command in the documentation, for the smoke experiment."""
    (command,) = re.findall(
        r"^snakemake --dry-run --workflow-profile profiles/kubernetes .*$", (ROOT / "docs/engines.md").read_text(), re.M
    )
    return str(command).replace("paper", "smoke")


@pytest.mark.workflow
def test_the_documented_command_plans_every_job_and_writes_nothing(
    checkout_with_clusters: Checkout, store: Store
) -> None:
    printed = checkout_with_clusters.run(documented(), KUBECONFIG="nowhere", **store.access())
    counts = dict(re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE))
    assert counts["total"] == "96" and counts["evaluate"] == "7" and counts["send"] == "48"
    assert "s3://bucket/reid/results/smoke/train/market-default-draw0.safetensors" in printed
    log = store.log.read_text()
    assert '"HEAD /bucket/reid/results/smoke/' in log and set(re.findall(r'"(\w+) /bucket/', log)) <= {"HEAD", "GET"}
    assert not store.objects()


@pytest.fixture
def pods(tmp_path: Path, checkout: Checkout) -> Iterator[Cluster]:
    image = tmp_path / "image"
    image.mkdir()
    (image / "pip").write_text("#!/bin/sh\n")  # what it would install is there
    (image / "pip").chmod(0o755)
    environment = {**checkout.environment, "PATH": f"{image}:{checkout.environment['PATH']}"}
    with kubernetes(tmp_path, {**environment, "PYTHONPATH": "", "REID_DEVICE": "cpu"}) as cluster:
        yield cluster


@pytest.mark.kubernetes
def test_pods_that_share_nothing_but_the_bucket_and_the_claims_give_the_same_scores(
    tmp_path: Path, store: Store, pods: Cluster
) -> None:
    """From images to scores, one training; its pods ask for a GPU."""
    local, there = (Checkout(copy_of_the_project(tmp_path / name), clusters=True) for name in ("local", "there"))
    local.run(f"snakemake --cores 2 {SCORES} --configfile {SMOKE}")
    there.change(SMOKE, "resources", {"train": {"gpu": 1}})
    command = documented().replace("--dry-run", SCORES)
    try:
        there.run(command, KUBECONFIG=str(pods.configuration), **store.access())
    except AssertionError as error:
        raise AssertionError(f"{error}\n{pods.logs()}") from None
    assert store.objects()[f"reid/{SCORES}"] == (local.folder / SCORES).read_bytes()
    asked = [job["spec"]["template"]["spec"]["containers"][0]["resources"] for job in pods.jobs.values()]
    assert sorted(each["limits"]["nvidia.com/gpu"] for each in asked) == ["0"] * 6 + ["1"]
    assert not (there.folder / SCORES).exists() and any(pods.claim("images").rglob("*.jpg"))
