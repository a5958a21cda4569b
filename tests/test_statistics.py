import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from reid_done_right.evaluation.statistics import (
    binned_means,
    compare,
    mean_and_deviation,
    mean_interval,
    sign_flip_p_value,
)


def test_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).random(2000)
    found = mean_interval(values, np.random.default_rng(1))
    spread = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - spread, abs=spread / 10)
    assert found.high == pytest.approx(values.mean() + spread, abs=spread / 10)


def test_interval_equals_plain_resampling():
    values = np.random.default_rng(0).random(40) ** 3  # skewed, as AP is
    found = mean_interval(values, np.random.default_rng(1), level=0.9, resamples=20000)
    rng = np.random.default_rng(2)
    means = [values[rng.integers(0, 40, 40)].mean() for _ in range(20000)]
    assert (found.low, found.high) == pytest.approx(np.percentile(means, [5, 95]), abs=0.005)
    assert found.high - found.mean > found.mean - found.low  # skewed too: not mean plus or minus the same


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize(("count", "resamples"), [(2, 2000), (7, 3), (40, 250), (333, 2000)])
def test_interval_is_that_of_scipys_bootstrap(count: int, resamples: int, level: float) -> None:
    values = np.random.default_rng(count).random(count)
    found = mean_interval(values, np.random.default_rng(1), level=level, resamples=resamples)
    rng = np.random.default_rng(1)
    expected = bootstrap((values,), np.mean, n_resamples=resamples, batch=100, confidence_level=level,
                         method="percentile", rng=rng).confidence_interval  # fmt: skip
    assert (found.low, found.high) == (expected.low, expected.high)


def test_one_query_says_nothing_about_others_and_equal_ones_leave_no_doubt():
    alone = mean_interval(np.array([0.5]), np.random.default_rng(0))
    assert alone.mean == 0.5 and np.isnan([alone.low, alone.high]).all()
    equal = mean_interval(np.full(9, 0.25), np.random.default_rng(0))
    assert (equal.mean, equal.low, equal.high) == (0.25, 0.25, 0.25)


def test_values_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match="value of query 2 is not finite"):
        mean_interval(np.array([1, 0, np.nan]), np.random.default_rng(0))


def test_interval_is_seeded():
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values, np.random.default_rng(1)) == mean_interval(values, np.random.default_rng(1))
    assert mean_interval(values, np.random.default_rng(1)) != mean_interval(values, np.random.default_rng(2))


def test_pairing_removes_the_difficulty_that_runs_share():
    rng = np.random.default_rng(0)
    hard = rng.random(500)
    better = compare(
        (hard + 0.01 + 0.01 * rng.standard_normal(500))[None], hard[None], np.random.default_rng(1)
    ).interval
    assert 0 < better.low < 0.01 < better.high < 0.02
    alone = mean_interval(hard, np.random.default_rng(1))
    assert alone.high - alone.low > 5 * (better.high - better.low)


def test_equal_runs_do_not_differ():
    values = np.random.default_rng(0).random((2, 20))
    same = compare(values, values, np.random.default_rng(1))
    assert (same.interval.mean, same.interval.low, same.interval.high) == (0, 0, 0)
    assert same.p == 1 and same.by_seed == (0, 0) and not same.sure


def test_seeds_are_paired_and_distinguished():
    base = np.random.default_rng(0).random((2, 40))
    found = compare(base + np.array([[0.1], [0.3]]), base, np.random.default_rng(1))
    assert found.by_seed == pytest.approx((0.1, 0.3))
    assert found.interval.mean == pytest.approx(0.2) and found.sure
    assert not compare(base + np.array([[-0.1], [0.3]]), base, np.random.default_rng(1)).sure


def test_p_value_is_that_of_scipys_permutation_test():
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(30) + 0.08, rng.random(30)
    expected = permutation_test(
        (ours, theirs),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    ).pvalue
    assert sign_flip_p_value(ours - theirs, np.random.default_rng(0)) == pytest.approx(expected, abs=0.015)


def test_p_value_by_hand():
    """Of the 8 ways to sign 1, 2, 4 only all plus and all minus reach 7: 1/4, of 2 x 9999 random ones about that."""
    p = sign_flip_p_value(np.array([1.0, 2.0, 4.0]), np.random.default_rng(0))
    assert p == pytest.approx(0.25, abs=0.02)
    assert sign_flip_p_value(np.ones(60), np.random.default_rng(0)) == 1 / 10_000


def test_bins_average_all_items_once():
    assert binned_means(np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 2).tolist() == [2.0, 7.0]
    assert binned_means(np.array([1.0, 3.0]), 48).tolist() == [1.0, 3.0]


def test_runs_of_different_queries_are_rejected():
    with pytest.raises(ValueError, match="expected two tables"):
        compare(np.ones((1, 3)), np.ones((1, 4)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected one per query"):
        mean_interval(np.empty(0), np.random.default_rng(0))


def test_spread_over_seeds():
    assert mean_and_deviation(np.array([1.0, 2.0, 3.0])) == (2.0, 1.0)
    mean, deviation = mean_and_deviation(np.array([4.0]))
    assert mean == 4 and np.isnan(deviation)
    with pytest.raises(ValueError, match="no values"):
        mean_and_deviation(np.empty(0))
