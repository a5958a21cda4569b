"""Scores and who beats whom, block by block: NumPy's products, and the compiled inner loop of every ranking."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid_done_right.evaluation.parallel import over_rows


class Backend:
    """What ranking needs, from NumPy: a block is a 2-D array of scores, on which `threads` (None: all) count at a time.

    `torch_backend.TorchBackend` does the same on a GPU, where a block is a tensor.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads

    def empty(self, size: int) -> Any:
        """Return room for `size` float32 scores, to be cut into blocks."""
        return np.empty(size, dtype=np.float32)

    def put(self, rows: NDArray[np.floating]) -> Any:
        """Return embeddings (N, D) as float32 there."""
        return np.ascontiguousarray(rows, dtype=np.float32)

    def multiply(self, left: Any, right: Any, block: Any) -> None:
        """Write the dot products of rows that were put there into a block."""
        np.matmul(left, right.T, out=block)

    def clip(self, block: Any) -> None:
        """Raise what is below 0 to 0."""
        np.maximum(block, 0, out=block)

    def column(self, values: NDArray[np.float32]) -> Any:
        """Return values (B,) as (B, 1), to be combined with a block of B rows."""
        return values[:, None]

    def read(self, block: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of pairs of a row and a column."""
        return self.host(block[rows, columns])

    def host(self, block: Any) -> NDArray[np.float32]:
        """Return scores as an array of NumPy's."""
        scores: NDArray[np.float32] = block
        return scores

    def add(self, block: Any, rows: NDArray[Any], columns: NDArray[Any], values: NDArray[np.float32]) -> None:
        """Add to scores of pairs of a row and a column, each named once."""
        block[rows, columns] += values

    def delete(self, block: Any, rows: Any, columns: Any) -> None:
        """Set scores of pairs to minus infinity; slice(None) stands for all rows."""
        block[rows, columns] = -np.inf

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
        """Add to `counts`, for every scored item, one at the best relevant item that it beats.

        An item beats a relevant item of the query if its score is higher, or equal and it comes earlier in the
        gallery. Whoever beats a relevant item beats all those after it, so the cumulated counts of a query say how
        many items beat each of its relevant items (see `cumulate`). One pass, no sort.

        Args:
            block: (Q, B) scores of a block of gallery items.
            items: (B,) their rows of the gallery.
            pointers: (Q + 1,) where each query's relevant items lie in the next two.
            thresholds: (P,) scores of the relevant items, best first within a query.
            order: (P,) their rows of the gallery, ascending where scores are equal.
            cells: (B, orders) which columns of `counts` each item goes to.
            counts: (P, columns), added to.
        """
        over_rows(_count, len(block), self.threads, block, items, pointers, thresholds, order, cells, counts)


def cumulate(counts: NDArray[np.int32], pointers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (P, ...) counts summed from each query's best relevant item on: how many items beat each of them."""
    total: NDArray[np.int64] = np.cumsum(counts, axis=0, dtype=np.int64)
    before = np.concatenate([np.zeros((1, *total.shape[1:]), np.int64), total])[pointers[:-1]]
    total -= np.repeat(before, np.diff(pointers), axis=0)
    return total


@njit(cache=True, nogil=True)
def _count(start, stop, scores, items, pointers, thresholds, order, cells, counts):  # type: ignore[no-untyped-def]
    candidates = np.empty(scores.shape[1], dtype=np.int64)
    for row in range(start, stop):
        first, last = pointers[row], pointers[row + 1] - 1
        if last < first:
            continue
        number = 0
        for column in range(scores.shape[1]):  # most items do not even reach the worst relevant item
            candidates[number] = column
            number += scores[row, column] >= thresholds[last]
        for column in candidates[:number]:
            score, item = scores[row, column], items[column]
            if not _beats(score, item, thresholds[last], order[last]):
                continue
            best, length = first, last + 1 - first
            while length > 1:  # branch-free bisection, as the branches would be unpredictable
                half = length // 2
                best += 0 if _beats(score, item, thresholds[best + half - 1], order[best + half - 1]) else half
                length -= half
            for draw in range(cells.shape[1]):
                counts[best, cells[column, draw]] += 1


@njit(cache=True, nogil=True)
def _beats(score, item, threshold, other):  # type: ignore[no-untyped-def]
    return (score > threshold) | ((score == threshold) & (item < other))
