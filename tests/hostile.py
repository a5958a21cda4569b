"""Every parser of external data, as a function of bytes for the fuzzer and the property tests.

A target writes the bytes where the parser looks for them and calls it. It may give a result, or raise InputError
with a message of one line that names the file; everything else is a finding. `tests/fuzz.py` chooses the bytes guided by
coverage, `tests/test_hostile.py` a few at random.
"""

import atexit
import contextlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from models import write_model
from reid_done_right.artifacts import (
    Embeddings,
    Index,
    InputError,
    Weights,
    read_checkpoint,
    read_embeddings,
    read_index,
    read_json,
    read_state,
    read_weights,
    write_embeddings,
    write_index,
    write_weights,
)
from reid_done_right.data.arrays import read_arrays
from reid_done_right.data.gallery import read_gallery, write_gallery
from reid_done_right.data.manifest import read_manifest
from reid_done_right.data.readers import READERS
from reid_done_right.data.readers.folder import compile_pattern
from reid_done_right.data.unpack import Bounds, unpack
from reid_done_right.images.decode import decode, measure
from reid_done_right.params import load
from reid_done_right.photos import load_embedder
from reid_done_right.store.ledger import read_copy
from tiny import PARAMS

Seeds = Callable[[Path], list[bytes]]
Run = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Target:
    """A parser: how to call it on bytes in an empty folder, inputs that it takes, and a name in its messages."""

    run: Run
    seeds: Seeds
    name: str


def _on_file(name: str, read: Callable[[Path], object]) -> Run:
    def run(content: bytes, folder: Path) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return run


# --- parameters


def _standard_input(content: bytes, folder: Path) -> object:
    text = content.decode("utf-8", "surrogateescape")
    with contextlib.ExitStack() as stack:
        previous, sys.stdin = sys.stdin, io.StringIO(text)
        stack.callback(setattr, sys, "stdin", previous)
        return load(Path("-"))


def _yaml_seeds(folder: Path) -> list[bytes]:
    odd = "a: &a [1, !!binary aGk=, 2001-01-01, 0x1f, 1_0, .nan, ~]\nb: {<<: {c: *a}}\n? [d]\n: |\n  text\n"
    return [yaml.safe_dump(PARAMS).encode(), odd.encode()]


def _json_seeds(folder: Path) -> list[bytes]:
    return [json.dumps(PARAMS).encode(), b'{"a": [1e9, -0.5, null, true, "\\u00e9"]}']


# --- photos of one's own


def _table(content: bytes, folder: Path) -> object:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"):
        (folder / name).touch()
    (folder / "photos.csv").write_bytes(content)
    return READERS["csv"](folder, table="photos.csv", train=0.5)


def _table_seeds(folder: Path) -> list[bytes]:
    known = zip("abcde", "xxyzz", "12112", ("train", "train", "train", "query", "gallery"), strict=True)
    rows = [f"{name}.jpg,{person},{camera},1,{split}\n" for name, person, camera, split in known]
    whole = "path,person_id,camera_id,tracklet_id,split\n" + "".join(rows)
    return [whole.encode(), '\ufeffpath,person_id\n"a.jpg","é ""x"""\nb.jpg,é\n'.encode()]


def _pattern(content: bytes, folder: Path) -> object:
    pattern, _, path = content.decode("utf-8", "replace").partition("\n")
    try:
        return compile_pattern(pattern).fullmatch(path[:255])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None  # it names the key, not a file


def _pattern_seeds(folder: Path) -> list[bytes]:
    return [b"{person}/{camera}/{name}\nanna/door/1.jpg", b"{person:4}_c{camera}_{x}_{y}.jpg\n0001_c1_a_b.jpg"]


def _names(content: bytes, folder: Path) -> object:
    """Make files of these names, a line each, and read them as photos and as Market-1501."""
    found: list[object] = []
    for kind in ("query", "bounding_box_train", "bounding_box_test"):
        (folder / kind).mkdir()
        (folder / kind / "0001_c1s1_000001_00.jpg").touch()
    for line in content.split(b"\n")[:8]:
        with contextlib.suppress(OSError, ValueError):  # no file can be called so
            if b"/" not in line:
                (folder / "query" / os.fsdecode(line)).touch()
    for read in (READERS["folder"], READERS["distractors"], READERS["market1501"]):
        try:
            index = read(folder if read is not READERS["distractors"] else folder / "query")
            write_index(folder.parent / f"{folder.name}.parquet", index)
            found.append(index)
        except InputError as error:
            found.append(error)
    if isinstance(found[-1], InputError):
        raise found[-1]
    return found


