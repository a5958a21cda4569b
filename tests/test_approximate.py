"""Approximate search: what it finds of the exact one, and that shards make no difference."""

import faiss
import numpy as np
import pytest

from reid_done_right.evaluation.approximate import index_shards, recall, search_index
from reid_done_right.evaluation.embedded import normalised
from reid_done_right.evaluation.neighbours import nearest
from reid_done_right.evaluation.shards import search_shards

DIMENSIONS, CELLS = 32, 16


def people(seed: int, images: int) -> np.ndarray:
    """Embeddings of 60 people, so many images each."""
    centres = np.random.default_rng(0).normal(size=(60, DIMENSIONS))
    noise = np.random.default_rng([1, seed]).normal(size=(60 * images, DIMENSIONS))
    return normalised(np.repeat(centres, images, axis=0) + 0.5 * noise)


QUERY, GALLERY = people(0, 2), people(1, 20)


def shards(size: int) -> list[tuple[int, np.ndarray]]:
    return [(first, GALLERY[first : first + size]) for first in range(0, len(GALLERY), size)]


@pytest.fixture(scope="module")
def index():
    return index_shards(GALLERY, shards(500), cells=CELLS, threads=1)


def test_search_of_all_cells_misses_only_what_rounding_swaps(index):
    exact = search_shards(QUERY, shards(500), 10)
    items, similarity = search_index(QUERY, index, 10, visited=CELLS)
    true = np.einsum("qd,qkd->qk", QUERY, GALLERY[items])
    assert recall(items, exact.items) > 0.97
    assert recall(items[:, :1], nearest(QUERY, GALLERY, 1).items) > 0.95
    assert np.abs(similarity - true).max() < 0.01
    assert (true[:, -1] > exact.similarity[:, -1] - 0.02).all()  # what it returns instead is as near, but for rounding


def test_search_of_more_cells_finds_more(index):
    exact = nearest(QUERY, GALLERY, 10).items
    found = [recall(search_index(QUERY, index, 10, visited=visited)[0], exact) for visited in (1, 4, CELLS)]
    assert found == sorted(found) and 0.3 < found[0] < found[2]


def test_shards_and_threads_make_no_difference(index):
    other = index_shards(GALLERY, shards(77)[::-1], cells=CELLS, threads=2)
    expected = search_index(QUERY, index, 10, visited=4, threads=1)
    found = search_index(QUERY, other, 10, visited=4, threads=2)
    assert (np.sort(found[0]) == np.sort(expected[0])).mean() > 0.99  # k-means sums in the order of its threads
    np.testing.assert_allclose(found[1], expected[1], atol=0.01)


def test_cells_with_fewer_items_are_filled_up_with_none():
    few = index_shards(GALLERY, [(0, GALLERY[:3])], cells=CELLS)
    items, similarity = search_index(QUERY, few, 3, visited=1)
    assert (items == -1).any() and ((similarity == -np.inf) == (items == -1)).all()


def test_number_of_threads_of_faiss_is_left_as_it_was(index):
    before = faiss.omp_get_max_threads()
    search_index(QUERY, index, 1, visited=1, threads=before + 1)
    assert faiss.omp_get_max_threads() == before


def test_index_takes_a_byte_for_each_number(index):
    size = len(faiss.serialize_index(index))
    assert size < len(GALLERY) * (DIMENSIONS + 8) + CELLS * DIMENSIONS * 4 + 2000


def test_bad_arguments_are_refused(index):
    for arguments, words in (
        ({"k": 0, "visited": 1}, "0 neighbours asked for"),
        ({"k": len(GALLERY) + 1, "visited": 1}, "only 1200 items"),
        ({"k": 1, "visited": 0}, "0 cells to visit: expected 1 to 16"),
        ({"k": 1, "visited": 17}, "17 cells to visit"),
    ):
        with pytest.raises(ValueError, match=words):
            search_index(QUERY, index, **arguments)
    with pytest.raises(ValueError, match="16 cells need a sample of at least as many embeddings, not 5"):
        index_shards(GALLERY[:5], shards(500), cells=CELLS)
