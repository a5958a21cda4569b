"""Nearest neighbours of many embeddings, exactly, without the matrix of all similarities.

Blocks of approximate scores tell which pairs can matter (`screening`); those, a hundred or so of each item's N, are
multiplied exactly, each pair alone and in one fixed order. So neighbours depend neither on the blocks nor on the
number of threads, and equal embeddings are equally near.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid_done_right.functional.parallel import over_rows
from reid_done_right.functional.screening import Rows, Screen

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Wraps a list of blocks that are worked on in turn, as tqdm does."""

_ROWS = 2048
_STRETCH = 64  # scores looked at together
_LOOSE = 1 / 16  # of a block's pairs, above which a screen is no help


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
    """The k items of the gallery (G, D) closest to each query (Q, D) by dot product; `rows` by `rows` at a time.

    `device` searches with PyTorch there, for instance on ``cuda`` (`device.nearest`); similarities then are those
    of its matrix products. `progress` wraps the list of blocks, as tqdm does.
    """
    if device is not None:
        from reid_done_right.functional import device as on_device

        return on_device.nearest([query], [gallery], k, rows=rows, device=device, progress=progress)
    search = _Search(len(query), k, len(gallery), len(query) * float(len(gallery)) * query.shape[1], threads)
    left = [(row, search.screen.rows(load())) for row, load in blocks([query], rows)]
    for column, load in progress(blocks([gallery], rows)):
        right = search.screen.rows(load())
        for row, block in left:
            search.offer(row, block, column, right)
    return search.found


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
    """The k items closest to each of N items by dot product, the items being the rows of all `parts` in turn.

    Each score is computed once and offered to both of its items, half the work of N x N. Without `exclude_self` an
    item is normally its own first neighbour. `device` and `progress` as for `nearest`.
    """
    if device is not None:
        from reid_done_right.functional import device as on_device

        search_there = partial(on_device.nearest, exclude_self=exclude_self, progress=progress)
        return search_there(parts, parts, k, rows=rows, device=device)
    total = sum(len(part) for part in parts)
    search = _Search(total, k, total - exclude_self, total * float(total) * parts[0].shape[1] / 2, threads)
    everyone = blocks(parts, rows)
    for (row, load), (column, load_other) in progress(list(combinations_with_replacement(everyone, 2))):
        if column == row:
            right = left = search.screen.rows(load())
        else:
            right = search.screen.rows(load_other())
        search.offer(row, left, column, right, both=column > row, exclude_self=exclude_self)
    return search.found


def check_available(k: int, available: int) -> None:
    """Raise ValueError if k neighbours cannot be found among the items there are."""
    if not 1 <= k <= available:
        raise ValueError(f"{k} neighbours asked for, but there are only {available} items to choose from")


class _Search:
    """The neighbours found so far, and what a score must reach to be worth an exact product."""

    def __init__(self, rows: int, k: int, available: int, multiplications: float, threads: int | None) -> None:
        check_available(k, available)
        self.found = Neighbours(
            np.full((rows, k), np.iinfo(np.int64).max),
            np.full((rows, k), -np.inf, dtype=np.float32),
            np.full(rows, np.inf, dtype=np.float32),
        )
        self.floor = np.full(rows, -np.inf, dtype=np.float32)
        self.ceiling = np.full(rows, np.inf, dtype=np.float32)
        self.screen = Screen(multiplications)
        self.threads = threads

    def offer(
        self, row: int, left: Rows, column: int, right: Rows, *, both: bool = False, exclude_self: bool = False
    ) -> None:
        """Offer the items from `column` on to those from `row` on, and the other way round if `both`."""
        scores, *error = self.screen.scores(left, right)
        pair = (left.exact, right.exact)
        found = (self.found.items, self.found.similarity, self.found.lowest)
        shared = (scores, tuple(error), pair, (row, column), (self.floor, self.ceiling), found)
        passed = np.zeros(len(scores) + both * scores.shape[1], dtype=np.int64)
        over_rows(_rows, len(scores), self.threads, *shared, exclude_self, passed)
        if both:
            over_rows(_columns, scores.shape[1], self.threads, *shared, passed[len(scores) :])
        if passed.sum() > _LOOSE * len(passed) * max(scores.shape):
            self.screen.was_loose()


