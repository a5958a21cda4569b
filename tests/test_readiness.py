"""`reid check`: data, weights, machine and jobs in every state, against files made for it."""

import hashlib
import json
import os
import re
import shutil
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from conftest import ROOT
from reid_done_right.artifacts import InputError
from reid_done_right.cli import app
from reid_done_right.data.sources import File
from reid_done_right.params import Params, load
from reid_done_right.params.networks import Backbone
from reid_done_right.params.training import Pretrain, Train
from reid_done_right.plan import plan, write_settings
from reid_done_right.readiness import probe as network
from reid_done_right.readiness import weights
from reid_done_right.readiness.datasets import examine
from reid_done_right.readiness.jobs import done, measured
from reid_done_right.readiness.page import duration, show
from reid_done_right.readiness.survey import Survey, quick_survey, survey
from tiny import MISSING, changed

ONLY_OWN = {
    "datasets/market": MISSING,
    "datasets/duke": MISSING,
    "datasets/crowd": MISSING,
    "follow": MISSING,
    "distract": MISSING,
    "report/contact_sheet": MISSING,
    "report/shown/datasets": ["photos"],
    "datasets/photos": {"format": "folder", "source": {"folder": "photos"}, "variants": ["default", "deep"]},
}


def own(**changes: Any) -> Params:
    """Return the tiny experiment on own photos alone; keys of the dataset, or of the experiment with a slash."""
    dataset = ONLY_OWN["datasets/photos"] | {name: value for name, value in changes.items() if "/" not in name}
    others = {name: value for name, value in changes.items() if "/" in name}
    content = ONLY_OWN | {"datasets/photos": dataset} | others
    return Params.model_validate(changed(content))


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with 16 photos of four persons in two cameras."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for person in "abcd":
        for camera in "12":
            for k in range(2):
                path = tmp_path / "photos" / person / camera / f"{k}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


# --- datasets


def look(params: Params, depth: Any = "headers") -> Any:
    settings = plan(params)["dataset"]["photos"].parameters
    return examine("photos", params.datasets["photos"], settings, Path("results/tiny/index/photos.parquet"), depth, 2)[
        0
    ]


def test_whole_dataset_is_ready_and_counted() -> None:
    for depth in ("names", "headers", "pixels"):
        found = look(own(counts={"train": 8, "query": 4}), depth)
        assert (found.state, found.files) == ("ready", ())
        assert found.told.startswith("photos: train 8 of 2 persons, query 4 of 2 persons, gallery 4; ")
        assert "; 2 counts as expected" in found.told
        assert ("; 16 images decoded" in found.told) == (depth == "pixels")


def test_every_draw_of_folders_is_looked_at(photos: Path) -> None:
    photos.rename("photos-0")
    parts = own(source={"folder": "photos-{draw}"})
    found = {each.name: (each.state, each.told.split(":")[0]) for each in quick_survey(parts).findings["datasets"]}
    assert found == {"photos-draw0": ("ready", "photos-0"), "photos-draw1": ("missing", "photos-1")}


def test_missing_wrong_or_miscounted_dataset_is_reported(photos: Path) -> None:
    found = look(own(source={"folder": "elsewhere"}))
    assert (found.state, found.told) == (
        "missing",
        "elsewhere: no such folder; these are photos of your own; put it at elsewhere",
    )
    assert look(own(read={"pattern": "{person}_{rest}"})).state == "wrong"
    found = look(own(counts={"train": 9}))
    assert found.state == "wrong" and "train 8 (9 expected)" in found.told
    (photos / "empty").mkdir()
    assert look(own(source={"folder": "photos/empty"})).state == "missing"


