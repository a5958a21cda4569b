"""Untrusted input: any bytes give a result or a one-line error; nothing is executed, nothing hangs.

Each parser of `hostile.py` is given inputs that code writes, changed at random; `make fuzz` changes them guided by
coverage. What either found is here by name.
"""

import os
import pickle
import re
import tempfile
import time
import zipfile
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hostile import TARGETS, attempt
from reid_done_right.artifacts import (
    InputError,
    read_embeddings,
    read_index,
    read_json,
    read_state,
    read_weights,
)
from reid_done_right.data.arrays import read_arrays
from reid_done_right.data.readers import READERS
from reid_done_right.data.readers.folder import compile_pattern
from reid_done_right.data.unpack import unpack
from reid_done_right.images.decode import decode
from reid_done_right.params import Params, load
from reid_done_right.stages.score import score
from tiny import PARAMS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow and PyTorch also warn of what they refuse
hostile = settings(deadline=None, suppress_health_check=list(HealthCheck))


@cache
def seeds(name: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return TARGETS[name].seeds(Path(folder))


@st.composite
def inputs(draw: st.DrawFn, name: str) -> bytes:
    """Some seed with a few of its bytes changed, left out, repeated or put in."""
    content = bytearray(draw(st.sampled_from(seeds(name))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["bit", "bytes", "drop", "cut", "copy"])):
            case "bit" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "bytes":
                content[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=8))
            case "drop":
                del content[at : at + draw(st.integers(1, 16))]
            case "cut":
                del content[at:]
            case "copy":
                content[at:at] = content[: draw(st.integers(1, 64))]
    return bytes(content)


@pytest.mark.parametrize("name", TARGETS)
def test_parser_accepts_valid_input(name: str, tmp_path: Path) -> None:
    taken = []
    for number, content in enumerate(seeds(name)):
        (tmp_path / f"{number}").mkdir()
        taken.append(attempt(name, content, tmp_path / f"{number}"))
    assert any(taken)


@pytest.mark.parametrize("name", TARGETS)
@hostile
@given(data=st.data())
def test_parser_returns_result_or_one_line_error(name: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attempt(name, data.draw(inputs(name)), Path(folder))


# --- values of any kind where parameters are expected

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [place] * bool(place) + [found for key, each in inner for found in places(each, (*place, key))]


@hostile
@given(st.sampled_from(places(PARAMS)), VALUES)
@example(("resources",), {"a\nb": None})
def test_any_parameter_value_is_accepted_or_reported(place: tuple[Any, ...], value: Any) -> None:
    content = deepcopy(PARAMS)
    section = content
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        try:
            assert isinstance(load(path), Params)
        except InputError as error:
            assert all(line.startswith(f"{path}: ") for line in str(error).split("\n"))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, "experiment: &a [*a]\n", "experiment: &a {b: *a}\n", "a: " + "[" * 2000, "a: " + "{b: " * 40 + "1" + "}" * 40],
    ids=["bomb", "endless list", "endless section", "nested beyond Python", "nested"],
)  # fmt: skip
def test_yaml_that_grows_is_rejected_at_once(tmp_path: Path, text: str) -> None:
    """With aliases, ten lines hold a billion values, and each would be shown in the message."""
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml: not valid YAML: ") as caught:
        load(tmp_path / "params.yaml")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    ["a: 2001-13-41\n", "a: !!timestamp x\n", "a: !!int ''\n", "a: " + "9" * 5000, "a: !!float x\n", "? {b: 1}\n: 2\n"],
)
def test_yaml_with_invalid_values_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml: not valid YAML: "):
        load(tmp_path / "params.yaml")


MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 30)}]}}\n" for n in range(6))


