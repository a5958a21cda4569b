"""What a gallery without end costs: millions of distractors, made a shard at a time, counted, searched and dropped.

    taskset --cpu-list 0 python benchmarks/scale.py --json benchmarks/results/scale.json

Queries and gallery have Market-1501's true counts; embeddings, of 128 dimensions, are generated from the number of their
shard (`evaluation.embed`), and at no time are those of two shards in memory. One process, one thread. What making them
costs is measured apart and not counted: it stands for a network, which costs far more.

| key | what |
|---|---|
| distractors | after so many, the next four were noted |
| seconds_per_million | CPU seconds of one core so far, by a million: every gallery size, in ten random orders |
| extra_gib | most memory so far above what was there before, sampled every five milliseconds |
| mAP | mean over the orders, without distractors and with so many |
| seconds_per_million_2048 | after 100,000 with embeddings of 2048 dimensions, the paper's |
| embedding_seconds_per_million | of generating the embeddings, not counted above |
| search | the same of a search for the first 100 of each query |
| approximate | the same search in an index of a million: CPU seconds of 1,000 queries, exact and for numbers of cells visited, and the share of the first 1, 10 and 100 that is found |
| k_reciprocal | re-ranking Market-1501 among distractors, so many items in all, each compared with each; CPU seconds, and memory above the embeddings |
| nodes | processes that share the shards of a smaller gallery, each with a file of its counts so far |
| tried, survived, lost | nodes killed at random moments, begun again elsewhere; kills after which the sum was that of one undisturbed process, and not |
| node_bytes | what a node sends: its counts, whatever the number of its shards |
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from evaluation import Peak, embed, market
from reid_done_right.artifacts import replacing, write_json
from reid_done_right.evaluation.approximate import index_shards, recall, search_index
from reid_done_right.evaluation.distractors import sweep
from reid_done_right.evaluation.embedded import Embedded, Labels
from reid_done_right.evaluation.ranking import Ranking, rank_by, rank_gallery
from reid_done_right.evaluation.reciprocal import k_reciprocal
from reid_done_right.evaluation.rules import MARKET1501
from reid_done_right.evaluation.shards import Orders, Shard, count_shards, search_shards
from reid_done_right.evaluation.task import Task
from reid_done_right.store.ledger import made_with

DIMENSIONS, SHARD, ORDERS, TOP = 128, 20_000, 10, 100
NODES, KILLS = 4, 24
CELLS, SAMPLED, VISITED = 4096, 8, [16, 64, 256]


@dataclass(frozen=True)
class Gallery:
    """Queries, their ranking without distractors, and distractors made shard by shard."""

    query: NDArray[np.float32]
    ranking: Ranking
    orders: Orders
    sizes: list[int]
    shard: int

    @property
    def shards(self) -> int:
        """Return their number."""
        return -(-self.orders.total // self.shard)

    def made(self, number: int) -> Shard:
        """Return a shard."""
        first = number * self.shard
        count = min(self.shard, self.orders.total - first)
        cameras = np.random.default_rng([number, 2]).integers(1, 7, count)
        return first, embed(Labels(np.zeros(count, np.int64), cameras), number + 10, self.query.shape[1])

    def counted(self, number: int) -> NDArray[np.int64]:
        """Return the counts of a shard."""
        return count_shards(self.query, self.ranking, [self.made(number)], self.orders, self.sizes, threads=1)


def gallery(total: int, sizes: list[int], dimensions: int, queries: int | None = None, shard: int = SHARD) -> Gallery:
    """Return Market-1501 among so many distractors; with its first `queries`, or all."""
    labels = [each[:queries] if i == 0 else each for i, each in enumerate(market())]
    query, base = (Embedded(embed(own, seed, dimensions), own) for seed, own in enumerate(labels))
    ranking = rank_gallery(Task(query, base, MARKET1501), threads=1)
    return Gallery(np.asarray(query.embeddings, np.float32), ranking, Orders(total, ORDERS, 0), sizes, shard)


class Stream:
    """Shards one after the other; CPU seconds of making them, and what is noted where a mark is passed."""

    def __init__(self, whole: Gallery, marks: list[int]) -> None:
        self.whole, self.marks = whole, marks
        self.making = 0.0
        self.start = time.process_time()
        self.noted: list[dict[str, float]] = []

    def shards(self, peak: Peak) -> Iterator[Shard]:
        """Yield them; one is asked for when the one before it is done with."""
        passed = 0
        for number in range(self.whole.shards):
            self.note(passed, peak)
            before = time.process_time()
            first, made = self.whole.made(number)
            self.making += time.process_time() - before
            yield first, made
            passed = first + len(made)
            del made
        self.note(passed, peak)

    def note(self, passed: int, peak: Peak) -> None:
        """Note the costs so far if a mark is passed."""
        if passed in self.marks[len(self.noted) : len(self.noted) + 1]:
            millions = passed / 1e6
            spent = time.process_time() - self.start - self.making
            self.noted.append({"seconds": spent / millions, "making": self.making / millions, "gib": peak.gib})
            print(f"{passed:,}: {self.noted[-1]}", file=sys.stderr, flush=True)


def count(marks: list[int], dimensions: int) -> dict[str, Any]:
    """Count all distractors in one stream, and note what they cost at each mark."""
    whole = gallery(marks[-1], [0, *marks], dimensions)
    whole.counted(0)  # compiles
    with Peak() as peak:
        stream = Stream(whole, marks)
        counts = count_shards(whole.query, whole.ranking, stream.shards(peak), whole.orders, whole.sizes, threads=1)
    curves = sweep(whole.ranking, counts)
    return {
        "queries": len(whole.query),
        "gallery": len(market()[1]),
        "dimensions": dimensions,
        "shard": whole.shard,
        "orders": ORDERS,
        "distractors": marks,
        "seconds_per_million": [each["seconds"] for each in stream.noted],
        "extra_gib": [each["gib"] for each in stream.noted],
        "mAP": curves.average_precision.mean(axis=1).tolist(),
        "embedding_seconds_per_million": stream.noted[-1]["making"],
        "node_bytes": counts.nbytes,
    }


def search(marks: list[int], dimensions: int) -> dict[str, Any]:
    """Search all distractors for the first `TOP` of each query, and note what it costs at each mark."""
    whole = gallery(marks[-1], [0], dimensions)
    search_shards(whole.query[:100], [whole.made(0)], TOP, threads=1)  # compiles
    with Peak() as peak:
        stream = Stream(whole, marks)
        search_shards(whole.query, stream.shards(peak), TOP, threads=1)
    costs = [each["seconds"] for each in stream.noted]
    return {
        "top": TOP,
        "distractors": marks,
        "seconds_per_million": costs,
        "extra_gib": [each["gib"] for each in stream.noted],
    }


def approximate(items: int, dimensions: int) -> dict[str, Any]:
    """Index distractors, and compare searches of the index with the exact search."""
    whole = gallery(items, [0], dimensions)
    shards = [whole.made(number) for number in range(whole.shards)]
    sample = np.concatenate([rows for _, rows in shards[:SAMPLED]])
    thousands = len(whole.query) / 1000

    def timed(work: Callable[[], Any]) -> tuple[Any, float]:
        start = time.process_time()
        return work(), time.process_time() - start

    search_shards(whole.query[:100], shards[:1], TOP, threads=1)  # compiles
    exact, seconds = timed(lambda: search_shards(whole.query, shards, TOP, threads=1))
    index, indexing = timed(lambda: index_shards(sample, shards, cells=CELLS, threads=1))
    found = {"items": items, "cells": CELLS, "sampled": len(sample), "indexing": indexing, "exact": seconds / thousands}
    found |= {"visited": VISITED, "seconds": [], "recall": []}
    for visited in VISITED:
        (near, _), spent = timed(lambda: search_index(whole.query, index, TOP, visited=visited, threads=1))
        found["seconds"].append(spent / thousands)
        found["recall"].append([recall(near, exact.items[:, :k]) for k in (1, 10, TOP)])
    return found


def rerank(items: int, dimensions: int) -> dict[str, Any]:
    """Re-rank Market-1501 among distractors, so many items in all."""
    query, base = market()
    strangers = np.zeros(items - len(query) - len(base), np.int64)
    labels = Labels(np.append(base.person_id, strangers), np.append(base.camera_id, strangers))
    left, right = embed(query, 0, dimensions), embed(labels, 1, dimensions)
    k_reciprocal(left[:100], right[:100], threads=1)  # compiles
    with Peak() as peak:
        start = time.process_time()
        scorer = k_reciprocal(left, right, threads=1, progress=partial(tqdm, mininterval=60))
        ranking = rank_by(scorer.score, query, labels, MARKET1501)
        spent = time.process_time() - start
    plain = rank_gallery(Task(Embedded(left, query), Embedded(right, labels), MARKET1501), threads=1)
    return {
        "items": items,
        "dimensions": dimensions,
        "seconds": spent,
        "extra_gib": peak.gib,
        "mAP": [float(each.average_precision().mean()) for each in (plain, ranking)],
    }


# --- nodes that are killed


def work(whole: Gallery, node: int, file: Path) -> None:
    """Count every `NODES`-th shard, from where the last process of this node stopped; replace its file after each."""
    counts, done = np.zeros((len(whole.ranking.ranks), len(whole.sizes), ORDERS), np.int64), 0
    if file.is_file():
        with np.load(file) as kept:
            counts, done = kept["counts"], int(kept["done"])
    for number in range(node, whole.shards, NODES)[done:]:
        counts += whole.counted(number)
        done += 1
        with replacing(file) as temporary, temporary.open("wb") as opened:
            np.savez(opened, counts=counts, done=done)


def killed(whole: Gallery, folder: Path, kills: int, chance: random.Random) -> NDArray[np.int64]:
    """Return the sum of the counts of nodes, of which so many were killed on the way."""
    fork = multiprocessing.get_context("fork")

    def begin(node: int) -> Any:
        process = fork.Process(target=work, args=(whole, node, folder / f"{node}.npz"))
        process.start()
        return process

    processes = {node: begin(node) for node in range(NODES)}
    left = kills
    while left or any(process.is_alive() for process in processes.values()):
        time.sleep(chance.uniform(0, 0.05))
        alive = [node for node, process in processes.items() if process.is_alive()]
        if left and alive:
            node = chance.choice(alive)
            os.kill(processes[node].pid, signal.SIGKILL)
            processes[node].join()
            left -= processes[node].exitcode == -signal.SIGKILL
            processes[node] = begin(node)
        elif left:
            raise RuntimeError("all nodes ended before enough of them were killed; give them more shards")
    if wrong := [process.exitcode for process in processes.values() if process.exitcode]:
        raise RuntimeError(f"a node ended with status {wrong[0]}")
    total = np.zeros(1, np.int64)
    for node in range(NODES):
        with np.load(folder / f"{node}.npz") as kept:
            total = total + kept["counts"]
    return total


def survive(rounds: int) -> dict[str, int]:
    """Kill nodes, and compare their sum with that of one process."""
    whole = gallery(120_000, [0, 60_000, 120_000], 64, queries=400, shard=1000)
    expected = sum(whole.counted(number) for number in range(whole.shards))
    survived, chance = 0, random.Random(0)
    each = KILLS // rounds
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            survived += each * bool((killed(whole, Path(folder), each, chance) == expected).all())
    return {"nodes": NODES, "tried": each * rounds, "survived": survived, "lost": each * rounds - survived}


def main() -> None:
    """Measure, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--millions", default="1,3,10", help="distractors to count")
    parser.add_argument("--search", default="0.2,1", help="millions to search")
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    parser.add_argument("--items", type=int, default=1_000_000, help="items to re-rank")
    parser.add_argument("--rounds", type=int, default=4, help="runs of nodes of which some are killed")
    parser.add_argument(
        "--parts",
        default="nodes,count,wide,search,approximate,k_reciprocal",
        help="what to measure; the rest stays in the file",
    )
    asked = parser.parse_args()
    threadpool_limits(1)
    marks, searched = (
        [round(1e6 * float(each)) for each in listed.split(",")] for listed in (asked.millions, asked.search)
    )
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "nodes": lambda: survive(asked.rounds),
        "count": lambda: count(marks, asked.dimensions),
        "wide": lambda: {"seconds_per_million_2048": count([100_000], 2048)["seconds_per_million"][0]},
        "search": lambda: {"search": search(searched, asked.dimensions)},
        "approximate": lambda: {"approximate": approximate(1_000_000, asked.dimensions)},
        "k_reciprocal": lambda: {"k_reciprocal": rerank(asked.items, 64)},
    }
    found: dict[str, Any] = {"command": "python benchmarks/scale.py"}
    if asked.json and asked.json.is_file():
        found = json.loads(asked.json.read_text())
    for part in asked.parts.split(","):
        found |= parts[part]() | {"processor": made_with().processor}
        if asked.json:
            write_json(asked.json, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
