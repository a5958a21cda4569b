"""Initial weights from files: torchvision's old and new ones, other checkpoints, and hostile files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from reid_done_right.artifacts import InputError, Weights, read_weights, write_weights
from reid_done_right.data.sources import TABLE, weights_file
from reid_done_right.models.build import build
from reid_done_right.models.embedder import Embedder
from reid_done_right.stages.initialise import initialise

RESNET18 = {"block": "basic", "blocks": [2, 2, 2, 2], "width": 64, "last_stride": 2}


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return torchvision.models.resnet18().state_dict()


def first_weights(folder: Path, file: str, layers: Mapping[str, Any] = RESNET18) -> Mapping[str, torch.Tensor]:
    initialise(settings={"backbone": layers, "seed": 0, "threads": 1}, out=folder / "first", weights=folder / file)
    return read_weights(folder / "first").state


@pytest.mark.parametrize("old", [False, True], ids=["new", "of the time before batches were counted"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torchvisions_files_are_taken_without_their_classifier(
    tmp_path: Path, published: dict[str, torch.Tensor], old: bool, zipped: bool
) -> None:
    kept = {name: tensor for name, tensor in published.items() if not (old and name.endswith("num_batches_tracked"))}
    torch.save(kept, tmp_path / "resnet18.pth", _use_new_zipfile_serialization=zipped)
    written = first_weights(tmp_path, "resnet18.pth")
    assert set(written) == {name for name in published if not name.startswith("fc.")}
    assert all(torch.equal(tensor, published[name]) for name, tensor in written.items())


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_own_checkpoint_loads_from_any_wrapper(
    tmp_path: Path, published: dict[str, torch.Tensor], prefix: str, inside: str | None
) -> None:
    wrapped = {f"{prefix}{name}": tensor for name, tensor in published.items()} | {"classifier.weight": torch.ones(3)}
    torch.save({inside: wrapped, "epoch": 3} if inside else wrapped, tmp_path / "own.pt")
    written = first_weights(tmp_path, "own.pt")
    assert all(torch.equal(written[name], published[name]) for name in written) and len(written) == len(published) - 2


def test_our_own_embedder_is_taken_too(tmp_path: Path) -> None:
    layers = {"block": "basic", "blocks": [1, 1, 1, 1], "width": 4, "last_stride": 1}
    embedder = Embedder(build(layers), embedding=8, pooling="max").state_dict()
    write_weights(tmp_path / "own.safetensors", Weights(embedder, {"backbone": layers}))
    written = first_weights(tmp_path, "own.safetensors", layers)
    assert {f"backbone.{name}" for name in written} == {name for name in embedder if not name.startswith("fc.")}
    assert all(torch.equal(tensor, embedder[f"backbone.{name}"]) for name, tensor in written.items())


def test_same_weights_from_another_place_are_the_same_bytes(tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    torch.save(published, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    written = []
    for file in ("a.pth", "b.pth"):
        first_weights(tmp_path, file)
        written.append((tmp_path / "first").read_bytes())
    assert written[0] == written[1]


class Attack:
    """What a pickle does when it is loaded carelessly."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("attacked"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Attack(), "not a state dict that can be loaded without executing code"),
        ({"conv1.weight": Attack()}, "not a state dict that can be loaded without executing code"),
        ({"conv1.weight": 3}, "holds more than tensors by name; save model.state_dict\\(\\) alone"),
        ([1, 2], "holds more than tensors by name"),
        ({"conv1.weight": torch.ones(1)}, "weights do not fit the network: missing bn1.weight; .*conv1.weight is"),
    ],
)
def test_files_that_are_no_plain_weights_are_rejected_and_execute_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "own.pth")
    with pytest.raises(InputError, match=f"own.pth: {message}"):
        first_weights(tmp_path, "own.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["own.pth"]


@pytest.mark.parametrize(("name", "message"), [("own.pth", "not a state dict"), ("own.safetensors", "damaged")])
def test_damaged_and_missing_weights_are_reported(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"{name}: [Nn]o such file"):
        first_weights(tmp_path, name)
    (tmp_path / name).write_bytes(b"PK\3\4 and no more")
    with pytest.raises(InputError, match=f"{name}: {message}"):
        first_weights(tmp_path, name)


# --- the table


def test_weights_are_torchvisions_own() -> None:
    for weights, architectures in TABLE["weights"].items():
        for architecture in architectures:
            file = weights_file(weights, architecture, Path("data/weights"))
            published = torchvision.models.get_model_weights(architecture)[weights]
            assert file.urls == (published.url,)
            assert file.path == Path("data/weights") / published.url.rpartition("/")[2]
            assert file.path.stem.endswith(f"-{file.sha256}") and len(file.sha256) == 8
            assert file.bytes is not None
            assert 0 <= file.bytes - published.meta["_file_size"] * 2**20 < 2500
