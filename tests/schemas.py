"""Files that say something of themselves, and every way to make them lie: each field in turn, by each wrong value.

A target builds what a sound file says, and hands a changed one to the readers that meet it. They may give a result, or
raise InputError (or OSError, which the command tells the same way) with a message of one line; everything else is a
finding.
"""

import copy
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from models import NARROW, write_model
from reid_done_right.artifacts import InputError, Weights, read_json, read_weights, write_weights
from reid_done_right.data.gallery import read_gallery, write_gallery
from reid_done_right.data.manifest import read_manifest
from reid_done_right.photos import load_embedder
from reid_done_right.reporting.identification import error_rates, open_set_sheet, read_open_sets
from reid_done_right.stages.export import scores_of
from reid_done_right.stages.search import check_model
from reid_done_right.store.ledger import Entry, Ledger, read_copy
from reid_done_right.store.trace import artifacts, trace, verify

MISSING = object()


def _nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


WRONG: dict[str, Any] = {
    "missing": MISSING,
    "null": None,
    "true": True,
    "negative": -1,
    "zero": 0,
    "huge": 10**13,
    "endless": 10**40,
    "fraction": 0.5,
    "infinite": float("inf"),
    "not a number": float("nan"),
    "empty": "",
    "text": "x",
    "upwards": "../../x",
    "device": "/dev/zero",
    "escapes": "\x1b[2J\n\u202e",
    "long": "x" * 100_000,
    "list": [],
    "numbers": [1, 2],
    "lists": [[1], [2]],
    "millions": [10**6] * 4,
    "object": {},
    "objects": {"a": {"b": 1}},
    "nested": _nested(200),
}


@dataclass(frozen=True)
class Schema:
    """What a sound file says, and who reads it: `read` writes what it is given into an empty folder."""

    content: Any
    read: Callable[[Any, Path], object]


