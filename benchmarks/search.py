"""What an approximate search finds and saves, beside the exact one.

    python benchmarks/search.py --json benchmarks/results/search.json

Galleries: unit vectors of people, five images each; queries are further images of a thousandth of them. A person's images
are about 0.6 similar, those of others 0.0 on average. They fill `intrinsic` dimensions of `--dimensions`: all of them, in which a
graph finds its way worst, and 32, as embeddings of trained networks lie in few. Gauge: CPU seconds of one thread, the median
of three after a first time. Recall is the share of the exact first ten that the graph finds.

| key | what |
|---|---|
| exact_ms, graph_ms | a query, all queries asked together (`reid_done_right.evaluation.topk.rank`, `reid_done_right.evaluation.approximate`) |
| exact_alone_ms | one query asked alone, which passes over the whole gallery; a graph does not care |
| recall_at_10, recall_at_1 | by width: candidates that the graph's search looks at; `WIDTH` is what `reid search` uses |
| build_s, build_items_per_s | linking the gallery, once; open_s: making the index of a graph that was kept, each run |
| exact_difference | of the exact similarities from a float64 product, at most |
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from reid_done_right.evaluation.approximate import WIDTH, build_graph, open_graph, rank_by_graph
from threadpoolctl import threadpool_limits

from reid_done_right.evaluation.topk import rank

WIDTHS = (64, 128, 256, WIDTH, 1024)
INTRINSIC = (256, 32)


def people(persons: int, images: int, dimensions: int, intrinsic: int, rng: np.random.Generator) -> np.ndarray:
    """Draw unit vectors (persons, images, dimensions) that fill a subspace."""
    basis = np.linalg.qr(rng.normal(size=(dimensions, intrinsic)))[0].T.astype(np.float32)
    centre = rng.normal(size=(persons, 1, intrinsic)).astype(np.float32)
    drawn = centre + np.float32(0.8) * rng.normal(size=(persons, images, intrinsic)).astype(np.float32)
    drawn = drawn @ basis
    return drawn / np.linalg.norm(drawn, axis=2, keepdims=True)


def seconds(work: Callable[[], object]) -> float:
    """Give the median CPU seconds of three runs after a first one."""
    spent = []
    for _ in range(4):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent[1:])


def measure(size: int, dimensions: int, intrinsic: int) -> dict[str, object]:
    """Compare both searches on one gallery."""
    rng = np.random.default_rng(0)
    drawn = people(size // 5, 6, dimensions, intrinsic, rng)
    query = drawn[:: max(1, len(drawn) // (size // 1000)), 5]
    gallery = np.ascontiguousarray(drawn[:, :5].reshape(-1, dimensions))
    start = time.process_time()
    graph = build_graph(gallery, threads=1)
    build = time.process_time() - start
    start = time.process_time()
    index = open_graph(graph, gallery.shape, threads=1)
    opened = time.process_time() - start
    exact = rank(query, gallery, 10, threads=1)
    checked = (query[:, None].astype(np.float64) * gallery[exact.items]).sum(2)
    widths = {}
    for width in WIDTHS:
        found = rank_by_graph(query, index, 10, width=width)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(found.items, exact.items, strict=True)]
        asked = seconds(lambda width=width: rank_by_graph(query, index, 10, width=width))
        widths[width] = {
            "recall_at_10": float(np.sum(hits) / exact.items.size),
            "recall_at_1": float((found.items[:, 0] == exact.items[:, 0]).mean()),
            "graph_ms": 1e3 * asked / len(query),
        }
    return {
        "gallery": len(gallery),
        "dimensions": dimensions,
        "intrinsic": intrinsic,
        "queries": len(query),
        "exact_ms": 1e3 * seconds(lambda: rank(query, gallery, 10, threads=1)) / len(query),
        "exact_alone_ms": 1e3 * seconds(lambda: rank(query[:1], gallery, 10, threads=1)),
        "exact_difference": float(np.abs(checked - exact.similarity).max()),
        "build_s": build,
        "build_items_per_s": len(gallery) / build,
        "open_s": opened,
        "graph_bytes_an_item": len(graph) / len(gallery),
        "by_width": widths,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--size", type=int, default=100_000, help="of the gallery")
    parser.add_argument("--dimensions", type=int, default=256)
    options = parser.parse_args()
    machine = {"faiss": faiss.__version__, "numpy": np.__version__, "cpus": os.cpu_count(), "threads": 1}
    with threadpool_limits(1):
        galleries = [measure(options.size, options.dimensions, intrinsic) for intrinsic in INTRINSIC]
    found = {**machine, "galleries": galleries}
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
