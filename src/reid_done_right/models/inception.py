"""Inception-v3: torchvision's, for images of one size at a time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reid_done_right.functional.transforms import MEAN, STD
from reid_done_right.models.backbone import Backbone


class Inception(Backbone):
    """The part of torchvision's Inception-v3 before its classifiers: (B, 3, H, W) -> (B, 2048, H/32, W/32).

    Its kernels have no padding around the image in many places, so that sides are rounded in ways of their own and a
    grid has no place for padding.
    """

    channels = 2048
    pads = False
    smallest = 75

    def __init__(self, network: Any) -> None:
        super().__init__()
        for name, part in network.named_children():
            if name not in ("avgpool", "dropout", "fc"):
                self.add_module(name, part)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map normalised images (B, 3, H, W) to feature maps (B, 2048, h, w)."""
        self.check_size(images)
        mean, std = images.new_tensor(MEAN).view(3, 1, 1), images.new_tensor(STD).view(3, 1, 1)
        maps = (images * std + mean) * 2 - 1  # what its weights expect: pixels on [-1, 1]
        for part in self.children():
            maps = part(maps)
        return maps, mask
