"""Uncertainty of scores: intervals over queries, differences of two runs, spread over seeds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """Mean and sample standard deviation (n - 1) over seeds; the deviation of a single run is NaN."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("no values to average")
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


@dataclass(frozen=True)
class Comparison:
    """The difference of two runs on the same queries, over the seeds that both have."""

    interval: Interval
    """Of the mean difference, over queries."""
    p: float
    """Of the same or a larger difference, if every query were as likely to differ the other way."""
    by_seed: tuple[float, ...]
    """The mean difference of each seed."""

    @property
    def sure(self) -> bool:
        """Whether neither the choice of queries (at 5 %, by interval and p) nor the seed explains the sign."""
        agree = all(value > 0 for value in self.by_seed) or all(value < 0 for value in self.by_seed)
        return agree and self.interval.low * self.interval.high > 0 and self.p < 0.05


def compare(
    ours: NDArray[np.floating],
    theirs: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    flips: int = 9999,
) -> Comparison:
    """Compare two (S, Q) tables, one row per seed, a column a query (or (Q,) of one seed), paired in both directions.

    Interval and p-value are over queries, of the mean of the seeds: they say what other queries could have shown, not
    what other seeds could; a handful of seeds says too little of that, so each seed's difference stands beside them.
    Queries of one person are not independent, which makes intervals somewhat too narrow.
    Raises ValueError if the shapes differ.
    """
    ours, theirs = np.atleast_2d(ours), np.atleast_2d(theirs)
    if ours.shape != theirs.shape or ours.ndim != 2:
        raise ValueError(f"{ours.shape} values against {theirs.shape}: expected two tables (S, Q) of one shape")
    difference = np.subtract(ours, theirs, dtype=np.float64)
    return Comparison(
        mean_interval(difference.mean(0), rng, level=level, resamples=resamples),
        sign_flip_p_value(difference.mean(0), rng, flips=flips),
        tuple(difference.mean(1).tolist()),
    )


def sign_flip_p_value(differences: NDArray[np.floating], rng: np.random.Generator, *, flips: int = 9999) -> float:
    """Two-sided p-value of the mean of paired differences (Q,) by randomly flipping their signs; at least 1/(flips+1).

    The identity counts as one of the flips (Phipson and Smyth, 2010), so that no p-value is 0.
    """
    differences = np.asarray(differences, dtype=np.float64)
    observed = abs(differences.sum()) * (1 - 1e-12)
    extreme = 0
    for first in range(0, flips, 1000):
        signs = rng.integers(0, 2, (min(1000, flips - first), len(differences)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (1 + extreme) / (1 + flips)


def binned_means(series: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Average a series (U,) over at most `bins` runs of consecutive items, as equal in length as can be."""
    edges = np.linspace(0, len(series), min(bins, len(series)) + 1).astype(np.int64)
    return np.add.reduceat(series, edges[:-1]) / np.diff(edges)
