"""Hard triplets against a loop over all triplets; frequencies of queries; errors."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from reid_done_right.training import mining
from reid_done_right.training.mining import draw_pool, hardest_triplets, mean_similarity, mine, random_triplets

torch.set_num_threads(1)


def all_triplets(embeddings: Tensor, person_id: NDArray[np.int64], query: int) -> dict[tuple[int, int], float]:
    """Return the loss without margin of every (positive, negative) of a query, by looping over all pairs."""
    vectors = embeddings.double().numpy()
    losses = {}
    for positive, negative in product(range(len(person_id)), repeat=2):
        is_positive = person_id[positive] == person_id[query] and positive != query
        if is_positive and person_id[negative] != person_id[query]:
            losses[positive, negative] = float(vectors[query] @ vectors[negative] - vectors[query] @ vectors[positive])
    return losses


def pool(seed: int, images: int, people: int) -> tuple[Tensor, NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    vectors = torch.from_numpy(generator.standard_normal((images, 3)).astype(np.float32))
    return torch.nn.functional.normalize(vectors), generator.integers(0, people, images)


def able_queries(person_id: NDArray[np.int64]) -> list[int]:
    """Return the places with a positive and a negative in the pool."""
    same = [(person_id == one).sum() for one in person_id]
    return [place for place, count in enumerate(same) if 1 < count < len(person_id)]


# --- the hardest triplets of a query


def test_hardest_by_hand() -> None:
    angles = torch.tensor([0, 10, 60, 20, 30, 170]) * torch.pi / 180
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)
    person_id = np.array([7, 7, 7, 1, 2, 3])
    positives, negatives, values = hardest_triplets(embeddings, person_id, np.array([0]), 3)
    # query at 0 degrees: its farther positive, at 60, with the negatives at 20 and 30; then the one at 10 with 20
    assert positives.tolist() == [[2, 2, 1]]
    assert negatives.tolist() == [[3, 4, 3]]
    expected = np.cos(np.radians([[20, 30, 20]])) - np.cos(np.radians([[60, 60, 10]]))
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-6)


@given(st.integers(0, 2**32), st.integers(3, 14), st.integers(2, 5), st.integers(1, 30))
@settings(max_examples=150, deadline=None)
def test_hardest_are_those_of_a_loop_over_all(seed: int, images: int, people: int, hardest: int) -> None:
    embeddings, person_id = pool(seed, images, people)
    queries = np.array(able_queries(person_id), np.int64)
    if len(queries) == 0:
        return
    positives, negatives, values = hardest_triplets(embeddings, person_id, queries, hardest)
    for row, query in enumerate(queries):
        oracle = all_triplets(embeddings, person_id, int(query))
        finite = torch.isfinite(values[row]).sum().item()
        assert finite == min(hardest, len(oracle))
        found = list(zip(positives[row, :finite].tolist(), negatives[row, :finite].tolist(), strict=True))
        assert len(set(found)) == finite
        np.testing.assert_allclose(values[row, :finite].numpy(), [oracle[pair] for pair in found], atol=1e-6)
        np.testing.assert_allclose(values[row, :finite].numpy(), sorted(oracle.values())[::-1][:finite], atol=1e-6)


def test_triplets_of_zero_loss_keep_their_order() -> None:
    embeddings = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [0, 1]])
    _, negatives, values = hardest_triplets(embeddings, np.array([1, 1, 2, 3]), np.array([0]), 2)
    assert negatives.tolist() == [[3, 2]]
    assert values.tolist() == [[-1, -2]]


@pytest.mark.parametrize("person_id", [[1, 1, 1], [1, 2, 2], [1, 2, 3]])
def test_query_without_positive_or_negative_is_reported(person_id: list[int]) -> None:
    with pytest.raises(ValueError, match="a query has no positive or no negative in the pool"):
        hardest_triplets(torch.eye(3), np.array(person_id), np.array([0]), 2)


# --- drawing


@given(st.integers(0, 2**32), st.integers(3, 14), st.integers(2, 5), st.integers(1, 10), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_drawn_triplets_are_among_the_hardest_of_their_query(
    seed: int, images: int, people: int, hardest: int, wanted: int
) -> None:
    embeddings, person_id = pool(seed, images, people)
    able = able_queries(person_id)
    if not able:
        return
    triplets, values = mine(embeddings, person_id, wanted, hardest, np.random.default_rng(seed))
    assert triplets.shape == (wanted, 3)
    for (query, positive, negative), value in zip(triplets.tolist(), values.tolist(), strict=True):
        oracle = all_triplets(embeddings, person_id, query)
        limit = sorted(oracle.values())[::-1][:hardest][-1]
        assert oracle[positive, negative] == pytest.approx(value, abs=1e-6)
        assert value >= limit - 1e-6
    drawn = [(triplets[:, 0] == place).sum() for place in able]
    assert sum(drawn) == wanted
    assert max(drawn) - min(drawn) <= 1


def test_all_of_the_hardest_are_drawn_equally_often() -> None:
    embeddings, person_id = pool(1, 8, 3)
    triplets, _ = mine(embeddings, person_id, 4000, 4, np.random.default_rng(0))
    query = able_queries(person_id)[0]
    _, count = np.unique(triplets[triplets[:, 0] == query], axis=0, return_counts=True)
    assert len(count) == 4
    assert count.min() > 0.75 * count.mean()


def test_mining_depends_on_the_generator_alone() -> None:
    embeddings, person_id = pool(3, 12, 4)
    first, same, other = (mine(embeddings, person_id, 20, 5, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("person_id", [[1, 2, 3], [5, 5, 5]])
def test_pool_without_triplets_is_reported(person_id: list[int]) -> None:
    with pytest.raises(ValueError, match="none of 3 pool images has both a positive and a negative there; enlarge"):
        mine(torch.eye(3), np.array(person_id), 4, 2, np.random.default_rng(0))


def test_triplets_without_loss_are_redrawn_on_request() -> None:
    embeddings, person_id = pool(0, 40, 8)
    able = able_queries(person_id)
    values = {query: sorted(all_triplets(embeddings, person_id, query).values())[::-1][:5] for query in able}
    floor = float(np.median([losses[2] for losses in values.values()]))
    fit = {query for query in able if values[query][0] > floor}
    assert 1 < len(fit) < len(able), "the case is empty"
    assert any(values[query][-1] <= floor for query in fit), "the case is empty"
    for wanted in (3, 200):
        triplets, hardness = mine(embeddings, person_id, wanted, 5, np.random.default_rng(0), -floor)
        assert triplets.shape == (wanted, 3) and (hardness > floor).all()
        for (query, positive, negative), value in zip(triplets.tolist(), hardness.tolist(), strict=True):
            assert all_triplets(embeddings, person_id, query)[positive, negative] == pytest.approx(value, abs=1e-6)
            assert value >= values[query][-1] - 1e-6
    count = [(triplets[:, 0] == query).sum() for query in fit]
    assert set(triplets[:, 0]) == fit and max(count) - min(count) <= 1


def test_triplets_are_kept_where_none_has_a_loss() -> None:
    embeddings, person_id = pool(0, 12, 3)
    triplets, hardness = mine(embeddings, person_id, 7, 5, np.random.default_rng(0), -3.0)
    assert triplets.shape == (7, 3) and (hardness < 3).all()


def near_convergence(queries: int, images: int = 2000) -> tuple[Tensor, NDArray[np.int64]]:
    """Return a pool of pairs at one place each, of which so many images have a negative at their own place."""
    place = np.arange(images) // 2
    person_id = place.copy()
    place[: 2 * queries] = np.arange(2 * queries) // 4
    return torch.eye(images // 2)[torch.from_numpy(place)], person_id


def test_mining_near_convergence_is_fast_and_even(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, person_id = near_convergence(10)
    searched: list[NDArray[np.int64]] = []

    def search(embeddings: Tensor, person_id: NDArray[np.int64], queries: NDArray[np.int64], *rest: Any) -> Any:
        searched.append(queries)
        return hardest_triplets(embeddings, person_id, queries, *rest)

    monkeypatch.setattr(mining, "hardest_triplets", search)
    triplets, hardness = mine(embeddings, person_id, 1024, 25, np.random.default_rng(0), 0.1)
    assert len(np.concatenate(searched)) == 2000 == len(np.unique(np.concatenate(searched)))
    queries, count = np.unique(triplets[:, 0], return_counts=True)
    assert queries.tolist() == list(range(20))
    assert count.max() - count.min() <= 1
    assert triplets.shape == (1024, 3) and (hardness > -0.1).all()


def test_positives_of_other_cameras_are_all_that_a_loop_allows() -> None:
    generator = np.random.default_rng(2)
    embeddings, person_id = pool(2, 14, 4)
    camera_id = generator.integers(1, 3, 14)
    allowed = {
        (int(a), int(b))
        for a, b in product(range(14), repeat=2)
        if person_id[a] == person_id[b] and camera_id[a] != camera_id[b]
    }
    queries = np.unique([a for a, _ in allowed])
    assert 0 < len(queries) < len(able_queries(person_id)), "the case is empty"
    _, _, values = hardest_triplets(embeddings, person_id, queries, 3, camera_id)
    for row, query in enumerate(queries.tolist()):
        oracle = [v for (p, _), v in all_triplets(embeddings, person_id, query).items() if (query, p) in allowed]
        finite = values[row][torch.isfinite(values[row])]
        np.testing.assert_allclose(finite, sorted(oracle)[::-1][:3], atol=1e-6)
    for draw in (
        lambda: mine(embeddings, person_id, 600, 99, np.random.default_rng(0), None, camera_id),
        lambda: random_triplets(embeddings, person_id, 600, np.random.default_rng(0), camera_id),
    ):
        assert {(q, p) for q, p, _ in draw()[0].tolist()} == allowed


@given(st.integers(0, 2**32), st.integers(4, 14), st.integers(2, 4))
@settings(max_examples=50, deadline=None)
def test_random_triplets_are_any_of_a_query_equally_often(seed: int, images: int, people: int) -> None:
    embeddings, person_id = pool(seed, images, people)
    able = able_queries(person_id)
    if not able:
        return
    triplets, values = random_triplets(embeddings, person_id, 300 * len(able), np.random.default_rng(seed))
    assert np.unique(triplets[:, 0], return_counts=True)[1].tolist() == [300] * len(able)
    oracle = all_triplets(embeddings, person_id, able[0])
    mine_, hardness = triplets[triplets[:, 0] == able[0]], values[triplets[:, 0] == able[0]]
    for (_, positive, negative), value in zip(mine_.tolist(), hardness.tolist(), strict=True):
        assert value == pytest.approx(oracle[positive, negative], abs=1e-5)
    positives, count = np.unique(mine_[:, 1], return_counts=True)
    assert set(positives) <= {p for p, _ in oracle}
    assert count.max() - count.min() <= 6 * 300**0.5


def test_random_triplets_compare_no_others() -> None:
    """Of 200,000 images a similarity matrix would take 160 GB."""
    embeddings, person_id = torch.zeros(200_000, 2), np.arange(200_000) // 2
    triplets, _ = random_triplets(embeddings, person_id, 64, np.random.default_rng(0))
    assert (person_id[triplets[:, 0]] == person_id[triplets[:, 1]]).all() and (triplets[:, 0] != triplets[:, 1]).all()
    assert (person_id[triplets[:, 0]] != person_id[triplets[:, 2]]).all()


def test_a_pool_of_tracklets_has_a_frame_of_each_before_a_second() -> None:
    tracklet_id = np.repeat(np.arange(1, 9), np.arange(1, 9))  # of 1 to 8 frames
    person_id, frames = tracklet_id // 3, np.zeros(36)
    for seed in range(200):
        drawn = draw_pool(person_id, 8, "tracklets", np.random.default_rng(seed), tracklet_id)
        assert tracklet_id[drawn].tolist() == list(range(1, 9))
        frames[drawn] += 1
        drawn = draw_pool(person_id, 12, "tracklets", np.random.default_rng(seed), tracklet_id)
        assert set(np.bincount(tracklet_id[drawn])[2:]) <= {1, 2}
    assert frames[28:].min() > 5 and frames[28:].max() < 50  # the last has 8: 25 of 200 each
    alone = draw_pool(np.arange(9), 5, "tracklets", np.random.default_rng(0), np.zeros(9, np.int64))
    assert alone.tolist() == draw_pool(np.arange(9), 5, "images", np.random.default_rng(0)).tolist()


def test_a_pool_is_of_images_or_of_whole_identities() -> None:
    person_id = np.random.default_rng(1).integers(0, 10, 60)
    for of in ("images", "identities"):
        drawn = draw_pool(person_id, 20, of, np.random.default_rng(0))
        assert len(set(drawn.tolist())) == 20 and (np.diff(drawn) > 0).all()
        assert not np.array_equal(drawn, draw_pool(person_id, 20, of, np.random.default_rng(1)))
        there = np.bincount(person_id[drawn], minlength=10)
        broken = ((there > 0) & (there < np.bincount(person_id, minlength=10))).sum()
        assert bool(broken <= 1) is (of == "identities")
        assert draw_pool(person_id, 99, of, np.random.default_rng(0)).tolist() == list(range(60))


# --- crowding


def test_mean_similarity_is_that_of_all_pairs() -> None:
    embeddings, _ = pool(0, 9, 2)
    pairs = [float(embeddings[i] @ embeddings[j]) for i, j in product(range(9), repeat=2) if i != j]
    assert mean_similarity(embeddings) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert mean_similarity(embeddings[:1].expand(5, 3)) == pytest.approx(1, abs=1e-6)