def test_yaml_merge_keys_that_grow_are_counted_before_they_are_merged(tmp_path: Path) -> None:
    """Six lines stand for 30^6 sections, and PyYAML merges them one by one."""
    (tmp_path / "params.yaml").write_text(MERGED)
    begun = time.process_time()
    with pytest.raises(InputError, match=r"params\.yaml: not valid YAML: more than 100000 values"):
        load(tmp_path / "params.yaml")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("margin: 0.1", "margin: 0.1\n  margin: 0.9", r"line \d+: the key 'margin' is there twice"),
        ("margin: 0.1", "margin: .inf", r"train\.margin: Input should be a finite number, not inf"),
        ("margin: 0.1", "margin: 1:30", r"line \d+: 1:30 is a number of base 60 in YAML; quote it"),
        ("train_ids: 3", "train_ids: -1", r"train_ids.*: Input should be greater than or equal to 0, not -1"),
        ("train_ids: 3", "trainids: 3", r"unknown name 'trainids'; did you mean 'train_ids'\?"),
        ("train_ids: 3", "train_ids: [3]", r"train_ids: expected a number"),
    ],
)
def test_yaml_with_a_value_nobody_means_is_reported(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = yaml.safe_dump(PARAMS, sort_keys=False)
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=reason):
        load(tmp_path / "params.yaml")


def test_whole_number_without_end_is_reported(tmp_path: Path) -> None:
    content = deepcopy(PARAMS)
    content["train"]["updates"] = 10**20
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"train\.updates: expected a whole number of at most 2\^53"):
        load(tmp_path / "params.yaml")


def test_json_with_a_key_twice_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO('{"draws": [0], "draws": [1]}'))
    with pytest.raises(InputError, match="params: not valid YAML: the key 'draws' is there twice"):
        load(Path("-"))


def test_unprintable_number_is_reported(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({**PARAMS, "experiment": 0}).replace("experiment: 0", f"experiment: 0x{'f' * 5000}")
    )
    with pytest.raises(InputError, match=r"experiment: .*, not a number of thousands of digits"):
        load(tmp_path / "params.yaml")


# --- code in disguise


class Evil:
    """What a pickle may hold: a call of any function on loading."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_attack_works_on_a_loader_that_trusts(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_that_would_execute_code_are_rejected(tmp_path: Path, protocol: int, wrapped: bool) -> None:
    import torch

    evil = {"fc.weight": Evil(tmp_path / "executed")}
    if wrapped:
        torch.save(evil, tmp_path / "w.pt", pickle_protocol=protocol)
    else:
        (tmp_path / "w.pt").write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(InputError, match=r"w\.pt: not a state dict that can be loaded without executing code"):
        read_state(tmp_path / "w.pt")
    assert not (tmp_path / "executed").exists()


def test_arrays_that_would_execute_code_are_rejected(tmp_path: Path) -> None:
    evil = np.array([Evil(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "a.npz", embeddings=evil)
    with pytest.raises(InputError, match=r"a\.npz: embeddings holds Python objects, which are not loaded"):
        read_arrays(tmp_path / "a.npz", ("embeddings",))
    np.savez(tmp_path / "b.npz", embeddings=np.ones((2, 3)), other=evil)
    assert read_arrays(tmp_path / "b.npz", ("embeddings",)).column("embeddings").shape == (2, 3), "others stay unread"
    for name in ("a.npz", "a.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(evil[0]))
        with pytest.raises(InputError, match=f"{name}: not a readable"):
            read_arrays(tmp_path / name, ("embeddings",))
    assert not (tmp_path / "executed").exists()


def test_image_that_pillow_would_hand_to_a_program_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript is a language; Pillow has Ghostscript run it, under any file name."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ValueError, match="not a recognised image format"):
        decode(content)
    assert not (tmp_path / "executed").exists()


# --- what was found


def test_pattern_of_many_fields_never_hangs() -> None:
    """Each field tried every place at which it could end: 17 seconds for a name of 160 letters, then years."""
    matcher = compile_pattern("{person}_{a}_{b}_{c}_{d}_{e}.jpg")
    begun = time.process_time()
    assert matcher.fullmatch("_a" * 120 + "x") is None
    assert time.process_time() - begun < 5


PIECES = st.sampled_from(["{person}", "{camera}", "{tracklet:1}", "{x}", "{y}", "{z:2}", "_", "a", "/", "b_"])


@given(st.lists(PIECES, max_size=7), st.text("ab_/", max_size=12))
def test_pattern_equals_exhaustive_search(pieces: list[str], path: str) -> None:
    try:
        matcher = compile_pattern("".join(pieces))
    except InputError:
        return
    slow = re.compile(matcher.pattern.replace("(?>", "(?:")).fullmatch(path)
    quick = matcher.fullmatch(path)
    assert (quick and quick.groupdict()) == (slow and slow.groupdict())


def test_message_does_not_reach_the_terminal_as_a_command() -> None:
    told = InputError("\x1b[2J\rover\u202e\udcff: é\nmore", "another line")
    assert str(told) == "\\x1b[2J\\rover\\u202e\\udcff: é\\nmore\nanother line"


@pytest.mark.parametrize("name", [b"\xff.jpg", b"a\nb.jpg"])
@pytest.mark.parametrize("layout", ["folder", "distractors", "csv"])
def test_file_name_with_line_break_is_reported(tmp_path: Path, name: bytes, layout: str) -> None:
    """No artifact could hold it."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    (tmp_path / "table.csv").write_text("path,person_id\na.jpg,1\n")
    with pytest.raises(InputError, match=r"its name is not one line of UTF-8; rename it"):
        READERS[layout](tmp_path, **({"table": "table.csv"} if layout == "csv" else {}))


