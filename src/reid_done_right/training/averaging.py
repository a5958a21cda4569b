"""The mean of a model over the last updates of its training, each counted once."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def add_to(sums: dict[str, Tensor], network: nn.Module) -> None:
    """Add a network's weights and statistics to their sums, which begin empty; in float64, so that nothing is lost."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            sums[name] = sums[name].add_(value) if name in sums else value.to(torch.float64, copy=True)


@torch.no_grad()
def take_mean(network: nn.Module, sums: dict[str, Tensor], updates: int) -> None:
    """Give a network the mean of what was added after so many updates."""
    for name, value in network.state_dict().items():
        if name in sums:
            value.copy_(sums[name] / updates)
