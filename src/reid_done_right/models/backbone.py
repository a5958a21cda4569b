"""The interface of backbones, folded batch norm, loading and freezing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reid_done_right.artifacts import InputError
from reid_done_right.models.padding import too_small
from reid_done_right.models.products import convolve


class Backbone(nn.Module):
    """The convolutional part of a network under torchvision's names, without its classifier.

    channels  F, of its feature maps
    pads      whether it accepts images of mixed sizes in one padded batch
    smallest  smallest image side it accepts, in pixels
    portable  whether its products go through `reid_done_right.models.products`, and so are portable
    """

    channels: int
    pads = True
    smallest = 1
    portable = True

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map normalised images (B, 3, H, W) to feature maps (B, F, h, w), and their mask to that of the maps.

        For masks see `reid_done_right.models.padding`. The padding of the images is zero, that of the maps arbitrary.
        """
        raise NotImplementedError

    def check_size(self, images: Tensor) -> None:
        """Raise ValueError if images (B, 3, H, W) are too small."""
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise ValueError(too_small(height, width, self.smallest))

    def adopt(self, state: Mapping[str, Tensor], what: str) -> None:
        """Load the state dict of a network that contains this backbone, such as torchvision's or a checkpoint.

        Raises InputError as `adopt`.
        """
        adopt(self, state, what)


NARROW = 16
"""Channels below which oneDNN in PyTorch 2.11 corrupts memory: in the backward pass of a strided 1 x 1 convolution,
channels last, on two threads or more, of an odd number of images."""


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
    """Convolve and batch-normalise (B, C, H, W); frozen statistics are folded into the kernel, which is 20 % faster."""
    stride, padding = conv.stride, conv.padding
    assert not isinstance(padding, str)
    if conv.kernel_size == (1, 1) and stride != (1, 1) and maps.shape[1] < NARROW:
        maps, stride = maps[:, :, :: stride[0], :: stride[1]], (1, 1)  # equivalent, without a strided kernel
    if torch.is_autocast_enabled("cpu") and maps.device.type == "cpu" and stride != (1, 1) and maps.shape[3] == 1:
        # equivalent; with maps of width 1, oneDNN's bfloat16 gradient of a strided kernel is garbage
        maps = F.pad(maps, (0, 1))
    if norm.training:
        return norm(convolve(maps, conv.weight, None, stride, padding, conv.groups))  # type: ignore[no-any-return]
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    kernel = conv.weight * scale.view(-1, 1, 1, 1)
    return convolve(maps, kernel, shift, stride, padding, conv.groups)


def adopt(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load the state dict of a network that contains a module.

    A common prefix (`module.`, `backbone.` as in our embedders, ...) is removed; classifiers and other tensors that
    the module lacks are ignored. Raises InputError listing missing tensors and wrong shapes.
    """
    own = module.state_dict()
    first, parts = next(iter(own)), {name.split(".")[0] for name in own}
    prefixes = [name.removesuffix(first) for name in state if name.endswith(first)]
    if not prefixes:
        raise InputError(f"{what}: has no tensor named {first}; give weights of the same architecture")
    prefix = max(prefixes, key=lambda prefix: sum(f"{prefix}{name}" in state for name in own))
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    # files from before PyTorch 0.4.1 lack the count of batches, which is never read here
    counts = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    kept = {name: tensor for name, tensor in inner.items() if name.split(".")[0] in parts}
    cast = {
        name: tensor.to(own[name].dtype) if name in own and tensor.is_floating_point() else tensor
        for name, tensor in kept.items()
    }
    load_state(module, counts | cast, what)


def load_state(module: nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Load a state dict. Raises InputError as `check_state`."""
    check_state(module, state, what)
    module.load_state_dict(dict(state))


def check_state(module: nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Raise InputError unless keys, shapes and types of a state dict are the module's own; it lists all that are not.

    Neither's values are looked at, so that the module may lie on the device `meta`.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems += [
        f"{name} is {state[name].dtype}, expected {own[name].dtype}"
        for name in own
        if name in state and state[name].dtype != own[name].dtype
    ]
    if problems:
        raise InputError(f"{what}: weights do not fit the network: {'; '.join(problems)}")


def set_batch_norm(module: nn.Module, learns: str = "frozen") -> None:
    """Say what a network's batch norm learns, and put the network into the mode for it.

    learns  frozen: nothing; affine: scale and bias; statistics: these too, in training mode, where it normalises by the
            statistics of what it is given and keeps a running mean of them
    """
    module.train(learns == "statistics")
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for parameter in part.parameters():
                parameter.requires_grad_(learns != "frozen")
