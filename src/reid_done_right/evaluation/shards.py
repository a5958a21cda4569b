"""Galleries without end: shards that are made, counted or searched, and dropped, in memory that their number is not in.

A shard is the number of its first item in the whole gallery, and embeddings of that item and those after it. Shards may
come in any order and from any machine: counts add up, and the best items of two lists are the best of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.distractors import count_beating
from reid_done_right.evaluation.embedded import Embedded
from reid_done_right.evaluation.neighbours import Neighbours, nearest
from reid_done_right.evaluation.ranking import Ranking

Shard = tuple[int, NDArray[np.floating] | Embedded]

_ROUNDS = 8


@dataclass(frozen=True)
class Orders:
    """Random orders of so many items, of which any part can be had alone: no permutation is ever in memory.

    Each is a permutation of its own: a Feistel network over the smallest power of two that holds all items, applied
    again wherever it leads beyond the last one.
    """

    total: int
    orders: int
    seed: int

    def positions(self, first: int, count: int) -> NDArray[np.int64]:
        """Return (count, orders) the position of the items `first`, `first` + 1 and so on in each order.

        Raises ValueError for items that there are not.
        """
        if not 0 <= first <= first + count <= self.total:
            raise ValueError(f"items {first} to {first + count} of {self.total}: expected some of them")
        found = np.empty((count, self.orders), dtype=np.int64)
        for order in range(self.orders):
            keys = np.random.default_rng([self.seed, order]).integers(2**64, size=_ROUNDS, dtype=np.uint64)
            numbers = self._moved(np.arange(first, first + count, dtype=np.uint64), keys)
            while len(beyond := np.flatnonzero(numbers >= self.total)):
                numbers[beyond] = self._moved(numbers[beyond], keys)
            found[:, order] = numbers
        return found

    def _moved(self, numbers: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return what numbers below the power of two become: another such number each."""
        bits = max(2, (self.total - 1).bit_length())
        low = np.uint64(bits // 2)
        halves = [numbers >> low, numbers & np.uint64(2 ** int(low) - 1)]
        masks = [np.uint64(2 ** (bits - int(low)) - 1), np.uint64(2 ** int(low) - 1)]
        for step, key in enumerate(keys):
            side = step % 2
            halves[side] = halves[side] ^ (_mixed(halves[1 - side] + key) & masks[side])
        return (halves[0] << low) | halves[1]


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 bits that each depend on all of the number's (the finaliser of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = numbers ^ (numbers >> np.uint64(31))
    return mixed


def count_shards(
    query: NDArray[np.floating],
    ranking: Ranking,
    shards: Iterable[Shard],
    orders: Orders,
    sizes: Sequence[int],
    *,
    threads: int | None = None,
    device: str | None = None,
) -> NDArray[np.int64]:
    """Return how many distractors beat each relevant item, (P, sizes, orders), as `distractors.sweep` takes them.

    Those of all shards, or of some: the counts of two machines add up.

    Args:
        query: (Q, D) embeddings.
        ranking: their ranking in the gallery without distractors, with its P relevant items.
        shards: each is asked for when the one before it has been counted, and forgotten.
        orders: of all distractors.
        sizes: ascending numbers of distractors, 0 allowed.
        threads: number of threads.
        device: PyTorch device to use instead, such as ``cuda``.

    Raises:
        ValueError: if dimensions differ, a shard holds items beyond the last, or sizes do not ascend or exceed it.
    """
    if max(sizes, default=0) > orders.total:
        raise ValueError(f"sizes are {list(sizes)}, but there are {orders.total} distractors")
    counts = np.zeros((len(ranking.ranks), len(sizes), orders.orders), dtype=np.int64)
    for first, shard in shards:
        positions = orders.positions(first, len(shard))
        counts += count_beating(query, ranking, shard, positions, sizes, threads=threads, device=device)
        del shard  # before the next one is made
    return counts


def search_shards(
    query: NDArray[np.floating],
    shards: Iterable[Shard],
    k: int,
    *,
    threads: int | None = None,
    device: str | None = None,
) -> Neighbours:
    """Return the k items of all shards closest to each query (Q, D), fewer if the shards together hold fewer.

    They are exactly those of `neighbours.nearest` in the whole gallery. Raises ValueError if there is no shard, or k is
    not positive.
    """
    best: Neighbours | None = None
    for first, shard in shards:
        rows = shard[slice(0, len(shard))]
        found = nearest(query, rows, min(k, len(rows)), threads=threads, device=device)
        found = Neighbours(found.items + first, found.similarity, found.lowest)
        best = found if best is None else merged(best, found, k)
        del shard, rows  # before the next one is made
    if best is None:
        raise ValueError("no shard to search")
    return best


def merged(one: Neighbours, other: Neighbours, k: int) -> Neighbours:
    """Return the k best items of two lists, the earlier item first where similarities are equal."""
    items = np.concatenate([one.items, other.items], axis=1)
    similarity = np.concatenate([one.similarity, other.similarity], axis=1)
    order = np.lexsort((items, -similarity))[:, :k]
    best, scores = (np.take_along_axis(each, order, 1) for each in (items, similarity))
    return Neighbours(best, scores, np.minimum(one.lowest, other.lowest))
