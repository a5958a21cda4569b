"""Average precision and CMC from the ranks of the relevant items, junk already deleted.

Ranks are 1-based. A ragged table of them is stored flat: the ranks of query i, ascending, are
``ranks[pointers[i]:pointers[i + 1]]``.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

ApRule = Literal["trapezoid", "step"]


def average_precision(
    ranks: NDArray[np.int64],
    pointers: NDArray[np.int64] | None = None,
    relevant: NDArray[np.int64] | None = None,
    rule: ApRule = "trapezoid",
) -> NDArray[np.float64]:
    """Average precision of each query, (Q,) in [0, 1]; 0 for a query without a relevant item.

    Let r_1 < ... < r_n be the ranks of the relevant items and p_k = k / r_k the precision at the k-th.

    - ``trapezoid``: (1/n) sum_k (q_k + p_k) / 2, q_k = (k - 1) / (r_k - 1) the precision one rank earlier,
      1 if r_k = 1. The area under the polyline of precision over recall: the official MATLAB code of
      Market-1501, DukeMTMC-reID and MARS (`compute_AP.m`), scikit-learn <= 0.18.
    - ``step``: (1/n) sum_k p_k. Torchreid, fast-reid, scikit-learn >= 0.19. Never below the trapezoid.

    Args:
        ranks: (P,) ranks of the relevant items that were retrieved, ascending within a query.
        pointers: (Q + 1,) where each query's ranks begin and end; one query if absent.
        relevant: (Q,) the n of each query where it exceeds the number of its ranks, that is where relevant
            items were never retrieved; they add nothing to the sum.
        rule: ``trapezoid`` or ``step``.
    """
    if rule not in get_args(ApRule):
        raise ValueError(f"AP rule {rule!r} is unknown: use one of {', '.join(get_args(ApRule))}")
    ranks = np.asarray(ranks, dtype=np.int64)
    pointers = np.array([0, len(ranks)]) if pointers is None else np.asarray(pointers)
    found = np.diff(pointers)
    relevant = found if relevant is None else np.asarray(relevant)
    query = np.repeat(np.arange(len(found)), found)
    k = np.arange(1, len(ranks) + 1) - pointers[query]
    precision = k / ranks
    if rule == "trapezoid":
        before = np.where(ranks > 1, (k - 1) / np.maximum(ranks - 1, 1), 1.0)
        precision = (before + precision) / 2
    return np.bincount(query, weights=precision, minlength=len(found)) / np.maximum(relevant, 1)


def cmc(first_hit_rank: NDArray[np.int64], at: Sequence[int] | int) -> NDArray[Any]:
    """Fraction of the queries whose first hit is at rank m or better, for each m in `at`.

    `first_hit_rank` is (Q,), 0 for a query without a hit, which stays in the denominator.
    """
    first = np.asarray(first_hit_rank)
    return np.array([np.mean((first > 0) & (first <= m)) for m in np.atleast_1d(at)])


def inverse_negative_penalty(
    ranks: NDArray[np.int64], pointers: NDArray[np.int64], relevant: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Inverse negative penalty of each query, (Q,) in [0, 1]: n / r_n, how soon the last relevant item is found.

    Its mean is mINP (Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, TPAMI 2021).
    Arguments are as for `average_precision`. 0 for a query without a relevant item, and if one was never retrieved.
    """
    found = np.diff(pointers)
    whole = (found == relevant) & (found > 0)
    penalty = np.zeros(len(found))
    penalty[whole] = found[whole] / ranks[pointers[1:][whole] - 1]
    return penalty
