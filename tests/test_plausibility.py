"""What is allowed and most likely a mistake is named, with what was seen; what is sound is not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from reid_done_right.evaluation.embedded import Embedded, Labels
from reid_done_right.evaluation.plausibility import suspicions
from reid_done_right.evaluation.rules import RULES
from reid_done_right.evaluation.task import Task

RNG = np.random.default_rng(0)


def rows(count: int) -> NDArray[np.float32]:
    drawn = RNG.normal(size=(count, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def seen(query: NDArray[np.float32], gallery: NDArray[np.float32], protocol: str = "market1501") -> list[str]:
    asked = Embedded(query, Labels(np.arange(len(query)) % 5 + 1, np.ones(len(query), np.int64)), "q.npz")
    there = Embedded(gallery, Labels(np.arange(len(gallery)) % 5 + 1, np.full(len(gallery), 2)), "g.npz")
    return list(suspicions(Task(asked, there, RULES[protocol])))


def test_suspicions_of_sound_embeddings_are_none() -> None:
    assert seen(rows(10), rows(40)) == []
    correlated = rows(40) * 0.3 + rows(1)
    assert seen(rows(10), correlated / np.linalg.norm(correlated, axis=1, keepdims=True)) == []


def test_suspicions_of_queries_in_the_gallery_name_the_first() -> None:
    query, gallery = rows(10), rows(40)
    gallery[7], gallery[3] = query[4], query[6]
    gallery[9] = query[5, [*range(14), 15, 14]]  # only the beginning is the same
    (told,) = seen(query, gallery)
    assert told.startswith("2 of 10 queries are in the gallery, bit for bit, as query 4 in row 7 of g.npz")
    assert seen(query, gallery, "mars") == [], "its gallery holds the queries"


def test_suspicions_of_rows_that_are_there_twice_name_the_first() -> None:
    gallery = rows(40)
    gallery[[20, 30]] = gallery[[2, 3]]
    assert seen(rows(10), gallery) == ["g.npz: 2 rows are there twice, bit for bit, as 2 and 20"]


@pytest.mark.parametrize("noise", [0, 1e-2])
def test_suspicions_of_collapsed_embeddings_give_their_cosine(noise: float) -> None:
    gallery = rows(1) + noise * rows(40)
    (told,) = seen(rows(10), (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).astype(np.float32))
    assert "have a cosine of 1.000 in the mean: they collapsed" in told


def test_suspicions_of_more_queries_than_gallery_ask_whether_they_were_swapped() -> None:
    assert seen(rows(40), rows(10)) == ["40 queries against a gallery of 10: were q.npz and g.npz swapped?"]


def test_starts_of_rows_that_are_checked_late_are_noted_while_they_are_read() -> None:
    gallery = rows(40)
    before = gallery[:, :4].copy()
    late = Embedded(gallery, Labels(np.ones(40, int), np.ones(40, int)), late=True)
    late.check_unread()
    gallery[:] = 0
    assert np.array_equal(late.starts(), before)
