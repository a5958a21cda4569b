import numpy as np
import pytest

from oracles import labels
from reid_done_right.evaluation import pooling
from reid_done_right.evaluation.embedded import Embedded


def test_multi_query_pools_same_person_and_camera_after_normalising():
    boxes = np.array([[2, 0], [0, 4], [5, 5], [0, 1]], np.float32)
    of = labels((7, 1), (7, 1), (7, 2), (8, 1))  # the query is person 7 in camera 1: boxes 0 and 1
    half = np.sqrt(0.5)
    assert pooling.pool_queries(Embedded(boxes, of, normalise=True), labels((7, 1), (8, 1))) == pytest.approx(
        np.array([[half, half], [0, 1]])
    )
    negative = np.array([[1, 0], [-0.6, 0.8]], np.float32)
    largest = pooling.pool_queries(Embedded(negative, labels((7, 1), (7, 1))), labels((7, 1)), pool="max")
    assert largest == pytest.approx(np.array([[1, 0.8]]) / np.hypot(1, 0.8))


def test_query_without_a_box_is_named():
    with pytest.raises(ValueError, match="query row 1 has no box to pool: none of person 8 in camera 2"):
        pooling.pool_queries(Embedded(np.eye(1, 2), labels((7, 1))), labels((7, 1), (8, 2)))


def test_tracklets_are_pooled_in_ascending_id_with_or_without_frame_norms():
    frames = np.array([[0, 3], [4, 0], [0, 1]], np.float32)
    tracklet = np.array([5, 2, 2])
    half = np.sqrt(0.5)
    pooled, first = pooling.pool_tracklets(frames, tracklet)
    assert pooled == pytest.approx(np.array([[half, half], [0, 1]]))
    assert first.tolist() == [1, 0]
    raw, _ = pooling.pool_tracklets(frames, tracklet, normalise_frames=False)
    assert raw[0] == pytest.approx(np.array([4, 1]) / np.sqrt(17))
    official, _ = pooling.pool_tracklets(frames, tracklet, pool="max", normalise_frames=False)
    assert official[0] == pytest.approx(np.array([4, 1]) / np.sqrt(17))


def test_pooling_in_blocks_equals_pooling_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    frames, tracklet = rng.standard_normal((50, 4)).astype(np.float32), rng.integers(1, 9, 50)
    at_once, _ = pooling.pool_tracklets(frames, tracklet)
    monkeypatch.setattr(pooling, "_ROWS", 3)
    assert pooling.pool_tracklets(frames, tracklet)[0] == pytest.approx(at_once, abs=1e-6)
    by_hand = [frames[tracklet == t] / np.linalg.norm(frames[tracklet == t], axis=1)[:, None] for t in range(1, 9)]
    means = np.stack([each.mean(axis=0) for each in by_hand])
    assert at_once == pytest.approx(means / np.linalg.norm(means, axis=1)[:, None], abs=1e-6)
