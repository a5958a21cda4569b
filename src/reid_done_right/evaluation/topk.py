"""The first K items of a gallery for each query, in memory that does not grow with queries x gallery.

`top_k` uses only embeddings; `retrieve` also uses labels and a benchmark's rule to remove junk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.backend import backend
from reid_done_right.evaluation.blocks import Progress, split
from reid_done_right.evaluation.embedded import check_dimensions, unit
from reid_done_right.evaluation.expansion import expand
from reid_done_right.evaluation.neighbours import nearest
from reid_done_right.evaluation.ranking import Rerank, check_rerank, dot_scorer
from reid_done_right.evaluation.reciprocal import Reciprocal, k_reciprocal
from reid_done_right.evaluation.task import Counting, Task

_QUERIES = 256
_COLUMNS = 2**16


@dataclass(frozen=True)
class TopK:
    """The K best gallery items of each of Q queries, best first, the earlier item first where scores are equal."""

    items: NDArray[np.int64]
    """(Q, K) rows of the gallery."""
    similarity: NDArray[np.float32]
    """(Q, K) dot products of the embeddings."""
    score: NDArray[np.float32]
    """(Q, K) what they are ordered by: the similarity, that of expanded embeddings, or 1 - k-reciprocal distance."""


def top_k(
    query_embeddings: NDArray[np.floating],
    gallery_embeddings: NDArray[np.floating],
    top: int = 10,
    *,
    rerank: Rerank = "none",
    options: Mapping[str, Any] | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> TopK:
    """Rank a gallery (G, D) for queries (Q, D), both of unit norm, and keep the first K = `top` of each list.

    The result is exact and depends neither on blocks nor on threads. Unless it is re-ranked, the gallery may be a
    memory map larger than memory.

    >>> import numpy as np
    >>> gallery = np.eye(4, dtype=np.float32)
    >>> ranked = top_k(gallery[[2, 0]], gallery, top=1)
    >>> ranked.items.tolist(), ranked.similarity.tolist()
    ([[2], [0]], [[1.0], [1.0]])

    Args:
        query_embeddings: (Q, D).
        gallery_embeddings: (G, D).
        top: items to keep; all of them if the gallery is smaller.
        rerank: ``none``, ``qe-dba`` (`expansion.expand`) or ``k-reciprocal`` (`reciprocal.k_reciprocal`), which compare
            the whole gallery with itself.
        options: keyword arguments of these two, if not their defaults.
        threads: number of threads.
        device: PyTorch device to use instead, such as ``cuda``.
        progress: wraps the list of blocks, as tqdm does.

    Raises:
        ValueError: naming the row, for embeddings of other shapes or not of unit norm; for an unknown re-ranking, or
            one that needs more items than there are.
    """
    check_rerank(rerank, options)
    query, gallery = unit(query_embeddings, "query"), unit(gallery_embeddings, "gallery")
    check_dimensions(query, gallery, ("query", "gallery"))
    if top < 1:
        raise ValueError(f"top is {top}, expected the number of items to keep, from 1 on")
    top = min(top, len(gallery))
    how: dict[str, Any] = {"threads": threads, "device": device, "progress": progress}
    if rerank == "k-reciprocal":
        items, score = _first(k_reciprocal(query, gallery, **(options or {}), **how), top)
        return TopK(items, similarities(query, gallery, items), score)
    if rerank == "qe-dba":
        near = nearest(*expand(query, gallery, **(options or {}), **how), top, **how)
        return TopK(near.items, similarities(query, gallery, near.items), near.similarity)
    near = nearest(query, gallery, top, **how)
    return TopK(near.items, near.similarity, near.similarity)


def similarities(
    query: NDArray[np.floating], gallery: NDArray[np.floating], items: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the dot products (Q, K) of each query with its own items (Q, K)."""
    products = np.empty(items.shape, np.float32)
    for row, (one, own) in enumerate(zip(query, items, strict=True)):
        products[row] = np.asarray(gallery[own], np.float32) @ np.asarray(one, np.float32)
    return products


