"""How sure a score is: confidence over queries, difference of two runs, spread over seeds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap


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

    One query says nothing about others: its interval is NaN. Raises ValueError for no value at all, or one that is not
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
    result = bootstrap(
        (values,), np.mean, n_resamples=resamples, batch=100, confidence_level=level, method="percentile", rng=rng
    )
    return Interval(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def paired_difference(
    ours: NDArray[np.floating],
    theirs: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Mean and interval of `ours` minus `theirs`, (Q,) values of the same queries in the same order.

    An interval that excludes 0 is a difference that the choice of queries does not explain.
    """
    if np.shape(ours) != np.shape(theirs):
        raise ValueError(
            f"{np.shape(ours)} values against {np.shape(theirs)}: the two runs must score the same queries"
        )
    return mean_interval(np.subtract(ours, theirs, dtype=np.float64), rng, level=level, resamples=resamples)


def mean_and_deviation(values: NDArray[np.floating]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1) over seeds; the deviation of a single run is NaN."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("no values to average")
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")