@pytest.mark.parametrize("text", ['path,person_id\n"a\nb.jpg",1\n', '"pa\nth",person_id\na.jpg,1\n'])
def test_table_value_with_line_break_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=r"t\.csv: line \d: a value has a line break in it"):
        READERS["csv"](tmp_path, table="t.csv")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 5000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff", b"[1]"])
def test_unreadable_json_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: "):
        read_json(tmp_path / "a.json")


def test_folder_instead_of_file_is_reported(tmp_path: Path) -> None:
    for read in (read_json, read_index, read_embeddings, read_weights, read_state):
        with pytest.raises(InputError, match=str(tmp_path)):
            read(tmp_path)


def test_index_with_other_types_is_reported(tmp_path: Path) -> None:
    columns = {name: [1] for name in ("person_id", "camera_id", "tracklet_id", *"xywh")} | {
        "path": ["a"],
        "split": ["train"],
    }
    for changes in (
        {"person_id": ["x"]},
        {"person_id": [None]},
        {"x": ["y"]},
        {"split": ["other"]},
        {"gallery_50": [["a"]]},
        {"gallery_50": [1]},
        {},  # no root
    ):
        pq.write_table(pa.table(columns | changes), tmp_path / "i.parquet")
        with pytest.raises(InputError, match=r"i\.parquet: .*; delete it and run `reid index` again"):
            read_index(tmp_path / "i.parquet")


@pytest.mark.parametrize(
    "arrays",
    [
        {"rows": np.array(1), "embeddings": np.ones((1, 2), np.float32)},
        {"rows": np.arange(2), "embeddings": np.ones(2, np.float32)},
        {"rows": np.arange(2.0), "embeddings": np.ones((2, 2), np.float32)},
        {"rows": np.arange(2), "embeddings": np.ones((2, 2))},
    ],
)
def test_embeddings_of_another_shape_or_type_are_reported(tmp_path: Path, arrays: dict[str, Any]) -> None:
    save_file(arrays, tmp_path / "e.safetensors")
    with pytest.raises(InputError, match=r"e\.safetensors: expected "):
        read_embeddings(tmp_path / "e.safetensors")


@pytest.mark.parametrize("about", ["{", "[]", '{"about": 3}', '{"about": [1]}'])
def test_weights_with_invalid_metadata_are_reported(tmp_path: Path, about: str) -> None:
    save_file({"fc.bias": np.ones(1)}, tmp_path / "w.safetensors", {"reid": about})
    with pytest.raises(InputError, match=r"w\.safetensors: what it says of itself is damaged"):
        read_weights(tmp_path / "w.safetensors")


