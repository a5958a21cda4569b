"""Random numbers as a pure function of their purpose (seed, update, image, ...) instead of a generator's state.

What an image gets does not depend on where it is in a batch, on what else is drawn, or on how many workers draw.
Integers only, so every device gives the same bits.

Sources of the constants: `_mix64` and `_GAMMA64` are SplitMix64's (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014; Vigna's splitmix64.c), `_mix32` is the 32-bit finaliser of Austin Appleby's MurmurHash3
and `_GAMMA32` the golden ratio of 32 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GAMMA64 = np.uint64(0x9E3779B97F4A7C15)
_GAMMA32 = 0x9E3779B9 - 2**32


def bits(*words: int | NDArray[Any]) -> NDArray[np.uint64]:
    """Hash words, integers from 0 or arrays of them that broadcast, to 64 random bits each.

    The order of words matters: bits(1, 2) and bits(2, 1) are unrelated. Raises ValueError for a negative word.
    """
    state = np.zeros(1, np.uint64)
    for number, word in enumerate(words):
        if np.any(np.less(word, 0)):
            raise ValueError(f"word {number} of a random number is {np.min(word)}; words count from 0")
        state = _mix64((state + _GAMMA64) ^ np.asarray(word, np.uint64))
    return state


def uniform(*words: int | NDArray[Any]) -> NDArray[np.float64]:
    """Return one number uniform on [0, 1) for each combination of words, as `bits` does; 53 random bits."""
    return np.asarray((bits(*words) >> np.uint64(11)) * 2.0**-53)


def noise(key: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return uniformly random colours (n, 3) uint8 of n pixels.

    key (n,) int64, the 64 random bits of a pixel's image; row, column (n,) int64, where it is there, below 2^16
    """
    position = (row * 2**16 + column).to(torch.int32) * _GAMMA32
    low, high = key.to(torch.int32), (key >> 32).to(torch.int32)
    pixel = _mix32(_mix32(position + low) ^ high)
    return pixel.view(torch.uint8).view(-1, 4)[:, :3]


def _mix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))


def _mix32(state: Tensor) -> Tensor:
    """Mix int32 in place; the masks make the shifts of signed integers logical."""
    state ^= (state >> 16) & 0xFFFF
    state *= 0x85EBCA6B - 2**32
    state ^= (state >> 13) & 0x7FFFF
    state *= 0xC2B2AE35 - 2**32
    state ^= (state >> 16) & 0xFFFF
    return state
