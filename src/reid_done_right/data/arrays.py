"""Read and validate embeddings and labels written by any framework, as `.npz` or `.safetensors`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import InputError, check_expansion, reason_of, regular
from reid_done_right.evaluation.embedded import integers


@contextmanager
def naming(prefix: str = "") -> Iterator[None]:
    """Prefix errors with the name of the file."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{prefix}{error}") from None


@dataclass(frozen=True)
class Arrays:
    """The requested arrays of a file, and the names of all its arrays."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    names: Sequence[str]

    def column(self, name: str, rows: int | None = None) -> NDArray[Any]:
        """Return an array, with `rows` rows if given. Raises InputError if it is missing or has another length."""
        if name not in self.arrays:
            held = ", ".join(self.names) or "nothing"
            raise InputError(f"{self.path}: no array {name!r}; it holds {held}")
        array = self.arrays[name]
        if array.ndim == 0:
            raise InputError(f"{self.path}: {name} is a single value, expected an array with a row for each image")
        if rows is not None and len(array) != rows:
            raise InputError(f"{self.path}: {len(array)} rows of {name}, expected {rows}")
        return array

    def integers(self, name: str, rows: int | None = None) -> NDArray[np.int64]:
        """Return an array of integers."""
        with naming(f"{self.path}: "):
            return integers(self.column(name, rows), name)

    def pointers(self, name: str, rows: int, end: int) -> NDArray[np.int64]:
        """Return the bounds of `rows` rows in an array of length `end`."""
        pointers = self.integers(name, rows + 1)
        if pointers[0] != 0 or pointers[-1] != end or (np.diff(pointers) < 0).any():
            raise InputError(f"{self.path}: {name} must ascend from 0 to {end}, the length of what it points into")
        return pointers


def read_arrays(path: Path, wanted: Sequence[str]) -> Arrays:
    """Read (.npz) or map (.safetensors, so larger than memory) the arrays of a file that are `wanted`.

    Others are ignored. Raises InputError for a file that is missing, damaged or of another kind.
    """
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"{path}: expected .npz (np.savez(name, embeddings=..., person_id=...)) or .safetensors")
    try:
        regular(path)
        return _map_safetensors(path, wanted) if path.suffix == ".safetensors" else _read_npz(path, wanted)
    except InputError:
        raise
    except FileNotFoundError:
        there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, there, 1)
        raise InputError(f"{path}: no such file" + (f"; did you mean {near[0]}?" if near else "")) from None
    except Exception as error:  # zipfile, zlib, NumPy and safetensors raise many kinds on damaged files
        raise InputError(f"{path}: not a readable {path.suffix} file ({reason_of(error)}); write it again") from None


def _read_npz(path: Path, wanted: Sequence[str]) -> Arrays:
    with zipfile.ZipFile(path) as opened:  # numpy would take another file of any kind for a pickle
        members = [name.removesuffix(".npy") for name in opened.namelist()]
        if twice := [name for name in members if members.count(name) > 1]:
            raise InputError(f"{path}: holds {twice[0]} twice; save it again by np.savez")
        named = [info for info in opened.infolist() if info.filename.removesuffix(".npy") in wanted]
        check_expansion(path, sum(info.file_size for info in named))
    with np.load(path, allow_pickle=False) as arrays:
        names = arrays.files
        return Arrays(path, {name: _read_array(path, arrays, name) for name in names if name in wanted}, names)


def _read_array(path: Path, arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        array = arrays[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise InputError(
            f"{path}: {name} holds Python objects, which are not loaded; save an array of numbers"
        ) from None
    if not isinstance(array, np.ndarray):  # NumPy gives the bytes of what is none
        raise InputError(f"{path}: {name} is not an array; save it again with np.savez")
    return array


def _map_safetensors(path: Path, wanted: Sequence[str]) -> Arrays:
    """Map the tensors of a safetensors file: 8 bytes of length, a JSON header of that length, then the data."""
    from safetensors import safe_open

    with safe_open(path, framework="np"):
        pass  # raises unless header and length of the file are as they should be
    with path.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(start - 8), object_pairs_hook=_once)
    header.pop("__metadata__", None)
    arrays = {name: _map(path, name, each, start) for name, each in header.items() if name in wanted}
    return Arrays(path, arrays, list(header))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for a key that is there twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it holds an array twice; save it again")
    return content


def _map(path: Path, name: str, tensor: Mapping[str, Any], start: int) -> NDArray[Any]:
    kinds = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (1, 2, 4, 8)}
    kind = {**kinds, "BF16": "<u2"}.get(tensor["dtype"])
    if kind is None:
        raise InputError(f"{path}: {name} is {tensor['dtype']}, expected floats or integers of 8 to 64 bits")
    if 0 in tensor["shape"]:
        return np.empty(tensor["shape"], kind)
    mapped: NDArray[Any] = np.memmap(path, kind, "r", start + tensor["data_offsets"][0], tuple(tensor["shape"]))
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        return (mapped.astype(np.uint32) << 16).view(np.float32)
    return mapped
