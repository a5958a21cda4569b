"""The first places of a gallery for each query: exactly, in memory that does not grow with queries x gallery."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.functional.evaluation import Rerank
from reid_done_right.functional.expansion import expand
from reid_done_right.functional.neighbours import Progress, nearest
from reid_done_right.functional.protocols import check_unit_norm
from reid_done_right.functional.ranking import split
from reid_done_right.functional.reciprocal import Reciprocal, k_reciprocal

_QUERIES = 256
_COLUMNS = 2**16


@dataclass(frozen=True)
class Ranked:
    """The K best gallery items of each of Q queries, best first, the earlier item first where scores are equal."""

    items: NDArray[np.int64]
    """(Q, K) rows of the gallery."""
    similarity: NDArray[np.float32]
    """(Q, K) dot products of the embeddings."""
    score: NDArray[np.float32]
    """(Q, K) what they are ordered by: the similarity, that of expanded embeddings, or 1 - k-reciprocal distance."""


def rank(
    query_embeddings: NDArray[np.floating],
    gallery_embeddings: NDArray[np.floating],
    top: int = 10,
    *,
    rerank: Rerank = "none",
    options: Mapping[str, Any] | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> Ranked:
    """Rank a gallery (G, D) for queries (Q, D), both of unit norm, and keep the first `top` places.

    Exact: what comes out depends neither on blocks nor on threads. The gallery may be a memory map, larger than memory,
    unless it is re-ranked.

    >>> import numpy as np
    >>> gallery = np.eye(4, dtype=np.float32)
    >>> ranked = rank(gallery[[2, 0]], gallery, top=1)
    >>> ranked.items.tolist(), ranked.similarity.tolist()
    ([[2], [0]], [[1.0], [1.0]])

    Args:
        query_embeddings: (Q, D).
        gallery_embeddings: (G, D).
        top: places to keep; all of them if the gallery is smaller.
        rerank: ``none``, ``qe-dba`` (`expansion.expand`) or ``k-reciprocal`` (`reciprocal.k_reciprocal`), which compare
            the whole gallery with itself.
        options: keyword arguments of these two, if not their defaults.
        threads: how many work at once.
        device: where PyTorch is to compute instead, such as ``cuda``.
        progress: wraps the list of blocks, as tqdm does.

    Raises:
        ValueError: naming the row, for embeddings of other shapes or not of unit norm; for an unknown re-ranking, or
            one that needs more items than there are.
    """
    if rerank not in get_args(Rerank):
        raise ValueError(f"re-ranking {rerank!r} is unknown: use one of {', '.join(get_args(Rerank))}")
    if rerank == "none" and options:
        raise ValueError(f"options {', '.join(options)} belong to a re-ranking, but there is none")
    check_searchable(query_embeddings, gallery_embeddings, top)
    top = min(top, len(gallery_embeddings))
    how: dict[str, Any] = {"threads": threads, "device": device, "progress": progress}
    if rerank == "k-reciprocal":
        reranked = k_reciprocal(query_embeddings, gallery_embeddings, **(options or {}), **how)
        items, score = _first(reranked, len(gallery_embeddings), top)
        return Ranked(items, similarities(query_embeddings, gallery_embeddings, items), score)
    if rerank == "qe-dba":
        found = nearest(*expand(query_embeddings, gallery_embeddings, **(options or {}), **how), top, **how)
        similarity = similarities(query_embeddings, gallery_embeddings, found.items)
        return Ranked(found.items, similarity, found.similarity)
    found = nearest(query_embeddings, gallery_embeddings, top, **how)
    return Ranked(found.items, found.similarity, found.similarity)


def check_searchable(query: NDArray[np.floating], gallery: NDArray[np.floating], top: int) -> None:
    """Raise ValueError unless queries (Q, D) and gallery (G, D) are of unit norm and there is a place to give."""
    for name, embeddings in (("query", query), ("gallery", gallery)):
        if embeddings.ndim != 2 or 0 in embeddings.shape:
            raise ValueError(f"{name} embeddings have shape {embeddings.shape}, expected (rows, dimensions), none of 0")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query embeddings have {query.shape[1]} dimensions, those of the gallery {gallery.shape[1]}")
    if top < 1:
        raise ValueError(f"top is {top}, expected the number of places to give, from 1 on")
    check_unit_norm(query, "query")
    check_unit_norm(gallery, "gallery")


def similarities(
    query: NDArray[np.floating], gallery: NDArray[np.floating], items: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Dot products (Q, K) of each query with its own items (Q, K)."""
    found = np.empty(items.shape, np.float32)
    for row, (one, places) in enumerate(zip(query, items, strict=True)):
        found[row] = np.asarray(gallery[places], np.float32) @ np.asarray(one, np.float32)
    return found


def _first(reranked: Reciprocal, gallery: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Items (Q, top) of the smallest final distances and 1 less these, a block of the gallery at a time."""
    items, score = [], []
    for rows in split(slice(0, len(reranked.query)), _QUERIES):
        best = np.empty((rows.stop - rows.start, 0), np.int64)
        reached = np.empty(best.shape, np.float32)
        for columns in split(slice(0, gallery), _COLUMNS):
            distance = np.asarray(reranked.distance(rows, columns))
            reached = np.hstack([reached, 1 - distance])
            best = np.hstack([best, np.broadcast_to(np.arange(columns.start, columns.stop), distance.shape)])
            order = np.argsort(-reached, axis=1, kind="stable")[:, :top]  # blocks ascend, so the earlier item is first
            best, reached = np.take_along_axis(best, order, 1), np.take_along_axis(reached, order, 1)
        items.append(best)
        score.append(reached)
    return np.concatenate(items), np.concatenate(score)
