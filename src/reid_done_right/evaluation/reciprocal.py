"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact and sparse: no matrix of all pairs is ever formed.

Items are the queries and then the gallery, N in all; an item belongs to its own neighbours. Letters as in the paper:

1. D_ab = |x_a - x_b|^2, D~_ab = D_ab / max_c D_ac. F(a, k): the first k + 1 items by D_a.
2. R(a, k) = {b in F(a, k): a in F(b, k)}.
3. R*(a) = R(a, k1) united with each half neighbourhood H(b), b in R(a, k1), that shares more than 2/3 of its
   items with R(a, k1).
4. V_a = exp(-D~_a) on R*(a), 0 elsewhere, divided by its sum; then the mean of V over the first k2 items of F(a).
5. Jaccard distance J_ag = 1 - m / (2 - m), m = sum_e min(V_a(e), V_g(e)).
6. d_ag = (1 - lambda) J_ag + lambda D~_ag.

V has tens of entries a row, so J differs from 1 on few pairs only. The final distance is a dense block plus a
sparse correction, which `ranking.rank_by` takes as its scorer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from reid_done_right.evaluation.backend import backend
from reid_done_right.evaluation.blocks import Progress
from reid_done_right.evaluation.counting import Backend
from reid_done_right.evaluation.neighbours import Neighbours, nearest_among
from reid_done_right.evaluation.parallel import over_rows
from reid_done_right.evaluation.ragged import Ragged

if TYPE_CHECKING:
    from scipy import sparse  # larger than all else that scoring needs, and only this needs it

Variant = Literal["matlab", "python", "squared-twice"]

_ROWS = 4096
_QUERIES = 512


