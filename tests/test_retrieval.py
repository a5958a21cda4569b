"""The first places of ranked lists, the histograms of similarities, and which queries and people are shown."""

import numpy as np
import pytest

from reid_done_right.functional.heat import enlarge
from reid_done_right.functional.protocols import MARKET1501, PERSON_SEARCH, Labels, normalise
from reid_done_right.functional.ranking import rank
from reid_done_right.functional.retrieval import retrieve
from reid_done_right.functional.showing import extremes, most_seen, spread


def crowd(seed: int, queries: int = 30, gallery: int = 200):
    rng = np.random.default_rng(seed)
    embeddings = normalise(rng.normal(size=(queries + gallery, 4)).round(1).astype(np.float32) + 0.05)  # many equals
    person = rng.integers(-1, 8, queries + gallery)
    person[:queries] = rng.integers(1, 8, queries)
    labels = Labels(person, rng.integers(1, 4, queries + gallery))
    return embeddings[:queries], labels[:queries], embeddings[queries:], labels[queries:]


def test_places_by_hand():
    """Person 1 in camera 1 asks. Deleted: the same person in its own camera, and junk. Equal items keep their order."""
    query = np.array([[1.0, 0.0]], np.float32)
    gallery = normalise(np.array([[1, 0], [1, 0], [1, 1], [1, 0], [1, 1], [0, 1]], np.float32))
    labels = Labels(np.array([1, -1, 2, 1, 1, 0]), np.array([1, 1, 1, 2, 3, 2]))
    found = retrieve(query, Labels(np.array([1]), np.array([1])), gallery, labels, MARKET1501, places=5, bins=4)
    assert found.items.tolist() == [[3, 2, 4, 5, -1]]
    assert found.relevant.tolist() == [[True, False, True, False, False]]
    assert found.similarity[0] == pytest.approx([1, 0.5**0.5, 0.5**0.5, 0, 0], abs=1e-6)
    assert (found.positives.tolist(), found.negatives.tolist()) == ([0, 0, 0, 2], [0, 0, 1, 1])


@pytest.mark.parametrize("lists", [False, True])
def test_places_agree_with_the_ranks_that_are_counted(lists):
    query, query_labels, gallery, labels = crowd(1)
    members = [np.sort(np.random.default_rng(i).permutation(len(gallery))[:60]) for i in range(len(query))]
    options = {"lists": members} if lists else {}
    rule = PERSON_SEARCH if lists else MARKET1501
    found = retrieve(query, query_labels, gallery, labels, rule, places=300, **options)
    ranking = rank(query, query_labels, gallery, labels, rule, **options)
    own = [np.flatnonzero(row) + 1 for row in found.relevant]
    assert np.concatenate(own).tolist() == ranking.ranks.tolist()
    assert [len(each) for each in own] == ranking.relevant.tolist()
    assert found.positives.sum() == ranking.relevant.sum()
    assert found.positives.sum() + found.negatives.sum() == (found.items >= 0).sum()


def test_extremes_are_of_different_people_and_have_something_to_find():
    precision = np.array([1.0, 1.0, 1.0, 0.2, 0.0, 0.1])
    relevant, person = np.array([2, 5, 3, 1, 0, 4]), np.array([1, 1, 2, 3, 4, 3])
    assert extremes(precision, relevant, person, 2, best=True) == [1, 2]
    assert extremes(precision, relevant, person, 2, best=False) == [5, 1]
    assert extremes(precision, relevant, person, 9, best=False) == [5, 1, 2]


def test_spread_goes_from_the_highest_to_the_lowest():
    precision = np.array([0.1, 0.9, 0.5, 0.8, 0.3])
    allowed = np.array([True, True, True, True, False])
    assert spread(precision, np.array([1, 2, 3, 2, 4]), allowed, 3) == [1, 2, 0]
    assert spread(precision, np.array([1, 2, 3, 2, 4]), allowed, 2) == [1, 0]


def test_the_most_seen_person_comes_first_one_image_a_camera():
    person = np.array([0, 7, 7, 7, 5, 5, 5, 5, 9])
    camera = np.array([1, 2, 1, 1, 1, 1, 1, 2, 3])
    assert most_seen(person, camera, 2, 3) == [[4, 7, 5], [2, 1, 3]]


def test_cells_are_drawn_where_they_look():
    """Cell i of a map with stride 16 looks at pixel 16 i: the peak of cell (1, 0) of a 64 x 32 image is at (16, 0)."""
    heat = np.zeros((4, 2), np.float32)
    heat[1, 0] = 1
    large = enlarge(heat, (64, 32), (64, 32))
    assert large.shape == (64, 32)
    assert np.unravel_index(large.argmax(), large.shape) == (16, 0)
    assert large[24, 0] == pytest.approx(0.5) and large[16, 8] == pytest.approx(0.5)
    doubled = enlarge(heat, (64, 32), (128, 64))
    assert doubled[32:34, 0].mean() == pytest.approx(large[16, 0], abs=0.05)
