"""Every gallery size and every random order of distractors in one pass over them (the paper's Figure 7).

A draw is a permutation of the D distractors, and its galleries are the first s of them for each size s: nested,
so the curve can only fall. A distractor that beats a relevant item does so in every draw; only the size from
which on it is there differs. So each distractor is scored once and counted once per draw, at the interval
between sizes where it enters. Counts of shards add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.backend import backend
from reid_done_right.evaluation.blocks import Progress, split
from reid_done_right.evaluation.counting import cumulate
from reid_done_right.evaluation.embedded import Embedded
from reid_done_right.evaluation.metrics import ApRule
from reid_done_right.evaluation.ranking import BLOCK, Ranking, dot_scorer


def order_positions(distractors: int, orders: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (D, orders) the position of each distractor in each order: one random permutation a column."""
    return np.stack([rng.permutation(distractors) for _ in range(orders)], axis=1)


def count_beating(
    query: NDArray[np.floating],
    ranking: Ranking,
    shard: NDArray[np.floating] | Embedded,
    positions: NDArray[np.int64],
    sizes: Sequence[int],
    *,
    block: int = BLOCK,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> NDArray[np.int32]:
    """Count how many distractors of a shard beat each relevant item: (P, sizes, orders); sum it over the shards.

    Entry [p, s, o] counts those that enter order o between the size before s and s. Distractors come after the gallery,
    so an equal score does not beat.

    Args:
        query: (Q, D) embeddings.
        ranking: their ranking in the gallery without distractors, with its P relevant items.
        shard: (N, D) embeddings of some of the distractors; a memory map is read once.
        positions: (N, orders) their rows of `order_positions`.
        sizes: ascending numbers of distractors, 0 allowed.
        block: number of scores held in memory.
        threads: number of threads.
        device: PyTorch device to use instead, such as ``cuda``.
        progress: wraps the list of blocks, as tqdm does.

    Raises:
        ValueError: if lengths or dimensions differ, or sizes do not ascend.
        UnnormalisedError: for a shard that is checked late.
    """
    shape = (shard.embeddings if isinstance(shard, Embedded) else shard).shape
    if shape != (len(positions), query.shape[1]):
        raise ValueError(
            f"distractors are {shape}, expected {(len(positions), query.shape[1])}: rows of positions, D of query"
        )
    if list(sizes) != sorted(set(sizes)) or min(sizes, default=-1) < 0:
        raise ValueError(f"sizes are {list(sizes)}, expected ascending numbers of distractors from 0 on")
    orders = positions.shape[1]
    if (len(sizes) + 1) * orders >= 2**16:
        raise ValueError(f"{len(sizes)} sizes x {orders} orders: expected fewer than {2**16 // orders} sizes")
    interval = np.searchsorted(np.asarray(sizes), positions, side="right")
    cells = (interval * orders + np.arange(orders)).astype(np.uint16)
    counts = np.zeros((len(ranking.ranks), (len(sizes) + 1) * orders), dtype=np.int32)
    last = np.zeros(len(ranking.ranks), dtype=np.int64)
    there = backend(threads, device)
    scorer = dot_scorer(query, shard, there)
    everyone = slice(0, len(query))
    buffer = there.empty(max(block, len(query)))
    for columns in progress(split(slice(0, len(shard)), max(1, block // len(query)))):
        width = columns.stop - columns.start
        scores = buffer[: len(query) * width].reshape(len(query), width)
        scorer(everyone, columns, scores)
        items = np.arange(columns.start, columns.stop)
        there.count(scores, items, ranking.pointers, ranking.similarity, last, cells[columns], counts)
    total = cumulate(counts, ranking.pointers).astype(np.int32)
    return total.reshape(-1, len(sizes) + 1, orders)[:, :-1]


@dataclass(frozen=True)
class Curves:
    """Scores at each gallery size in each order; all are (sizes, orders) fractions."""

    average_precision: NDArray[np.float64]
    """mAP by the rule asked for."""
    average_precision_step: NDArray[np.float64]
    """mAP by the step rule."""
    rank1: NDArray[np.float64]
    of_queries: NDArray[np.float64]
    """(Q, 2) AP of each query by that rule, with the fewest and with the most distractors, mean of the orders."""


def sweep(ranking: Ranking, counts: NDArray[np.integer], ap_rule: ApRule = "trapezoid") -> Curves:
    """Return scores at every size and order: ranking is without distractors, counts (P, sizes, orders) are summed."""
    beaten_by = np.cumsum(counts, axis=1, dtype=np.int64)
    shape = counts.shape[1:]
    of_queries = np.zeros((len(ranking.relevant), 2))
    curves = Curves(np.empty(shape), np.empty(shape), np.empty(shape), of_queries)
    for cell in np.ndindex(*shape):
        grown = replace(ranking, ranks=ranking.ranks + beaten_by[:, *cell])
        precision = grown.average_precision(ap_rule)
        for end, size in enumerate((0, shape[0] - 1)):
            if cell[0] == size:
                of_queries[:, end] += precision / shape[1]
        curves.average_precision[cell] = precision.mean()
        curves.average_precision_step[cell] = grown.average_precision("step").mean()
        curves.rank1[cell] = grown.cmc([1])[0]
    return curves
