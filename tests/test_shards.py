"""Galleries in shards: the same as the whole, whatever the shards, and in memory that does not grow with their number."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_done_right.evaluation import distractors
from reid_done_right.evaluation.embedded import Embedded, Labels, normalised
from reid_done_right.evaluation.neighbours import nearest
from reid_done_right.evaluation.ranking import Ranking, rank_gallery
from reid_done_right.evaluation.rules import MARKET1501
from reid_done_right.evaluation.shards import Orders, count_shards, merged, search_shards
from reid_done_right.evaluation.task import Task

DIMENSIONS = 16


def rows(seed, count):
    """Unit vectors whose products are exact in any order of sums, and often equal."""
    return np.random.default_rng(seed).choice(np.array([-0.25, 0.25], np.float32), (count, DIMENSIONS))


def ranked() -> tuple[np.ndarray, Ranking]:
    labels = [Labels(np.arange(n) % 7 + 1, np.arange(n) % 3) for n in (20, 60)]
    query, gallery = (Embedded(rows(seed, len(own)), own) for seed, own in enumerate(labels))
    return query.embeddings, rank_gallery(Task(query, gallery, MARKET1501))


def cut(whole, ends):
    parts = np.split(np.arange(len(whole)), sorted(ends))
    return [(int(part[0]), whole[part]) for part in parts if len(part)]


# --- orders


@pytest.mark.parametrize("total", [1, 2, 3, 5, 64, 65, 1000])
def test_every_order_is_a_permutation_of_its_own(total):
    found = Orders(total, 4, 7).positions(0, total)
    assert (np.sort(found, axis=0) == np.arange(total)[:, None]).all()
    assert total < 64 or len({tuple(column) for column in found.T}) == 4


@given(st.integers(1, 10**12), st.data())
def test_part_of_an_order_is_that_part_of_it(total, data):
    first = data.draw(st.integers(0, total - 1))
    count = data.draw(st.integers(0, min(50, total - first)))
    orders = Orders(total, 2, 3)
    found = orders.positions(first, count)
    assert found.shape == (count, 2) and (found < total).all() and (found >= 0).all()
    one_by_one = [orders.positions(first + i, 1)[0] for i in range(min(count, 3))]
    assert all((found[i] == each).all() for i, each in enumerate(one_by_one))


def test_orders_are_uniform_and_neighbours_independent():
    """Chi-squared of where items go, and of where the next one goes then: 63 and 225 degrees of freedom."""
    positions = Orders(64, 6400, 11).positions(0, 64)
    for item in (0, 1, 31, 63):
        counts = np.bincount(positions[item], minlength=64)
        assert 63 - 5 * 126**0.5 < ((counts - 100) ** 2 / 100).sum() < 63 + 5 * 126**0.5
    pairs = np.bincount(16 * (positions[10] // 4) + positions[11] // 4, minlength=256)
    expected = np.where(np.arange(256) // 16 == np.arange(256) % 16, 4 * 3, 4 * 4) * 6400 / (64 * 63)
    assert 225 - 5 * 450**0.5 < ((pairs - expected) ** 2 / expected).sum() < 255 + 5 * 510**0.5


def test_orders_of_other_seeds_differ():
    assert (Orders(1000, 1, 0).positions(0, 1000) != Orders(1000, 1, 1).positions(0, 1000)).mean() > 0.9


def test_items_beyond_the_last_are_rejected():
    with pytest.raises(ValueError, match="items 3 to 6 of 5: expected some of them"):
        Orders(5, 1, 0).positions(3, 3)


# --- counts


def test_counts_of_shards_are_those_of_the_whole_gallery_sorted():
    """Against the dense oracle, at every size and in every order."""
    query, ranking = ranked()
    extra, orders, sizes = rows(5, 200), Orders(200, 3, 1), [0, 1, 50, 200]
    counts = count_shards(query, ranking, cut(extra, [1, 30, 90, 150]), orders, sizes)
    curves = distractors.sweep(ranking, counts)
    positions = orders.positions(0, 200)
    labels = [Labels(np.arange(n) % 7 + 1, np.arange(n) % 3) for n in (20, 60)]
    for s, size in enumerate(sizes):
        for order in range(3):
            chosen = extra[np.argsort(positions[:, order])[:size]]
            nobody = np.zeros(size, np.int64)
            there = Labels(np.concatenate([labels[1].person_id, nobody]), np.concatenate([labels[1].camera_id, nobody]))
            whole = Embedded(np.concatenate([rows(1, 60), chosen]), there)
            alone = rank_gallery(Task(Embedded(query, labels[0]), whole, MARKET1501))
            assert curves.average_precision[s, order] == alone.average_precision().mean()
            assert curves.rank1[s, order] == alone.cmc([1])[0]


@given(st.sets(st.integers(0, 120), max_size=6), st.randoms(use_true_random=False))
def test_counts_depend_neither_on_the_shards_nor_on_their_order_or_machine(ends, chance):
    query, ranking = ranked()
    extra, orders, sizes = rows(6, 120), Orders(120, 2, 5), [0, 40, 120]
    positions = orders.positions(0, 120)
    whole = distractors.count_beating(query, ranking, extra, positions, sizes)
    shards = cut(extra, ends)
    chance.shuffle(shards)
    machines = [shards[::2], shards[1::2]]
    assert (sum(count_shards(query, ranking, own, orders, sizes) for own in machines) == whole).all()


def test_sizes_beyond_the_distractors_are_rejected():
    query, ranking = ranked()
    with pytest.raises(ValueError, match=r"sizes are \[0, 6\], but there are 5 distractors"):
        count_shards(query, ranking, [], Orders(5, 1, 0), [0, 6])


@pytest.mark.parametrize("what", ["count", "search"])
def test_memory_does_not_grow_with_the_number_of_shards(what):
    query, ranking = ranked()
    most = []
    for number in (2, 20):
        orders = Orders(number * 5000, 2, 0)
        shards = ((i * 5000, rows(i, 5000)) for i in range(number))
        tracemalloc.start()
        if what == "count":
            count_shards(query, ranking, shards, orders, [0, 5000])
        else:
            search_shards(query, shards, 10)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < 1.1 * most[0]


# --- searches


@given(st.sets(st.integers(0, 90), max_size=8), st.integers(1, 100), st.randoms(use_true_random=False))
def test_search_of_shards_is_that_of_the_whole(ends, k, chance):
    query, gallery = rows(0, 10), rows(1, 90)
    shards = cut(gallery, ends)
    chance.shuffle(shards)
    found, whole = search_shards(query, shards, k), nearest(query, gallery, min(k, 90))
    for name in ("items", "similarity", "lowest"):
        assert (getattr(found, name) == getattr(whole, name)).all(), name


def test_search_of_shards_is_a_stable_sort():
    query, gallery = rows(0, 10), rows(1, 300)
    found = search_shards(query, cut(gallery, [100, 200]), 20)
    assert (found.items == np.argsort(-(query @ gallery.T), axis=1, kind="stable")[:, :20]).all()


@given(st.sets(st.integers(0, 90), max_size=4))
def test_search_is_exact_whatever_the_rounding_of_products(ends):
    rng = np.random.default_rng(2)
    query, gallery = (normalised(rng.standard_normal((n, 50), dtype=np.float32)) for n in (5, 91))
    gallery[40:80] = gallery[:40]  # equal ones, in other shards
    found, whole = search_shards(query, cut(gallery, ends), 12), nearest(query, gallery, 12)
    assert (found.items == whole.items).all() and (found.similarity == whole.similarity).all()


def test_lists_of_machines_merge_in_any_order():
    query, gallery = rows(0, 10), rows(1, 90)
    parts = [search_shards(query, [shard], 7) for shard in cut(gallery, [20, 50])]
    one = merged(merged(parts[0], parts[1], 7), parts[2], 7)
    other = merged(parts[2], merged(parts[1], parts[0], 7), 7)
    assert (one.items == other.items).all() and (one.items == nearest(query, gallery, 7).items).all()


def test_search_without_shards_is_rejected():
    with pytest.raises(ValueError, match="no shard to search"):
        search_shards(rows(0, 2), [], 3)
