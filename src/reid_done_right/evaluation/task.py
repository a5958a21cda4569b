"""An evaluation task, validated once, on construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.embedded import Embedded, Labels, check_dimensions
from reid_done_right.evaluation.ragged import Ragged
from reid_done_right.evaluation.rules import Rule, check_labels, deleted, relevant_and_junk


@dataclass(frozen=True)
class Task:
    """Queries, their gallery, and the rule that decides which items count.

    Raises ValueError naming the row if dimensions differ, if labels cannot be evaluated (`rules.check_labels`), and if
    the gallery is the query set although the rule forbids that.
    """

    query: Embedded
    """Q rows."""
    gallery: Embedded
    """G rows, junk and distractors included."""
    rule: Rule
    lists: Sequence[NDArray[np.int64]] | None = None
    """For each query, the gallery rows that are its gallery (person search); all rows if absent."""

    def __post_init__(self) -> None:
        """Check that the gallery can be ranked for the queries."""
        query, gallery, names = self.query, self.gallery, (self.query.name, self.gallery.name)
        check_dimensions(query.embeddings, gallery.embeddings, names)
        check_labels(query.labels, gallery.labels, self.rule, names)
        if self.lists is not None and len(self.lists) != len(query):
            raise ValueError(f"{query.name}: {len(self.lists)} lists of gallery rows, expected {len(query)}")
        if self.rule.queries_in_gallery and self.rule.same_camera_is_junk:
            return
        if query.embeddings.shape == gallery.embeddings.shape and np.array_equal(query.embeddings, gallery.embeddings):
            raise ValueError(
                f"{gallery.name}: the gallery is the query set: every query would meet itself; choose some images as "
                "queries and leave them out of the gallery"
            )


@dataclass(frozen=True)
class OtherImages(Sequence[NDArray[np.int64]]):
    """For each query, the gallery rows of all images but its own, made when asked for: together, they are Q x G.

    query, gallery   (Q,), (G,) the image of each row
    """

    query: NDArray[np.int64]
    gallery: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of queries Q."""
        return len(self.query)

    @overload
    def __getitem__(self, at: int) -> NDArray[np.int64]: ...
    @overload
    def __getitem__(self, at: slice) -> OtherImages: ...
    def __getitem__(self, at: int | slice) -> NDArray[np.int64] | OtherImages:
        """Return the rows of one query, or the same of some queries."""
        if isinstance(at, slice):
            return OtherImages(self.query[at], self.gallery)
        return np.flatnonzero(self.gallery != self.query[at])


@dataclass(frozen=True)
class Counting:
    """Which gallery items count for which queries: all but what is deleted for everybody, junk, or outside a list.

    deleted  (G,) for every query; junk: of each; lists: as of a task
    """

    deleted: NDArray[np.bool_]
    junk: Ragged
    lists: Sequence[NDArray[np.int64]] | None

    @classmethod
    def of(
        cls, query: Labels, gallery: Labels, rule: Rule, lists: Sequence[NDArray[np.int64]] | None = None
    ) -> Counting:
        """Tell by the labels of queries and gallery."""
        return cls(deleted(gallery, rule), relevant_and_junk(query, gallery, rule)[1], lists)

    def block(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Return (R, C) whether items of the gallery's `columns` count for the queries of `rows`."""
        own = self.junk.part(rows)
        counts = np.tile(~self.deleted[columns], (rows.stop - rows.start, 1))
        inside = (own.items >= columns.start) & (own.items < columns.stop)
        counts[own.rows[inside], own.items[inside] - columns.start] = False
        if self.lists is not None:
            for row, members in zip(counts, self.lists[rows], strict=True):
                row &= np.isin(np.arange(columns.start, columns.stop), members)
        return counts


def without_deleted(task: Task) -> Task:
    """Return a task whose gallery lacks the rows that are deleted for every query, for a task without lists."""
    assert task.lists is None
    kept = ~deleted(task.gallery.labels, task.rule)
    gallery = Embedded(task.gallery.embeddings[kept], task.gallery.labels[kept], task.gallery.name)
    return Task(task.query, gallery, task.rule)
