"""Cheap products with a rigorous error bound: which pairs of embeddings need an exact one.

Scores of bfloat16 rows cost a fraction of float32 ones on processors that multiply bfloat16. The bound is Cauchy and
Schwarz's on what rounding took from each row, so that nothing a search is after can slip through.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_WORTH_IT = 2.0**37  # multiplications, from which on importing torch and converting rows pays
_LOST = 2.0**-8  # bfloat16 keeps 8 bits: rounding takes at most this part of a number, so of a norm


@dataclass(frozen=True)
class Rows:
    """Embeddings and their rounded selves."""

    exact: NDArray[np.float32]
    """(B, D)"""
    rounded: Tensor | None
    """(B, D) bfloat16; None where scores are float32 products."""
    norm: float
    """Largest norm of a row."""


class Screen:
    """Approximate scores of blocks of rows, in bfloat16 where that was measured to be faster here.

    Args:
        multiplications: of the whole search; small ones stay in float32.
    """

    def __init__(self, multiplications: float) -> None:
        self.rounds: bool | None = None if multiplications >= _WORTH_IT else False

    def rows(self, exact: NDArray[np.float32]) -> Rows:
        """Prepare a block (B, D)."""
        if self.rounds is None:
            self.rounds = _faster_rounded(exact)
        norm = float(np.sqrt(np.vecdot(exact, exact).max(initial=0)))
        return Rows(exact, _round(exact) if self.rounds else None, norm)

    def scores(self, left: Rows, right: Rows) -> tuple[NDArray[np.float32], np.float32, np.float32]:
        """Scores (B, B') of two blocks, and b, r: an exact score s lies within b + r |s'| of the approximate s'."""
        dimensions = left.exact.shape[1]  # the last term stands for numbers too small to be rounded by parts
        summing = 1.01 * 2.0**-23 * dimensions * left.norm * right.norm + dimensions * 2.0**-124
        if left.rounded is None or right.rounded is None:
            return left.exact @ right.exact.T, np.float32(summing), np.float32(0)
        bound = (2 * _LOST + _LOST**2) * left.norm * right.norm + summing
        return (left.rounded @ right.rounded.T).float().numpy(), np.float32(bound), np.float32(1.01 * _LOST)

    def was_loose(self) -> None:
        """Say that too many pairs came through: the rest is screened in float32, whose bound is tighter."""
        self.rounds = False


def _round(exact: NDArray[np.float32]) -> Tensor:
    import torch

    return torch.from_numpy(exact).bfloat16()


def _faster_rounded(exact: NDArray[np.float32]) -> bool:
    """Whether this machine multiplies rounded rows at least 1.5 times as fast, conversion included."""
    sample = exact[:1024]
    other = sample.copy()  # the product of a matrix with itself takes a shortcut
    spent = []
    for work in (lambda: sample @ other.T, lambda: _round(sample) @ _round(other).T):
        work()
        time.sleep(0.02)  # until threads of the other library no longer wait for work, which costs processor time
        start = time.process_time()
        for _ in range(4):
            work()
        spent.append(time.process_time() - start)
    return spent[0] > 1.5 * spent[1]
