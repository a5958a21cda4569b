"""The first K of a gallery against a full sort, and histograms of similarities."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_done_right.evaluation import topk
from reid_done_right.evaluation.embedded import Embedded, Labels, normalised
from reid_done_right.evaluation.expansion import expand
from reid_done_right.evaluation.ranking import rank_gallery
from reid_done_right.evaluation.reciprocal import k_reciprocal
from reid_done_right.evaluation.rules import MARKET1501, PERSON_SEARCH
from reid_done_right.evaluation.task import Task
from reid_done_right.evaluation.topk import retrieve, top_k


def unit(rows: int, seed: int = 0, dimensions: int = 5) -> np.ndarray:
    return normalised(np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32))


def crowd(seed: int, queries: int = 30, gallery: int = 200):
    rng = np.random.default_rng(seed)
    embeddings = normalised(rng.normal(size=(queries + gallery, 4)).round(1).astype(np.float32) + 0.05)  # many equals
    person = rng.integers(-1, 8, queries + gallery)
    person[:queries] = rng.integers(1, 8, queries)
    whole = Embedded(embeddings, Labels(person, rng.integers(1, 4, queries + gallery)))
    return (Embedded(whole.embeddings[part], whole.labels[part]) for part in (slice(queries), slice(queries, None)))


def test_retrieve_three_kinds_of_items_by_hand():
    """Person 1 in camera 1 asks. Deleted: the same person in its own camera, and junk. Equal items keep their order."""
    query = Embedded(np.array([[1.0, 0.0]], np.float32), Labels(np.array([1]), np.array([1])))
    rows = normalised(np.array([[1, 0], [1, 0], [1, 1], [1, 0], [1, 1], [0, 1]], np.float32))
    gallery = Embedded(rows, Labels(np.array([1, -1, 2, 1, 1, 0]), np.array([1, 1, 1, 2, 3, 2])))
    found = retrieve(Task(query, gallery, MARKET1501), top=5, bins=4)
    assert found.items.tolist() == [[3, 2, 4, 5, -1]]
    assert found.relevant.tolist() == [[True, False, True, False, False]]
    assert found.similarity[0] == pytest.approx([1, 0.5**0.5, 0.5**0.5, 0, 0], abs=1e-6)
    assert (found.positives.tolist(), found.negatives.tolist()) == ([0, 0, 0, 2], [0, 0, 1, 1])


@pytest.mark.parametrize("block", [7, 1000])
@pytest.mark.parametrize("with_lists", [False, True])
def test_retrieve_agrees_with_the_ranks_that_are_counted(monkeypatch, with_lists, block):
    monkeypatch.setattr(topk, "_COLUMNS", block)
    query, gallery = crowd(1)
    members = [np.sort(np.random.default_rng(i).permutation(len(gallery))[:60]) for i in range(len(query))]
    task = Task(query, gallery, *((PERSON_SEARCH, members) if with_lists else (MARKET1501,)))
    found = retrieve(task, top=300)
    ranking = rank_gallery(task)
    own = [np.flatnonzero(row) + 1 for row in found.relevant]
    assert np.concatenate(own).tolist() == ranking.ranks.tolist()
    assert [len(each) for each in own] == ranking.relevant.tolist()
    assert found.positives.sum() == ranking.relevant.sum()
    assert found.positives.sum() + found.negatives.sum() == (found.items >= 0).sum()


@settings(max_examples=25, deadline=None)
@given(queries=st.integers(1, 9), gallery=st.integers(1, 40), top=st.integers(1, 50), seed=st.integers(0, 99))
def test_first_places_are_those_of_a_full_sort(queries: int, gallery: int, top: int, seed: int) -> None:
    left, right = unit(queries, seed), unit(gallery, seed + 1)
    right[gallery // 2 :] = right[: gallery - gallery // 2]  # equals
    found = top_k(left, right, top)
    scores = left.astype(np.float64) @ right.T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    np.testing.assert_allclose(found.similarity, np.take_along_axis(scores, order, 1), atol=1e-6)
    assert found.items.shape == order.shape and (found.score == found.similarity).all()
    same = found.similarity[:, 1:] == found.similarity[:, :-1]
    assert (found.items[:, 1:] > found.items[:, :-1])[same].all(), "of equals the earlier item is first"
    np.testing.assert_allclose(np.take_along_axis(scores, found.items, 1), found.similarity, atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_re_ranked_places_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(topk, "_COLUMNS", block)
    monkeypatch.setattr(topk, "_QUERIES", 2)
    left, right = unit(5), unit(30, 1)
    options = {"k1": 6, "k2": 3}
    distance = k_reciprocal(left, right, **options).distance(slice(0, 5), slice(0, 30))
    found = top_k(left, right, 8, rerank="k-reciprocal", options=options)
    assert found.items.tolist() == np.argsort(distance, axis=1, kind="stable")[:, :8].tolist()
    np.testing.assert_allclose(found.score, 1 - np.sort(distance, axis=1)[:, :8], atol=1e-6)
    np.testing.assert_allclose(found.similarity, np.take_along_axis(left @ right.T, found.items, 1), atol=1e-6)

    expanded, augmented = expand(left, right)
    found = top_k(left, right, 8, rerank="qe-dba")
    assert found.items.tolist() == np.argsort(-(expanded @ augmented.T), axis=1, kind="stable")[:, :8].tolist()
    np.testing.assert_allclose(found.similarity, np.take_along_axis(left @ right.T, found.items, 1), atol=1e-6)


def test_example_runs() -> None:
    assert doctest.testmod(topk).failed == 0 and doctest.testmod(topk).attempted == 4


@pytest.mark.parametrize(
    "left, right, how, message",
    [
        (unit(1)[0], unit(3), {}, r"query: embeddings are float32 of shape \(5,\)"),
        (unit(1), unit(3)[:0], {}, "gallery: no rows"),
        (unit(1), unit(3, 0, 4), {}, "query: embeddings of 5 dimensions, those of gallery have 4; embed both with the same model"),
        (unit(1) * 2, unit(3), {}, "query: embedding of row 0 has norm 2"),
        (unit(1), unit(3), {"top": 0}, "top is 0"),
        (unit(1), unit(3), {"rerank": "magic"}, "re-ranking 'magic' is unknown"),
        (unit(1), unit(3), {"options": {"k1": 2}}, "options k1 belong to a re-ranking, but there is none"),
        (unit(1), unit(3), {"rerank": "k-reciprocal"}, "k1 is 20, but there are only 4 items"),
    ],
)  # fmt: skip
def test_unrankable_input_is_reported(
    left: np.ndarray, right: np.ndarray, how: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        top_k(left, right, **how)  # type: ignore[arg-type]


def test_retrieve_on_a_device_of_pytorch_is_the_same() -> None:
    """Entries of one half: every score is exact, and many are equal."""
    rng = np.random.default_rng(0)
    query, gallery = (
        Embedded(
            rng.choice([-0.5, 0.5], (n, 4)).astype(np.float32), Labels(rng.integers(1, 8, n), rng.integers(1, 4, n))
        )
        for n in (20, 200)
    )
    here, there = (retrieve(Task(query, gallery, MARKET1501), top=30, device=at) for at in (None, "cpu"))
    for name in ("items", "similarity", "relevant", "positives", "negatives"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


def test_top_k_on_a_device_of_pytorch_returns_the_same_items() -> None:
    left, right = unit(5), unit(30, 1)
    for rerank in ("none", "qe-dba", "k-reciprocal"):
        options = {"k1": 6, "k2": 3} if rerank == "k-reciprocal" else None
        here, there = (top_k(left, right, 8, rerank=rerank, options=options, device=at) for at in (None, "cpu"))
        assert (here.items == there.items).all()
        np.testing.assert_allclose(here.score, there.score, atol=1e-6)
