"""External data of an experiment, through the plan, the stages and the commands."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml

import servers
from conftest import Reid
from pedestrians import releases
from reid_done_right import plan as planning
from reid_done_right.artifacts import InputError, read_json, read_weights
from reid_done_right.data.download import Patience
from reid_done_right.data.fetch import obtain_file
from reid_done_right.data.readers import READERS, RELEASES, advice
from reid_done_right.data.sources import TABLE, File
from reid_done_right.params import Params
from reid_done_right.params.datasets import OWN
from reid_done_right.params.networks import SMALLEST
from reid_done_right.stages.fetch import fetch
from reid_done_right.stages.initialise import initialise
from tiny import MISSING, changed

RESNET18 = {"block": "basic", "blocks": [2, 2, 2, 2]}


def with_archives(*archives: Any, folder: str = "data/duke") -> dict[str, Any]:
    return changed({"datasets/duke/source": {"folder": folder, "archives": list(archives)}})


def with_imagenet(folder: Path) -> dict[str, Any]:
    few = {"backbones/deep": MISSING, "variants/deep": MISSING, "report/table3": [], "distract/variants": ["default"]}
    first = {"imagenet": "IMAGENET1K_V1", "folder": str(folder)}
    return changed({"backbones/shallow": RESNET18, "initialise": first, **few})


def parameters(content: dict[str, Any], group: str, job: str) -> dict[str, Any]:
    settings = planning.plan(Params.model_validate(content))[group][job].parameters
    assert isinstance(settings, dict)
    return settings


@pytest.fixture(scope="module")
def duke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zipped release, one folder deep as the official ones are."""
    folder = tmp_path_factory.mktemp("duke")
    render = {"world": 2, "hardness": 0.5, "train_ids": 3, "test_ids": 2, "cameras": 2, "distractor_ids": 1}
    releases.write_dukemtmc(folder / "DukeMTMC-reID", workers=1, **render)
    return Path(shutil.make_archive(str(folder / "duke"), "zip", folder, "DukeMTMC-reID"))


# --- the table


def test_every_format_has_a_source() -> None:
    assert set(RELEASES) == set(READERS) - set(OWN)
    for release in RELEASES.values():
        assert {"title", "page", "licence", "obtain", "folder", "holds"} <= set(release)


def test_every_published_network_has_its_weights() -> None:
    assert set(TABLE["weights"]["IMAGENET1K_V1"]) == {*planning.PUBLISHED.values(), *SMALLEST}


def test_withdrawn_and_on_request_releases_have_no_address() -> None:
    for layout in ("dukemtmc", "person-search", "mars"):
        assert "archives" not in TABLE["releases"][layout]
    assert "withdrawn by its owner" in advice("dukemtmc") and "never downloaded" in advice("dukemtmc")
    assert not any(
        "url" in archive
        for layout in ("market1501", "distractors")
        for archive in TABLE["releases"][layout]["archives"]
    )


# --- the plan


def test_published_archives_lie_beside_the_folder() -> None:
    source = {"folder": "data/market", "archives": "published"}
    content = changed({"datasets/market/source": source, "report/contact_sheet": None})
    (archive,) = parameters(content, "dataset", "market")["source"]["archives"]
    assert archive == {"path": "data/Market-1501-v15.09.15.zip", "urls": [], "bytes": 152_733_771}


def test_dataset_without_published_archives_is_reported() -> None:
    content = changed({"datasets/duke/source": {"folder": "data/duke", "archives": "published"}})
    with pytest.raises(
        InputError,
        match=r"datasets\.duke\.source\.archives: dukemtmc is not published as archives to unpack; DukeMTMC-reID was "
        r"withdrawn .* and give its folder without archives",
    ):
        parameters(content, "dataset", "duke")


def test_address_names_its_file() -> None:
    content = with_archives(
        "https://a.org/x/my%20duke.zip?key=3", {"path": "b.zip", "urls": ["https://a.org/download?id=3"]}
    )
    archives = parameters(content, "dataset", "duke")["source"]["archives"]
    assert [archive["path"] for archive in archives] == ["data/my duke.zip", "b.zip"]


def test_settings_change_with_own_folder_not_unpacking(duke: Path, tmp_path: Path) -> None:
    content = with_archives(str(duke), folder=str(tmp_path / "duke"))
    before = parameters(content, "dataset", "duke")
    fetch(settings=before)
    assert parameters(content, "dataset", "duke") == before
    (tmp_path / "duke/.unpacked.json").unlink()
    assert parameters(content, "dataset", "duke") != before


