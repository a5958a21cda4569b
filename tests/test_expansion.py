import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from reid_done_right.evaluation import expansion, neighbours


def embeddings(seed, *rows, size=8):
    rng = np.random.default_rng(seed)
    return [oracles.unit(rng.standard_normal((each, size))).astype(np.float32) for each in rows]


def test_three_items_by_hand():
    """One neighbour each: the database averages with its nearest, then the query with its nearest of those."""
    gallery = np.array([[1, 0], [0.8, 0.6], [-1, 0]], np.float32)  # 0 and 1 are neighbours; 2 is closest to 1
    query = np.array([[0, 1]], np.float32)
    between = np.array([1.8, 0.6]) / np.hypot(1.8, 0.6)
    far = np.array([-0.2, 0.6]) / np.hypot(0.2, 0.6)
    expanded, augmented = expansion.expand(query, gallery, query_neighbours=1, database_neighbours=1)
    assert augmented == pytest.approx(np.array([between, between, far]), abs=1e-6)
    assert expanded == pytest.approx(oracles.unit(query + far), abs=1e-6)  # (-0.32, 0.95) is the nearest to (0, 1)


def test_no_neighbours_change_nothing():
    query, gallery = embeddings(0, 3, 5)
    for result, given_ in zip(
        expansion.expand(query, gallery, query_neighbours=0, database_neighbours=0), (query, gallery), strict=True
    ):
        assert (result == given_).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(0, 5),
    st.integers(0, 10),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
    st.sampled_from(["database-first", "query-first"]),
)
def test_equals_dense_expansion(seed, k_query, k_database, alpha, self_counts, order):
    query, gallery = embeddings(seed, 7, 25)
    result = expansion.expand(
        query,
        gallery,
        query_neighbours=k_query,
        database_neighbours=k_database,
        alpha=alpha,
        self_counts=self_counts,
        order=order,
        threads=1,
    )
    expected = oracles.expand(query, gallery, k_query, k_database, alpha, self_counts, order)
    for ours, theirs in zip(result, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_too_many_neighbours_are_rejected():
    query, gallery = embeddings(0, 3, 5)
    with pytest.raises(ValueError, match="10 neighbours asked for, but there are only 4 items"):
        expansion.expand(query, gallery)
    with pytest.raises(ValueError, match="order 'both' is unknown"):
        expansion.expand(query, gallery, order="both")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 40), st.booleans(), st.sampled_from([None, "cpu"]))
def test_neighbours_equal_a_stable_sort(seed, k, rows, exclude_self, device):
    """Small integers: products are exact and often equal, and the earlier item must come first."""
    rng = np.random.default_rng(seed)
    query, gallery = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (6, 20))
    across = neighbours.nearest(query, gallery, k, rows=rows, threads=1, device=device)
    assert (across.items == oracles.neighbours(query @ gallery.T, k)).all()
    everyone = np.concatenate([query, gallery])
    similarity = everyone @ everyone.T
    how = {"exclude_self": exclude_self, "rows": rows, "threads": 1, "device": device}
    among = neighbours.nearest_among([query, gallery], k, **how)
    assert (among.lowest == similarity.min(axis=1)).all()
    if exclude_self:
        np.fill_diagonal(similarity, -np.inf)
    assert (among.items == oracles.neighbours(similarity, k)).all()
    assert (among.similarity == np.take_along_axis(similarity, among.items, axis=1)).all()


def test_gallery_kept_on_the_device_is_searched_alike(monkeypatch):
    query, gallery = embeddings(8, 10, 50)
    sent = neighbours.nearest(query, gallery, 5, rows=16, device="cpu")
    monkeypatch.setattr("reid_done_right.evaluation.torch_backend._free", lambda device: 10**9)
    kept = neighbours.nearest(query, gallery, 5, rows=16, device="cpu")
    assert (kept.items == sent.items).all() and (kept.similarity == sent.similarity).all()


@pytest.mark.parametrize("crowded", [False, True])
def test_nearest_among_any_blocks_and_threads_returns_the_same_bits(crowded):
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((700, 40)) + (30 if crowded else 0)  # crowded: every pair is close to every other
    gallery = oracles.unit(rows).astype(np.float32)
    gallery[650:] = gallery[:50]
    plain = neighbours.nearest_among([gallery], 9, threads=1)
    for size, threads in ((64, 1), (300, 2), (2048, 2)):
        found = neighbours.nearest_among([gallery[:100], gallery[100:]], 9, rows=size, threads=threads)
        assert (found.items == plain.items).all()
        assert (found.similarity == plain.similarity).all() and (found.lowest == plain.lowest).all()
        across = neighbours.nearest(gallery, gallery, 9, rows=size, threads=threads)
        assert (across.items == plain.items).all() and (across.lowest == plain.lowest).all()
    exact = gallery.astype(np.float64) @ gallery.T.astype(np.float64)
    assert plain.similarity == pytest.approx(-np.sort(-exact, axis=1)[:, :9], abs=3e-7)
    assert plain.lowest == pytest.approx(exact.min(axis=1), abs=3e-7)


def test_products_lie_within_their_bound():
    left, right = embeddings(3, 60, 90, size=300)
    right = right * 3
    exact = np.array([[neighbours._dot(a, b) for b in right] for a in left])
    error = np.abs(exact.astype(np.float64) - left @ right.T)
    assert error.max() > 0 and error.max() <= neighbours._rounding(left, right)
