"""torchvision's backbones of other families, for images of one size at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from reid_done_right.images.transforms import MEAN, STD
from reid_done_right.models.backbone import Backbone

OPTIONS = {"inception_v3": {"aux_logits": False, "init_weights": True}}
"""Arguments of `torchvision.models.get_model` besides the name."""


class Family(Backbone):
    """One of torchvision's networks before its classifier: (B, 3, H, W) -> (B, F, h, w).

    Its layers do not handle padding, so a batch holds images of one size.
    """

    pads = False

    def __init__(self, name: str) -> None:
        from torchvision.models import get_model  # takes a second, which residual networks do not need

        super().__init__()
        network = get_model(name, **OPTIONS.get(name, {}))
        *_, classifier = network.children()
        self.channels = classifier.in_features
        self.symmetric = name == "inception_v3"  # its weights expect pixels on [-1, 1]
        self.smallest = 75 if name == "inception_v3" else 29  # as `params.networks.SMALLEST` says
        for part_name, part in network.named_children():
            if part_name not in ("avgpool", "dropout", "fc", "classifier"):
                self.add_module(part_name, part)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map normalised images (B, 3, H, W) to feature maps (B, F, h, w)."""
        self.check_size(images)
        maps = images
        if self.symmetric:
            mean, std = images.new_tensor(MEAN).view(3, 1, 1), images.new_tensor(STD).view(3, 1, 1)
            maps = (images * std + mean) * 2 - 1
        for part in self.children():
            maps = part(maps)
        return F.relu(maps), mask  # DenseNet ends in a batch norm; Inception's maps are never negative

    def adopt(self, state: Mapping[str, Tensor], what: str) -> None:
        """Load as `Backbone.adopt`; DenseNet's files use older module names: norm.1 is now norm1."""
        old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")
        super().adopt({old.sub(r"\1\2", name): tensor for name, tensor in state.items()}, what)
