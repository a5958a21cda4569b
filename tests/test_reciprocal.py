import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from reid_done_right.evaluation import ranking, reciprocal
from reid_done_right.evaluation.embedded import Labels
from reid_done_right.evaluation.rules import MARKET1501

HALF = {"matlab": lambda k1: int(np.floor((k1 + 1) / 2 + 0.5)), "python": lambda k1: int(np.around(k1 / 2)) + 1}


def clustered(seed, queries=12, gallery=60, size=8, people=9):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((people, size))
    person = [rng.integers(0, people, rows) for rows in (queries, gallery)]
    rows = [centre[each] + 0.7 * rng.standard_normal((len(each), size)) for each in person]
    labels = [Labels(each + 1, rng.integers(1, 4, len(each))) for each in person]
    return *(oracles.unit(each).astype(np.float32) for each in rows), *labels


def whole(result):
    return result.distance(slice(0, len(result.query)), slice(0, len(result.gallery)))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(3, 20),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(["matlab", "python", "squared-twice"]),
)
def test_equals_the_dense_textbook(seed, k1, k2, lambda_value, variant):
    query, gallery, _, _ = clustered(seed)
    result = reciprocal.k_reciprocal(
        query, gallery, k1=k1, k2=k2, lambda_value=lambda_value, variant=variant, threads=1
    )
    half = HALF["matlab" if variant == "matlab" else "python"](k1)
    expected = oracles.k_reciprocal(
        query.astype(np.float64),
        gallery.astype(np.float64),
        k1,
        k2,
        lambda_value,
        half,
        squared_twice=variant == "squared-twice",
    )
    assert whole(result) == pytest.approx(expected, abs=2e-6)


def test_halves_differ_only_for_k1_3_mod_4():
    assert [k1 for k1 in range(1, 40) if HALF["matlab"](k1) != HALF["python"](k1)] == list(range(3, 40, 4))


def test_lambda_one_keeps_the_ranking_and_blocks_feed_the_evaluator():
    query, gallery, query_labels, gallery_labels = clustered(5)
    plain = ranking.score(query, query_labels, gallery, gallery_labels, MARKET1501)
    same = reciprocal.k_reciprocal(query, gallery, lambda_value=1.0)
    again = ranking.rank_by(same.score, query_labels, gallery_labels, MARKET1501, block=100)
    assert (again.ranks == plain.ranks).all()
    better = reciprocal.k_reciprocal(query, gallery, k1=6, k2=2)
    result = ranking.rank_by(better.score, query_labels, gallery_labels, MARKET1501, block=100)
    expected = oracles.evaluate(-whole(better), query_labels, gallery_labels, MARKET1501)
    assert result.average_precision() == pytest.approx([row["trapezoid"] for row in expected])
    assert result.average_precision().mean() > plain.average_precision().mean()


def test_on_a_device_of_pytorch_the_same():
    query, gallery, query_labels, gallery_labels = clustered(6, gallery=300)
    for variant in ("matlab", "squared-twice"):
        here = reciprocal.k_reciprocal(query, gallery, k1=6, k2=2, variant=variant)
        there = reciprocal.k_reciprocal(query, gallery, k1=6, k2=2, variant=variant, device="cpu")
        assert whole(there).numpy() == pytest.approx(whole(here), abs=1e-6)
    for rerank in ("none", "qe-dba", "k-reciprocal"):
        one, other = (
            ranking.score(query, query_labels, gallery, gallery_labels, MARKET1501, rerank=rerank, device=device)
            for device in (None, "cpu")
        )
        assert (one.ranks == other.ranks).all()


def test_identical_items_do_not_divide_by_zero():
    query, gallery = np.ones((2, 1), np.float32), np.ones((5, 1), np.float32)
    assert np.isfinite(whole(reciprocal.k_reciprocal(query, gallery, k1=3, k2=2))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 80}, "k1 is 80, but there are only 72 items"),
        ({"lambda_value": 1.5}, "lambda_value is 1.5, expected 0"),
        ({"k2": 30}, "k2 is 30, expected 1 to k1 \\+ 1 = 21"),
        ({"variant": "half"}, "variant 'half' is unknown"),
    ],
)
def test_wrong_settings_are_rejected(options, message):
    query, gallery, _, _ = clustered(0)
    with pytest.raises(ValueError, match=message):
        reciprocal.k_reciprocal(query, gallery, **options)


def test_embeddings_must_be_of_unit_norm():
    query, gallery, query_labels, gallery_labels = clustered(0)
    with pytest.raises(ValueError, match="gallery: embedding of row 0 has norm 2, expected 1"):
        ranking.score(query, query_labels, 2 * gallery, gallery_labels, MARKET1501, rerank="k-reciprocal")