@dataclass(frozen=True)
class Retrieved:
    """The first results of every query, and histograms of similarities.

    items        (Q, K) gallery rows, best first, junk deleted; -1 beyond the end of a short gallery
    similarity   (Q, K) float32, theirs
    relevant     (Q, K) whether each shows the query's person
    positives    (bins,) how many pairs of a query and a relevant item fall into each bin of similarity
    negatives    (bins,) the same of all other pairs that count
    edges        (bins + 1,) of the bins, from -1 to 1
    """

    items: NDArray[np.int64]
    similarity: NDArray[np.float32]
    relevant: NDArray[np.bool_]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    edges: NDArray[np.float64]


def retrieve(task: Task, *, top: int = 10, bins: int = 100, device: str | None = None) -> Retrieved:
    """Rank the gallery for every query; keep the first K = `top` of each list, and how similar all pairs are.

    Equal similarities keep gallery order, as in `ranking.rank_gallery`. device: of PyTorch, for the products.
    """
    query, gallery = task.query, task.gallery
    counting = Counting.of(query.labels, gallery.labels, task.rule, task.lists)
    asked, there = query.labels.person_id, gallery.labels.person_id
    computing = backend(device=device)
    scorer = dot_scorer(query.embeddings, gallery.embeddings, computing)
    edges = np.linspace(-1, 1, bins + 1)
    positives, negatives = np.zeros((2, bins), np.int64)
    items, similarity = np.full((len(query), top), -1, np.int64), np.zeros((len(query), top), np.float32)
    for rows in split(slice(0, len(query)), _QUERIES):
        best = _Best.of(rows.stop - rows.start)
        for columns in split(slice(0, len(gallery)), _COLUMNS):
            shape = rows.stop - rows.start, columns.stop - columns.start
            block = computing.empty(shape[0] * shape[1]).reshape(shape)
            scorer(rows, columns, block)
            scores = computing.host(block)
            counts = counting.block(rows, columns)
            same = asked[rows, None] == there[columns]
            for pairs, histogram in ((counts & same, positives), (counts & ~same, negatives)):
                histogram += np.histogram(scores[pairs].clip(-1, 1), edges)[0]
            best = best.offered(columns, np.where(counts, scores, -np.inf), top)
        width, ranked = best.items.shape[1], best.score > -np.inf
        items[rows, :width] = np.where(ranked, best.items, -1)
        similarity[rows, :width] = np.where(ranked, best.score, 0)
    relevant = (items >= 0) & (there[items] == asked[:, None])
    return Retrieved(items, similarity, relevant, positives, negatives, edges)


@dataclass(frozen=True)
class _Best:
    """The best items so far of some queries, best first, the earlier item first where scores are equal."""

    items: NDArray[np.int64]
    score: NDArray[np.float32]

    @classmethod
    def of(cls, queries: int) -> _Best:
        return cls(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float32))

    def offered(self, columns: slice, scores: NDArray[np.float32], top: int) -> _Best:
        """Return the first `top` of these and of further items, which come later in the gallery."""
        score = np.hstack([self.score, scores])
        items = np.hstack([self.items, np.broadcast_to(np.arange(columns.start, columns.stop), scores.shape)])
        order = np.argsort(-score, axis=1, kind="stable")[:, :top]
        return _Best(np.take_along_axis(items, order, 1), np.take_along_axis(score, order, 1))


def _first(reranked: Reciprocal, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the items (Q, top) of smallest final distance, and 1 less these."""
    found = []
    for rows in split(slice(0, len(reranked.query)), _QUERIES):
        best = _Best.of(rows.stop - rows.start)
        for columns in split(slice(0, len(reranked.gallery)), _COLUMNS):
            distance = reranked.backend.host(reranked.distance(rows, columns))
            best = best.offered(columns, 1 - distance, top)
        found.append(best)
    return np.concatenate([best.items for best in found]), np.concatenate([best.score for best in found])
