"""Nearest neighbours of many embeddings, exactly, without the matrix of all similarities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid.functional.parallel import over_rows

_ROWS = 2048


@dataclass(frozen=True)
class Neighbours:
    """The k most similar items of each row, most similar first, the earlier item first where similarities are equal."""

    items: NDArray[np.int64]
    """(N, k)"""
    similarity: NDArray[np.float32]
    """(N, k)"""
    lowest: NDArray[np.float32]
    """(N,) similarity of the least similar item of all."""


def nearest(
    query: NDArray[np.floating],
    gallery: NDArray[np.floating],
    k: int,
    *,
    rows: int = _ROWS,
    threads: int | None = None,
) -> Neighbours:
    """The k items of the gallery (G, D) closest to each query (Q, D) by dot product; `rows` by `rows` at a time."""
    found = _nobody(len(query), k, len(gallery))
    left = list(_blocks([query], rows))
    for column, items in _blocks([gallery], rows):
        for row, block in left:
            _offer_rows(block @ items.T, row, column, found, False, threads)
    return found


def nearest_among(
    parts: Sequence[NDArray[np.floating]],
    k: int,
    *,
    exclude_self: bool = False,
    rows: int = _ROWS,
    threads: int | None = None,
) -> Neighbours:
    """The k items closest to each of N items by dot product, the items being the rows of all `parts` in turn.

    Each similarity is computed once and offered to both of its items, half the work of N x N. Without
    `exclude_self` an item is normally its own first neighbour.
    """
    total = sum(len(part) for part in parts)
    found = _nobody(total, k, total - exclude_self)
    for row, left in _blocks(parts, rows):
        for column, right in _blocks(parts, rows):
            if column < row:
                continue
            scores = left @ right.T
            _offer_rows(scores, row, column, found, exclude_self, threads)
            if column > row:
                _offer_columns(scores, row, column, found, threads)
    return found


def _nobody(rows: int, k: int, available: int) -> Neighbours:
    if not 1 <= k <= available:
        raise ValueError(f"{k} neighbours asked for, but there are only {available} items to choose from")
    return Neighbours(
        np.full((rows, k), np.iinfo(np.int64).max),
        np.full((rows, k), -np.inf, dtype=np.float32),
        np.full(rows, np.inf, dtype=np.float32),
    )


def _blocks(parts: Sequence[NDArray[np.floating]], rows: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Blocks of float32 rows with the number of their first row, the parts counted in turn."""
    before = 0
    for part in parts:
        for first in range(0, len(part), rows):
            yield before + first, np.asarray(part[first : first + rows], dtype=np.float32)
        before += len(part)


def _offer_rows(
    scores: NDArray[np.float32],
    row: int,
    column: int,
    found: Neighbours,
    exclude_self: bool,
    threads: int | None,
) -> None:
    """Offer the columns of a block, items from `column` on, to its rows, items from `row` on."""
    state = (found.items, found.similarity, found.lowest)
    over_rows(_rows, len(scores), threads, scores, row, column, *state, exclude_self)


def _offer_columns(scores: NDArray[np.float32], row: int, column: int, found: Neighbours, threads: int | None) -> None:
    """Offer the rows of a block to its columns."""
    state = (found.items, found.similarity, found.lowest)
    over_rows(_columns, scores.shape[1], threads, scores, row, column, *state)


@njit(cache=True, nogil=True)
def _insert(score, item, items, similarity):  # type: ignore[no-untyped-def]
    place = len(items) - 1
    if score == similarity[place] and item > items[place]:
        return
    while place > 0 and (similarity[place - 1] < score or (similarity[place - 1] == score and items[place - 1] > item)):
        similarity[place], items[place] = similarity[place - 1], items[place - 1]
        place -= 1
    similarity[place], items[place] = score, item


@njit(cache=True, nogil=True)
def _rows(start, stop, scores, row, column, items, similarity, lowest, exclude_self):  # type: ignore[no-untyped-def]
    last = items.shape[1] - 1
    for i in range(start, stop):
        mine, low = row + i, lowest[row + i]
        for j in range(scores.shape[1]):
            score = scores[i, j]
            low = min(low, score)
            if score >= similarity[mine, last] and not (exclude_self and column + j == mine):
                _insert(score, column + j, items[mine], similarity[mine])
        lowest[mine] = low


@njit(cache=True, nogil=True)
def _columns(start, stop, scores, row, column, items, similarity, lowest):  # type: ignore[no-untyped-def]
    last = items.shape[1] - 1
    for i in range(scores.shape[0]):
        for j in range(start, stop):
            score, mine = scores[i, j], column + j
            lowest[mine] = min(lowest[mine], score)
            if score >= similarity[mine, last]:
                _insert(score, row + i, items[mine], similarity[mine])
