"""What is allowed, and most likely a mistake: seen in embeddings before anybody believes their scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.task import Task

SAMPLE = 4096
"""Rows by which a gallery is judged to have collapsed."""
COLLAPSED = 0.99
"""Mean cosine of two images of a gallery from which on its ranking is chance."""


def suspicions(task: Task) -> Iterator[str]:
    """Yield a sentence for each plausible mistake in a task, with the numbers that show it.

    Query and gallery that are swapped, gallery rows that are there twice, queries that are in the gallery, and
    embeddings that are all the same. After the ranking, which has noted the rows' starts, no mapped row is read again.
    """
    query, gallery = task.query.embeddings, task.gallery.embeddings
    if len(query) > len(gallery):
        yield (
            f"{len(query)} queries against a gallery of {len(gallery)}: were {task.query.name} and {task.gallery.name} "
            "swapped?"
        )
    cosine = _mean_cosine(gallery)
    if cosine > COLLAPSED:
        yield f"{task.gallery.name}: two of its embeddings have a cosine of {cosine:.3f} in the mean: they collapsed"
        return  # equal rows say nothing more then
    keys = _keys(task.gallery.starts())
    twice, first = _equal(gallery, keys, gallery, keys)
    if len(twice):
        yield f"{task.gallery.name}: {len(twice)} rows are there twice, bit for bit, as {first[0]} and {twice[0]}"
    if not task.rule.queries_in_gallery and task.lists is None:
        known, there = _equal(query, _keys(task.query.starts()), gallery, keys)
        if len(known):
            yield (
                f"{len(known)} of {len(query)} queries are in the gallery, bit for bit, as query {known[0]} in row "
                f"{there[0]} of {task.gallery.name}: they find themselves"
            )


def _mean_cosine(embeddings: NDArray[np.floating]) -> float:
    """Return the mean cosine of two different rows of (N, D), of a sample."""
    if len(embeddings) < 2:
        return 0.0
    rows = np.unique(np.linspace(0, len(embeddings) - 1, SAMPLE).astype(np.int64))
    some = np.asarray(embeddings[rows], np.float64)
    norm = np.linalg.norm(some, axis=1, keepdims=True)
    some /= np.where(norm == 0, 1, norm)  # the ranking refuses rows of zeros
    n = len(some)
    return float((np.square(some.sum(axis=0)).sum() - n) / (n * (n - 1)))


def _equal(
    left: NDArray[np.floating], keys: NDArray[np.void], right: NDArray[np.floating], others: NDArray[np.void]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of `left` that are rows of `right`, and the first of these; of one array, an earlier row.

    left, right   (N, D), (M, D)
    keys, others  their `_keys`
    """
    _, first, inverse = np.unique(np.concatenate([others, keys]), return_index=True, return_inverse=True)
    candidate = first[inverse[len(others) :]]
    rows = np.flatnonzero(candidate < (np.arange(len(left)) if left is right else len(others)))
    same = np.array([np.array_equal(left[row], right[candidate[row]]) for row in rows], bool)
    return rows[same], candidate[rows[same]]


def _keys(starts: NDArray[np.float32]) -> NDArray[np.void]:
    """Return the bytes of each row (N, K) as something that can be sorted: (N,). Rows that agree are compared whole."""
    keys: NDArray[np.void] = starts.view(np.dtype((np.void, starts.shape[1] * starts.itemsize))).ravel()
    return keys
