import numpy as np
import pytest

from reid_done_right.evaluation import detections


def test_overlap_and_its_threshold():
    box = np.array([0, 0, 10, 20])
    others = np.array([[0, 0, 10, 20], [5, 0, 10, 20], [10, 0, 10, 20], [2, 4, 5, 10]])
    assert detections.overlap(others, box) == pytest.approx([1, 100 / 300, 0, 50 / 200])
    assert detections.overlap_threshold(np.array([0, 0, 100, 200])) == 0.5
    assert detections.overlap_threshold(box) == pytest.approx(200 / (20 * 30))  # small boxes need less


def test_most_similar_detection_is_the_hit_not_the_best_placed():
    boxes = np.array([[0, 0, 100, 200], [0, 20, 100, 200], [300, 0, 100, 200], [0, 0, 100, 200]])
    image = np.array([1, 1, 1, 2])
    similarity = np.array([0.5, 0.7, 0.9, 0.8])
    # image 1: detections 0 and 1 overlap the person, 1 is more similar; image 2 shows nobody; image 3 has no detection
    hits = detections.detection_hits(
        boxes, image, similarity, np.array([[0, 0, 100, 200], [0, 0, 50, 50]]), np.array([1, 3])
    )
    assert hits.tolist() == [False, True, False, False]
