"""Query expansion (QE) and database augmentation (DBA): embeddings averaged with their neighbours.

The "re-rank" rows of the paper's Table 4: "we expand both the query and the dataset by averaging the representation of
the first 5 and 10 closest neighbors". Neighbours are found over the whole gallery, junk and distractors
included, as expansion knows no labels.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.blocks import Progress
from reid_done_right.evaluation.embedded import normalised
from reid_done_right.evaluation.neighbours import Neighbours, check_available, nearest, nearest_among

Order = Literal["database-first", "query-first"]

_ROWS = 1024


def expand(
    query: NDArray[np.floating],
    gallery: NDArray[np.floating],
    *,
    query_neighbours: int = 5,
    database_neighbours: int = 10,
    alpha: float = 0.0,
    self_counts: bool = False,
    order: Order = "database-first",
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return expanded queries (Q, D) and gallery (G, D), float32 of unit norm; compare them by dot product.

    DBA: b'_j = normalise(b_j + sum_l s_jl^alpha b_l) over the `database_neighbours` items l != j of highest s_jl.
    QE: q'_i = normalise(q_i + sum_j s_ij^alpha b'_j) over the `query_neighbours` items of highest s_ij.
    The mean of the text needs no division, as the result is normalised. The defaults are those of the authors' lab
    (deep-image-retrieval, ``--adba 10 0 --aqe 5 0``).

    Args:
        query: (Q, D) of unit norm.
        gallery: (G, D) of unit norm.
        query_neighbours: 0 leaves the queries as they are.
        database_neighbours: 0 leaves the gallery as it is.
        alpha: power of the similarity that weighs a neighbour; 0 is the plain average. Negative similarities
            weigh as 0.
        self_counts: whether the numbers of neighbours include the item itself.
        order: whether queries see the augmented gallery (``database-first``) or the raw one (``query-first``).
        threads: number of threads.
        device: PyTorch device to use instead, such as ``cuda``; averaging stays here.
        progress: wraps the lists of blocks, as tqdm does.

    Raises:
        ValueError: if there are fewer gallery items than neighbours asked for.
    """
    if order not in get_args(Order):
        raise ValueError(f"order {order!r} is unknown: use one of {', '.join(get_args(Order))}")
    if min(alpha, query_neighbours, database_neighbours) < 0:
        raise ValueError(
            f"alpha {alpha} and neighbours {query_neighbours}, {database_neighbours}: none may be negative"
        )
    k_query, k_database = (max(0, k - self_counts) for k in (query_neighbours, database_neighbours))
    check_available(max(1, k_query), len(gallery))
    augmented = np.asarray(gallery, dtype=np.float32)
    if k_database:
        found = nearest_among(
            [gallery], k_database, exclude_self=True, threads=threads, device=device, progress=progress
        )
        augmented = _average(gallery, gallery, found, alpha)
    seen = augmented if order == "database-first" else gallery
    expanded = np.asarray(query, dtype=np.float32)
    if k_query:
        expanded = _average(
            query, seen, nearest(query, seen, k_query, threads=threads, device=device, progress=progress), alpha
        )
    return expanded, augmented


def _average(
    items: NDArray[np.floating], source: NDArray[np.floating], found: Neighbours, alpha: float
) -> NDArray[np.float32]:
    weight = np.maximum(found.similarity, 0) ** np.float32(alpha)
    result = np.empty(items.shape, dtype=np.float32)
    for first in range(0, len(items), _ROWS):
        part = slice(first, first + _ROWS)
        total = items[part].astype(np.float32)
        for neighbour, share in zip(found.items[part].T, weight[part].T, strict=True):
            total += share[:, None] * source[neighbour]
        result[part] = normalised(total)
    return result
