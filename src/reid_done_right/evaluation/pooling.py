"""Pool several images into one embedding: the boxes of a multi-query, the frames of a tracklet."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.embedded import Embedded, Labels, normalised

Pooling = Literal["mean", "max"]

_ROWS = 8192


def pool_queries(boxes: Embedded, query: Labels, pool: Pooling = "mean") -> NDArray[np.float32]:
    """Return multi-query embeddings (Q, D) of unit norm: for each query, all boxes of its person in its camera, pooled.

    `boxes` are Market's hand-drawn crops; they are normalised before pooling and the result after it (official
    `baseline_evaluation`, which has both ``mean`` and ``max``). Raises ValueError naming the first query without a box.
    """
    keys, group = np.unique(_pairs(boxes.labels), axis=0, return_inverse=True)
    number = {(int(person), int(camera)): row for row, (person, camera) in enumerate(keys)}
    rows = [number.get((int(person), int(camera)), -1) for person, camera in _pairs(query)]
    if -1 in rows:
        row = rows.index(-1)
        raise ValueError(
            f"query row {row} has no box to pool: none of person {query.person_id[row]} "
            f"in camera {query.camera_id[row]}"
        )
    return _pool(boxes.embeddings, group, pool, normalise_rows=True)[rows]


def pool_tracklets(
    embeddings: NDArray[np.floating],
    tracklet_id: NDArray[np.int64],
    pool: Pooling = "mean",
    normalise_frames: bool = True,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return tracklet embeddings (T, D) of unit norm, and the first frame's row of each (T,), in ascending tracklet id.

    The official MARS code takes the ``max`` of raw frame features (`normalise_frames` off) and normalises the
    tracklet; for embeddings trained with unit norm the ``mean`` of normalised frames is the default.
    """
    if len(embeddings) != len(tracklet_id):
        raise ValueError(f"{len(embeddings)} embeddings but {len(tracklet_id)} tracklet_id")
    _, first, group = np.unique(tracklet_id, return_index=True, return_inverse=True)
    return _pool(embeddings, group, pool, normalise_frames), first


def _pool(
    embeddings: NDArray[np.floating], group: NDArray[np.int64], pool: Pooling, normalise_rows: bool
) -> NDArray[np.float32]:
    """Pool the rows of each group, then normalise: (groups, D). The mean needs no division before that."""
    if pool not in get_args(Pooling):
        raise ValueError(f"pooling {pool!r} is unknown: use mean or max")
    reduce = np.add if pool == "mean" else np.maximum
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max(initial=-1) + 2))
    pooled = np.empty((len(starts) - 1, embeddings.shape[1]), dtype=np.float32)
    first = 0
    while first < len(pooled):  # as many whole groups at a time as fit into a block of rows
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _ROWS, side="right")) - 1)
        rows = embeddings[order[starts[first] : starts[last]]]
        rows = normalised(rows) if normalise_rows else rows
        # not with out=pooled: a buffered cast to float32 may read memory that no row has filled, and warn of it
        pooled[first:last] = reduce.reduceat(rows, starts[first:last] - starts[first], axis=0)
        first = last
    return normalised(pooled)


def _pairs(labels: Labels) -> NDArray[np.int64]:
    return np.stack([labels.person_id, labels.camera_id], axis=1)
