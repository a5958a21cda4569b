"""Own photos: embedding from Python and into galleries, all errors, and resuming after a kill."""

import doctest
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import reid_done_right
import reid_done_right.photos
from models import NARROW, write_model
from reid_done_right.artifacts import (
    Embeddings,
    InputError,
    Weights,
    read_embeddings,
    read_weights,
    write_embeddings,
    write_index,
    write_weights,
)
from reid_done_right.cli import app
from reid_done_right.data.gallery import read_gallery, write_gallery
from reid_done_right.data.readers.layout import rows
from reid_done_right.images import photos as decoding
from reid_done_right.images.photos import decoded
from reid_done_right.models.build import build
from reid_done_right.stages import embed_photos as stage
from reid_done_right.stages.embed import embed
from reid_done_right.stages.embed_photos import embed_photos

SIZES = [(128, 64), (100, 60), (37, 90), (200, 50), (128, 64), (64, 64), (9, 5)]


def picture(place: int, height: int = 128, width: int = 64) -> np.ndarray:
    """Draw blocks of colour, different for each place."""
    blocks = np.random.default_rng(place).integers(0, 256, (8, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST))


def fill(folder: Path, count: int = 7) -> Path:
    """Write photos of mixed sizes to folder/<person>/<camera>/<n>.png."""
    for place in range(count):
        path = folder / "ab"[place % 2] / f"c{place % 3}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(place, *SIZES[place % len(SIZES)])).save(path)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return fill(Path("photos"))


# --- the package


