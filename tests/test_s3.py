"""An object store as the only thing that machines share: Snakemake's storage plugin and DVC's remote, on a real S3.

All of it is for `make test-kubernetes`, as is what else needs a store (test_kubernetes.py).
"""

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from conftest import ROOT, Checkout, copy_of_the_project, needs
from faults import Tally
from s3 import Store, s3

pytestmark = pytest.mark.kubernetes

SMOKE = "experiments/smoke/params.yaml"
SNAKEMAKE = f"snakemake --cores 1 --default-storage-provider s3 --configfile {SMOKE}"
IN_BUCKET = f"{SNAKEMAKE} --default-storage-prefix s3://bucket/reid"
INDEX = "results/smoke/index/market-draw0.parquet"
PLUGIN = ROOT / ".dvc-s3"  # of DVC, by `make test-kubernetes`
CUTS = 3  # of each transfer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


def checkout(folder: Path) -> Checkout:
    return Checkout(copy_of_the_project(folder), clusters=True)


# --- Snakemake


def test_two_workers_that_share_only_the_bucket_make_the_committed_bytes(store: Store, tmp_path: Path) -> None:
    """The smoke experiment: one has Market-1501, the other the rest, at the same time; then one makes the report."""
    one, two = checkout(tmp_path / "one"), checkout(tmp_path / "two")
    known = json.loads((ROOT / "benchmarks/results/digests.json").read_text())["smoke"]
    scores = [name for name in known if re.fullmatch(r"results/smoke/evaluate/.*\.json", name)]
    market = [name for name in scores if "/market-" in name]
    assert len(market) == 4 and len(scores) == 7
    one.run(f"{IN_BUCKET} results/smoke/initialise/resnet10-draw0.safetensors", **store.access())
    with ThreadPoolExecutor() as both:
        parts = ((one, market), (two, sorted({*scores} - {*market})))
        ended = [both.submit(each.run, f"{IN_BUCKET} {' '.join(names)}", **store.access()) for each, names in parts]
    for each in ended:
        each.result()
    one.run(IN_BUCKET, **store.access())
    assert not {made.name for made in one.objects()} & {made.name for made in two.objects()}
    made = {name.removeprefix("reid/"): content for name, content in store.objects("reid/").items()}
    known = {name: digest for name, digest in known.items() if not name.endswith(".jpg")}
    assert {name: sha256(made[name]).hexdigest() for name in known} == known


@pytest.mark.parametrize(
    ("bucket", "access", "line"),
    [
        ("nowhere", {}, "s3://nowhere: no such bucket; create it, or correct --default-storage-prefix"),
        ("bucket", {"secret_key": "wrong"}, "s3://bucket: access denied; correct SNAKEMAKE_STORAGE_S3_ACCESS_KEY "),
        ("bucket", {"access_key": "nobody"}, "s3://bucket: access denied; correct SNAKEMAKE_STORAGE_S3_ACCESS_KEY "),
        ("bucket", {"endpoint_url": "http://127.0.0.1:9"}, "s3://bucket: Could not connect to the endpoint URL: "),
    ],
    ids=["missing-bucket", "wrong-secret", "wrong-key", "no-server"],
)
def test_snakemake_without_its_bucket_ends_in_a_line(
    store: Store, checkout_with_clusters: Checkout, bucket: str, access: dict[str, str], line: str
) -> None:
    before = store.objects()
    command = f"{SNAKEMAKE} --default-storage-prefix s3://{bucket}/reid {INDEX}"
    printed = checkout_with_clusters.run(command, status=1, **store.access(**access))
    _profile, said = printed.splitlines()
    assert said.startswith(line)
    assert store.objects() == before and len(store.client("s3").list_buckets()["Buckets"]) == 1


def test_snakemake_completes_what_a_cut_line_interrupted(
    store: Store, tally: Tally, chance: random.Random, tmp_path: Path
) -> None:
    """A dataset and its index, uploaded and read again, cut anywhere: in the plan, a transfer or between two."""
    here = checkout(tmp_path)
    command = f"{SNAKEMAKE} {INDEX} --storage-s3-retries 1 --default-storage-prefix s3://bucket"
    before = store.line.passed
    here.run(f"{command}/whole", **store.access())
    whole, length = stored(store, "whole/"), store.line.passed - before
    for number in range(CUTS):
        with tally.trying("connection cut, Snakemake"):
            with store.line.cut(after=chance.randrange(length)):
                here.run(f"{command}/cut{number}", status=1, **store.access())
            assert stored(store, f"cut{number}/").items() < whole.items()  # nothing half
            here.run(f"{command}/cut{number}", **store.access())
            assert stored(store, f"cut{number}/") == whole


def stored(store: Store, prefix: str) -> dict[str, bytes]:
    """Return what jobs read from each other."""
    found = {name.removeprefix(prefix): content for name, content in store.objects(prefix).items()}
    return {name: content for name, content in found.items() if not re.match("results/smoke/(logs|benchmarks)/", name)}


# --- DVC


class Remote:
    """A checkout with an index that DVC made, and a bucket's folder as its remote."""

    pipeline = "experiments/smoke/dvc.yaml"
    stages = f"{pipeline}:dataset@market-draw0 {pipeline}:index@market-draw0"

    def __init__(self, store: Store, folder: Path) -> None:
        self.here = checkout(folder)
        self.here.environment["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), self.here.environment["PYTHONPATH"]])
        self.configure(store, "bucket", store.key, store.secret)
        self.here.run(f"reid plan {SMOKE} --dvc")

    def configure(self, store: Store, bucket: str, key: str, secret: str) -> None:
        self.here.run(f"dvc remote add --local --default --force kept s3://{bucket}/dvc")
        for name, value in (("endpointurl", store.line.url), ("access_key_id", key), ("secret_access_key", secret)):
            self.here.run(f"dvc remote modify --local kept {name} {value}")


@pytest.fixture(scope="module")
def remote(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    made = Remote(store, tmp_path_factory.mktemp("remote"))
    made.here.run(f"dvc repro {made.pipeline}:index@market-draw0")
    return made


@needs("dvc-s3", PLUGIN.is_dir())
def test_dvc_completes_a_push_and_a_pull_that_a_cut_line_interrupted(
    store: Store, remote: Remote, tally: Tally, chance: random.Random
) -> None:
    here = remote.here
    kept = {path: path.read_bytes() for path in (here.folder / "results/smoke").glob("*/market-draw0.*")}
    before = store.line.passed
    here.run(f"dvc push {remote.stages}")
    whole, length = store.objects("dvc/"), store.line.passed - before
    assert {sha256(content).digest() for content in kept.values()} <= {sha256(each).digest() for each in whole.values()}
    for way in ["push", "pull"] * CUTS:
        if way == "push":
            remove(store, "dvc/")
        else:
            for path in (here.folder / ".dvc/cache", *kept):  # as in a new clone
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with tally.trying(f"connection cut, dvc {way}"):
            with store.line.cut(after=chance.randrange(length)):
                here.run(f"dvc {way} {remote.stages}", status=1)
            assert store.objects("dvc/").items() <= whole.items()
            here.run(f"dvc {way} {remote.stages}")
            assert store.objects("dvc/") == whole and {path: path.read_bytes() for path in kept} == kept


def remove(store: Store, prefix: str) -> None:
    for name in store.objects(prefix):
        store.client("s3").delete_object(Bucket="bucket", Key=name)
