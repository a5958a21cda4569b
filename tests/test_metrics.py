import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from reid_done_right.evaluation.metrics import average_precision, cmc, inverse_negative_penalty


@pytest.mark.parametrize(
    ("ranks", "trapezoid", "step"),
    [
        ([1], 1.0, 1.0),
        ([2], 1 / 4, 1 / 2),  # (0/1 + 1/2) / 2
        ([1, 2, 3], 1.0, 1.0),  # nothing before the last match
        ([1, 3], (1 + (1 / 2 + 2 / 3) / 2) / 2, (1 + 2 / 3) / 2),
        ([4, 5], ((0 + 1 / 4) / 2 + (1 / 4 + 2 / 5) / 2) / 2, (1 / 4 + 2 / 5) / 2),
    ],
)
def test_average_precision_by_hand(ranks, trapezoid, step):
    assert average_precision(np.array(ranks), rule="trapezoid") == pytest.approx([trapezoid])
    assert average_precision(np.array(ranks), rule="step") == pytest.approx([step])


def test_ragged_queries_and_one_without_match():
    ranks, pointers = np.array([1, 3, 2]), np.array([0, 2, 2, 3])
    assert average_precision(ranks, pointers, rule="step") == pytest.approx([5 / 6, 0, 1 / 2])


def test_relevant_items_never_retrieved_count_as_missed():
    """Two of four found: half of the AP over those found, which is AP x recall."""
    found = average_precision(np.array([1, 3]), rule="step")
    assert average_precision(np.array([1, 3]), relevant=np.array([4]), rule="step") == pytest.approx(found / 2)


def test_unknown_rule_is_rejected():
    with pytest.raises(ValueError, match="'area' is unknown: use one of trapezoid, step"):
        average_precision(np.array([1]), rule="area")


def test_cmc_counts_queries_and_keeps_those_without_match():
    assert cmc(np.array([1, 5, 0, 6]), [1, 5, 10]).tolist() == [1 / 4, 2 / 4, 3 / 4]


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_equals_the_walk_of_the_list_and_step_is_never_below_trapezoid(hits):
    ranks = np.flatnonzero(hits) + 1
    both = {}
    for rule in ("trapezoid", "step"):
        both[rule] = average_precision(ranks, rule=rule)[0]
        assert both[rule] == pytest.approx(oracles.average_precision_of_list(hits, sum(hits), rule))
    assert both["step"] >= both["trapezoid"] - 1e-12


def test_inverse_negative_penalty_by_hand():
    """Two of two by rank 5, one at rank 1, none to find, and one of two found."""
    ranks, pointers = np.array([2, 5, 1, 3]), np.array([0, 2, 3, 3, 4])
    assert inverse_negative_penalty(ranks, pointers, np.array([2, 1, 0, 2])).tolist() == [2 / 5, 1, 0, 0]


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_inverse_negative_penalty_is_precision_at_the_last_match(hits):
    last = max(rank for rank, hit in enumerate(hits, 1) if hit)
    ranks = np.flatnonzero(hits) + 1
    found = inverse_negative_penalty(ranks, np.array([0, len(ranks)]), np.array([len(ranks)]))
    assert found == pytest.approx([sum(hits[:last]) / last])
