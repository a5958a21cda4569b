"""Stochastic gradient descent with momentum, its state open to checkpoints (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd


class Descent:
    """PyTorch's SGD over the parameters that train.

    `torch.optim.SGD` itself imports PyTorch's compiler, a second that short jobs feel.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.momentum, self.weight_decay = momentum, weight_decay
        self.velocity: list[Tensor | None] = [None] * len(self.parameters)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients; zeros where an update left none."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def gradient_norm(self) -> float:
        """Give the norm of all gradients together: not finite if one of them is not."""
        norms = torch._foreach_norm(self.gradients)
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters at learning rate `rate`."""
        sgd(
            list(self.parameters),
            self.gradients,
            self.velocity,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Give the velocities, by number of parameter."""
        return {f"velocity.{place}": value for place, value in enumerate(self.velocity) if value is not None}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for place, parameter in enumerate(self.parameters):
            value = state.get(f"velocity.{place}")
            self.velocity[place] = None if value is None else torch.empty_like(parameter.detach()).copy_(value)
