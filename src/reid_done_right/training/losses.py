"""The triplet ranking loss of the paper."""

from __future__ import annotations

from torch import Tensor


def triplet_loss(query: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Equation 1: max(0, m + q'd- - q'd+) for unit-norm embeddings (B, D); returns (B,), unreduced.

    The margin is in units of the dot product, in [-1, 1].
    """
    return (margin + (query * negative).sum(1) - (query * positive).sum(1)).clamp(min=0)
