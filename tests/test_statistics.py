import numpy as np
import pytest
from scipy.stats import bootstrap, nct, t, ttest_1samp

from reid_done_right.evaluation.statistics import (
    Comparison,
    Draw,
    binned_means,
    clustered_variance,
    compare,
    holm,
    mean_and_deviation,
    mean_interval,
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


def draw(difference: np.ndarray, person: np.ndarray | None = None) -> Draw:
    """A draw whose runs differ by these values; each query shows a person of its own if none are given."""
    base = np.random.default_rng(9).random(len(difference))
    return Draw(base + difference, base, np.arange(len(difference)) if person is None else person)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_compare_of_draws_with_test_sets_of_their_own_is_the_t_test(count: int) -> None:
    rng = np.random.default_rng(count)
    found = compare([draw(rng.normal(0.02, 0.1, rng.integers(30, 60))) for _ in range(count)], shared=False)
    expected = ttest_1samp(found.by_draw, 0)
    bounds = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((bounds.low, bounds.high))
    assert found.p == pytest.approx(expected.pvalue)
    for bound in (-0.01, 0.03):
        assert found.above(bound) == pytest.approx(ttest_1samp(found.by_draw, bound, alternative="greater").pvalue)
        assert found.below(bound) == pytest.approx(ttest_1samp(found.by_draw, bound, alternative="less").pvalue)
    assert found.within(0.05) == max(found.below(0.05), found.above(-0.05))


def test_clustered_variance_is_that_of_deviations_summed_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    values, person = rng.normal(size=40), rng.integers(5, 14, 40)
    away = values - values.mean()
    pairs = sum(away[i] * away[j] for i in range(40) for j in range(40) if person[i] == person[j])
    people = len(set(person))
    assert clustered_variance(values, person) == (pytest.approx(people / (people - 1) * pairs / 40**2), people - 1)
    alone = clustered_variance(values, np.arange(40))
    assert alone == (pytest.approx(values.var(ddof=1) / 40), 39)  # the variance of a mean of independent values


def test_compare_of_a_shared_test_set_adds_the_variance_of_its_persons() -> None:
    rng = np.random.default_rng(1)
    person = rng.integers(0, 12, 50)
    draws = [draw(rng.normal(0.1, 0.2, 50), person) for _ in range(4)]
    found = compare(draws, shared=True)
    over_draws, over_people = np.var(found.by_draw, ddof=1) / 4, clustered_variance(
        np.mean([each.difference for each in draws], axis=0), person
    )[0]  # fmt: skip
    assert found.error**2 == pytest.approx(over_draws + over_people)
    freedom = (over_draws + over_people) ** 2 / (over_draws**2 / 3 + over_people**2 / 11)
    assert found.p == pytest.approx(2 * t.sf(found.mean / found.error, freedom))
    apart = compare(draws, shared=False)
    assert apart.error**2 == pytest.approx(over_draws) and apart.mean == found.mean


def test_compare_of_one_draw_speaks_of_other_persons_only() -> None:
    rng = np.random.default_rng(2)
    person = np.arange(60) // 3
    found = compare([draw(rng.normal(0.5, 0.1, 60), person)], shared=False)
    variance, freedom = clustered_variance(found.by_draw[0] + np.zeros(60), person)
    assert (variance, freedom) == (pytest.approx(0), 19)
    assert found.p < 1e-9 and not found.sure  # however clear: another draw may differ
    nothing = compare([draw(np.ones(5), np.zeros(5, int))], shared=True)
    assert np.isnan([nothing.error, nothing.interval.low]).all() and nothing.p == 1 and not nothing.sure


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("count", [2, 6])
def test_interval_covers_the_true_difference_of_other_draws_and_persons(shared: bool, count: int) -> None:
    """400 experiments whose draws (sd 2 points), persons (sd 10) and queries (sd 20) vary around +1 point."""
    rng = np.random.default_rng(10 * count + shared)
    covered, person = [], np.arange(100) // 4
    for _ in range(400):
        of_people = rng.normal(0, 0.1, (1 if shared else count, 25)).repeat(4, axis=1)
        values = 0.01 + of_people + rng.normal(0, 0.02, (count, 1)) + rng.normal(0, 0.2, (count, 100))
        interval = compare([draw(each, person) for each in values], shared=shared).interval
        covered.append(interval.low <= 0.01 <= interval.high)
    assert np.mean(covered) >= 0.925  # 2 standard errors of 400 around 0.95 would be 0.928
    assert shared or np.mean(covered) <= 0.975  # the variances added count the noise of queries twice, a little


def test_equal_runs_do_not_differ() -> None:
    same = compare([draw(np.zeros(20)), draw(np.zeros(20))], shared=True)
    assert (same.interval.mean, same.interval.low, same.interval.high) == (0, 0, 0)
    assert same.p == 1 and same.by_draw == (0, 0) and not same.sure and same.smallest_effect == 0


def test_draws_that_disagree_decide_nothing() -> None:
    apart = compare([draw(np.full(40, each)) for each in (0.05, -0.05)], shared=False)
    assert apart.mean == pytest.approx(0) and apart.within(0.01) > 0.4
    assert apart.interval.high == pytest.approx(0.05 * t.ppf(0.975, 1))


@pytest.mark.parametrize("freedom", [1, 7, 40.5])
def test_smallest_effect_is_found_four_times_of_five(freedom: float) -> None:
    found = Comparison((0.0, 0.0), 0.03, freedom)
    power = nct.sf(t.ppf(0.975, freedom), freedom, found.smallest_effect / 0.03)
    assert power == pytest.approx(0.8, abs=1e-6)


def test_holm_equals_its_definition() -> None:
    """Rejecting, from the least p on, while p <= level / (claims not yet rejected), at every level."""
    p = [0.03, 0.001, 0.04, 0.2, 0.01, 0.01]
    for level in (0.005, 0.01, 0.02, 0.05, 0.06, 0.13, 0.5):
        rejected: set[int] = set()
        for i in sorted(range(len(p)), key=p.__getitem__):
            if p[i] > level / (len(p) - len(rejected)):
                break
            rejected.add(i)
        assert {i for i, value in enumerate(holm(p)) if value <= level} == rejected
    assert holm([]) == [] and holm([0.7, 0.8]) == [1, 1]


def test_bins_average_all_items_once():
    assert binned_means(np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 2).tolist() == [2.0, 7.0]
    assert binned_means(np.array([1.0, 3.0]), 48).tolist() == [1.0, 3.0]


def test_runs_of_different_queries_are_rejected():
    with pytest.raises(ValueError, match="expected three arrays"):
        Draw(np.ones(3), np.ones(4), np.ones(3, int))
    with pytest.raises(ValueError, match="same persons in the same order"):
        compare([draw(np.ones(3)), draw(np.ones(3), np.zeros(3, int))], shared=True)
    with pytest.raises(ValueError, match="no draws"):
        compare([], shared=False)
    with pytest.raises(ValueError, match="expected one per query"):
        mean_interval(np.empty(0), np.random.default_rng(0))


def test_spread_over_draws():
    assert mean_and_deviation(np.array([1.0, 2.0, 3.0])) == (2.0, 1.0)
    mean, deviation = mean_and_deviation(np.array([4.0]))
    assert mean == 4 and np.isnan(deviation)
    with pytest.raises(ValueError, match="no values"):
        mean_and_deviation(np.empty(0))