def test_damaged_images_are_named_at_the_depth_that_sees_them(photos: Path) -> None:
    (photos / "a/1/0.jpg").write_bytes(b"")
    middle = photos / "b/1/0.jpg"
    content = middle.read_bytes()
    middle.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    assert look(own(), "names").state == "ready"
    found = look(own(), "headers")
    assert (found.state, found.files) == ("damaged", ("a/1/0.jpg: it is empty (0 bytes)",))
    assert "restore them, or list them in" in found.told
    found = look(own(), "pixels")
    assert found.state == "damaged" and [line.split(":")[0] for line in found.files] == ["a/1/0.jpg", "b/1/0.jpg"]
    allowed = own(allow_damaged=["a/1/0.jpg", "b/1/0.jpg"])
    for depth in ("headers", "pixels"):
        found = look(allowed, depth)
        assert found.state == "ready" and "2 damaged images left out, as allow_damaged says" in found.told
    found = look(own(allow_damaged=["a/1/0.jpg", "b/1/0.jpg", "c/1/0.jpg"]), "pixels")
    assert found.state == "damaged" and "c/1/0.jpg can be decoded" in found.told


def test_doubtful_splits_are_noted(photos: Path) -> None:
    lines = ["path,person_id,camera_id,split"]
    lines += [
        f"{p}/{c}/{k}.jpg,{p},{c},{'train' if p in 'ab' else ('query' if k else 'gallery')}"
        for p in "abcd"
        for c in "12"
        for k in (0, 1)
    ]
    lines[1] = lines[1].replace("train", "gallery")  # of a, who is trained on
    lines[-2:] = [lines[-2].replace("gallery", "train"), lines[-1]]
    lines[-4] = lines[-4].replace("gallery", "train")  # of d, whose queries then find nothing
    (photos / "people.csv").write_text("\n".join(lines))
    found = look(own(format="csv", read={"table": "people.csv"}))
    assert found.state == "note"
    assert "2 of 4 queries have nothing to find and score 0, first d/1/1.jpg" in found.told
    assert "2 persons are both trained and tested on, first 'a': scores will flatter" in found.told


def test_rendered_datasets_are_ready_before_and_after(photos: Path) -> None:
    params = Params.model_validate(changed({}))
    found, index = examine("market", params.datasets["market"], {}, Path("none.parquet"))
    assert (found.state, found.told, index) == ("ready", "rendered by the run", None)


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_damaged_index_of_a_rendered_dataset_does_not_stop_a_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "i.parquet").write_bytes(content)
    found, index = examine("market", Params.model_validate(changed({})).datasets["market"], {}, tmp_path / "i.parquet")
    assert (found.state, found.told, index) == ("ready", "rendered by the run", None)


# --- weights


def first_weights(**source: Any) -> list[Any]:
    resnet18 = {"block": "basic", "blocks": [2, 2, 2, 2]}
    changes = {
        "backbones/shallow": resnet18,
        "variants/deep": {"flip": True},
        "report/table3": [],
        "initialise": source,
    }
    return weights.examine_weights(plan(Params.model_validate(changed(ONLY_OWN | changes))))


def test_first_weights_are_there_missing_to_be_fetched_or_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights/resnet18-f37072fd.pth"

    def state(answers: bool) -> tuple[str, str]:
        monkeypatch.setattr(weights, "answers", lambda url: answers)
        (found,) = first_weights(imagenet="IMAGENET1K_V1", folder=str(file.parent))
        return found.state, found.told

    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert state(False) == ("missing", f"{file}: not there, and no network reaches {url}; put it there")
    assert state(True) == ("note", f"{file}: not there yet; the run fetches it from {url}")
    file.parent.mkdir()
    file.write_bytes(b"half")
    assert state(True)[0] == "damaged" and "its SHA-256 is" in state(True)[1]
    content = {"path": file, "sha256": hashlib.sha256(b"half").hexdigest()}
    monkeypatch.setattr("reid_done_right.data.fetch.weights_file", lambda *_: File(**content, urls=(url,)))
    assert state(False) == ("ready", f"{file}, verified")