@dataclass(frozen=True)
class Reciprocal:
    """Re-ranked distances of Q queries and G gallery items, block by block."""

    query: NDArray[np.floating]
    gallery: NDArray[np.floating]
    farthest: NDArray[np.float32]
    """(Q,) largest distance of each query to any item."""
    overlap: sparse.csr_array
    """(Q, G) m / (2 - m), the complement of the Jaccard distance."""
    lambda_value: float
    power: int
    backend: Backend

    def distance(self, rows: slice, columns: slice) -> Any:
        """Return the final distances of a range of queries and of gallery items, a block of `backend`."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        out = self.backend.empty(height * width).reshape(height, width)
        self.score(rows, columns, out)
        return -out

    def score(self, rows: slice, columns: slice, out: Any) -> None:
        """Write minus the final distances into `out`: a `ranking.Scorer`."""
        self.backend.multiply(self.backend.put(self.query[rows]), self.backend.put(self.gallery[columns]), out)
        out *= -2
        out += 2
        self.backend.clip(out)
        if self.power == 2:
            out *= out
        out *= self.backend.column(-np.float32(self.lambda_value) / self.farthest[rows])
        out -= 1 - self.lambda_value
        near = self.overlap[rows, columns].tocoo()
        self.backend.add(out, near.row, near.col, np.float32(1 - self.lambda_value) * near.data)


def k_reciprocal(
    query: NDArray[np.floating],
    gallery: NDArray[np.floating],
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    variant: Variant = "matlab",
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> Reciprocal:
    """Re-rank queries (Q, D) and gallery (G, D), both of unit norm.

    Args:
        query: (Q, D).
        gallery: (G, D), all of it, junk and distractors included, as the original code does.
        k1: size of the neighbourhoods.
        k2: how many neighbours V is averaged over; 1 leaves it as it is.
        lambda_value: weight of the original distance; 1 keeps the original ranking, 0 is the Jaccard distance alone.
        variant: ``matlab`` is the original code. ``python`` is its port (ranklist, torchreid, fast-reid), whose half
            neighbourhood is one larger for k1 = 3 (mod 4). ``squared-twice`` is that port fed with squared
            distances, which it squares again (torchreid's engine by default, and layumi's code).
        threads: number of threads.
        device: PyTorch device to use instead, such as ``cuda``; sets and overlaps stay on the CPU.
        progress: wraps the list of blocks, as tqdm does.

    Raises:
        ValueError: if there are not more items than `k1`, if k2 or lambda is out of range.
    """
    import scipy.sparse  # noqa: F401  # if it is not installed, say so before the work

    if variant not in get_args(Variant):
        raise ValueError(f"variant {variant!r} is unknown: use one of {', '.join(get_args(Variant))}")
    if not 1 <= k2 <= k1 + 1:
        raise ValueError(f"k2 is {k2}, expected 1 to k1 + 1 = {k1 + 1}")
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value is {lambda_value}, expected 0 (Jaccard distance) to 1 (original ranking)")
    if k1 >= len(query) + len(gallery):
        raise ValueError(f"k1 is {k1}, but there are only {len(query) + len(gallery)} items: it must be smaller")
    power = 2 if variant == "squared-twice" else 1
    half = (k1 + 2) // 2 if variant == "matlab" else round(k1 / 2) + 1  # half away from zero; half to even
    near = nearest_among([query, gallery], k1 + 1, threads=threads, device=device, progress=progress)
    farthest = np.maximum(_distance(near.lowest, power), np.finfo(np.float32).tiny)
    sets, similarity = _expanded_sets(near, half, threads)
    unknown = np.flatnonzero(np.isnan(similarity))
    similarity[unknown] = _dots(query, gallery, sets.rows[unknown], sets.items[unknown])
    weight = np.exp(-_distance(similarity, power) / farthest[sets.rows])
    weight /= np.bincount(sets.rows, weights=weight)[sets.rows].astype(np.float32)
    vectors = _table(weight, sets, len(farthest))
    if k2 > 1:
        first = Ragged.of(list(near.items[:, :k2]))
        vectors = _table(np.full(len(first.items), 1 / k2, dtype=np.float32), first, len(farthest)) @ vectors
    overlap = _overlap(vectors[: len(query)], vectors[len(query) :], threads)
    return Reciprocal(query, gallery, farthest[: len(query)], overlap, lambda_value, power, backend(threads, device))


def _distance(similarity: NDArray[np.float32], power: int) -> NDArray[np.float32]:
    """Squared Euclidean distance of unit vectors, clipped at 0, to a power."""
    distance: NDArray[np.float32] = np.maximum(2 - 2 * similarity, 0) ** power
    return distance


def _table(values: NDArray[np.float32], where: Ragged, columns: int) -> sparse.csr_array:
    from scipy import sparse

    return sparse.csr_array((values, where.items, where.pointers), shape=(len(where.counts), columns))


def _dots(
    query: NDArray[np.floating],
    gallery: NDArray[np.floating],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Dot products of pairs of items, a block of pairs at a time."""
    result = np.empty(len(left), dtype=np.float32)
    for first in range(0, len(left), _ROWS):
        pairs = slice(first, first + _ROWS)
        result[pairs] = np.vecdot(_take(query, gallery, left[pairs]), _take(query, gallery, right[pairs]))
    return result


def _take(query: NDArray[np.floating], gallery: NDArray[np.floating], items: NDArray[np.int64]) -> NDArray[np.float32]:
    rows = np.empty((len(items), query.shape[1]), dtype=np.float32)
    of_query = items < len(query)
    rows[of_query] = query[items[of_query]]
    rows[~of_query] = gallery[items[~of_query] - len(query)]
    return rows


def _expanded_sets(near: Neighbours, half: int, threads: int | None) -> tuple[Ragged, NDArray[np.float32]]:
    """R* of each item, and the similarity of each member to it: NaN where the search for neighbours has not left it."""
    total, first = near.items.shape
    mutual, mutual_half = np.empty((total, first), bool), np.empty((total, half), bool)
    over_rows(_mutual, total, threads, near.items, mutual)
    over_rows(_mutual, total, threads, near.items[:, :half], mutual_half)
    items, similarity, counts = [], [], []
    for start in range(0, total, _ROWS):
        rows = min(_ROWS, total - start)
        members = np.empty((rows, first * (half + 1)), dtype=np.int64)
        values = np.empty(members.shape, dtype=np.float32)
        sizes = np.empty(rows, dtype=np.int64)
        known = (near.items, near.similarity, mutual, mutual_half)
        over_rows(_expand, rows, threads, start, *known, members, values, sizes)
        used = np.arange(members.shape[1]) < sizes[:, None]
        items.append(members[used])
        similarity.append(values[used])
        counts.append(sizes)
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Ragged(pointers, np.concatenate(items)), np.concatenate(similarity)


