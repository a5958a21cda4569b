"""Densely connected networks: torchvision's, with frozen batch norm folded where a convolution precedes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reid_done_right.models.backbone import Backbone, conv_norm
from reid_done_right.models.padding import halve, halve_down, zero_


class DenseNet(Backbone):
    """The part of one of torchvision's DenseNets before its classifier: (B, 3, H, W) -> (B, F, H/32, W/32).

    Sides are rounded up twice, then down three times.
    """

    smallest = 29

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.features: Any = network.features
        self.channels = network.classifier.in_features

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map normalised images (B, 3, H, W) to feature maps (B, F, h, w), and their mask to that of the maps."""
        self.check_size(images)
        conv, norm, relu, pool, *parts, last = self.features
        mask = halve(mask)
        maps = pool(relu(zero_(conv_norm(conv, norm, images), mask)))  # after ReLU 0 does for -inf in the padding
        mask = halve(mask)
        for part in parts:
            if isinstance(part, nn.ModuleDict):
                maps = dense_block(part, maps, mask)
            else:  # 1 x 1 convolution, then the mean of 2 x 2, which only meets image
                maps, mask = part(maps), halve_down(mask)
        return F.relu(last(maps), inplace=True), mask

    def adopt(self, state: Mapping[str, Tensor], what: str) -> None:
        """Load as `Backbone.adopt`; torchvision's files have names older than its modules: norm.1 is norm1 today."""
        old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")
        super().adopt({old.sub(r"\1\2", name): tensor for name, tensor in state.items()}, what)


def dense_block(block: Any, maps: Tensor, mask: Tensor | None) -> Tensor:
    """Append each layer's maps to those of all layers before it: (B, C, H, W) -> (B, C + layers x growth, H, W)."""
    known = [maps]
    for layer in block.values():
        joined = layer.relu1(layer.norm1(torch.cat(known, 1)))
        narrow = layer.relu2(zero_(conv_norm(layer.conv1, layer.norm2, joined), mask))
        known.append(layer.conv2(narrow))
    return torch.cat(known, 1)
