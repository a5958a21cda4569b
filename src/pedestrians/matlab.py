"""MATLAB files with reproducible bytes, and the nested arrays that `scipy.io.savemat` writes as structs and cells."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

_HEADER = b"MATLAB 5.0 MAT-file, rendered release".ljust(116)


def save_mat(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays under their names; SciPy's header, which holds the time of writing, is replaced by a fixed one."""
    buffer = BytesIO()
    savemat(buffer, arrays)
    path.write_bytes(_HEADER + buffer.getvalue()[len(_HEADER) :])


def struct_array(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> NDArray[Any]:
    """Make a 1 x n struct array, one row of field values per element."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for i, row in enumerate(rows):
        array[0, i] = row
    return array


def cell_array(values: Sequence[Any]) -> NDArray[Any]:
    """Make an n x 1 cell array."""
    array = np.empty((len(values), 1), dtype=object)
    for i, value in enumerate(values):
        array[i, 0] = value
    return array