def fields(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in a content, its keys one after another."""
    if place:
        yield place
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from fields(value, (*place, key))


def lying(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a content with another value at a place, or without it."""
    changed = copy.deepcopy(content)
    section = changed
    for key in place[:-1]:
        section = section[key]
    if value is MISSING:
        del section[place[-1]]
    else:
        section[place[-1]] = value
    return changed


def attempt(name: str, content: Any, folder: Path) -> bool:
    """Give one content to a target in a folder of its own; return whether it was taken, not refused in one line."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        SCHEMAS[name].read(content, folder)
    except (InputError, OSError) as error:
        message = str(error)
        assert message.isprintable() and len(message) < 10_000, f"{name}: {message[:500]!r}"
        return False
    finally:
        os.chdir(here)
    return True


# --- models and galleries

MODEL = {"backbone": NARROW, "embedding": 8, "pooling": "max", "largest_side": 64, "collapsed": False}
PHOTO = np.zeros((32, 16, 3), np.uint8)


@cache
def _sound() -> Weights:
    with TemporaryDirectory() as folder:
        return read_weights(write_model(Path(folder) / "sound.safetensors"))


def _model(about: Any, folder: Path) -> object:
    write_weights(folder / "m.safetensors", Weights(_sound().state, about))
    embedder = load_embedder(folder / "m.safetensors")
    return embedder.embed([PHOTO] if embedder.largest_side < 2000 else [], progress=False)


GALLERY = {
    **{"model": "a" * 64, "model_name": "m.safetensors", "root": "photos", "largest_side": 64},
    **{"left_out": {"c.jpg": "it is empty"}, "key": "b" * 64},
}


def _gallery(about: Any, folder: Path) -> object:
    write_gallery(folder / "g.safetensors", [np.eye(2, 3, dtype=np.float32)], 3, ["a.jpg", "b.jpg"], {}, about)
    found = read_gallery(folder / "g.safetensors")
    check_model(found, "a" * 64, folder / "m.safetensors")
    return found.root, len(found.about["left_out"])


# --- what the pipeline keeps of itself

MACHINE = {"python": "3", "packages": {"numpy": "2"}, "numerics": "portable", "device": "cpu"}
IMAGES = {"dataset": "a", "format": "folder", "root": "photos", "files": 1, "bytes": 2, "sha256": "0" * 64}
ENTRY = {
    **{"key": "1" * 64, "stage": "index", "job": "a", "settings": "results/x/settings/index/a.json"},
    **{"parameters": {"format": "folder"}, "code": "2" * 64},
    "inputs": {"manifest": [{"path": "results/x/dataset/a.json", "sha256": "3" * 64}]},
    **{"outputs": {"results/x/index/a.parquet": "4" * 64}, "images": IMAGES, "made_with": MACHINE},
}


def _entry(content: Any, folder: Path) -> object:
    """Read a ledger in which one entry lies, its name as honest as its reader can know."""
    known = folder / ".store/ledger"
    (known / "contents").mkdir(parents=True)
    try:
        name = Entry.model_validate(content).name
    except ValueError:
        name = f"{'1' * 64}-000000000000.json"
    (known / name).write_text(json.dumps(content))
    return _followed(folder)


def _copy(content: Any, folder: Path) -> object:
    (folder / "results/x").mkdir(parents=True)
    (folder / "results/x/ledger.json").write_text(json.dumps(content))
    read_copy(folder / "results/x/ledger.json")
    return _followed(folder)


def _followed(folder: Path) -> object:
    (folder / "results/x/index").mkdir(parents=True, exist_ok=True)
    (folder / "results/x/index/a.parquet").write_text("content")
    (folder / "results/x/settings/index").mkdir(parents=True)
    (folder / "results/x/settings/index/a.json").write_text('{"parameters": {}}')
    found = trace(Path("results/x/index/a.parquet"))
    return found, verify(artifacts(Path("results/x"))), Ledger.here().entries


def _manifest(content: Any, folder: Path) -> object:
    (folder / "a.json").write_text(json.dumps(content))
    return read_manifest(folder / "a.json")


COPY = {
    "contents": [["results/x/dataset/a.json", "3" * 64], ["results/x/index/a.parquet", "4" * 64]],
    **{"made_with": [MACHINE], "jobs": [ENTRY | {"inputs": {"manifest": [0]}, "outputs": [1], "made_with": 0}]},
}

RESULT = {"protocol": "single-query", "rerank": "none", "ap_rule": "trapezoid", "queries": 2}
SCORES = {
    "run": {"dataset": "market", "variant": "default", "backbone": "resnet10", "draw": 0},
    **{"collapsed": False, "numerics": "portable", "results": [RESULT]},
}


@cache
def _by_query() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"protocol": ["single-query"] * 2, "rerank": ["none"] * 2, "ap": [0.5, 1.0], "ap_step": [0.5, 1.0]}
    pq.write_table(pa.table({**columns, "first_hit_rank": [1, 1]}), written := BytesIO())
    return written.getvalue()


def _scores(content: Any, folder: Path) -> object:
    (folder / "s.parquet").write_bytes(_by_query())
    (folder / "s.json").write_text(json.dumps(content))
    return read_json(folder / "s.json") and scores_of(folder / "s.json")


AT = {"false_alarms": 0.1, "threshold": 0.9, "low": None, "high": 1.0, "fpir": 0.0, "fpir_low": 0.0, "fpir_high": 0.3}
AT |= {f"{name}{end}": 0.5 for name in ("fnir", "fnir_rank1") for end in ("", "_low", "_high")}
OPEN_SET = {
    "run": {"dataset": "market", "variant": "default", "backbone": "resnet10", "draw": 0},
    **{"collapsed": False, "unknown": 0.5, "gallery_items": 9, "level": 0.95, "at": [AT]},
    **{f"{who}_{what}": 4 for who in ("known", "unknown") for what in ("queries", "persons")},
    "curve": {"threshold": [0.9, 0.1], "fpir": [0.0, 0.75], "fnir": [0.5, 0.0], "fnir_rank1": [0.5, 0.25]},
}


def _open_set(content: Any, folder: Path) -> object:
    name = "market-default-draw0"
    (folder / f"{name}.json").write_text(json.dumps(content))
    found = read_open_sets([(folder / f"{name}.json", read_json(folder / f"{name}.json"))], [name], False)
    return open_set_sheet(found, {"draws": [0], "baseline": "default"}), error_rates(found)


SCHEMAS = {
    "model": Schema(MODEL, _model),
    "gallery": Schema({"kind": "gallery", **GALLERY}, _gallery),
    "ledger entry": Schema(ENTRY, _entry),
    "ledger copy": Schema(COPY, _copy),
    "manifest": Schema(IMAGES, _manifest),
    "scores": Schema(SCORES, _scores),
    "open set": Schema(OPEN_SET, _open_set),
}
