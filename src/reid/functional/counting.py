"""Counting who beats whom: the compiled inner loop of every ranking."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid.functional.parallel import over_rows


def count_beaten(
    scores: NDArray[np.float32],
    items: NDArray[np.int64],
    pointers: NDArray[np.int64],
    thresholds: NDArray[np.float32],
    places: NDArray[np.int64],
    cells: NDArray[np.uint16],
    counts: NDArray[np.int32],
    threads: int | None = None,
) -> None:
    """Add to `counts`, for every scored item, one at the best relevant item that it beats.

    An item beats a relevant item of the query if its score is higher, or equal and its place in the gallery
    earlier. Whoever beats a relevant item beats all those after it, so the cumulated counts of a query say how
    many items beat each of its relevant items (see `cumulate`). One pass, no sort.

    Args:
        scores: (Q, B) of a block of gallery items.
        items: (B,) their places in the gallery.
        pointers: (Q + 1,) where each query's relevant items lie in the next two.
        thresholds: (P,) scores of the relevant items, best first within a query.
        places: (P,) their places in the gallery, ascending where scores are equal.
        cells: (B, draws) which columns of `counts` each item goes to.
        counts: (P, columns), added to.
        threads: how many work at once.
    """
    over_rows(_count, len(scores), threads, scores, items, pointers, thresholds, places, cells, counts)


def cumulate(counts: NDArray[np.int32], pointers: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, ...) counts summed from each query's best relevant item on: how many items beat each of them."""
    total: NDArray[np.int64] = np.cumsum(counts, axis=0, dtype=np.int64)
    before = np.concatenate([np.zeros((1, *total.shape[1:]), np.int64), total])[pointers[:-1]]
    total -= np.repeat(before, np.diff(pointers), axis=0)
    return total


@njit(cache=True, nogil=True)
def _count(start, stop, scores, items, pointers, thresholds, places, cells, counts):  # type: ignore[no-untyped-def]
    for row in range(start, stop):
        first, last = pointers[row], pointers[row + 1] - 1
        if last < first:
            continue
        lowest = thresholds[last]
        for column in range(scores.shape[1]):
            score = scores[row, column]
            if score < lowest:
                continue
            item = items[column]
            if score == lowest and item >= places[last]:
                continue
            low, high = first, last
            while low < high:
                middle = (low + high) // 2
                if score > thresholds[middle] or (score == thresholds[middle] and item < places[middle]):
                    high = middle
                else:
                    low = middle + 1
            for draw in range(cells.shape[1]):
                counts[low, cells[column, draw]] += 1