def test_npz_member_without_array_is_reported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as opened:
        opened.writestr("embeddings.npy", b"text")
    with pytest.raises(InputError, match=r"a\.npz: embeddings is not an array"):
        read_arrays(tmp_path / "a.npz", ("embeddings",))


@pytest.mark.parametrize("save", [np.savez, lambda path, **arrays: save_file(arrays, path)])
def test_line_break_in_the_name_of_an_array_is_shown_as_one(tmp_path: Path, save: Any) -> None:
    path = tmp_path / ("a.npz" if save is np.savez else "a.safetensors")
    save(path, **{"a\nb": np.ones(1)})
    with pytest.raises(InputError, match=re.escape(f"{path}: no array 'embeddings'; it holds a\\nb")):
        read_arrays(path, ("embeddings",)).column("embeddings")


def test_unencodable_text_is_reported(tmp_path: Path) -> None:
    labels = np.frombuffer(b"\xff\xff\xff\x7f", "<U1")
    for name in ("query", "gallery"):
        np.savez(tmp_path / f"{name}.npz", embeddings=np.ones((1, 2)), person_id=labels, camera_id=np.ones(1, int))
    with pytest.raises(InputError, match=r"query\.npz: person_id holds text, expected integers"):
        score(tmp_path / "query.npz", tmp_path / "gallery.npz", tmp_path / "scores.json")


def test_truncated_compressed_archive_is_reported(tmp_path: Path) -> None:
    content = next(content for content in seeds("archive") if content.startswith(b"\xfd7zXZ"))
    for length in range(8, len(content)):
        (tmp_path / "a.tar.xz").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.tar\.xz: "):
            unpack([tmp_path / "a.tar.xz"], tmp_path / "out", lambda root: "{}")


def test_zip_with_undecodable_names_is_reported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("é.jpg", b"one")
    content = (tmp_path / "a.zip").read_bytes().replace("é".encode(), b"\xff\xff")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: damaged"):
        unpack([tmp_path / "a.zip"], tmp_path / "out", lambda root: "{}")


def test_tiff_without_dimensions_is_reported() -> None:
    content = next(content for content in seeds("image") if content.startswith(b"II*"))
    for at in range(8, len(content)):
        changed = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        try:
            decode(changed, upright=True)
        except (OSError, ValueError):
            continue


def test_person_search_table_with_other_structure_is_reported(tmp_path: Path) -> None:
    from hostile import _releases, _with_file
    from pedestrians.matlab import cell_array, save_mat

    for name, variable in {"Train": "Train", "TestG2": "TestG2", "Images": "Img", "pool": "pool"}.items():
        there = "annotation" if name in ("Images", "pool") else "annotation/test/train_test"
        for number, odd in enumerate([cell_array([1]), np.arange(3)]):
            save_mat(tmp_path / "a.mat", **{variable: odd})
            folder = tmp_path / f"{name}{number}"
            folder.mkdir()
            with pytest.raises(InputError, match=str(folder)):
                _with_file(
                    _releases()[1], f"{there}/{name}.mat", (tmp_path / "a.mat").read_bytes(), folder, "person-search"
                )


@pytest.mark.parametrize("second", ["person_id.npy", "person_id"])
def test_read_arrays_of_a_member_that_is_there_twice_is_reported(tmp_path: Path, second: str) -> None:
    """NumPy takes the last one: labels that anybody appended to the file."""
    np.savez(tmp_path / "a.npz", embeddings=np.ones((1, 2)), person_id=np.ones(1, int))
    content = BytesIO()
    np.save(content, np.zeros(1, int))
    with (
        pytest.warns(UserWarning) if second.endswith(".npy") else nullcontext(),
        zipfile.ZipFile(tmp_path / "a.npz", "a") as opened,
    ):
        opened.writestr(second, content.getvalue())
    with pytest.raises(InputError, match=r"a\.npz: holds person_id twice"):
        read_arrays(tmp_path / "a.npz", ("person_id",))