def _names_seeds(folder: Path) -> list[bytes]:
    return [b"0002_c1s1_000451_03.jpg\n-1_c3s2_000401_03.jpg", "é.jpg\nx;y$(z).png\n.hidden.jpg".encode(), b"\xff.jpg"]


# --- arrays of anybody


def _npy(content: bytes, folder: Path) -> object:
    with zipfile.ZipFile(folder / "arrays.npz", "w") as opened:
        opened.writestr("embeddings.npy", content)
    return _arrays(folder / "arrays.npz")


def _arrays(path: Path) -> object:
    arrays = read_arrays(path, ("embeddings", "person_id"))
    for name in ("embeddings", "person_id"):
        with contextlib.suppress(InputError):
            arrays.integers(name)
    return arrays.column("embeddings").shape


def _npy_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for array in (np.ones((2, 3), np.float32), np.arange(4), np.array(["a"]), np.ones((2, 2), order="F")):
        buffer = io.BytesIO()
        np.save(buffer, array)
        seeds.append(buffer.getvalue())
    return seeds


def _npz_seeds(folder: Path) -> list[bytes]:
    np.savez(folder / "a.npz", embeddings=np.ones((2, 3), np.float32), person_id=np.arange(2))
    np.savez_compressed(folder / "b.npz", embeddings=np.ones((2, 3), np.float16), person_id=np.arange(2))
    return [(folder / name).read_bytes() for name in ("a.npz", "b.npz")]


def _safetensors_seeds(folder: Path) -> list[bytes]:
    from safetensors.numpy import save

    arrays = {"embeddings": np.ones((2, 3), np.float32), "person_id": np.arange(2)}
    return [save(arrays), save(arrays, {"a": "b"}), _embeddings_seeds(folder)[0]]


# --- artifacts


def _embeddings_seeds(folder: Path) -> list[bytes]:
    write_embeddings(folder / "e", Embeddings(np.arange(2), np.ones((2, 3), np.float32), {"collapsed": False}))
    return [(folder / "e").read_bytes()]


def _weights_seeds(folder: Path) -> list[bytes]:
    import torch

    write_weights(folder / "w", Weights({"fc.bias": torch.ones(3)}, {"backbone": {"block": "basic"}, "update": 3}))
    return [(folder / "w").read_bytes()]


def _weights(path: Path) -> object:
    with contextlib.suppress(InputError):
        read_checkpoint(path)
    return read_weights(path)


def _index_seeds(folder: Path) -> list[bytes]:
    n = 3
    numbers = np.arange(n, dtype=np.int64)
    index = Index(
        root=folder,
        path=np.array(["a.jpg", "b.jpg", "c.jpg"]),
        person_id=numbers,
        camera_id=numbers,
        tracklet_id=numbers,
        split=np.array(["train", "query", "gallery"]),
        box=np.zeros((n, 4), np.int32),
        gallery_lists={"50": [np.array([2])]},
        person=np.array(["x", "y", "z"]),
        camera=np.array(["", "", ""]),
        content=np.arange(n, dtype=np.uint64),
    )
    write_index(folder / "i.parquet", index)
    return [(folder / "i.parquet").read_bytes()]


def _manifest_seeds(folder: Path) -> list[bytes]:
    manifest = {"dataset": "a", "format": "mars", "root": "data", "files": 1, "bytes": 2, "sha256": "0" * 64}
    return [json.dumps(manifest, indent=1).encode()]


def _ledger_seeds(folder: Path) -> list[bytes]:
    job: dict[str, Any] = dict.fromkeys(("stage", "job", "settings"), "a") | dict.fromkeys(("key", "code"), "0" * 64)
    images = {"dataset": "a", "format": "mars", "root": "data", "files": 1, "bytes": 2, "sha256": "0" * 64}
    job |= {"parameters": {"k": 1}, "inputs": {"index": [0]}, "outputs": [1], "images": images, "made_with": 0}
    machine = {"python": "3", "packages": {"numpy": "2"}, "numerics": "portable", "device": "cpu"}
    copy = {"contents": [["a", "0" * 64], ["b", "1" * 64]], "made_with": [machine], "jobs": [job]}
    return [json.dumps(copy, indent=1).encode()]


# --- models and galleries of others


def _model_seeds(folder: Path) -> list[bytes]:
    write_model(folder / "m.safetensors")
    return [(folder / "m.safetensors").read_bytes()]


def _gallery_seeds(folder: Path) -> list[bytes]:
    about = {**dict.fromkeys(("model", "key"), "a" * 64), "model_name": "m.safetensors", "root": "photos"}
    about |= {"largest_side": 32, "left_out": {}}
    photos, labels = ["a.jpg", "b/ä.jpg"], {"person": ["x", "y"]}
    write_gallery(folder / "g", [np.eye(2, 3, dtype=np.float32)], 3, photos, labels, about)
    return [(folder / "g").read_bytes()]


