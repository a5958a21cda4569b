"""An approximate index for large galleries: faiss's graph of neighbours (HNSW; Malkov and Yashunin, 2018).

A search walks along the graph and looks at a few thousand items instead of all. What it misses is measured by
`benchmarks/search.py`. `functional.search.rank` is the exact way.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.functional.neighbours import Progress
from reid_done_right.functional.protocols import check_unit_norm
from reid_done_right.functional.ranking import split
from reid_done_right.functional.search import Ranked

LINKS = 32
"""Neighbours of an item in the graph; twice as many on its lowest level."""
BUILD = 200
"""Candidates looked at to link an item."""
WIDTH = 512
"""Candidates looked at to answer a query: more find more, and take longer."""

_ROWS = 8192


def build_graph(
    gallery: NDArray[np.floating], *, threads: int | None = None, progress: Progress = iter
) -> NDArray[np.uint8]:
    """Link the items of a gallery (G, D) of unit norm; give the index as faiss writes it, embeddings included.

    Holds the gallery in memory as float32, and its links. Raises ValueError if faiss is not installed.
    """
    faiss = _faiss(threads)
    index = faiss.IndexHNSWFlat(gallery.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD
    for rows in progress(split(slice(0, len(gallery)), _ROWS)):
        index.add(np.ascontiguousarray(gallery[rows], np.float32))
    graph: NDArray[np.uint8] = faiss.serialize_index(index)
    return graph


def open_graph(graph: NDArray[np.uint8], shape: tuple[int, ...], *, threads: int | None = None) -> Any:
    """Make faiss's index of what `build_graph` gave for a gallery of `shape` (G, D).

    Raises ValueError if it is of another gallery, or faiss is not installed.
    """
    index = _faiss(threads).deserialize_index(graph)
    if (index.ntotal, index.d) != shape:
        raise ValueError(f"the graph is of {index.ntotal} x {index.d} embeddings, the gallery has {shape}; delete it")
    return index


def rank_by_graph(query: NDArray[np.floating], index: Any, top: int = 10, *, width: int = WIDTH) -> Ranked:
    """Rank as `functional.search.rank` does, nearly: items of the first places may be missing.

    query  (Q, D) of unit norm. index: by `open_graph`. width: candidates looked at, at least `top`
    Raises ValueError for queries of other dimensions or norm, and if fewer places are found than asked for.
    """
    check_unit_norm(query, "query")
    if query.shape[1] != index.d:
        raise ValueError(f"query embeddings have {query.shape[1]} dimensions, those of the gallery {index.d}")
    top = min(top, index.ntotal)
    index.hnsw.efSearch = max(width, top)
    similarity, items = index.search(np.ascontiguousarray(query, np.float32), top)
    if (items < 0).any():
        raise ValueError(f"the graph leads to fewer than {top} items for query {int((items < 0).any(1).argmax())}")
    return Ranked(items, similarity, similarity)


def _faiss(threads: int | None) -> Any:
    try:
        import faiss
    except ImportError:
        raise ValueError("the approximate search needs faiss: pip install faiss-cpu, or search exactly") from None
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    return faiss