def test_own_weights_are_present_or_missing(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    (found,) = first_weights(checkpoints={"shallow": str(file)})
    assert found.state == "missing" and f"{file}: no such file; give the path of your weights" in found.told
    file.touch()
    (found,) = first_weights(checkpoints={"shallow": str(file)})
    assert (found.state, found.told) == ("ready", str(file))


def test_releases_that_the_run_unpacks_or_fetches_are_noted(photos: Path) -> None:
    archive = photos.parent / "photos.zip"
    away = own(
        source={
            "folder": "unpacked",
            "archives": [{"path": str(archive), "urls": ["https://localhost/photos.zip"], "bytes": 2_000_000_000}],
        }
    )
    found = look(away)
    assert found.state == "note"
    assert found.told == "unpacked: not there yet; the run will fetch https://localhost/photos.zip and unpack (2.0 GB)"
    archive.touch()
    assert look(away).told == f"unpacked: not there yet; the run will unpack {archive}"


def test_check_queries_weight_server(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert weights.answers((tmp_path / "there").as_uri())
    assert not weights.answers((tmp_path / "none").as_uri())


# --- jobs


def make(jobs: Any, *wanted: str) -> None:
    """Make the outputs of jobs given as group/job, newer than all settings."""
    for name in wanted:
        group, job = name.split("/")
        for path in map(Path, jobs[group][job].outputs.values()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (4e9, 4e9))


CHAIN = (
    "dataset/photos",
    "index/photos",
    "initialise/shallow-draw0",
    "pretrain/photos-shallow-draw0",
    "train/photos-default-draw0",
    "embed/photos-default-draw0",
    "evaluate/photos-default-draw0",
)


def finished(params: Params) -> set[str]:
    return {f"{group}/{job}" for group, names in done(plan(params)).items() for job in names}


def test_job_is_done_if_it_and_all_before_it_are() -> None:
    params = own()
    jobs = plan(params)
    assert finished(params) == set()
    make(jobs, *CHAIN)
    assert finished(params) == set()  # no settings: nobody knows what made them
    write_settings(jobs, Path("results/tiny/settings"))
    assert finished(params) == set(CHAIN)
    Path("results/tiny/pretrain/photos-shallow-draw0.safetensors").unlink()
    assert finished(params) == set(CHAIN[:3])


def test_jobs_of_other_settings_code_or_time_are_not_done() -> None:
    params = own()
    jobs = plan(params)
    write_settings(jobs, Path("results/tiny/settings"))
    make(jobs, *CHAIN)
    assert finished(own(**{"train/margin": 0.2})) == set(CHAIN[:4])
    settings = Path("results/tiny/settings/embed/photos-default-draw0.json")
    written = json.loads(settings.read_text())
    settings.write_text(json.dumps(written | {"code": "0"}))
    assert finished(params) == set(CHAIN[:5])
    settings.write_text("{")
    assert finished(params) == set(CHAIN[:5])
    settings.write_text(json.dumps(written))
    assert finished(params) == set(CHAIN)
    os.utime("results/tiny/train/photos-default-draw0.safetensors", (1, 1))
    assert finished(params) == set(CHAIN[:4])


def test_times_of_jobs_that_ran_are_their_mean() -> None:
    folder = Path("results/tiny/benchmarks/evaluate")
    folder.mkdir(parents=True)
    assert measured("tiny", "evaluate") is None
    (folder / "a.tsv").write_text("s\th:m:s\n2.0\t0:00:02\n")
    (folder / "b.tsv").write_text("s\th:m:s\n4.0\t0:00:04\n")
    (folder.parent / "draw").mkdir()
    (folder.parent / "draw/figures.tsv").write_text("s\n5\n")
    assert (measured("tiny", "evaluate"), measured("tiny", "draw")) == (3.0, 5.0)
    (folder / "b.tsv").write_text("nothing\n1\n")
    with pytest.raises(InputError, match=r"b\.tsv: not a benchmark of Snakemake; delete it"):
        measured("tiny", "evaluate")


# --- networks


def test_arithmetic_and_weights_of_a_network_by_hand() -> None:
    layers = Backbone(block="basic", blocks=[1, 1, 1, 1], width=2)
    sizes = [(16, 2, 3, 7)]  # at 32 x 32: the first layer gives 16 x 16, then pooling 8 x 8
    for stage, (into, out, side) in enumerate(((2, 2, 8), (2, 4, 4), (4, 8, 2), (8, 16, 1))):
        sizes += [(side, out, into, 3), (side, out, out, 3)] + [(side, out, into, 1)] * (stage > 0)
    assert network.arithmetic(layers, 32, 32) == 2 * sum(side**2 * out * into * k**2 for side, out, into, k in sizes)
    convolutions = sum(out * into * k**2 for _, out, into, k in sizes)
    norms = sum(4 * out + 1 for _, out, _, _ in sizes)  # two parameters, two statistics a channel, and a counter
    assert network.weights_bytes(layers) == 4 * (convolutions + norms)
    assert network.weights_bytes(layers, 5) == 4 * (convolutions + norms + 16 * 5 + 5)


def test_shorter_variants_of_the_embedded_experiment_take_the_compute_of_the_default() -> None:
    params = load(ROOT / "params.yaml")
    default = params.variant("default")
    shallow = network.arithmetic(params.backbones[default.backbone], 64, 32)
    found = {name: params.variant(name) for name in params.variants if name.endswith("-shorter")}
    assert {variant.backbone for variant in found.values()} == params.backbones.keys() - {default.backbone}
    for name, variant in found.items():
        share = network.arithmetic(params.backbones[variant.backbone], 64, 32) / shallow
        classified = params.classification(variant)
        assert share * variant.updates == pytest.approx(default.updates, rel=0.01), name
        assert share * variant.halve_every == pytest.approx(default.halve_every, rel=0.02), name
        assert classified and share * classified.updates == pytest.approx(params.pretrain.updates, rel=0.01), name
        assert len({(each.largest_side, each.batch, each.pool, each.refresh) for each in (variant, default)}) == 1


def sections() -> tuple[Backbone, Pretrain, Train]:
    params = own()
    return params.backbones["shallow"], params.pretrain, params.train


def test_memory_grows_with_images_at_once() -> None:
    layers, pretrain, train = sections()
    sizes = [network.ranking_memory(layers, train.model_copy(update={"at_once": k, "batch": 64})) for k in (8, 16, 24)]
    small, each = sizes[0], np.diff(sizes)
    assert each[0] == each[1] > 8 * 4 * 3 * 32 * 16  # at least the images
    assert small - each[0] > 3 * network.weights_bytes(layers, train.embedding) / 2
    assert network.ranking_memory(layers, train.model_copy(update={"at_once": 64, "batch": 8})) == sizes[2]
    averaged = network.ranking_memory(layers, train.model_copy(update={"at_once": 8, "batch": 64, "average": 0.5}))
    assert averaged - small == 2 * network.weights_bytes(layers, train.embedding)  # sums in float64
    double = pretrain.model_copy(update={"batch": 2 * pretrain.batch})
    assert network.classification_memory(layers, double) > network.classification_memory(layers, pretrain) > 0


def test_probe_measures_this_device() -> None:
    speed = network.probe(*sections(), threads=1)
    assert all(1e-6 < seconds < 5 for seconds in (speed.classify, speed.rank, speed.embed))
    assert speed.embed < 3 * speed.rank


def test_probe_measures_an_update_that_learns_statistics() -> None:
    layers, pretrain, train = sections()
    learning = {"batch_norm": "statistics", "batching": "sequential", "largest_side": 64}
    assert network.probe(layers, pretrain, train.model_copy(update=learning), threads=1).rank > 0


def test_budget_reduces_number_then_size_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, size = sections()[0], (256, 128)
    each = network.arithmetic(layers, *size)

    def affordable(images: float, wanted: int = 30, layers: Backbone = layers) -> Any:
        monkeypatch.setattr(network, "BUDGET", int(images * each))
        return network.affordable(layers, wanted, 3, size)

    assert affordable(30) == (30, size)
    assert affordable(1000) == (30, size)
    assert affordable(29) == (27, size)
    assert affordable(3) == (3, size)
    assert affordable(3 / 4) == (3, (128, 64))
    assert affordable(3 / 10_000) == (3, (16, 16))
    assert affordable(1e-6, layers=Backbone(family="inception_v3")) == (3, (75, 75))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [{"family": "densenet121"}, {"family": "inception_v3"}])
def test_every_family_is_probed_in_seconds(backbone: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "BUDGET", 10**9)
    _, pretrain, train = sections()
    train = train.model_copy(update={"largest_side": 200, "batching": "sequential"})
    pretrain = pretrain.model_copy(update={"crop_height": 128, "crop_width": 128})
    layers = Backbone(**backbone)
    start = time.process_time()
    speed = network.probe(layers, pretrain, train, threads=1)
    assert time.process_time() - start < 60
    assert 0 < speed.embed < speed.rank
    assert network.ranking_memory(layers, train) > network.weights_bytes(layers, train.embedding)
    assert network.dimension(layers, 0) == {"densenet121": 1024, "inception_v3": 2048}[backbone["family"]]


# --- the whole


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of known speed."""
    monkeypatch.setattr(network, "probe", lambda *_, **__: network.Speed(classify=1.0, rank=10.0, embed=0.1))


@pytest.mark.usefixtures("steady")
def test_times_are_scaled_by_arithmetic_images_and_updates() -> None:
    params = own()
    work = {work.group: work for work in survey(params).work}
    shallow, deep = (params.backbones[name] for name in ("shallow", "deep"))
    share = network.arithmetic(deep, 32, 16) / network.arithmetic(shallow, 32, 16)
    crop = network.arithmetic(deep, 32, 16) / network.arithmetic(shallow, 32, 16)
    assert work["pretrain"].seconds == pytest.approx(2 * 2 * 4 * 1.0 * (1 + crop))  # seeds, updates, batch
    ranking = 4 * 6 * 10.0 + 2 * 6 * 0.1  # updates of 6 images, and two pools of 6
    assert work["train"].seconds == pytest.approx(2 * ranking * (1 + share))
    assert work["embed"].seconds == pytest.approx(2 * 8 * 0.1 * (1 + share))
    assert work["evaluate"].seconds is None
    assert [work[group].jobs for group in ("dataset", "train", "tabulate")] == [1, 4, 1]


@pytest.mark.usefixtures("steady")
def test_passes_are_as_long_as_the_dataset() -> None:
    params = own()
    passes = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"updates": None, "passes": 3.0})})
    work = [{work.group: work.seconds for work in survey(each).work}["pretrain"] for each in (params, passes)]
    assert work[0] is not None and work[1] == pytest.approx(work[0] * 6 / 2)  # 3 passes over 8 images, 4 at a time


@pytest.mark.usefixtures("steady")
def test_passes_over_joint_training_images_are_over_all_of_them(photos: Path) -> None:
    shutil.copytree(photos, "more")
    more = {"format": "folder", "source": {"folder": "more"}}
    both = {"train_on": ["photos", "more"], "test_on": ["more"], "variants": ["default"]}
    passes = {"pretrain/updates": MISSING, "pretrain/passes": 3.0}
    others = {"datasets/photos/variants": [], "datasets/more": more, "joint": {"both": both}, "report/shown": MISSING}
    found = survey(Params.model_validate(changed({**ONLY_OWN, **others, **passes})))
    assert [(each.name, each.state) for each in found.findings["datasets"]] == [
        (name, "ready") for name in ("photos", "more", "both")
    ]
    assert found.findings["datasets"][-1].told == "joins photos, more: train 16 of 4 persons"
    work = {work.group: work for work in found.work}
    assert (work["join"].jobs, work["pretrain"].jobs) == (1, 2)
    assert work["pretrain"].seconds == pytest.approx(2 * 12 * 4 * 1.0)  # 3 passes over 16 images, 4 at a time, twice


def printed(found: Survey) -> str:
    console = Console(record=True, width=100, file=StringIO())
    show(found, console)
    return console.export_text()


@pytest.mark.usefixtures("steady")
def test_check_page_shows_everything(photos: Path) -> None:
    found = survey(own())
    page = printed(found)
    assert found.ready and "Ready to run." in page
    (noise,) = found.findings["training"]
    assert noise.told.endswith("weighted by the learning rate: 2.0 % (deep, default)")
    for text in (
        "Experiment tiny",
        "photos: train 8 of 2 persons",
        "learned by the run",
        "cut-out",
        "free in",
        "not estimated",
        "by the probe",
        "Estimate: jobs one after the other",
    ):
        assert text in page, text
    for k in range(12):
        (photos / f"a/1/bad{k:02}.jpg").write_bytes(b"")
    page = printed(survey(own(), probe=False))
    assert "Not ready. Mend first datasets: photos." in page
    assert "a/1/bad09.jpg: it is empty" in page and "and 2 more: --json FILE lists all" in page
    assert "bad10" not in page and "Estimate" not in page


def test_full_disk_and_a_small_gpu_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(network, "device_memory", lambda: ("Tiny GPU", 1000, 2000, 1))
    assert "no job asks for a GPU" in survey(own(), probe=False).findings["machine"][1].told
    asking = own(**{"resources/train/gpu": 1})
    found = survey(asking, probe=False)
    disk, gpu = found.findings["machine"]
    assert (disk.state, gpu.state, found.ready) == ("short", "short", False)
    assert "free some, or run fewer variants or draws" in disk.told
    assert "Tiny GPU has" in gpu.told and "lower train.at_once or pretrain.batch, or use a larger GPU" in gpu.told
    monkeypatch.setattr(network, "device_memory", lambda: ("GPU", 10**12, 10**12, 1))
    assert survey(asking, probe=False).findings["machine"][1].state == "ready"
    monkeypatch.setattr(network, "device_memory", lambda: None)
    gpu = survey(asking, probe=False).findings["machine"][1]
    assert gpu.state == "note" and "no CUDA device here, without which jobs that ask for one fail" in gpu.told


@pytest.mark.slow
def test_memory_in_the_page_on_gpus_is_what_the_check_estimates() -> None:
    rows = re.findall(r"^\| (resnet\d+) \| (\d+) \| ([\d. |]+) \|$", (ROOT / "docs/gpu.md").read_text(), re.MULTILINE)
    params = load(ROOT / "experiments/paper/params.yaml")
    chosen, layers = params.variant("default"), params.backbones
    assert len(rows) == 9
    for backbone, side, told in rows:
        if backbone == "resnet152" and side != "416":
            continue  # seconds each
        ways = [{"at_once": n, "precision": p} for n in (192, 96, 24) for p in ("float32", "bfloat16")]
        settings = [chosen.model_copy(update={"largest_side": int(side), **way}) for way in ways]
        found = [f"{network.ranking_memory(layers[backbone], way) / 2**30:.1f}" for way in settings]
        assert found == told.split(" | "), (backbone, side)
    classified = [f"{network.classification_memory(of, params.pretrain) / 2**30:.1f}" for of in layers.values()]
    assert "{}, {} and {} GiB for the three backbones".format(*classified) in (ROOT / "docs/gpu.md").read_text()


def test_published_counts_replace_missing_datasets() -> None:
    params = Params.model_validate(
        changed(
            {
                "datasets/market/source": {"folder": "none"},
                "datasets/crowd/source": {"folder": "none"},
                "report/contact_sheet": MISSING,
            }
        )
    )
    found = survey(params, probe=False)
    with_counts = found.findings["machine"][0].told
    assert not found.ready and "at least" in with_counts
    from reid_done_right.readiness.survey import _tested

    assert _tested(params, "market", None) == 19_732 + 3_368
    assert _tested(params, "crowd", None) == 6  # as many as the curves ask for
    assert _tested(params, "duke", None) is None


def test_quick_check_covers_named_datasets_only() -> None:
    params = Params.model_validate(
        changed({"datasets/market/source": {"folder": "none"}, "report/contact_sheet": MISSING})
    )
    assert [finding.name for finding in quick_survey(params).failing] == ["market"]
    assert quick_survey(params, ["duke"]).ready
    with pytest.raises(InputError, match="no dataset is called mars; the experiment reads market, duke, crowd"):
        quick_survey(params, ["mars"])


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["check", *arguments])


def test_memory_of_classification_is_that_of_each_variants_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(network, "classification_memory", lambda _, pretrain: asked.append(pretrain.batch) or 2**40)
    params = changed(ONLY_OWN)
    params["variants"]["deep"] = {**params["variants"]["deep"], "pretrain": {"batch": 2 * params["pretrain"]["batch"]}}
    found = survey(Params.model_validate(params), probe=False)
    assert sorted(set(asked)) == [params["pretrain"]["batch"], 2 * params["pretrain"]["batch"]]
    assert "1024.0 GiB of memory for pretrain, photos-" in found.findings["machine"][1].told


def test_network_that_no_cpu_should_train_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "BUDGET", 1)
    monkeypatch.setattr(network, "probe", lambda *_: pytest.fail("it was timed"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    told: list[str] = []
    found = survey(own(), tell=told.append)
    assert found.findings["machine"][-1].told.startswith("not estimated: shallow at 32 pixels is no work for a CPU")
    assert told == ["jobs", "dataset photos", "finished jobs", "weights", "disk and memory", "time"]


@pytest.mark.usefixtures("steady")
def test_check_writes_json_and_exit_status(photos: Path) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(changed(ONLY_OWN)))
    result = run("--json", "check.json")
    assert result.exit_code == 0, result.output
    written = json.loads(Path("check.json").read_text())
    assert written["ready"] and written["datasets"][0]["state"] == "ready"
    assert written["seconds_an_image"] == {"classify": 1.0, "rank": 10.0, "embed": 0.1}
    assert {work["group"] for work in written["jobs"]} >= {"train", "embed"}
    (photos / "a/1/0.jpg").write_bytes(b"")
    result = run("params.yaml", "--no-probe", "--json", "check.json")
    assert result.exit_code == 1 and "Not ready" in result.output
    written = json.loads(Path("check.json").read_text())
    assert not written["ready"] and written["datasets"][0]["files"] == ["a/1/0.jpg: it is empty (0 bytes)"]
    assert written["seconds_an_image"] is None
    assert not Path("results").exists()  # asking changes nothing


def test_quick_part_prints_errors_only(photos: Path) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(changed(ONLY_OWN)))
    result = run("params.yaml", "--quick")
    assert (result.exit_code, result.output) == (0, "")
    photos.rename("moved")
    result = run("params.yaml", "--quick")
    line = "reid: error: dataset photos is missing: photos: no such folder; these are photos of your own; put it at photos\n"
    assert (result.exit_code, result.output) == (1, line)


def test_durations_are_in_peoples_units() -> None:
    times = (0.4, 42, 89, 91, 3600, 5399, 5401, 86_400, 129_599, 129_600, 864_000, 1e8)
    expected = [
        "0 s",
        "42 s",
        "89 s",
        "1.5 min",
        "60 min",
        "90 min",
        "1.5 h",
        "24 h",
        "36 h",
        "1.5 days",
        "10 days",
        "1,157 days",
    ]
    assert [duration(seconds) for seconds in times] == expected