def _overlap(query: sparse.csr_array, gallery: sparse.csr_array, threads: int | None) -> sparse.csr_array:
    """(Q, G) m / (2 - m) where it is not 0, m the sum of the smaller weights of two rows."""
    from scipy import sparse

    columns = gallery.tocsc()
    bound = np.concatenate([[0], np.cumsum(np.diff(columns.indptr)[query.indices])])[query.indptr]
    parts = []
    for start in range(0, query.shape[0], _QUERIES):
        offsets = bound[start : start + _QUERIES + 1] - bound[start]
        found = Ragged(offsets, np.empty(offsets[-1], dtype=np.int64))
        values = np.zeros(offsets[-1], dtype=np.float32)
        left = (query.indptr[start : start + _QUERIES + 1], query.indices, query.data)
        right = (columns.indptr, columns.indices, columns.data, gallery.shape[0])
        over_rows(_shared, len(offsets) - 1, threads, *left, *right, offsets, found.items, values)
        kept = found.keep(values > 0)
        parts.append(_table(values[values > 0], kept, gallery.shape[0]))
    return sparse.vstack(parts, format="csr")


@njit(cache=True, nogil=True)
def _mutual(start, stop, first, mutual):  # type: ignore[no-untyped-def]
    """Whether an item is among the first items of each of its own first items."""
    for a in range(start, stop):
        for p in range(first.shape[1]):
            mutual[a, p] = False
            for back in first[first[a, p]]:
                if back == a:
                    mutual[a, p] = True
                    break


@njit(cache=True, nogil=True)
def _expand(start, stop, offset, first, similarity, mutual, mutual_half, members, values, sizes):  # type: ignore[no-untyped-def]
    """R* of items `offset + row` and the similarities that are known, a row each."""
    total, half = len(first), mutual_half.shape[1]
    in_set, in_expanded, in_first = np.full(total, -1), np.full(total, -1), np.full(total, -1)
    known = np.empty(total, dtype=np.float32)
    for row in range(start, stop):
        a, size = offset + row, 0
        for p in range(first.shape[1]):
            e = first[a, p]
            in_first[e], known[e] = a, similarity[a, p]
            if mutual[a, p]:
                in_set[e], in_expanded[e] = a, a
                members[row, size] = e
                size += 1
        for p in range(size):
            b = members[row, p]
            shared, count = 0, 0
            for r in range(half):
                if mutual_half[b, r]:
                    count += 1
                    shared += in_set[first[b, r]] == a
            if 3 * shared <= 2 * count:
                continue
            for r in range(half):
                e = first[b, r]
                if mutual_half[b, r] and in_expanded[e] != a:
                    in_expanded[e] = a
                    members[row, size] = e
                    size += 1
        for p in range(size):
            e = members[row, p]
            values[row, p] = known[e] if in_first[e] == a else np.nan
        sizes[row] = size


@njit(cache=True, nogil=True)
def _shared(start, stop, pointers, items, weights, by_item, rows, row_weights, gallery, offsets, found, values):  # type: ignore[no-untyped-def]
    """Gallery rows that share an item with each query, and m / (2 - m)."""
    total = np.zeros(gallery, dtype=np.float32)
    for q in range(start, stop):
        size = offsets[q]
        for p in range(pointers[q], pointers[q + 1]):
            for r in range(by_item[items[p]], by_item[items[p] + 1]):
                g = rows[r]
                if total[g] == 0:
                    found[size] = g
                    size += 1
                total[g] += min(weights[p], row_weights[r])
        for p in range(offsets[q], size):
            m = total[found[p]]
            values[p] = m / (2 - m)
            total[found[p]] = 0
