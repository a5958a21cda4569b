"""Stochastic gradient descent with momentum, with state for checkpoints (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Optimizer(torch.optim.SGD):
    """PyTorch's SGD over the parameters that train; its learning rate is set at each step.

    faster  parameters whose rate is another, `times` that of the rest
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        momentum: float,
        weight_decay: float,
        faster: Iterable[nn.Parameter] = (),
        times: float = 1.0,
    ) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        apart = {id(parameter) for parameter in faster} if times != 1 else set()
        groups = [
            {"params": [one for one in trained if (id(one) in apart) is fast], "times": times if fast else 1.0}
            for fast in (False, True)
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=0.0, momentum=momentum, weight_decay=weight_decay)
        self.trained = trained

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients, zero where an update left none."""
        for parameter in self.trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.trained if parameter.grad is not None]

    def gradient_norm(self) -> float:
        """Return the joint norm of all gradients, not finite if any of them is not."""
        return float(nn.utils.get_total_norm(self.gradients))

    def descend(self, rate: float) -> None:
        """Update all parameters with learning rate `rate`; weight decay also moves those without a gradient."""
        assert self.gradients
        for group in self.param_groups:
            group["lr"] = rate * group["times"]
        self.step()

    def velocities(self) -> dict[str, Tensor]:
        """Return the momentum buffers, by number of parameter."""
        buffers = [self.state[parameter].get("momentum_buffer") for parameter in self.trained]
        return {f"velocity.{number}": buffer for number, buffer in enumerate(buffers) if buffer is not None}

    def restore(self, velocities: Mapping[str, Tensor]) -> None:
        """Restore the result of `velocities`; other names are ignored."""
        for number, parameter in enumerate(self.trained):
            if (kept := velocities.get(f"velocity.{number}")) is not None:
                self.state[parameter]["momentum_buffer"] = torch.empty_like(parameter.detach()).copy_(kept)
