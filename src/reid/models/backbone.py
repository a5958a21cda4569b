"""Residual networks of any width in torchvision's layout, so that its published state dicts load unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reid.artifacts import InputError


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
    """Convolve and batch-normalise (B, C, H, W); frozen statistics are folded into the kernel, a fifth faster."""
    if norm.training:
        return norm(conv(maps))  # type: ignore[no-any-return]
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return F.conv2d(maps, conv.weight * scale.view(-1, 1, 1, 1), shift, conv.stride, conv.padding)


class Shortcut(nn.Sequential):
    """The projection of a block whose input and output differ in shape."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out, H / stride, W / stride)."""
        conv, norm = self
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        return conv_norm(conv, norm, maps)


def shortcut(channels: int, out: int, stride: int) -> Shortcut | None:
    """Give the projection that a block needs, None if its shapes agree."""
    return None if stride == 1 and channels == out else Shortcut(channels, out, stride)


class Basic(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (ResNet-18, 34)."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(channels, planes, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, planes, H / stride, W / stride)."""
        short = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu(conv_norm(self.conv1, self.bn1, maps), inplace=True)
        return F.relu(conv_norm(self.conv2, self.bn2, maps) + short, inplace=True)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 convolutions and a shortcut (ResNet-50, 101, 152)."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = shortcut(channels, 4 * planes, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, 4 planes, H / stride, W / stride)."""
        short = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu(conv_norm(self.conv1, self.bn1, maps), inplace=True)
        maps = F.relu(conv_norm(self.conv2, self.bn2, maps), inplace=True)
        return F.relu(conv_norm(self.conv3, self.bn3, maps) + short, inplace=True)


BLOCKS: dict[str, type[Basic] | type[Bottleneck]] = {"basic": Basic, "bottleneck": Bottleneck}


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
        stages = []
        channels = width
        for stage, depth in enumerate(blocks):
            planes = width * 2**stage
            layers = []
            for place in range(depth):
                stride = (1, 2, 2, last_stride)[stage] if place == 0 else 1
                layers.append(kind(channels, planes, stride))
                channels = planes * kind.expansion
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to feature maps (B, features, h, w)."""
        maps = F.relu(conv_norm(self.conv1, self.bn1, images), inplace=True)
        maps = F.max_pool2d(maps, 3, stride=2, padding=1)
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


PARTS = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")


def backbone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of a backbone, under the names of `Backbone`, from those of a network that holds one.

    What comes before all its names (`module.`, `backbone.` as in our embedders, ...) is taken away; linear layers and
    other heads are left out. Files older than batch norm's counter of batches, as torchvision's V1, get it as 0.
    """
    first = "conv1.weight"
    prefixes = [name.removesuffix(first) for name in state if name.endswith(first)]
    prefix = next((prefix for prefix in prefixes if f"{prefix}layer1.0.{first}" in state), "")
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    inner = {name: tensor for name, tensor in inner.items() if name.startswith(PARTS)}
    counted = [name.removesuffix("running_var") for name in inner if name.endswith(".running_var")]
    return {f"{norm}num_batches_tracked": torch.tensor(0) for norm in counted} | inner


def freeze_statistics(module: nn.Module) -> None:
    """Keep batch-norm statistics and affine parameters as they are: one image at a time has no batch statistics."""
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for parameter in part.parameters():
                parameter.requires_grad_(False)


def set_up(threads: int) -> torch.device:
    """Choose the device and make its arithmetic repeatable; on a CPU a fixed number of threads is enough for that."""
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")
