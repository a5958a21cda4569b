"""Bands of similarity: by hand on a circle, and nothing where nothing is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from reid_done_right.evaluation import likeness
from reid_done_right.evaluation.likeness import bands, nobody


def at(degrees: NDArray[np.float64]) -> NDArray[np.float32]:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


PERSON = np.arange(36) // 2
CIRCLE = at(PERSON * 20.0 + 4 * (np.arange(36) % 2))
"""18 people, 20 degrees apart, each with two photos 4 degrees apart."""


@pytest.mark.parametrize("rows", [7, 8192])
def test_bands_lie_between_the_person_and_the_nearest_other(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "ROWS", rows)
    found = bands(CIRCLE, PERSON)
    assert found is not None and found.photos == 36
    assert found.another == pytest.approx(np.cos(np.deg2rad(4)), abs=1e-6)
    assert found.same == found.another, "no other person is as similar as one's own"
    assert [found.of(found.another + step) for step in (1e-3, -1e-3)] == ["the same", "another"]


def test_bands_of_people_who_look_alike_have_a_middle() -> None:
    person = np.arange(36) % 18  # the neighbour at 4 degrees is another person; the own photo is opposite
    found = bands(at(np.arange(36) * 10.0), person)
    assert found is not None and found.another == pytest.approx(-1, abs=1e-6)
    assert found.same == pytest.approx(np.cos(np.deg2rad(10)), abs=1e-6)
    assert found.of(0.5) == "perhaps"


def test_bands_with_cameras_are_of_other_cameras_only() -> None:
    assert bands(CIRCLE, PERSON, np.ones(36, np.int64)) is None
    assert bands(CIRCLE, PERSON, np.arange(36) % 2) == bands(CIRCLE, PERSON)


def test_bands_leave_out_photos_of_unknown_people() -> None:
    doubled, person = np.concatenate([CIRCLE, CIRCLE]), np.concatenate([PERSON, np.full(36, -1)])
    assert bands(doubled, person) == bands(CIRCLE, PERSON)
    assert bands(CIRCLE, np.full(36, -1)) is None


def test_bands_of_few_or_of_one_person_are_none() -> None:
    assert bands(CIRCLE[:18], PERSON[:18]) is None
    assert bands(CIRCLE, np.zeros(36, np.int64)) is None


def test_stranger_is_as_similar_as_another_person() -> None:
    """Every photo's nearest other person is 16 or 20 degrees away: half of the strangers exceed the one at 20."""
    one, all_but_none = (nobody(CIRCLE, PERSON, None, rate) for rate in (0.2, 0.9))
    assert one == pytest.approx(np.cos(np.deg2rad(16)), abs=1e-6)
    assert all_but_none is not None and all_but_none <= one
    alike = at(np.arange(36) * 10.0)
    others = np.sort((alike @ alike.T - 4 * (np.arange(36)[:, None] % 18 == np.arange(36) % 18)).max(axis=1))[::-1]
    found = nobody(alike, np.arange(36) % 18, None, 0.25)
    assert found == pytest.approx(others[9], abs=1e-6) and (others > found + 1e-6).mean() <= 0.25


def test_stranger_needs_a_photo_for_each_fraction() -> None:
    assert nobody(CIRCLE, PERSON, None, 1 / 36) is not None
    assert nobody(CIRCLE, PERSON, None, 0.02) is None and nobody(CIRCLE[:18], PERSON[:18], None, 0.5) is None
