"""An object store as the only thing that machines share: Snakemake's storage plugin and DVC's remote, on a real S3.

All of it is for `make test-kubernetes`, as is what else needs a store (test_kubernetes.py).
"""

import json
import os
import random
import re
import shutil
from collections import Counter
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
SNAKEMAKE = f"snakemake --cores 1 --configfile {SMOKE} --default-storage-provider s3"
IN_BUCKET = f"{SNAKEMAKE} --default-storage-prefix s3://bucket/reid"
INDEX = "results/smoke/index/market-500k-draw0.parquet"
PLUGIN = ROOT / ".dvc-s3"  # of DVC, by `make test-kubernetes`
CUTS = 2  # of each transfer
needs_plugin = needs("dvc-s3", PLUGIN.is_dir())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


def checkout(folder: Path) -> Checkout:
    return Checkout(copy_of_the_project(folder), clusters=True)


# --- Snakemake


def test_two_workers_that_share_only_the_bucket_make_the_committed_bytes(store: Store, tmp_path: Path) -> None:
    """The smoke experiment: one has Market-1501, a copy of it the rest, at the same time; then one makes the report."""
    known = json.loads((ROOT / "benchmarks/results/digests.json").read_text())["smoke"]
    scores = [name for name in known if re.fullmatch(r"results/smoke/evaluate/.*\.json", name)]
    market = [name for name in scores if "/market-" in name]
    assert len(market) == 4 and len(scores) == 7
    one = checkout(tmp_path / "one")
    printed = [one.run(f"{IN_BUCKET} results/smoke/initialise/resnet10-draw0.safetensors", **store.access())]
    shutil.copytree(one.folder, tmp_path / "two", ignore=shutil.ignore_patterns(".store"))
    two = Checkout(tmp_path / "two", clusters=True)
    with ThreadPoolExecutor() as both:
        parts = ((one, market), (two, sorted({*scores} - {*market})))
        ended = [both.submit(each.run, f"{IN_BUCKET} {' '.join(names)}", **store.access()) for each, names in parts]
    printed += [each.result() for each in ended]
    printed.append(one.run(IN_BUCKET, **store.access()))
    ran = Counter(rule for said in printed for rule in re.findall(r"^localrule (\w+):", said, re.MULTILINE))
    planned = re.findall(r"^(\w+) +(\d+)$", one.run(f"reid plan {SMOKE}"), re.MULTILINE)
    assert {rule: ran[rule] for rule, _ in planned} == {rule: int(count) for rule, count in planned}  # each job once
    made = {name.removeprefix("reid/"): content for name, content in store.objects("reid/").items()}
    images = re.compile("results/smoke/dataset/[^/]+/")
    known = {name: digest for name, digest in known.items() if not images.match(name)}
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
            with store.line.cut(after=chance.randrange(length * 3 // 4)):
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
    """A checkout with two indexes that DVC made, and a folder of the bucket as its remote."""

    pipeline = "experiments/smoke/dvc.yaml"
    stages = f"{pipeline}:index@market-draw0 {pipeline}:index@market-500k-draw0"

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.here = store, checkout(folder)
        self.here.environment["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), self.here.environment["PYTHONPATH"]])
        self.here.environment |= {"AWS_ACCESS_KEY_ID": store.key, "AWS_SECRET_ACCESS_KEY": store.secret}
        with (folder / ".dvc/config.local").open("a") as settings:
            for name, bucket in (("kept", "bucket"), ("mistaken", "nowhere")):
                settings.write(
                    f"['remote \"{name}\"']\n    url = s3://{bucket}/dvc\n    endpointurl = {store.line.url}\n"
                )
        self.here.run(f"reid plan {SMOKE} --dvc")
        self.here.run(f"dvc repro {self.stages}")
        self.made = {path: path.read_bytes() for path in sorted((folder / "results/smoke/index").iterdir())}
        assert len(self.made) == 2
        self.here.run(f"dvc push --remote kept {self.stages}")
        assert sorted(self.objects().values()) == sorted(self.made.values())

    def objects(self) -> dict[str, bytes]:
        return self.store.objects("dvc/")

    def forget(self, way: str) -> None:
        """Leave what `dvc push` or `dvc pull` is to bring nowhere but at its source."""
        if way == "push":
            for name in self.objects():
                self.store.client("s3").delete_object(Bucket="bucket", Key=name)
        else:  # as in a new clone
            shutil.rmtree(self.here.folder / ".dvc/cache")
            for path in self.made:
                path.unlink()

    def fail(self, command: str, **environment: str) -> list[str]:
        """Return the lines in which DVC says why a command failed."""
        started = self.here.start(command, **environment)
        printed, _ = started.communicate(timeout=600)
        assert started.returncode in (1, 255) and "Traceback" not in printed, printed
        return [line for line in printed.splitlines() if line.startswith("ERROR: ")]


@pytest.fixture(scope="module")
def remote(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    return Remote(store, tmp_path_factory.mktemp("remote"))


@needs_plugin
@pytest.mark.parametrize("way", ["push", "pull"])
def test_dvc_completes_what_a_cut_line_interrupted(
    remote: Remote, tally: Tally, chance: random.Random, way: str
) -> None:
    whole, command, line = remote.objects(), f"dvc {way} --remote kept {remote.stages}", remote.store.line
    remote.forget(way)
    before = line.passed
    remote.here.run(command)
    length = line.passed - before
    for _ in range(CUTS):
        remote.forget(way)
        with tally.trying(f"connection cut, dvc {way}"):
            with line.cut(after=chance.randrange(length * 3 // 4)):
                assert remote.fail(command)
            assert remote.objects().items() <= whole.items()  # nothing half
            remote.here.run(command)
            assert remote.objects() == whole
            assert {path: path.read_bytes() for path in remote.made} == remote.made


@needs_plugin
@pytest.mark.parametrize("command", ["push", "pull", "gc --workspace --cloud --force"])
def test_dvc_with_a_wrong_secret_or_no_bucket_ends_in_a_line_and_deletes_nothing(remote: Remote, command: str) -> None:
    whole = remote.objects()
    for name, secret, line in (
        ("mistaken", remote.store.secret, r"ERROR: .*bucket does not exist"),
        ("kept", "wrong", r"ERROR: .*(signature|Forbidden|denied)"),
    ):
        if command == "pull":
            remote.forget("pull")
        told = remote.fail(f"dvc {command} --remote {name}", AWS_SECRET_ACCESS_KEY=secret)
        assert re.match(line, told[0]), told
        remote.here.run(f"dvc pull --remote kept {remote.stages}")
        assert remote.objects() == whole and {path: path.read_bytes() for path in remote.made} == remote.made


@needs_plugin
def test_dvc_gc_deletes_from_the_bucket_only_what_nothing_refers_to(remote: Remote) -> None:
    here, whole = remote.here, remote.objects()
    (here.folder / "old.txt").write_text("old")
    here.run("dvc add old.txt && dvc push --remote kept old.txt.dvc")
    assert sorted(remote.objects().values()) == sorted([*whole.values(), b"old"])
    (here.folder / "old.txt.dvc").unlink()
    here.run("dvc gc --workspace --cloud --remote kept --force")
    assert remote.objects() == whole
    remote.forget("pull")
    here.run(f"dvc pull --remote kept {remote.stages}")
    assert {path: path.read_bytes() for path in remote.made} == remote.made