@pytest.mark.slow
def test_package_is_light_and_who_ranks_or_scores_needs_no_torch(tmp_path: Path) -> None:
    code = """
import sys, reid_done_right
assert not {"numpy", "torch", "numba"} & set(sys.modules)
assert set(reid_done_right.__all__) <= set(dir(reid_done_right))
reid_done_right.rank, reid_done_right.score, reid_done_right.Labels, reid_done_right.Rule, reid_done_right.RULES
assert "torch" not in sys.modules
import reid_done_right.artifacts
try:
    reid_done_right.nothing
except AttributeError as error:
    assert "nothing" in str(error)
from reid_done_right import load_embedder
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_names_are_stable() -> None:
    assert reid_done_right.__all__ == ["RULES", "Labels", "Rule", "load_embedder", "rank", "score"]
    assert all(getattr(reid_done_right, name) is not None for name in reid_done_right.__all__)


def test_examples_in_docstrings_run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("market-default-draw0.safetensors").write_bytes(model.read_bytes())
    (tmp_path / "anna/door").mkdir(parents=True)
    Image.fromarray(picture(0)).save("anna/door/IMG_0412.jpg")
    assert doctest.testmod(reid_done_right.photos) == (0, 12)


# --- embeddings


def test_batch_of_mixed_sizes_equals_single_images(model: Path) -> None:
    embedder = reid_done_right.load_embedder(model)
    images = [picture(place, *size) for place, size in enumerate(SIZES)]
    together = embedder.embed(images)
    alone = np.concatenate([embedder.embed([image]) for image in images])
    assert together.dtype == np.float32 and together.shape == (len(SIZES), embedder.dimension)
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embedder.embed(images[::-1])[::-1], together, atol=1e-6, rtol=0)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_files_arrays_and_images_of_pillow_are_the_same(model: Path, tmp_path: Path) -> None:
    pixels = picture(3, 90, 40)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    grey = pixels[:, :, 0]
    turned = Image.fromarray(np.rot90(pixels))
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    embedder = reid_done_right.load_embedder(model)
    same = [tmp_path / "a.png", str(tmp_path / "a.png"), pixels, Image.fromarray(pixels), tmp_path / "turned.png"]
    found = embedder.embed([*same, Image.open(tmp_path / "turned.png"), grey, Image.fromarray(grey)])
    np.testing.assert_allclose(found[:6], np.tile(found[0], (6, 1)), atol=1e-6, rtol=0)
    np.testing.assert_allclose(found[6], found[7], atol=1e-6, rtol=0)


def test_result_equals_stage(model: Path, photos: Path) -> None:
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    write_index(Path("i.parquet"), rows(photos, paths, 1, 1, "gallery"))
    embed(settings={"threads": 1}, index=Path("i.parquet"), embedder=model, out=Path("e.safetensors"))
    found = reid_done_right.load_embedder(model).embed([photos / path for path in paths])
    np.testing.assert_allclose(found, read_embeddings(Path("e.safetensors")).embeddings, atol=1e-6, rtol=0)


def test_memory_is_bounded_by_parts_in_order(monkeypatch: pytest.MonkeyPatch, model: Path, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    whole = reid_done_right.load_embedder(model).embed(paths)
    monkeypatch.setattr(decoding, "BYTES", 3 * 128 * 64 + 100)
    parts = list(decoded(paths, threads=3))
    assert len(parts) > 3 and all(len(part) == 1 or sum(each.size for each in part) <= decoding.BYTES for part in parts)  # type: ignore[union-attr]
    np.testing.assert_allclose(reid_done_right.load_embedder(model).embed(paths), whole, atol=1e-6, rtol=0)
    monkeypatch.setattr(decoding, "PHOTOS", 2)
    assert [len(part) for part in decoded([picture(0, 8, 8)] * 5)] == [2, 2, 1]
    assert list(decoded([])) == []
    assert reid_done_right.load_embedder(model).embed([]).shape == (0, 8)


@pytest.mark.parametrize(
    "photo, message",
    [
        ("none.png", "none.png: cannot be embedded: there is none"),
        (
            np.zeros((3, 4, 3), np.float32),
            "photo 1: cannot be embedded: it is float32 of shape (3, 4, 3), expected uint8",
        ),
        (np.zeros((3, 4, 4), np.uint8), "photo 1: cannot be embedded: it is uint8 of shape (3, 4, 4)"),
        (7, "photo 1: cannot be embedded: it is of type int; give a path"),
        (Image.new("F", (4, 4)), "photo 1: cannot be embedded: it has 32 bits a pixel"),
    ],
)
def test_unembeddable_photo_is_reported(model: Path, photo: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        reid_done_right.load_embedder(model).embed([picture(0), photo])
    assert str(raised.value).startswith(message)


def test_small_photo_and_single_photo_are_reported(model: Path) -> None:
    embedder = reid_done_right.load_embedder(model)
    embedder.module.backbone.smallest = 40
    with pytest.raises(
        InputError, match="photo 0: cannot be embedded: an image is 64 x 32 pixels, this backbone takes 40"
    ):
        embedder.embed([picture(0)])
    for single in ("a.png", Path("a.png"), picture(0), Image.new("RGB", (4, 4))):
        with pytest.raises(InputError, match=r"write embed\(\[photo\]\)"):
            embedder.embed(single)  # type: ignore[arg-type]


def test_model_of_another_kind_is_reported(tmp_path: Path, model: Path) -> None:
    write_weights(tmp_path / "backbone.safetensors", Weights(build(NARROW).state_dict(), {"backbone": NARROW}))
    write_embeddings(tmp_path / "e.safetensors", Embeddings(np.arange(1), np.ones((1, 2), np.float32)))
    (tmp_path / "text.safetensors").write_text("no weights")
    for name, message in {
        "backbone": "weights of a backbone, not of an embedder",
        "e": "not a network's weights",
        "text": "damaged safetensors",
        "none": "no such file",
    }.items():
        with pytest.raises(InputError, match=rf"{name}\.safetensors: {message}"):
            reid_done_right.load_embedder(tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="device 'nowhere' cannot be used here"):
        reid_done_right.load_embedder(model, device="nowhere")


# --- galleries


def test_folder_becomes_a_gallery(model: Path, photos: Path) -> None:
    assert embed_photos(photos, model, Path("g.safetensors"), pattern="{person}/{camera}/{name}", shard=3) == 7
    gallery = read_gallery(Path("g.safetensors"))
    assert gallery.path == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert gallery.labels == {
        "person": [path.split("/")[0] for path in gallery.path],
        "camera": [path.split("/")[1] for path in gallery.path],
    }
    found = reid_done_right.load_embedder(model).embed([photos / path for path in gallery.path])
    np.testing.assert_allclose(gallery.embeddings, found, atol=1e-6, rtol=0)
    assert gallery.about["model"] == reid_done_right.load_embedder(model).digest and gallery.root == photos
    assert sorted(path.name for path in Path().iterdir()) == ["g.safetensors", "photos"]
    assert isinstance(gallery.embeddings, np.memmap)


def test_table_becomes_a_gallery_in_its_order(model: Path, photos: Path) -> None:
    (photos / "t.csv").write_text("path,person_id\nb/c1/1.png,Zoë\na/c0/0.png,anna\n")
    assert embed_photos(photos / "t.csv", model, Path("g.safetensors")) == 2
    gallery = read_gallery(Path("g.safetensors"))
    assert gallery.path == ["b/c1/1.png", "a/c0/0.png"] and gallery.labels == {"person": ["Zoë", "anna"]}
    (photos / "t.csv").write_text("path\nb/c1/1.png\n")
    assert embed_photos(photos / "t.csv", model, Path("g.safetensors")) == 1
    assert read_gallery(Path("g.safetensors")).labels == {}


@pytest.mark.slow
def test_a_gallery_that_is_there_is_not_made_again_unless_something_changed(model: Path, photos: Path) -> None:
    def stamp() -> int:
        embed_photos(photos, model, Path("g.safetensors"))
        return Path("g.safetensors").stat().st_mtime_ns

    first = stamp()
    assert stamp() == first
    Image.fromarray(picture(50)).save(photos / "a/c0/0.png")
    second = stamp()
    assert second > first
    found = reid_done_right.load_embedder(model).embed([picture(50)])
    np.testing.assert_allclose(read_gallery(Path("g.safetensors")).embeddings[0], found[0], atol=1e-6)
    write_model(Path("other.safetensors"), seed=1)
    embed_photos(photos, Path("other.safetensors"), Path("g.safetensors"))
    assert Path("g.safetensors").stat().st_mtime_ns > second


def test_damaged_photos_are_all_named_and_refused_or_left_out(
    model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a/c0/x.jpg").write_bytes(b"no image")
    (photos / "b/c1/y.png").write_bytes((photos / "b/c1/1.png").read_bytes()[:-30])
    computed: list[int] = []
    real = stage._embed_shard
    monkeypatch.setattr(stage, "_embed_shard", lambda *given: (computed.append(given[1].start), real(*given))[1])
    with pytest.raises(InputError) as raised:
        embed_photos(photos, model, Path("g.safetensors"), shard=3)
    lines = str(raised.value).splitlines()
    assert lines[0] == (
        "photos: 2 of 9 photos cannot be embedded; restore them, or leave them out with --allow-damaged, and run the same command again:"
    )
    assert [line.split(": ")[0].strip() for line in lines[1:]] == ["photos/a/c0/x.jpg", "photos/b/c1/y.png"]
    assert not Path("g.safetensors").exists() and computed == [0, 3, 6]

    Image.fromarray(picture(1)).save(photos / "b/c1/y.png")
    assert embed_photos(photos, model, Path("g.safetensors"), shard=3, allow_damaged=True) == 8
    assert len(computed) == 4, "what was embedded was kept, but for the shard of the restored photo"
    assert "left out photos/a/c0/x.jpg: it is not a recognised image format" in capsys.readouterr().err
    gallery = read_gallery(Path("g.safetensors"))
    assert gallery.about["left_out"] == {"a/c0/x.jpg": "it is not a recognised image format"}
    assert len(gallery.path) == 8 and "a/c0/x.jpg" not in gallery.path
    with pytest.raises(InputError, match="1 of 9 photos cannot be embedded"):
        embed_photos(photos, model, Path("g.safetensors"), shard=3)
    assert len(read_gallery(Path("g.safetensors")).path) == 8, "the gallery that was there stays"


def test_folder_of_damaged_photos_is_reported(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").touch()
    with pytest.raises(InputError, match="1 of 1 photos cannot be embedded; restore them, and run"):
        embed_photos(tmp_path / "photos", model, tmp_path / "g.safetensors", allow_damaged=True)


@pytest.mark.slow
def test_killed_run_resumes_with_same_bytes(model: Path, tmp_path: Path) -> None:
    fill(tmp_path / "photos", 60)
    embed_photos(tmp_path / "photos", model, tmp_path / "whole.safetensors", threads=1, shard=4)
    out = tmp_path / "g.safetensors"
    code = (
        "import sys, time; from pathlib import Path; from reid_done_right.stages import embed_photos as stage\n"
        "real = stage._embed_shard\n"
        "stage._embed_shard = lambda *given: (real(*given), time.sleep(0.2))\n"
        "stage.embed_photos(*map(Path, sys.argv[1:]), threads=1, shard=4)"
    )
    command = [sys.executable, "-c", code, tmp_path / "photos", model, out]
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    shards = tmp_path / ".g.safetensors.shards"
    deadline = time.monotonic() + 900
    while len(list(shards.glob("0*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(InputError, match="another process is writing this gallery"):
        embed_photos(tmp_path / "photos", model, out, threads=1, shard=4)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    done = {path.name: path.stat().st_mtime_ns for path in shards.glob("0*")}
    assert 3 <= len(done) < 15 and not out.exists()
    (shards / "000001.safetensors").write_bytes(b"torn")
    del done["000001.safetensors"]
    seen: dict[str, int] = {}
    real = write_gallery

    def note(*given: Any) -> None:
        seen.update({path.name: path.stat().st_mtime_ns for path in shards.glob("0*")})
        real(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "write_gallery", note)
        embed_photos(tmp_path / "photos", model, out, threads=1, shard=4)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert len(seen) == 15 and done.items() <= seen.items(), "finished shards were not computed again"
    assert not shards.exists()


def test_gallery_with_an_array_of_another_length_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 embeddings of 2 photos"):
        write_gallery(tmp_path / "g.safetensors", [np.ones((1, 2), np.float32)], 2, ["a", "b"], {}, {})
    assert list(tmp_path.iterdir()) == []


def test_gallery_keeps_any_file_name(tmp_path: Path) -> None:
    names = ["a b.png", "Zoë/ü\n.png", os.fsdecode(b"\xff.png")]
    about = {"model": "0" * 64, "model_name": "m", "root": ".", "largest_side": 64, "left_out": {}, "key": "0" * 64}
    write_gallery(
        tmp_path / "g.safetensors", [np.ones((3, 2), np.float32)], 2, names, {"person": ["", "x", "y"]}, about
    )
    gallery = read_gallery(tmp_path / "g.safetensors")
    assert gallery.path == names and gallery.labels == {"person": ["", "x", "y"]}
    assert gallery.embeddings.tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("cut", [0, 5, 40, 400, -1])
def test_damaged_gallery_is_reported(model: Path, photos: Path, cut: int) -> None:
    embed_photos(photos, model, Path("g.safetensors"))
    Path("g.safetensors").write_bytes(Path("g.safetensors").read_bytes()[:cut])
    with pytest.raises(InputError, match=r"^g\.safetensors: not a gallery"):
        read_gallery(Path("g.safetensors"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none", "--model", "m.safetensors"], "none: no such folder or table; give the folder of your photos"),
        (["m.safetensors", "--model", "m.safetensors"], "m.safetensors: neither a folder nor a table (.csv)"),
        (["empty", "--model", "m.safetensors"], "empty: no image (.jpg, .jpeg, .png"),
        (["photos", "--model", "none.safetensors"], "none.safetensors: no such file"),
        (["photos", "--model", "m.safetensors", "--pattern", "{name}"], "--pattern: '{name}' has no field {person}"),
        (["photos", "--model", "m.safetensors", "--pattern", "{person}.jpg"], "photos: 7 of 7 images are not of the form"),
        (["t.csv", "--model", "m.safetensors"], "t.csv: line 2: no file none.png"),
        (["t.csv", "--model", "m.safetensors", "--pattern", "{person}"], "t.csv: a table says in its columns who is who"),
        (["u.csv", "--model", "m.safetensors"], "u.csv: no column path"),
        (["photos", "--model", "m.safetensors", "--out", "g.npz"], "g.npz: expected a file name ending in"),
    ],
)  # fmt: skip
def test_mistake_is_reported_and_writes_nothing(model: Path, photos: Path, arguments: list[str], message: str) -> None:
    Path("m.safetensors").write_bytes(model.read_bytes())
    Path("empty").mkdir()
    Path("t.csv").write_text("path\nnone.png\n")
    Path("u.csv").write_text("file\nnone.png\n")
    before = sorted(Path().rglob("*"))
    result = CliRunner().invoke(app, ["embed-photos", "--out", "g.safetensors", *arguments])
    assert isinstance(result.exception, InputError) and "\n" not in str(result.exception)
    assert str(result.exception).startswith(message)
    assert sorted(Path().rglob("*")) == before


def test_module_is_one_of_torchs(model: Path) -> None:
    embedder = reid_done_right.load_embedder(model)
    assert isinstance(embedder.module, torch.nn.Module) and not embedder.module.training
    assert embedder.about["backbone"] == NARROW
    assert embedder.largest_side == 64 and len(embedder.digest) == 64


def test_bar_is_shown_for_long_work_only(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reid_done_right.load_embedder(model).embed([picture(0)])
    assert "embed" not in capsys.readouterr().err
    monkeypatch.setattr(reid_done_right.photos, "PATIENCE", 0)
    reid_done_right.load_embedder(model).embed([picture(0)])
    assert "embed: 100%" in capsys.readouterr().err
    reid_done_right.load_embedder(model).embed([picture(0)], progress=False)
    assert capsys.readouterr().err == ""


def test_pillow_image_from_memory_is_decoded(model: Path) -> None:
    written = io.BytesIO()
    Image.fromarray(picture(2)).save(written, "png")
    embedder = reid_done_right.load_embedder(model)
    found = embedder.embed([Image.open(written), picture(2)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize(
    ("value", "reason"), [(float("nan"), "holds values that are not finite"), (0.0, "no direction")]
)
def test_embed_photos_with_a_model_of_broken_weights_writes_no_gallery(
    tmp_path: Path, value: float, reason: str
) -> None:
    """A gallery of such vectors would only be refused when somebody searches it."""
    weights = read_weights(write_model(tmp_path / "m.safetensors"))
    state = {name: tensor * value if tensor.is_floating_point() else tensor for name, tensor in weights.state.items()}
    write_weights(tmp_path / "m.safetensors", Weights(state, weights.about))
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((32, 16, 3), np.uint8)).save(tmp_path / "photos/a.png")
    with pytest.raises(InputError, match=reason):
        embed_photos(tmp_path / "photos", tmp_path / "m.safetensors", tmp_path / "g.safetensors")
    assert not (tmp_path / "g.safetensors").exists()


def test_embed_boxes_embeds_what_is_cut_out(model: Path) -> None:
    embedder = reid_done_right.load_embedder(model)
    frame = picture(5, 120, 160)
    boxes = np.array([[10, 20, 42, 84], [-7.0, 60, 30.4, 200], [100, 0, 159.6, 119.5]])
    crops = [frame[20:84, 10:42], frame[60:120, 0:30], frame[0:120, 100:160]]
    assert np.allclose(embedder.embed_boxes(frame, boxes), embedder.embed(crops), atol=1e-6)
    assert embedder.embed_boxes(frame, []).shape == (0, embedder.dimension)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([200, 10, 220, 50], "nothing of it is in the frame"),
        ([30, 10, 30, 50], "nothing of it is in the frame"),
        ([0, 0, np.nan, 9], "not finite"),
    ],
)
def test_embed_boxes_names_a_box_without_pixels(model: Path, box: list[float], reason: str) -> None:
    with pytest.raises(InputError, match=f"^box 1.*: {reason}|^box 1.*: cannot be embedded: {reason}"):
        reid_done_right.load_embedder(model).embed_boxes(picture(5, 120, 160), [[0, 0, 40, 80], box])


def test_load_embedder_on_a_device_without_values_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device 'meta' cannot be used here"):
        reid_done_right.load_embedder(write_model(tmp_path / "m.safetensors"), device="meta")
