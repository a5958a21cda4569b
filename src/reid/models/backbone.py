"""Residual networks of any width in torchvision's layout, so that its published state dicts load unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from reid.artifacts import InputError

BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class Backbone(nn.Module):
    """The convolutional part of a ResNet: (B, 3, H, W) -> (B, features, H/32, W/32) (H/16 with last_stride 1).

    Module names are torchvision's, without its classifier `fc`. width is the number of channels of the first
    stage (64 in the published networks); features = 8 width for basic blocks, 32 width for bottlenecks.
    """

    def __init__(self, block: str, blocks: Sequence[int], width: int = 64, last_stride: int = 2) -> None:
        super().__init__()
        kind = BLOCKS[block]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        channels = width
        for stage, depth in enumerate(blocks):
            stride = (1, 2, 2, last_stride)[stage]
            planes = width * 2**stage
            layers = []
            for _ in range(depth):
                out = planes * kind.expansion
                shortcut = None
                if stride != 1 or channels != out:
                    shortcut = nn.Sequential(
                        nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
                    )
                layers.append(kind(channels, planes, stride, shortcut))
                channels, stride = out, 1
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to feature maps (B, features, h, w)."""
        maps: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = stage(maps)
        return maps


def pool(maps: Tensor, pooling: str) -> Tensor:
    """Pool feature maps (B, F, h, w) over space to (B, F); pooling is max or average (Table 3a)."""
    return maps.amax((2, 3)) if pooling == "max" else maps.mean((2, 3))


def load_state(module: nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Load a state dict whose keys and shapes must be the module's own.

    Raises InputError that lists every missing, unexpected and misshapen key.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        raise InputError(f"{what}: weights do not fit the network: {'; '.join(problems)}")
    module.load_state_dict(dict(state))


def freeze_statistics(module: nn.Module) -> None:
    """Keep batch-norm statistics and affine parameters as they are: one image at a time has no batch statistics."""
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for parameter in part.parameters():
                parameter.requires_grad_(False)


def set_up(threads: int) -> torch.device:
    """Choose the device and make its arithmetic repeatable for a number of CPU threads."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
