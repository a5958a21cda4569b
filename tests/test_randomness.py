"""Random numbers as functions of their purpose: uniform, independent, reproducible in any order."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from reid_done_right.images.randomness import bits, noise, uniform

MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """Return the first output of Vigna's splitmix64.c from a state, in Python's integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def fmix32(h: int) -> int:
    """MurmurHash3's finaliser, in Python's integers."""
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & (2**32 - 1)
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & (2**32 - 1)
    return h ^ (h >> 16)


def test_one_word_is_splitmix64() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the published first output of seed 0
    assert bits(0).tolist() == [0xE220A8397B1DCDAF]


def test_words_are_chained() -> None:
    gamma = 0x9E3779B97F4A7C15
    state = 0
    for word in (3, 2**63 + 5, 7):
        state = splitmix64(((((state + gamma) & MASK) ^ word) - gamma) & MASK)
    assert bits(3, 2**63 + 5, 7).tolist() == [state]


def test_pixel_by_hand() -> None:
    key, row, column = 0xFEDCBA9876543210, 300, 77
    place = (row * 2**16 + column) * 0x9E3779B9
    expected = fmix32(fmix32((place + 0x76543210) & (2**32 - 1)) ^ 0xFEDCBA98)
    pixel = noise(torch.tensor([key - 2**64]), torch.tensor([row]), torch.tensor([column]))
    assert pixel.tolist() == [[expected & 255, expected >> 8 & 255, expected >> 16 & 255]]


def draws() -> NDArray[np.float64]:
    """(updates, images, k)."""
    update, image, k = np.ogrid[:40, :50, :10]
    return uniform(5, update, image, k)


def test_draws_are_uniform() -> None:
    everything = draws()
    assert everything.shape == (40, 50, 10)
    assert everything.min() >= 0 and everything.max() < 1
    assert len(np.unique(everything)) == everything.size
    assert kstest(everything.ravel(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_know_nothing_of_each_other(axis: int) -> None:
    everything = np.moveaxis(draws(), axis, 0)
    here, there = everything[:-1].ravel(), everything[1:].ravel()
    assert abs(np.corrcoef(here, there)[0, 1]) < 4 / np.sqrt(len(here))
    assert kstest((here - there) % 1, "uniform").pvalue > 0.01
    cells = np.histogram2d(here, there, 8, [[0, 1], [0, 1]])[0]
    assert chisquare(cells.ravel()).pvalue > 0.01


def test_neighbouring_seeds_share_nothing() -> None:
    assert abs(np.corrcoef(*(uniform(seed, 0, np.arange(10_000), 0) for seed in (0, 1)))[0, 1]) < 0.04


def test_draw_is_the_same_in_any_company() -> None:
    image = np.random.default_rng(0).permutation(500)
    together = uniform(1, 2, image, 3)
    assert together.tolist() == [uniform(1, 2, int(one), 3).item() for one in image]
    assert (uniform(1, 2, image[::-1], 3) == together[::-1]).all()


def test_order_of_words_matters() -> None:
    assert bits(1, 2) != bits(2, 1)
    assert bits(1) != bits(1, 0)


def test_negative_word_is_an_error() -> None:
    for word in (-1, np.array([3, -1])):
        with pytest.raises(ValueError, match="word 1 of a random number is -1; words count from 0"):
            bits(0, word)


def grid(keys: int, height: int, width: int) -> torch.Tensor:
    """Return the noise (keys, height, width, 3) of whole images."""
    key = torch.from_numpy(bits(0, np.arange(keys)).view(np.int64))
    image, row, column = (at.ravel() for at in torch.meshgrid(*map(torch.arange, (keys, height, width)), indexing="ij"))
    return noise(key[image], row, column).view(keys, height, width, 3)


def test_noise_is_uniform_and_white() -> None:
    colours = grid(4, 100, 80).numpy().astype(float)
    assert chisquare(np.bincount(colours.astype(int).ravel(), minlength=256)).pvalue > 0.01
    for axis in range(4):
        here, there = (np.take(colours, range(s, colours.shape[axis] - 1 + s), axis).ravel() for s in (0, 1))
        assert abs(np.corrcoef(here, there)[0, 1]) < 4 / np.sqrt(len(here))


def test_pixel_depends_on_its_image_row_and_column_alone() -> None:
    key = torch.from_numpy(bits(0, np.arange(4)).view(np.int64))
    some = noise(key[[2, 0]], torch.tensor([5, 3]), torch.tensor([7, 7]))
    whole = grid(4, 10, 10)
    assert torch.equal(some, torch.stack([whole[2, 5, 7], whole[0, 3, 7]]))
