"""Ragged tables, stored flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row i is ``items[pointers[i]:pointers[i + 1]]``."""

    pointers: NDArray[np.int64]
    items: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int64]]) -> Ragged:
        """Join one array per row."""
        items = np.concatenate([np.empty(0, np.int64), *rows])
        return cls(np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]), items)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Length of each row."""
        return np.diff(self.pointers)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each item."""
        return np.repeat(np.arange(len(self.pointers) - 1), self.counts)

    def keep(self, mask: NDArray[np.bool_]) -> Ragged:
        """Return only the items where `mask` is true, in as many rows as before."""
        counts = np.bincount(self.rows[mask], minlength=len(self.pointers) - 1)
        return Ragged(np.concatenate([[0], np.cumsum(counts)]), self.items[mask])

    def part(self, rows: slice) -> Ragged:
        """Return a range of the rows."""
        pointers = self.pointers[rows.start : rows.stop + 1]
        return Ragged(pointers - pointers[0], self.items[pointers[0] : pointers[-1]])


def rows_of(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> Ragged:
    """Return, for each of the ids `wanted` (W,), the rows of `ids` (N,) that hold it, ascending."""
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    start = np.searchsorted(sorted_ids, wanted, side="left")
    counts = np.searchsorted(sorted_ids, wanted, side="right") - start
    pointers = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(pointers[-1]) - np.repeat(pointers[:-1], counts)
    return Ragged(pointers, order[np.repeat(start, counts) + within])
