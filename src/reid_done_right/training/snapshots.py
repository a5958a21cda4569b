"""Copies of a model from along its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn


def moments(snapshots: int, updates: int) -> list[int]:
    """Return the numbers of updates after which a model is copied: evenly spaced, from 0 on; the end is not one."""
    return sorted({updates * number // snapshots for number in range(snapshots)})


@dataclass
class Snapshots:
    """Copies of a model's state, in memory; every checkpoint holds them.

    moments  numbers of updates after which to take one
    taken    number of updates, a dot, name of the tensor -> its values
    """

    moments: Sequence[int] = ()
    taken: dict[str, Tensor] = field(default_factory=dict)

    def take(self, done: int, network: nn.Module) -> None:
        """Copy a network after so many updates, if that is one of the moments."""
        if done in self.moments:
            self.taken |= {f"{done}.{name}": value.cpu().clone() for name, value in network.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint holds of them."""
        self.taken |= {
            name.removeprefix("snapshot."): value for name, value in state.items() if name.startswith("snapshot.")
        }


def snapshot(taken: Mapping[str, Tensor], done: int) -> dict[str, Tensor]:
    """Return the state of the model after so many updates."""
    return {name.removeprefix(f"{done}."): value for name, value in taken.items() if name.startswith(f"{done}.")}