def blocks(parts: Sequence[NDArray[np.floating]], rows: int) -> list[tuple[int, Callable[[], NDArray[np.float32]]]]:
    """Blocks of rows: the number of the first, the parts counted in turn, and how to get them as float32."""
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return [
        (start + first, partial(np.require, part[first : first + rows], np.float32, ["C", "W"]))
        for start, part in zip(starts, parts, strict=False)
        for first in range(0, len(part), rows)
    ]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for d in range(len(left)):
        total += left[d] * right[d]
    return total


@njit(cache=True, nogil=True)
def _insert(score, item, items, similarity):  # type: ignore[no-untyped-def]
    place = len(items) - 1
    if score < similarity[place] or (score == similarity[place] and item > items[place]):
        return
    while place > 0 and (similarity[place - 1] < score or (similarity[place - 1] == score and items[place - 1] > item)):
        similarity[place], items[place] = similarity[place - 1], items[place - 1]
        place -= 1
    similarity[place], items[place] = score, item


@njit(cache=True, nogil=True)
def _extremes(scores, width, bound, part, k):  # type: ignore[no-untyped-def]
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
            reached[j] -= bound + part * abs(reached[j])
        least[j] += bound + part * abs(least[j])
    return reached, least


@njit(cache=True, nogil=True)
def _limits(high, low, bound, part):  # type: ignore[no-untyped-def]
    """Approximate scores between these two cannot stand for exact ones that reach `high` or fall to `low`."""
    high, low = high - bound, low + bound
    return high / (1 + np.copysign(part, high)), low / (1 - np.copysign(part, low))


@njit(cache=True, nogil=True)
def _outside(scores, high, low, candidates):  # type: ignore[no-untyped-def]
    """Collect the places of scores outside their limits; most stretches have none, which vector code sees at once."""
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
def _rows(start, stop, scores, error, pair, corner, reach, found, exclude_self, passed):  # type: ignore[no-untyped-def]
    bound, part = error
    left, right = pair
    row, column = corner
    floor, ceiling = reach
    items, similarity, lowest = found
    last, width = items.shape[1] - 1, scores.shape[1]
    high, low, candidates = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int64)
    for i in range(start, stop):
        mine = row + i
        if similarity[mine, last] == -np.inf:  # nothing yet to compare with: the block itself says what to expect
            reached, least = _extremes(scores[i].reshape(-1, 1), 1, bound, part, last + 1 + exclude_self)
            floor[mine], ceiling[mine] = reached[0], least[0]
        high[:], low[:] = _limits(
            max(floor[mine], similarity[mine, last]), min(ceiling[mine], lowest[mine]), bound, part
        )
        for j in candidates[: _outside(scores[i], high, low, candidates)]:
            above, below = _limits(similarity[mine, last], lowest[mine], bound, part)
            if below < scores[i, j] < above:
                continue
            passed[i] += 1
            score = _dot(left[i], right[j])
            lowest[mine] = min(lowest[mine], score)
            if not (exclude_self and column + j == mine):
                _insert(score, column + j, items[mine], similarity[mine])


@njit(cache=True, nogil=True)
def _columns(start, stop, scores, error, pair, corner, reach, found, passed):  # type: ignore[no-untyped-def]
    bound, part = error
    left, right = pair
    row, column = corner
    floor, ceiling = reach
    items, similarity, lowest = found
    last, width, mine = items.shape[1] - 1, stop - start, column + start
    high, low, candidates = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int64)
    if (similarity[mine : mine + width, last] == -np.inf).any():
        reached, least = _extremes(scores[:, start:stop], width, bound, part, last + 1)
        floor[mine : mine + width], ceiling[mine : mine + width] = reached, least
    for j in range(width):
        high[j], low[j] = _limits(
            max(floor[mine + j], similarity[mine + j, last]), min(ceiling[mine + j], lowest[mine + j]), bound, part
        )
    for i in range(scores.shape[0]):
        for j in candidates[: _outside(scores[i, start:stop], high, low, candidates)]:
            passed[start + j] += 1
            score = _dot(left[i], right[start + j])
            lowest[mine + j] = min(lowest[mine + j], score)
            _insert(score, row + i, items[mine + j], similarity[mine + j])
            high[j], low[j] = _limits(
                max(floor[mine + j], similarity[mine + j, last]), min(ceiling[mine + j], lowest[mine + j]), bound, part
            )