# --- weights of others


def _torch_seeds(folder: Path) -> list[bytes]:
    import torch

    state = {"fc.bias": torch.ones(3), "n": torch.tensor(1)}
    torch.save({"state_dict": state}, folder / "new.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    return [(folder / name).read_bytes() for name in ("new.pt", "old.pt")]


def _pickle(content: bytes, folder: Path) -> object:
    """Put the bytes where PyTorch keeps its pickle, in a sound archive."""
    with zipfile.ZipFile(folder / "w.pt", "w") as opened:
        opened.writestr("w/data.pkl", content)
        opened.writestr("w/byteorder", "little")
        opened.writestr("w/data/0", bytes(12))
        opened.writestr("w/data/1", bytes(8))
        opened.writestr("w/version", "3\n")
    return read_state(folder / "w.pt")


def _pickle_seeds(folder: Path) -> list[bytes]:
    _torch_seeds(folder)
    with zipfile.ZipFile(folder / "new.pt") as opened:
        return [opened.read("new/data.pkl"), b"cposix\nsystem\n(S'true'\ntR."]


# --- MATLAB


@cache
def _releases() -> tuple[Path, Path]:
    """Render a MARS and a Person Search release, once a process."""
    from pedestrians.person_search import write_person_search
    from pedestrians.releases import write_mars

    root = Path(tempfile.mkdtemp(prefix="reid-hostile-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_mars(root / "mars", world=1, hardness=0.0, workers=1, **MARS)
    write_person_search(root / "scenes", world=1, hardness=0.0, workers=1, **SCENES)
    return root / "mars", root / "scenes"


MARS = {"train_ids": 2, "test_ids": 2, "cameras": 2, "frames": 2, "distractor_tracklets": 1, "junk_tracklets": 1}
SCENES = {"train_ids": 2, "test_ids": 2, "train_scenes": 4, "test_scenes": 6, "gallery_sizes": (2, 3)}


def _tracks(content: bytes, folder: Path) -> object:
    return _with_file(_releases()[0], "info/tracks_test_info.mat", content, folder, "mars")


def _scenes(name: str) -> Run:
    def run(content: bytes, folder: Path) -> object:
        return _with_file(_releases()[1], name, content, folder, "person-search")

    return run


def _with_file(release: Path, name: str, content: bytes, folder: Path, layout: str) -> object:
    """Read a release with one of its files changed; all beside it, and beside its folders, are links."""
    changed = folder / name
    for inside in reversed(Path(name).parents):
        (folder / inside).mkdir(exist_ok=True)
        for path in (release / inside).iterdir():
            there = folder / inside / path.name
            if there != changed and there not in changed.parents:
                there.symlink_to(path)
    changed.write_bytes(content)
    return READERS[layout](folder)


def _of_release(which: int, name: str) -> Seeds:
    return lambda folder: [(_releases()[which] / name).read_bytes()]


# --- images and archives


def _image(content: bytes, folder: Path) -> object:
    (folder / "image").write_bytes(content)
    one = np.zeros(1, np.int64)
    index = Index(
        folder, np.array(["image"]), one, one, one, np.array(["train"]), np.zeros((1, 4), np.int32), upright=True
    )
    with contextlib.suppress(InputError):
        measure(index, [0])
    try:
        return decode(content, upright=True)
    except (OSError, ValueError) as error:  # what those that know its name expect of it
        raise ValueError(f"{folder}/image: {' '.join(str(error).split())}") from None


def _image_seeds(folder: Path) -> list[bytes]:
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[274] = 6
    grey = Image.fromarray(rng.integers(0, 65536, (5, 4), dtype=np.uint16))
    saved: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colours, "JPEG", {"exif": turned}),
        (colours.convert("CMYK"), "JPEG", {}),
        (colours.convert("L"), "JPEG", {"progressive": True}),
        (colours, "PNG", {"exif": turned}),
        (colours.convert("P"), "PNG", {"transparency": 0}),
        (grey, "PNG", {}),
        (colours, "BMP", {}),
        (colours.convert("P"), "GIF", {}),
        (colours, "TIFF", {"compression": "tiff_lzw"}),
        (grey, "TIFF", {}),
        (colours, "WEBP", {"exif": turned}),
    ]
    seeds = []
    for image, layout, options in saved:
        buffer = io.BytesIO()
        image.save(buffer, layout, **options)
        seeds.append(buffer.getvalue())
    return [*seeds, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n%%EndComments\nshowpage\n%%EOF\n"]


def _archive(content: bytes, folder: Path) -> object:
    (folder / "archive").write_bytes(content)
    outside = {path.name for path in folder.iterdir()}
    try:
        unpack([folder / "archive"], folder / "out", lambda root: "{}", bounds=Bounds(files=100, bytes=1 << 20))
    finally:
        left = {path.name for path in folder.iterdir()} - outside
        assert left <= {"out"}, left
        assert all(path.resolve().is_relative_to(folder) for path in folder.rglob("*"))
    return left


def _archive_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for compressed in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compressed) as zipped:
            zipped.writestr("r/a.jpg", b"one")
            zipped.writestr("r/../b.jpg", b"two")
        seeds.append(buffer.getvalue())
    for mode, layout in (
        ("w", tarfile.PAX_FORMAT),
        ("w", tarfile.GNU_FORMAT),
        ("w:gz", tarfile.PAX_FORMAT),
        ("w:xz", tarfile.GNU_FORMAT),
    ):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=layout) as tarred:
            for name in ("r/é.jpg", "r/" + "long" * 40 + ".jpg"):
                member = tarfile.TarInfo(name)
                member.size = 3
                tarred.addfile(member, io.BytesIO(b"one"))
        seeds.append(buffer.getvalue())
    return seeds


