"""The optimizers, with state for checkpoints: SGD with momentum (section 4.1), and AdamW for transformers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from reid_done_right.params.training import Descent

BLOCK = re.compile(r"(?:.*?\.)?\d+(?:(?:\.blocks)?\.\d+)*(?=\.)")
"""The block that a parameter is of, by its name: up to the numbers of stage and block, such as `layer1.0`, `blocks.3`
or `stages.2.blocks.8`."""


class Optimizer:
    """PyTorch's SGD or AdamW over the parameters that train; its learning rate is set at each step.

    times  rates of parameters, as multiples of that of a step; those that are not named have 1
    """

    def __init__(self, parameters: Iterable[nn.Parameter], times: Mapping[nn.Parameter, float], how: Descent) -> None:
        self.trained = [parameter for parameter in parameters if parameter.requires_grad]
        self.clip = how.clip
        each = [times.get(parameter, 1.0) for parameter in self.trained]
        groups = [
            {"params": [one for one, own in zip(self.trained, each, strict=True) if own == rate], "times": rate}
            for rate in dict.fromkeys(each)
        ]
        self.rule: torch.optim.Optimizer
        if how.optimizer == "adamw":
            self.rule = torch.optim.AdamW(groups, lr=0.0, betas=(how.momentum, 0.999), weight_decay=how.weight_decay)
        else:
            self.rule = torch.optim.SGD(groups, lr=0.0, momentum=how.momentum, weight_decay=how.weight_decay)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.rule.zero_grad()

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
        """Update all parameters with learning rate `rate`, of a gradient no longer than `clip`.

        Weight decay also moves those without a gradient.
        """
        assert self.gradients
        if self.clip:
            nn.utils.clip_grad_norm_(self.trained, self.clip)
        for group in self.rule.param_groups:
            group["lr"] = rate * group["times"]
        self.rule.step()

    def moments(self) -> dict[str, Tensor]:
        """Return what the optimizer keeps of each parameter, by its number: momentum, or AdamW's moments and step."""
        return {
            f"optimizer.{number}.{name}": kept
            for number, parameter in enumerate(self.trained)
            for name, kept in self.rule.state[parameter].items()
            if kept is not None
        }

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Restore the result of `moments`; other names are ignored."""
        for number, parameter in enumerate(self.trained):
            for name in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step"):
                if (kept := moments.get(f"optimizer.{number}.{name}")) is not None:
                    like = kept if name == "step" else parameter.detach()  # PyTorch counts on the CPU
                    self.rule.state[parameter][name] = torch.empty_like(like).copy_(kept)


def layer_rates(backbone: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return the rate of each parameter of a backbone: `decay` to the power of the number of blocks after it, and one.

    What precedes the first block is as far away as if it were one; what follows a block, up to the next, is part of
    it. Numbered layers of at most two tensors, such as those of a stem, are no blocks.
    """
    named = dict(backbone.named_parameters())
    blocks = {name: found[0] if (found := BLOCK.match(name)) else "" for name in named}
    tensors = Counter(blocks.values())
    depth, last, depths = 0, "", {}
    for name, block in blocks.items():
        if block not in ("", last) and tensors[block] > 2:
            depth, last = depth + 1, block
        depths[name] = depth
    return {named[name]: decay ** (depth + 1 - its) for name, its in depths.items()}
