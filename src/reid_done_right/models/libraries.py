"""Backbones of other libraries by their name there: transformers, ConvNeXt, EfficientNet and more."""

from __future__ import annotations

import difflib
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from reid_done_right.artifacts import InputError
from reid_done_right.images.transforms import MEAN, STD
from reid_done_right.models.backbone import Backbone, adopt

AFTER = ("avgpool", "classifier", "fc", "head", "heads")
"""What torchvision calls the layers after the feature maps."""

AUTHORS = ("storage_tokens", "downsample_layers.0.0.weight")
"""Tensors of files as the authors of DINOv3 and of ConvNeXt publish them, under other names than timm's."""

RANDOM = ("Dropout", "DropPath", "StochasticDepth")
"""Layers that change maps at random in training mode."""


class Foreign(Backbone):
    """A network of another library before its classifier, for images of one size at a time.

    network   maps normalised images (B, 3, H, W) to features
    features  calls it: (B, F, h, w)
    smallest  smallest side it takes, in pixels
    patch     sides are rounded to the nearest multiple of it, by interpolation; the log says so once
    mean, std of the channels, as its weights expect them
    Raises InputError if the network has no feature maps, or takes images of one size only.
    """

    pads = False
    portable = False

    def __init__(
        self,
        name: str,
        network: nn.Module,
        features: Callable[[nn.Module, Tensor], Tensor],
        smallest: int = 32,
        patch: int = 1,
        mean: Iterable[float] = MEAN,
        std: Iterable[float] = STD,
    ) -> None:
        super().__init__()
        self.name, self.network, self.features, self.told = name, network, features, False
        self.smallest, self.patch = smallest, patch
        self.scale = [ours / theirs for ours, theirs in zip(STD, std, strict=True)]
        self.shift = [(ours - theirs) / each for ours, theirs, each in zip(MEAN, mean, std, strict=True)]
        for part in network.modules():  # no random depth and no dropout: a view has one embedding and gradient
            if type(part).__name__ in RANDOM:
                part.p = part.drop_prob = 0.0  # type: ignore[assignment]
        example = next(network.parameters()).new_zeros(1, 3, 7 * smallest, 5 * smallest)
        try:
            with torch.no_grad():
                network.eval()
                _, self.channels, _, _ = self(example)[0].shape
        except (RuntimeError, ValueError, AssertionError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{name}: has no feature maps of images of any size ({why}); take another") from None
        network.train()

    def _rounded(self, side: int) -> int:
        return (side + self.patch // 2) // self.patch * self.patch

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map normalised images (B, 3, H, W) to feature maps (B, F, h, w)."""
        self.check_size(images)
        if self.patch > 1:
            sides, taken = tuple(images.shape[2:]), tuple(map(self._rounded, images.shape[2:]))
            if not (self.told or torch.compiler.is_compiling() or sides == taken):
                self.told = True
                example = "{} x {} pixels become {} x {}".format(*sides, *taken)
                tqdm.write(f"{self.name}: sides are rounded to multiples of {self.patch}: {example}", sys.stderr)
            images = F.interpolate(images, taken, mode="bilinear")
        if self.scale != [1, 1, 1] or self.shift != [0, 0, 0]:
            images = images * images.new_tensor(self.scale).view(3, 1, 1) + images.new_tensor(self.shift).view(3, 1, 1)
        return self.features(self.network, images), mask

    def adopt(self, state: Mapping[str, Tensor], what: str) -> None:
        """Load as `Backbone.adopt`, from the library's names of tensors, or those of authors, which timm translates."""
        if not state.keys().isdisjoint(AUTHORS):
            translate: Any = sys.modules[type(self.network).__module__].checkpoint_filter_fn
            state = translate(dict(state), self.network)
        adopt(self.network, state, what)


def of_torchvision(name: str) -> Foreign:
    """Build one of torchvision's classifiers without its last layers."""
    from torchvision import models  # takes a second, which residual networks do not need

    full = f"torchvision:{name}"
    _check_known(full, name, models.list_models(models))
    parts = takewhile(lambda part: part[0] not in AFTER, models.get_model(name, weights=None).named_children())
    return Foreign(full, nn.Sequential(OrderedDict(parts)), lambda network, images: network(images))


def of_timm(name: str) -> Foreign:
    """Build one of timm's networks; tokens of its patches become maps again."""
    try:
        import timm
    except ImportError:
        raise InputError(f"timm:{name}: timm is not installed: pip install 'reid-done-right[timm]'") from None
    _check_known(f"timm:{name}", name.split(".")[0], timm.list_models())
    network: Any
    try:
        network = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:  # it is convolutional
        network = timm.create_model(name, num_classes=0)
    about, reduction = network.pretrained_cfg, network.feature_info[-1]["reduction"]
    classifiers = about["classifier"]
    for each in [classifiers] if isinstance(classifiers, str) else classifiers:
        setattr(network, each.split(".")[0], nn.Identity())  # with it goes ConvNeXt's norm after pooling
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))[0]
    return Foreign(f"timm:{name}", network, _features, reduction, patch, about["mean"], about["std"])


def _features(network: Any, images: Tensor) -> Tensor:
    """Run one of timm's networks: images (B, 3, H, W) to its last maps (B, F, h, w)."""
    features: Tensor = network.forward_features(images)
    if features.ndim == 3:  # tokens, some of which are no patches
        height, width = network.patch_embed.dynamic_feat_size(images.shape[2:])
        maps: Any = features[:, network.num_prefix_tokens :].transpose(1, 2)
        features = maps.unflatten(2, (height, width))
    return features.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else features


def _check_known(full: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or ["none is near"]
        raise InputError(f"{full}: there is no such network; near names: {', '.join(near)}")
