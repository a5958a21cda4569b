"""Where blocks of scores live and are counted: in NumPy with compiled loops, or in PyTorch on a GPU.

Both give the same ranks from the same scores: an item beats another if its score is higher, or equal and its place in
the gallery earlier.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reid_done_right.functional.counting import count_beaten


class Processor(Protocol):
    """What ranking needs of the place where scores are; a block is whatever 2-D array that place works on."""

    def empty(self, size: int) -> Any:
        """Room for `size` float32 scores, to be cut into blocks."""

    def held(self, rows: NDArray[np.floating]) -> Any:
        """Embeddings (N, D) as float32 there."""

    def multiply(self, left: Any, right: Any, block: Any) -> None:
        """Write the dot products of held rows into a block."""

    def clip(self, block: Any) -> None:
        """Raise what is below 0 to 0."""

    def column(self, values: NDArray[np.float32]) -> Any:
        """Values (B,) as (B, 1), to be combined with a block of B rows."""

    def read(self, block: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores at some places."""

    def add(self, block: Any, rows: NDArray[Any], columns: NDArray[Any], values: NDArray[np.float32]) -> None:
        """Add to scores at some places, each named once."""

    def delete(self, block: Any, rows: Any, columns: Any) -> None:
        """Set scores at some places to minus infinity; slice(None) stands for all rows."""

    def count(
        self,
        block: Any,
        items: NDArray[np.int64],
        pointers: NDArray[np.int64],
        thresholds: NDArray[np.float32],
        places: NDArray[np.int64],
        cells: NDArray[np.uint16],
        counts: NDArray[np.int32],
    ) -> None:
        """Add to `counts` as `counting.count_beaten` does."""


class Host:
    """NumPy's products and compiled loops; `threads` (None: all there are) count at a time."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads

    def empty(self, size: int) -> NDArray[np.float32]:
        return np.empty(size, dtype=np.float32)

    def held(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
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
        places: NDArray[np.int64],
        cells: NDArray[np.uint16],
        counts: NDArray[np.int32],
    ) -> None:
        count_beaten(block, items, pointers, thresholds, places, cells, counts, self.threads)


def processor(threads: int | None = None, device: str | None = None) -> Processor:
    """The host, or PyTorch's `device` if one is named, such as ``cuda``."""
    if device is None:
        return Host(threads)
    from reid_done_right.functional.device import Device

    return Device(device)
