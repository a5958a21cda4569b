"""Nearest neighbours of many embeddings, exactly, without the matrix of all similarities.

Matrix products of blocks, whose rounding has a rigorous bound, tell which pairs can matter; those, a hundred or so of
each item's N, are multiplied exactly, each pair alone and in one fixed order. So neighbours depend neither on the
blocks nor on the number of threads, and equal embeddings are equally near.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid_done_right.evaluation.blocks import Progress, blocks
from reid_done_right.evaluation.parallel import over_rows

_ROWS = 2048
_STRETCH = 64  # scores looked at together


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
    device: str | None = None,
    progress: Progress = iter,
) -> Neighbours:
    """Return the k items of the gallery (G, D) closest to each query (Q, D) by dot product; `rows` by `rows` at a time.

    `device` searches with PyTorch there, for instance on ``cuda`` (`torch_backend.nearest`); similarities then are
    those of its matrix products. `progress` wraps the list of blocks, as tqdm does.
    """
    check_available(k, len(gallery))
    if device is not None:
        from reid_done_right.evaluation import torch_backend

        return Neighbours(*torch_backend.nearest([query], [gallery], k, rows=rows, device=device, progress=progress))
    search = _Search(len(query), k, threads)
    left = [(row, load()) for row, load in blocks([query], rows)]
    for column, load in progress(blocks([gallery], rows)):
        right = load()
        for row, block in left:
            search.offer(row, block, column, right)
    return search.neighbours


def nearest_among(
    parts: Sequence[NDArray[np.floating]],
    k: int,
    *,
    exclude_self: bool = False,
    rows: int = _ROWS,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> Neighbours:
    """Return the k items closest to each of N items by dot product, the items being the rows of all `parts` in turn.

    Each score is computed once and offered to both of its items, half the work of N x N. Without `exclude_self` an
    item is normally its own first neighbour. `device` and `progress` as for `nearest`.
    """
    total = sum(len(part) for part in parts)
    check_available(k, total - exclude_self)
    if device is not None:
        from reid_done_right.evaluation import torch_backend

        return Neighbours(
            *torch_backend.nearest(
                parts, parts, k, rows=rows, device=device, exclude_self=exclude_self, progress=progress
            )
        )
    search = _Search(total, k, threads)
    everyone = blocks(parts, rows)
    for (row, load), (column, load_other) in progress(list(combinations_with_replacement(everyone, 2))):
        if column == row:
            right = left = load()
        else:
            right = load_other()
        search.offer(row, left, column, right, both=column > row, exclude_self=exclude_self)
    return search.neighbours


def check_available(k: int, available: int) -> None:
    """Raise ValueError if k neighbours cannot be found among the items there are."""
    if not 1 <= k <= available:
        raise ValueError(f"{k} neighbours asked for, but there are only {available} items to choose from")


class _Search:
    """The neighbours so far, and what a score must reach to be worth an exact product."""

    def __init__(self, rows: int, k: int, threads: int | None) -> None:
        self.neighbours = Neighbours(
            np.full((rows, k), np.iinfo(np.int64).max),
            np.full((rows, k), -np.inf, dtype=np.float32),
            np.full(rows, np.inf, dtype=np.float32),
        )
        self.floor = np.full(rows, -np.inf, dtype=np.float32)
        self.ceiling = np.full(rows, np.inf, dtype=np.float32)
        self.threads = threads

    def offer(
        self,
        row: int,
        left: NDArray[np.float32],
        column: int,
        right: NDArray[np.float32],
        *,
        both: bool = False,
        exclude_self: bool = False,
    ) -> None:
        """Offer the items from `column` on to those from `row` on, and the other way round if `both`."""
        scores, bound = left @ right.T, _rounding(left, right)
        best = (self.neighbours.items, self.neighbours.similarity, self.neighbours.lowest)
        shared = (scores, bound, (left, right), (row, column), (self.floor, self.ceiling), best)
        over_rows(_rows, len(scores), self.threads, *shared, exclude_self)
        if both:
            over_rows(_columns, scores.shape[1], self.threads, *shared)


def _rounding(left: NDArray[np.float32], right: NDArray[np.float32]) -> np.float32:
    """Return how far a product of rows, summed in any order, may lie from the one that `_dot` computes."""
    dimensions = left.shape[1]
    longest = [float(np.sqrt(np.vecdot(rows, rows).max(initial=0))) for rows in (left, right)]
    # the last term stands for numbers too small to be rounded by parts
    return np.float32(1.01 * 2.0**-23 * dimensions * longest[0] * longest[1] + dimensions * 2.0**-124)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for d in range(len(left)):
        total += left[d] * right[d]
    return total


@njit(cache=True, nogil=True)
def _insert(score, item, items, similarity):  # type: ignore[no-untyped-def]
    p = len(items) - 1
    if score < similarity[p] or (score == similarity[p] and item > items[p]):
        return
    while p > 0 and (similarity[p - 1] < score or (similarity[p - 1] == score and items[p - 1] > item)):
        similarity[p], items[p] = similarity[p - 1], items[p - 1]
        p -= 1
    similarity[p], items[p] = score, item


@njit(cache=True, nogil=True)
def _extremes(scores, width, bound, k):  # type: ignore[no-untyped-def]
    """For each of `width` columns: what k of its scores certainly reach, and what one certainly stays below.

    The k largest among the maxima of 4k groups of rows belong to k different rows.
    """
    most = np.full((4 * k, width), -np.inf, dtype=np.float32)
    least = np.full(width, np.inf, dtype=np.float32)
    for i in range(scores.shape[0]):
        row, group = scores[i], most[i % (4 * k)]
        for j in range(width):
            group[j] = row[j] if row[j] > group[j] else group[j]
            least[j] = row[j] if row[j] < least[j] else least[j]
    reached = np.empty(width, dtype=np.float32)
    for j in range(width):
        reached[j] = np.partition(most[:, j], 3 * k)[3 * k]
        if reached[j] > -np.inf:
            reached[j] -= bound
        least[j] += bound
    return reached, least


@njit(cache=True, nogil=True)
def _outside(scores, high, low, candidates):  # type: ignore[no-untyped-def]
    """Collect where scores lie outside their limits; most stretches have none, which vector code sees at once."""
    number, whole = 0, len(scores) - len(scores) % _STRETCH
    for start in range(0, len(scores), _STRETCH):
        some = np.int32(start == whole)
        if start < whole:
            stretch, above, below = scores[start:], high[start:], low[start:]
            for j in range(_STRETCH):
                some |= np.int32((stretch[j] >= above[j]) | (stretch[j] <= below[j]))
        if some:
            for j in range(start, min(start + _STRETCH, len(scores))):
                if scores[j] >= high[j] or scores[j] <= low[j]:
                    candidates[number] = j
                    number += 1
    return number


@njit(cache=True, nogil=True)
def _rows(start, stop, scores, bound, pair, corner, reach, best, exclude_self):  # type: ignore[no-untyped-def]
    left, right = pair
    row, column = corner
    floor, ceiling = reach
    items, similarity, lowest = best
    last, width = items.shape[1] - 1, scores.shape[1]
    high, low, candidates = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int64)
    for i in range(start, stop):
        mine = row + i
        if similarity[mine, last] == -np.inf:  # nothing yet to compare with: the block itself says what to expect
            reached, least = _extremes(scores[i].reshape(-1, 1), 1, bound, last + 1 + exclude_self)
            floor[mine], ceiling[mine] = reached[0], least[0]
        # a product between these two, bound and all, can be neither among the nearest nor the lowest
        high[:] = max(floor[mine], similarity[mine, last]) - bound
        low[:] = min(ceiling[mine], lowest[mine]) + bound
        for j in candidates[: _outside(scores[i], high, low, candidates)]:
            if lowest[mine] + bound < scores[i, j] < similarity[mine, last] - bound:
                continue
            score = _dot(left[i], right[j])
            lowest[mine] = min(lowest[mine], score)
            if not (exclude_self and column + j == mine):
                _insert(score, column + j, items[mine], similarity[mine])


@njit(cache=True, nogil=True)
def _columns(start, stop, scores, bound, pair, corner, reach, best):  # type: ignore[no-untyped-def]
    left, right = pair
    row, column = corner
    floor, ceiling = reach
    items, similarity, lowest = best
    last, width, mine = items.shape[1] - 1, stop - start, column + start
    high, low, candidates = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int64)
    if (similarity[mine : mine + width, last] == -np.inf).any():
        reached, least = _extremes(scores[:, start:stop], width, bound, last + 1)
        floor[mine : mine + width], ceiling[mine : mine + width] = reached, least
    for j in range(width):
        high[j] = max(floor[mine + j], similarity[mine + j, last]) - bound
        low[j] = min(ceiling[mine + j], lowest[mine + j]) + bound
    for i in range(scores.shape[0]):
        for j in candidates[: _outside(scores[i, start:stop], high, low, candidates)]:
            score = _dot(left[i], right[start + j])
            lowest[mine + j] = min(lowest[mine + j], score)
            _insert(score, row + i, items[mine + j], similarity[mine + j])
            high[j] = max(floor[mine + j], similarity[mine + j, last]) - bound
            low[j] = min(ceiling[mine + j], lowest[mine + j]) + bound
