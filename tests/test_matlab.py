"""MATLAB files are read as by SciPy, and damage is reported instead of crashing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from pedestrians.matlab import cell_array, struct_array
from reid_done_right.artifacts import InputError
from reid_done_right.data.matlab import load_variable
from reid_done_right.data.readers.layout import load_matrix

VARIABLES: dict[str, Any] = {
    "scalar": 3.5,
    "uint16": np.arange(6, dtype=np.uint16).reshape(2, 3),
    "int64": np.array([[-(2**40)]]),
    "float32": np.ones((3, 1), np.float32),
    "cube": np.arange(24.0).reshape(2, 3, 4),
    "empty": np.zeros((0, 4)),
    "text": "s12.jpg",
    "foreign": "ä中.jpg",
    "rows": np.array(["abc", "xyz"]),
    "nothing": "",
    "cells": cell_array(["a", np.arange(3), cell_array(["b"])]),
    "structs": struct_array(
        ("imname", "box"), [("a.jpg", np.arange(4)), ("b.jpg", struct_array(("x",), [(1,), (2,)]))]
    ),
}


def same(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and ours.dtype.names == theirs.dtype.names
    if theirs.dtype.names:
        for name in theirs.dtype.names:
            same(ours[name], theirs[name])
    elif theirs.dtype == object:
        for one, other in zip(ours.ravel(), theirs.ravel(), strict=True):
            same(one, other)
    else:
        assert ours.dtype == theirs.dtype and ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", VARIABLES)
def test_matlab_variable_equals_scipy(tmp_path: Path, name: str, packed: bool) -> None:
    savemat(tmp_path / "a.mat", {"before": 1, **VARIABLES, "after": "x"}, do_compression=packed)
    same(load_variable(tmp_path / "a.mat", name), loadmat(tmp_path / "a.mat", variable_names=[name])[name])


def test_missing_matlab_variable_is_none(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", VARIABLES)
    assert load_variable(tmp_path / "a.mat", "other") is None


def test_unknown_type_is_reported(tmp_path: Path) -> None:
    """SciPy takes the type for the place of a pointer: a fault that ends the process."""
    savemat(tmp_path / "a.mat", {"x": struct_array(("a",), [(np.arange(9.0),)])})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    at = content.index(np.array([9, 72], "<u4").tobytes())
    content[at + 1] = 0x7F
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mat: not a readable MATLAB file \(numbers are stored as type 32521"):
        load_matrix(tmp_path / "a.mat", "x")


@pytest.mark.parametrize("name", ["uint16", "text", "cells", "structs"])
def test_truncated_file_is_reported(tmp_path: Path, name: str) -> None:
    savemat(tmp_path / "a.mat", {name: VARIABLES[name]})
    content = (tmp_path / "a.mat").read_bytes()
    for length in range(128, len(content) - 8, 8):
        (tmp_path / "b.mat").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"b\.mat: (not a readable MATLAB file|expected a variable)"):
            load_matrix(tmp_path / "b.mat", name)


def test_small_file_of_much_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_done_right.data.matlab.LARGEST", 1 << 16)
    savemat(tmp_path / "a.mat", {"x": np.zeros(1 << 20)}, do_compression=True)
    with pytest.raises(InputError, match="unpacks to more than 65536 bytes"):
        load_matrix(tmp_path / "a.mat", "x")
