"""Global pooling: feature maps of any size to one value per channel (Table 3a)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-6
"""Smallest activation in GeM, because its power has no derivative at 0."""


class Pool(nn.Module):
    """Maximum, average or generalised mean over space: (B, F, h, w) -> (B, F).

    gem is (mean of x^p)^(1/p) with a learnt p that starts at 3 (Radenovic et al., 2018): average at p = 1, max at
    infinity.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "gem":
            self.p = nn.Parameter(torch.tensor([3.0]))

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool the cells inside the mask (`reid_done_right.models.padding`), or all cells."""
        if self.kind == "max":
            return (maps if mask is None else maps.masked_fill(~mask, -torch.inf)).amax((2, 3))
        if self.kind == "gem":
            maps = maps.clamp(min=EPSILON).pow(self.p)
        mean = maps.mean((2, 3)) if mask is None else (maps * mask).sum((2, 3)) / mask.sum((2, 3))
        return mean.pow(1 / self.p) if self.kind == "gem" else mean