def test_changed_checkpoint_touches_its_backbone(tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    content = changed({"initialise": {"checkpoints": {"shallow": str(file), "deep": "deep.pth"}}})
    absent = parameters(content, "initialise", "shallow")
    file.write_bytes(b"1")
    assert parameters(content, "initialise", "shallow") != absent
    content["initialise"]["checkpoints"].pop("deep")
    with pytest.raises(InputError, match=r"initialise\.checkpoints: no file for the backbone deep; add it"):
        parameters(content, "initialise", "shallow")


def test_checkpoint_with_a_draw_in_its_path_is_one_a_draw() -> None:
    files = {"shallow": "first/train/msmt17-default-draw{draw}.safetensors", "deep": "deep.pth"}
    content = changed({"initialise": {"checkpoints": files}})
    for draw in (0, 1):
        own = parameters(content, "initialise", f"shallow-draw{draw}")
        assert own["checkpoint"] == f"first/train/msmt17-default-draw{draw}.safetensors"
    assert parameters(content, "initialise", "deep")["checkpoint"] == "deep.pth"


# --- weights


@pytest.mark.slow
def test_imagenet_weights_are_fetched_verified_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = torchvision.models.resnet18().state_dict()
    torch.save(published, tmp_path / "served.pth")
    content = (tmp_path / "served.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    with servers.serving(content) as server:
        known = {"url": server.url("resnet18-f37072fd.pth"), "sha256": digest[:8], "bytes": len(content)}
        monkeypatch.setitem(TABLE["weights"]["IMAGENET1K_V1"], "resnet18", known)
        settings = parameters(with_imagenet(tmp_path / "weights"), "initialise", "shallow")
        with pytest.raises(InputError, match=r"resnet18-f37072fd.pth: no such file, and nothing is fetched offline"):
            fetch(settings=settings, offline=True)
        file = fetch(settings=settings)
        assert file == fetch(settings=settings, offline=True) == tmp_path / "weights/resnet18-f37072fd.pth"
        assert len(server.asked) == 1
    initialise(settings=settings, out=tmp_path / "first", weights=file)
    written = read_weights(tmp_path / "first").state
    assert all(torch.equal(tensor, published[name]) for name, tensor in written.items()) and len(written) == 120
    file.write_bytes(content[:-1])
    with pytest.raises(
        InputError, match=rf"f37072fd.pth: its SHA-256 is \w+, but {digest[:8]} is published; obtain it"
    ):
        fetch(settings=settings)


def test_missing_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"own.pth: no such file; give the path of your weights in initialise\.checkpoints"
    ):
        fetch(settings={"checkpoint": str(tmp_path / "own.pth")})


# --- the commands


DATASET = "dataset --settings results/tiny/settings/dataset/duke.json --images unused --out manifest.json"


def test_release_goes_from_archive_to_manifest_and_comes_back_when_lost(reid: Reid, duke: Path, tmp_path: Path) -> None:
    shutil.copy(duke, tmp_path / "duke.zip")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(with_archives("duke.zip", folder="own/duke")))
    assert reid(tmp_path, *["plan", "params.yaml"]).returncode == 0
    first = reid(tmp_path, *DATASET.split())
    assert first.returncode == 0 and "computed in" in first.stderr, first.stderr
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["root"] == "own/duke" and not (tmp_path / "unused").exists()

    shutil.rmtree(tmp_path / "own/duke")
    again = reid(tmp_path, *DATASET.split(), REID_OFFLINE="1")
    assert again.returncode == 0 and "found in the store" in again.stderr, again.stderr
    assert read_json(tmp_path / "manifest.json") == manifest
    assert len(list((tmp_path / "own/duke").rglob("*.jpg"))) == manifest["files"]

    fetched = reid(tmp_path, *["fetch", "params.yaml"])
    assert (fetched.returncode, fetched.stdout) == (0, "duke: there\n"), fetched.stderr


@pytest.mark.parametrize(("option", "environment"), [(" --offline", {}), ("", {"REID_OFFLINE": "1"})])
def test_offline_is_one_clear_line(reid: Reid, tmp_path: Path, option: str, environment: dict[str, str]) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(with_archives("https://a.invalid/duke.zip")))
    reid(tmp_path, *["plan", "params.yaml"])
    told = reid(tmp_path, *(DATASET + option).split(), **environment)
    assert told.returncode == 1
    assert told.stderr == (
        "reid: error: data/duke.zip: no such file, and nothing is fetched offline; download https://a.invalid/duke.zip "
        "where there is a network and put it at data/duke.zip\n"
    )


def test_fetch_without_network_is_one_line_error(reid: Reid, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(with_archives("https://a.invalid/duke.zip")))
    reid(tmp_path, *["plan", "params.yaml"])
    told = reid(tmp_path, *DATASET.split())
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert (
        "data/duke.zip: no such file; no connection to a.invalid; or download https://a.invalid/duke.zip" in told.stderr
    )


def test_fetch_lists_all_that_is_missing(reid: Reid, tmp_path: Path) -> None:
    content = with_imagenet(tmp_path / "weights")
    content["datasets"]["duke"]["source"] = {"folder": "data/duke"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    told = reid(tmp_path, *["fetch", "params.yaml", "--offline"])
    assert told.returncode == 1 and told.stdout == ""
    head, *lines = told.stderr.splitlines()
    assert head == "reid: error: some inputs are missing"
    assert [line.split(": ")[:2] for line in lines] == [
        ["duke", "data/duke"],
        ["shallow", f"{tmp_path}/weights/resnet18-f37072fd.pth"],
    ]
    assert not (tmp_path / "data").exists() and not (tmp_path / "weights").exists()


def test_settings_hold_store_fields(duke: Path, tmp_path: Path) -> None:
    """The key of a manifest holds the digests of the archives through the receipt, not where they lie."""
    settings = parameters(with_archives(str(duke), folder=str(tmp_path / "duke")), "dataset", "duke")
    receipt = fetch(settings=settings)
    assert receipt is not None
    known = json.loads(receipt.read_text())
    assert list(known) == ["archives", "files", "bytes"] and list(known["archives"]) == ["duke.zip"]
    assert known["files"] == len(list((tmp_path / "duke").rglob("*.jpg")))


@pytest.mark.parametrize("path", ["../elsewhere/a.zip", "sub/../../a.zip", "{tmp}/outside/a.zip"])
def test_obtain_of_parameters_that_lead_outside_writes_nothing(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters are anybody's: where they have something put is asked for by whoever runs them."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("REID_DATA")
    file = File(Path(path.format(tmp=tmp_path)), ("https://127.0.0.1:9/a.zip",))
    with pytest.raises(InputError, match="would be written outside of this folder; if it is meant, REID_DATA="):
        obtain_file(file, "obtain it")
    assert [each.name for each in tmp_path.iterdir()] == ["project"]
    monkeypatch.setenv("REID_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"no such file; .*127"):
        obtain_file(file, "obtain it", patience=Patience(attempts=1, first_wait=0))
