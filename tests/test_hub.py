"""Models on the hub, through its own client: what is exported for it is loaded from a stand-in, mistakes are told."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from models import write_model
from reid_done_right import hub, load_embedder
from reid_done_right.artifacts import InputError, file_digest, write_json
from reid_done_right.cli import app
from reid_done_right.stages.export import export
from servers import COMMIT, Hub
from test_export import run  # noqa: F401
from test_photos import picture

NOBODY = "http://127.0.0.1:9"
"""Where nobody listens."""
FILES = [hub.CARD, hub.CONFIG, hub.WEIGHTS]


def at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client, imported already, find its hub at an address, and wait for none that does not answer."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub, which the client takes for its own, with an empty cache."""
    server = Hub()
    at(server.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with server.running():
        yield server


def published(server: Hub, folder: Path, name: str = "lab/market") -> dict[str, bytes]:
    """Upload a folder."""
    server.repositories[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return server.repositories[name]


def test_exported_model_is_loaded_from_the_hub_with_the_same_embeddings(
    run: Path,  # noqa: F811
    online: Hub,
    tmp_path: Path,
) -> None:
    export(run, tmp_path / "market", form="hub")
    assert sorted(path.name for path in (tmp_path / "market").iterdir()) == sorted(FILES)
    assert (tmp_path / "market" / hub.WEIGHTS).read_bytes() == run.read_bytes()
    published(online, tmp_path / "market")
    loaded, ours = load_embedder("hub:lab/market", device="cpu"), load_embedder(run, device="cpu")
    assert loaded.digest == ours.digest and loaded.about == ours.about
    np.testing.assert_array_equal(loaded.embed([picture(1, 64, 32)]), ours.embed([picture(1, 64, 32)]))
    assert load_embedder(f"hub:lab/market@{COMMIT}", device="cpu").digest == ours.digest


def test_model_of_the_hub_is_fetched_once_and_found_offline(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "m.safetensors")
    export(model, tmp_path / "market", form="hub")
    published(online, tmp_path / "market")
    first, second = hub.local("hub:lab/market"), hub.local("hub:lab/market")
    assert first == second and [each for each in online.asked if each.startswith("GET")] == [
        f"GET /lab/market/resolve/main/{file}" for file in (hub.CONFIG, hub.WEIGHTS)
    ]
    at(NOBODY, monkeypatch)
    assert hub.local("hub:lab/market") == first


def test_card_says_licence_data_scores_and_origin_where_the_hub_reads_them(run: Path, tmp_path: Path) -> None:  # noqa: F811
    settings = run.parents[1] / "settings/train" / f"{run.stem}.json"
    write_json(settings, {"code": "c" * 64, "parameters": {"train": {"margin": 0.1}}})
    try:
        export(run, tmp_path / "market", form="hub")
    finally:
        settings.unlink()
    card = huggingface_hub.ModelCard.load(tmp_path / "market" / hub.CARD)
    assert (card.data.library_name, card.data.license, card.data.datasets) == (
        hub.LIBRARY,
        "other",
        ["market1501", "imagenet-1k"],
    )
    origin = {"weights": file_digest(run), "training images": "d" * 64, "training code": "c" * 64}
    assert card.data.to_dict()["provenance"] == origin and all(digest in card.text for digest in origin.values())
    first, second = card.data.eval_results
    assert (first.metric_type, second.metric_type) == ("mAP", "rank1") and first.dataset_type == "market1501"
    assert first.dataset_args == {"protocol": "single-query", "rerank": "none", "queries": 40}
    low, high = first.metric_args["interval"]
    assert low < first.metric_value < high and first.metric_args["ap_rule"] == "trapezoid"
    assert f"| {first.metric_value:.1f} ({low:.1f} to {high:.1f}) |" in card.text
    assert 'load_embedder("hub:OWNER/market")' in card.text and "onnx" not in card.text
    config = json.loads((tmp_path / "market" / hub.CONFIG).read_text())
    assert config["sha256"] == file_digest(run) and config["training"] == {"train": {"margin": 0.1}}
    assert str(tmp_path) not in card.content + str(config)


@pytest.mark.parametrize("licence, told", [("cc-by-4.0", "cc-by-4.0"), ("Ours, for research", "other"), (None, None)])
def test_licence_given_is_the_cards(tmp_path: Path, licence: str | None, told: str | None) -> None:
    model = write_model(tmp_path / "m.safetensors")
    export(model, tmp_path / "market", form="hub", licence=licence)
    card = huggingface_hub.ModelCard.load(tmp_path / "market" / hub.CARD)
    assert card.data.license == told and card.data.eval_results is None
    assert (licence or "Not recorded beside the model") in card.text


def test_commands_take_models_of_the_hub(online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    export(write_model(tmp_path / "m.safetensors"), tmp_path / "market", form="hub")
    published(online, tmp_path / "market")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(picture(number, 64, 32)).save(tmp_path / f"photos/{number}.png")
    for arguments in (
        ["embed-photos", "photos", "--model", "hub:lab/market", "--out", "gallery.safetensors"],
        ["search", "photos/2.png", "--gallery", "gallery.safetensors"],  # the gallery knows its model
        ["export", "--model", "hub:lab/market", "--format", "hub", "--out", "again"],
    ):
        ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
    assert (tmp_path / "again" / hub.WEIGHTS).read_bytes() == (tmp_path / "m.safetensors").read_bytes()


@pytest.mark.parametrize(
    "model, message",
    [
        ("hub:lab", "expected hub:OWNER/NAME, or hub:OWNER/NAME@REVISION"),
        ("hub:lab/none", "no such repository, or a private one: check the name, or log in: hf auth login"),
        ("hub:lab/gated", "its owner grants access on its page; ask there, then log in: hf auth login"),
        ("hub:lab/market@v9", "no revision v9; its page lists branches, tags and commits"),
        ("hub:lab/else", "has no config.json; give a repository that `reid export --format hub` made"),
        ("hub:lab/..", "Repo id must "),
        ("hub:lab/mixed", "model.safetensors has SHA-256 "),
    ],
)
def test_mistake_is_one_line(online: Hub, tmp_path: Path, model: str, message: str) -> None:
    export(write_model(tmp_path / "m.safetensors"), tmp_path / "market", form="hub")
    published(online, tmp_path / "market")
    published(online, tmp_path / "market", "lab/mixed")[hub.WEIGHTS] += b"\n"
    online.repositories["lab/else"] = {}
    online.gated.add("lab/gated")
    with pytest.raises(InputError) as raised:
        load_embedder(model)
    assert str(raised.value).startswith(f"{model}: {message}") and "\n" not in str(raised.value)


OUT_OF_REACH = (
    "hub:lab/market: not in the cache, and the hub cannot be reached: go online, unset HF_HUB_OFFLINE or check"
)


def test_hub_out_of_reach_is_told_in_one_line(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    at(NOBODY, monkeypatch)
    with pytest.raises(InputError, match=OUT_OF_REACH):
        load_embedder("hub:lab/market")


@pytest.mark.parametrize("offline", [False, True])
def test_client_finds_the_hub_by_its_variables(online: Hub, tmp_path: Path, offline: bool) -> None:
    """In a process of its own: the client reads them when it is imported."""
    export(write_model(tmp_path / "m.safetensors"), tmp_path / "market", form="hub")
    published(online, tmp_path / "market")
    code = "from reid_done_right import hub; print(hub.local('hub:lab/market'))"
    variables = {
        "HF_ENDPOINT": online.address,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": str(int(offline)),
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True
    )
    if offline:
        assert OUT_OF_REACH in ended.stderr.splitlines()[-1] and not online.asked
    else:
        assert Path(ended.stdout.strip()).read_bytes() == (tmp_path / "m.safetensors").read_bytes(), ended.stderr


def test_missing_client_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'reid-done-right\[hub\]'"):
        load_embedder("hub:lab/market")


@pytest.mark.parametrize("arguments, message", [(["--out", "m"], "m: a file; give a folder"), (["--out", "n", "--size", "9x9"], "--size belongs to")])  # fmt: skip
def test_folder_for_the_hub_replaces_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m")
    ended = CliRunner().invoke(app, ["export", "--model", "x.safetensors", "--format", "hub", *arguments])
    assert isinstance(ended.exception, InputError) and str(ended.exception).startswith(message)
