"""An evaluation task, validated once, on construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.embedded import Embedded, check_dimensions
from reid_done_right.evaluation.rules import Rule, check_labels, deleted


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
    """For each query, the gallery rows that are its gallery (Person Search); all rows if absent."""

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


def without_deleted(task: Task) -> Task:
    """Return a task whose gallery lacks the rows that are deleted for every query, for a task without lists."""
    assert task.lists is None
    kept = ~deleted(task.gallery.labels, task.rule)
    gallery = Embedded(task.gallery.embeddings[kept], task.gallery.labels[kept], task.gallery.name)
    return Task(task.query, gallery, task.rule)
