"""Backends of the ranking code: NumPy with compiled loops, or PyTorch on a GPU.

Both give the same ranks from the same scores: an item beats another if its score is higher, or equal and it comes
earlier in the gallery.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.counting import count_beaten


class Backend(Protocol):
    """What ranking needs of a backend; a block is whatever 2-D array it works on."""

    def empty(self, size: int) -> Any:
        """Room for `size` float32 scores, to be cut into blocks."""

    def put(self, rows: NDArray[np.floating]) -> Any:
        """Embeddings (N, D) as float32 there."""

    def multiply(self, left: Any, right: Any, block: Any) -> None:
        """Write the dot products of rows that were put there into a block."""

    def clip(self, block: Any) -> None:
        """Raise what is below 0 to 0."""

    def column(self, values: NDArray[np.float32]) -> Any:
        """Values (B,) as (B, 1), to be combined with a block of B rows."""

    def read(self, block: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of pairs of a row and a column."""

    def host(self, block: Any) -> NDArray[np.float32]:
        """The whole block as an array of NumPy's."""

    def add(self, block: Any, rows: NDArray[Any], columns: NDArray[Any], values: NDArray[np.float32]) -> None:
        """Add to scores of pairs of a row and a column, each named once."""

    def delete(self, block: Any, rows: Any, columns: Any) -> None:
        """Set scores of pairs to minus infinity; slice(None) stands for all rows."""

    def count(
        self,
        block: Any,
        items: NDArray[np.int64],
        pointers: NDArray[np.int64],
        thresholds: NDArray[np.float32],
        order: NDArray[np.int64],
        cells: NDArray[np.uint16],
        counts: NDArray[np.int32],
    ) -> None:
        """Add to `counts` as `counting.count_beaten` does."""


class NumpyBackend:
    """NumPy's products and compiled loops; `threads` (None: all there are) count at a time."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads

    def empty(self, size: int) -> NDArray[np.float32]:
        return np.empty(size, dtype=np.float32)

    def put(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.ascontiguousarray(rows, dtype=np.float32)

    def multiply(self, left: NDArray[np.float32], right: NDArray[np.float32], block: NDArray[np.float32]) -> None:
        np.matmul(left, right.T, out=block)

    def clip(self, block: NDArray[np.float32]) -> None:
        np.maximum(block, 0, out=block)

    def column(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values[:, None]

    def read(
        self, block: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return block[rows, columns]

    def host(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        return block

    def add(
        self, block: NDArray[np.float32], rows: NDArray[Any], columns: NDArray[Any], values: NDArray[np.float32]
    ) -> None:
        block[rows, columns] += values

    def delete(self, block: NDArray[np.float32], rows: Any, columns: Any) -> None:
        block[rows, columns] = -np.inf

    def count(
        self,
        block: NDArray[np.float32],
        items: NDArray[np.int64],
        pointers: NDArray[np.int64],
        thresholds: NDArray[np.float32],
        order: NDArray[np.int64],
        cells: NDArray[np.uint16],
        counts: NDArray[np.int32],
    ) -> None:
        count_beaten(block, items, pointers, thresholds, order, cells, counts, self.threads)


def backend(threads: int | None = None, device: str | None = None) -> Backend:
    """Return NumPy's backend, or PyTorch's if a `device` of it is named, such as ``cuda``."""
    if device is None:
        return NumpyBackend(threads)
    from reid_done_right.evaluation.torch_backend import TorchBackend  # torch takes seconds to import

    return TorchBackend(device)
