"""Uncertainty of scores: intervals over queries, differences of two runs over draws, spread over draws.

A draw is everything that chance decides, decided once more: a training seed and, in a rendered experiment, the worlds
and the first weights too. Comparisons need SciPy, intervals of single runs do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(
    values: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Bootstrap confidence interval (percentile) of the mean of (Q,) values, such as the AP of each query.

    A single query has no interval (NaN). Raises ValueError for no value at all, or one that is not
    finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values are {values.shape}, expected one per query (Q,)")
    if not np.isfinite(values).all():
        raise ValueError(f"value of query {int(np.argmin(np.isfinite(values)))} is not finite")
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    # as scipy.stats.bootstrap, to the last bit, without the second that importing it takes
    means = np.concatenate(
        [
            values[rng.integers(0, len(values), (min(100, resamples - first), len(values)))].mean(1)
            for first in range(0, resamples, 100)
        ]
    )
    means.sort()
    tail = (1 - level) / 2
    return Interval(mean, _quantile(means, tail), _quantile(means, 1 - tail))


def _quantile(ascending: NDArray[np.float64], share: float) -> float:
    """Return the value below which a share of sorted values (N,) lies, linear between two of them."""
    place = share * len(ascending) + (1 - share)  # from 1
    above, weight = min(int(place), len(ascending) - 1), place % 1
    return float((1 - weight) * ascending[int(place) - 1] + weight * ascending[above])


def mean_and_deviation(values: NDArray[np.floating]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1) over draws; the deviation of a single run is NaN."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("no values to average")
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


@dataclass(frozen=True)
class Draw:
    """Two runs scored on the same queries. Raises ValueError if the three arrays differ in length."""

    ours: NDArray[np.floating]
    """(Q,) a value of each query."""
    theirs: NDArray[np.floating]
    """(Q,)"""
    person: NDArray[np.integer]
    """(Q,) whom each query shows."""

    def __post_init__(self) -> None:
        """Check the shapes."""
        shapes = [np.shape(each) for each in (self.ours, self.theirs, self.person)]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
            raise ValueError(f"ours, theirs and person are {shapes}: expected three arrays (Q,) of one length")

    @property
    def difference(self) -> NDArray[np.float64]:
        """(Q,) ours less theirs."""
        return np.asarray(self.ours, np.float64) - np.asarray(self.theirs, np.float64)


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two runs over draws, and how far it may be from that of other draws and persons."""

    by_draw: tuple[float, ...]
    """The mean difference over the queries of each draw."""
    error: float
    """Standard error of their mean; NaN if one draw shows one person only."""
    freedom: float
    """Degrees of freedom of the error."""
    level: float = 0.95
    """Of the interval."""

    @property
    def mean(self) -> float:
        """Of the draws, each weighing the same."""
        return float(np.mean(self.by_draw))

    @property
    def interval(self) -> Interval:
        """By Student's t."""
        from scipy.special import stdtrit

        half = float(stdtrit(self.freedom, (1 + self.level) / 2)) * self.error
        return Interval(self.mean, self.mean - half, self.mean + half)

    @property
    def p(self) -> float:
        """Of a mean as far from 0 as this, or farther, if the true one is 0: two-sided."""
        return min(1.0, 2 * min(self.below(0), self.above(0)))

    def below(self, bound: float) -> float:
        """Return the one-sided p-value against a true difference of `bound` or more."""
        return _upper_tail((bound - self.mean), self.error, self.freedom)

    def above(self, bound: float) -> float:
        """Return the one-sided p-value against a true difference of `bound` or less."""
        return _upper_tail((self.mean - bound), self.error, self.freedom)

    def within(self, bound: float) -> float:
        """Return the p-value against a true difference outside ± bound: the greater of two one-sided tests."""
        return max(self.below(bound), self.above(-bound))

    def outside(self, bound: float) -> float:
        """Return the p-value against a true difference within ± bound."""
        return min(1.0, 2 * min(self.above(bound), self.below(-bound)))

    @property
    def sure(self) -> bool:
        """Whether several draws show the sign (p below 0.05)."""
        return len(self.by_draw) > 1 and self.p < ALPHA

    @property
    def smallest_effect(self) -> float:
        """The true difference that this test finds with a probability of 80 %, were the error exactly this."""
        from scipy.special import nctdtrinc, stdtrit

        critical = stdtrit(self.freedom, 1 - ALPHA / 2)
        return float(nctdtrinc(self.freedom, 1 - POWER, critical)) * self.error


def _upper_tail(distance: float, error: float, freedom: float) -> float:
    from scipy.special import stdtr

    if error == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stdtr(freedom, -distance / error))


def compare(draws: Sequence[Draw], *, shared: bool, level: float = 0.95) -> Comparison:
    """Compare two runs over several draws.

    The unit is the draw: the error of the mean over n draws is s / sqrt(n), with n - 1 degrees of freedom. If the
    draws share their test set, its persons were drawn only once: the sampling variance of the difference averaged over
    draws, clustered by person, is added (degrees of freedom by Satterthwaite). One draw leaves only that variance: the
    interval then speaks of other persons, not of other draws.

    Raises ValueError without a draw, and for draws that share queries but differ in number or persons.
    """
    if not draws:
        raise ValueError("no draws to compare")
    by_draw = tuple(float(draw.difference.mean()) for draw in draws)
    parts = []
    if len(draws) > 1:
        parts.append((float(np.var(by_draw, ddof=1)) / len(draws), len(draws) - 1))
    if shared or len(draws) == 1:
        person = draws[0].person
        if any(not np.array_equal(draw.person, person) for draw in draws):
            raise ValueError("draws that share their test set have the same persons in the same order")
        parts.append(clustered_variance(np.mean([draw.difference for draw in draws], axis=0), person))
    variance = sum(part for part, _ in parts)
    weights = sum(part**2 / freedom for part, freedom in parts if freedom)
    freedom = variance**2 / weights if weights else min(freedom for _, freedom in parts) or 1
    return Comparison(by_draw, float(np.sqrt(variance)), float(freedom), level)


def clustered_variance(values: NDArray[np.float64], cluster: NDArray[np.integer]) -> tuple[float, int]:
    """Return the variance of the mean of (Q,) values whose (Q,) clusters were drawn, and its degrees of freedom.

    A single cluster leaves it unknown (NaN, 0).
    """
    _, group = np.unique(cluster, return_inverse=True)
    totals = np.bincount(group, values - values.mean())
    clusters = len(totals)
    if clusters == 1:
        return float("nan"), 0
    return clusters / (clusters - 1) * float((totals**2).sum()) / len(values) ** 2, clusters - 1


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values of a family of claims, adjusted by Holm's method: below α where α holds for the family."""
    adjusted = np.empty(len(p))
    greatest = 0.0
    for place, i in enumerate(np.argsort(p, kind="stable")):
        greatest = adjusted[i] = max(greatest, min(1.0, (len(p) - place) * p[i]))
    return adjusted.tolist()


def binned_means(series: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Average a series (U,) over at most `bins` runs of consecutive items, as equal in length as can be."""
    edges = np.linspace(0, len(series), min(bins, len(series)) + 1).astype(np.int64)
    return np.add.reduceat(series, edges[:-1]) / np.diff(edges)
