"""Approximate search of galleries that no memory holds, with faiss: less memory and less arithmetic, fewer items found.

The index cuts the space into cells by k-means and keeps a byte for each number of an embedding. A query meets the items
of the few cells nearest to it. `shards.search_shards` finds what this may miss; `recall` says how much that is.

No stage of an experiment uses it: faiss chooses its kernels by the processor, so that results may differ between
machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.neighbours import check_available
from reid_done_right.evaluation.shards import Shard


def index_shards(
    sample: NDArray[np.floating], shards: Iterable[Shard], *, cells: int, threads: int | None = None
) -> Any:
    """Return a faiss index of all shards: D + 8 bytes an item, and 4 D a cell.

    Save it with `faiss.write_index`; `faiss.read_index` must only read files that you trust.

    Args:
        sample: (S, D) embeddings from which the cells are learnt, such as some shards together. faiss advises at least
            39 a cell.
        shards: each is asked for when the one before it has been added, and forgotten.
        cells: their number; faiss advises 4 to 16 times the square root of the number of items.
        threads: number of threads.

    Raises:
        ValueError: if there are fewer sampled embeddings than cells.
    """
    import faiss

    if len(sample) < cells:
        raise ValueError(f"{cells} cells need a sample of at least as many embeddings, not {len(sample)}")
    index = faiss.index_factory(sample.shape[1], f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    with _using(threads):
        index.train(np.asarray(sample, np.float32))
        for first, shard in shards:
            index.add_with_ids(shard[slice(0, len(shard))], np.arange(first, first + len(shard)))
            del shard  # before the next one is made
    return index


def search_index(
    query: NDArray[np.floating], index: Any, k: int, *, visited: int, threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return k items close to each query and their rounded similarities, (Q, k) each, most similar first.

    Where the cells hold fewer, items are -1 and similarities minus infinity.

    Args:
        query: (Q, D) embeddings.
        index: from `index_shards`.
        k: number of items.
        visited: number of cells that a query visits.
        threads: number of threads.

    Raises:
        ValueError: if k is not positive or exceeds the number of items, or no cell or more than all are to be visited.
    """
    import faiss

    check_available(k, index.ntotal)
    if not 1 <= visited <= index.nlist:
        raise ValueError(f"{visited} cells to visit: expected 1 to {index.nlist}")
    asked: Any = faiss.SearchParametersIVF()
    asked.nprobe = visited
    with _using(threads):
        similarity, items = index.search(np.asarray(query, np.float32), k, params=asked)
    return items, np.where(items < 0, np.float32(-np.inf), similarity)


def recall(items: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Return the share of the exact neighbours (Q, k) that is among the first k of `items` (Q, at least k)."""
    k = exact.shape[1]
    return float(np.mean([np.isin(right, left).mean() for left, right in zip(items[:, :k], exact, strict=True)]))


@contextmanager
def _using(threads: int | None) -> Iterator[None]:
    """Have faiss use so many threads, and afterwards as many as before."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
