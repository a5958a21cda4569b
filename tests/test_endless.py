"""Every reader opens regular files only: a pipe without a writer, or a device, would be read for ever."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid_done_right import artifacts
from reid_done_right.artifacts import InputError, file_digest, read_embeddings, read_index, read_json, read_state
from reid_done_right.data.arrays import read_arrays
from reid_done_right.data.gallery import read_gallery
from reid_done_right.data.matlab import load_variable
from reid_done_right.data.readers.table import read_table
from reid_done_right.data.unpack import unpack
from reid_done_right.images.decode import measure_file
from reid_done_right.images.photos import decode_photo
from reid_done_right.params import load
from reid_done_right.stages.compare import compare
from reid_done_right.store.ledger import read_copy


def _photo(path: Path) -> None:
    reason = decode_photo(path)
    assert isinstance(reason, str)
    raise InputError(reason)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "json": ("a.json", read_json),
    "ledger": ("ledger.json", read_copy),
    "index": ("i.parquet", read_index),
    "embeddings": ("e.safetensors", read_embeddings),
    "state": ("w.pt", read_state),
    "digest": ("any", file_digest),
    "npz": ("a.npz", lambda path: read_arrays(path, ("embeddings",))),
    "safetensors": ("a.safetensors", lambda path: read_arrays(path, ("embeddings",))),
    "gallery": ("g.safetensors", read_gallery),
    "table": ("t.csv", read_table),
    "matlab": ("a.mat", lambda path: load_variable(path, "a")),
    "archive": ("a.zip", lambda path: unpack([path], path.with_name("out"), lambda root: "{}")),
    "photo": ("a.jpg", _photo),
    "header": ("a.jpg", measure_file),
    "params": ("params.yaml", load),
    "queries": ("q.parquet", lambda path: compare(str(path), str(path), results=path.parent)),
}


def _pipe(path: Path) -> str:
    os.mkfifo(path)
    return "a pipe, not a file"


def _device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "a device, not a file"


def _too_large(path: Path) -> str:
    with path.open("wb") as opened:
        opened.truncate(1 << 40)  # without a byte on the disk
    return "1,099,511,627,776 bytes, more than"


@pytest.mark.parametrize("make", [_pipe, _device])
@pytest.mark.parametrize("name", READERS)
def test_reader_of_what_never_ends_rejects_it_unopened(name: str, make: Callable[[Path], str], tmp_path: Path) -> None:
    file, read = READERS[name]
    reason = make(tmp_path / file)
    with pytest.raises((OSError, ValueError), match=f"{reason}|no such file"):
        read(tmp_path / file)


@pytest.mark.parametrize("name", ["json", "ledger", "table", "matlab", "photo", "header", "params"])
def test_reader_of_whole_files_rejects_a_large_one_unread(name: str, tmp_path: Path) -> None:
    file, read = READERS[name]
    reason = _too_large(tmp_path / file)
    with pytest.raises((OSError, ValueError), match=reason):
        read(tmp_path / file)


def test_read_regular_file_without_a_size_is_refused() -> None:
    """Files of the system have none until they are read."""
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(OSError, match="more bytes than its size"):
        artifacts.read_regular(Path("/proc/self/status"))