TARGETS: dict[str, Target] = {
    "params-yaml": Target(_on_file("params.yaml", load), _yaml_seeds, "params.yaml"),
    "params-json": Target(_standard_input, _json_seeds, ""),
    "table": Target(_table, _table_seeds, ""),
    "pattern": Target(_pattern, _pattern_seeds, ""),
    "names": Target(_names, _names_seeds, ""),
    "npy": Target(_npy, _npy_seeds, "arrays.npz"),
    "npz": Target(_on_file("arrays.npz", _arrays), _npz_seeds, "arrays.npz"),
    "safetensors": Target(_on_file("a.safetensors", _arrays), _safetensors_seeds, "a.safetensors"),
    "embeddings": Target(_on_file("e.safetensors", read_embeddings), _embeddings_seeds, "e.safetensors"),
    "weights": Target(_on_file("w.safetensors", _weights), _weights_seeds, "w.safetensors"),
    "index": Target(_on_file("index.parquet", read_index), _index_seeds, ""),
    "json": Target(_on_file("scores.json", read_json), _json_seeds, "scores.json"),
    "ledger": Target(_on_file("ledger.json", read_copy), _ledger_seeds, "ledger.json"),
    "model": Target(_on_file("m.safetensors", load_embedder), _model_seeds, "m.safetensors"),
    "gallery": Target(_on_file("g.safetensors", read_gallery), _gallery_seeds, "g.safetensors"),
    "manifest": Target(_on_file("market.json", read_manifest), _manifest_seeds, "market.json"),
    "pt": Target(_on_file("w.pt", read_state), _torch_seeds, "w.pt"),
    "pickle": Target(_pickle, _pickle_seeds, "w.pt"),
    "mars-mat": Target(_tracks, _of_release(0, "info/tracks_test_info.mat"), ""),
    "mars-names": Target(
        lambda content, folder: _with_file(_releases()[0], "info/test_name.txt", content, folder, "mars"),
        _of_release(0, "info/test_name.txt"),
        "",
    ),
    "train-mat": Target(
        _scenes("annotation/test/train_test/Train.mat"), _of_release(1, "annotation/test/train_test/Train.mat"), ""
    ),
    "testg-mat": Target(
        _scenes("annotation/test/train_test/TestG2.mat"), _of_release(1, "annotation/test/train_test/TestG2.mat"), ""
    ),
    "images-mat": Target(_scenes("annotation/Images.mat"), _of_release(1, "annotation/Images.mat"), ""),
    "pool-mat": Target(_scenes("annotation/pool.mat"), _of_release(1, "annotation/pool.mat"), ""),
    "image": Target(_image, _image_seeds, "image"),
    "archive": Target(_archive, _archive_seeds, "archive"),
}


def attempt(name: str, content: bytes, folder: Path) -> bool:
    """Give one input to a target; return whether it was taken, not refused as it should be."""
    target = TARGETS[name]
    try:
        target.run(content, folder)
    except ValueError as error:
        message = str(error)
        lines = message.split("\n")
        assert len(lines) == 1 or name.startswith("params"), f"{name}: several lines: {message!r}"
        assert message.isprintable() or len(lines) > 1, f"{name}: not printable: {message!r}"
        place = target.name or ("params: " if name == "params-json" else str(folder))
        assert all(place in line for line in lines), f"{name}: names no file: {message!r}"
        assert len(message) < 100_000, f"{name}: a message of {len(message)} characters"
        assert isinstance(error, InputError) or name == "image", f"{name}: {error!r}"
        return False
    return True
