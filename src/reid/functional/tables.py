"""Number mathematics of the tables: mean and spread over seeds, differences paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Give the mean of one value per seed and how far the seeds lie apart.

    The spread is the sample standard deviation (n - 1) for three values or more, half the range for two, where
    a standard deviation would say no more, and None for one. Raises ValueError without any value.
    """
    if not len(values):
        raise ValueError("no values to average; every run is missing or collapsed")
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, None
    if len(values) == 2:
        return mean, abs(values[0] - values[1]) / 2
    return mean, float(np.std(values, ddof=1))


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> dict[int, float]:
    """Give value - reference for each seed that both have, in the order of `values`.

    Runs of one seed share their first weights and their images, so that the spread of the differences is the noise
    of an ablation; the spread of the two means is not.
    """
    return {seed: values[seed] - reference[seed] for seed in values if seed in reference}


def binned_means(series: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Average a series (U,) over at most `bins` runs of consecutive items, as equal in length as can be."""
    edges = np.linspace(0, len(series), min(bins, len(series)) + 1).astype(np.int64)
    return np.add.reduceat(series, edges[:-1]) / np.diff(edges)
