"""Selection of queries and people for a report, and position of heat maps."""

import numpy as np
import pytest

from reid_done_right.models.saliency import enlarge
from reid_done_right.reporting.showing import extremes, most_seen, spread


def test_extremes_are_of_different_people_and_have_something_to_find():
    precision = np.array([1.0, 1.0, 1.0, 0.2, 0.0, 0.1])
    relevant, person = np.array([2, 5, 3, 1, 0, 4]), np.array([1, 1, 2, 3, 4, 3])
    assert extremes(precision, relevant, person, 2, best=True) == [1, 2]
    assert extremes(precision, relevant, person, 2, best=False) == [5, 1]
    assert extremes(precision, relevant, person, 9, best=False) == [5, 1, 2]


def test_spread_goes_from_the_highest_to_the_lowest():
    precision = np.array([0.1, 0.9, 0.5, 0.8, 0.3])
    allowed = np.array([True, True, True, True, False])
    assert spread(precision, np.array([1, 2, 3, 2, 4]), allowed, 3) == [1, 2, 0]
    assert spread(precision, np.array([1, 2, 3, 2, 4]), allowed, 2) == [1, 0]


def test_most_seen_person_comes_first_one_image_a_camera():
    person = np.array([0, 7, 7, 7, 5, 5, 5, 5, 9])
    camera = np.array([1, 2, 1, 1, 1, 1, 1, 2, 3])
    assert most_seen(person, camera, 2, 3) == [[4, 7, 5], [2, 1, 3]]


def test_cells_are_drawn_where_they_look():
    heat, looks = np.zeros((4, 2), np.float32), (np.array([12.0, 24, 30, 50]), np.array([10.0, 20]))
    heat[1, 0] = 1
    large = enlarge(heat, looks, (9.0, 4.0), (64, 32), (64, 32))
    assert large.shape == (64, 32)
    assert np.argwhere(large == 1).tolist() == [[24, 10]] and large.max() == 1
    assert large[18, 10] == 0.5 and large[27, 10] == pytest.approx(0.5) and large[24, 15] == 0.5
    assert large[24, 6] == 0.5 and large[24, :3].tolist() == [0, 0, 0]  # beyond the outermost cell
    doubled = enlarge(heat, looks, (9.0, 4.0), (64, 32), (128, 64))
    assert doubled[48:50, 20:22].mean() == pytest.approx(large[24, 10], abs=0.1)
