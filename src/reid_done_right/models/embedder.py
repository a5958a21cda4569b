"""The paper's architecture: backbone -> global pooling -> fully-connected layer -> l2 (section 3.1)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from reid_done_right.artifacts import InputError, Weights, reason_of
from reid_done_right.images.transforms import Images, render, whole
from reid_done_right.images.upload import upload
from reid_done_right.models.backbone import Backbone, check_state
from reid_done_right.models.build import build
from reid_done_right.models.compiling import compile_, enlarged
from reid_done_right.models.device import out_of_memory
from reid_done_right.models.padding import batches, mask_of
from reid_done_right.models.pooling import Pool
from reid_done_right.models.products import Linear
from reid_done_right.numerics import Numerics
from reid_done_right.params import networks
from reid_done_right.params.messages import validated
from reid_done_right.params.section import Strict

PIXELS = {"cpu": 2**18, "cuda": 2**24}
"""Approximate number of pixels per batch: more do not fit a CPU's caches, fewer do not fill a GPU."""


class Embedder(nn.Module):
    """Network from images of any size to unit-norm embeddings: (B, 3, H, W) -> (B, D).

    embedding  D, outputs of the fully-connected layer; 0 = no such layer, D = the backbone's channels
    pooling    max, average or gem
    bias       whether the fully-connected layer has one
    square     whether images are distorted to squares before; if not, they keep their aspect ratio
    """

    def __init__(
        self, backbone: Backbone, embedding: int, pooling: str, bias: bool = True, square: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = Pool(pooling)
        self.fc = Linear(backbone.channels, embedding, bias) if embedding else nn.Identity()
        self.dimension = embedding or backbone.channels
        self.square = square
        self.execution = "eager"
        self.pixels: int | None = None  # of a batch that memory turned out to have room for

    def execute(self, execution: str) -> None:
        """Set the execution of the backbone: eager or compiled (`reid_done_right.models.compiling.compile_`)."""
        if execution != self.execution:
            compile_(self.backbone, execution)
            self.execution = execution

    def forward(self, images: Tensor, extent: Tensor | None = None) -> Tensor:
        """Embed normalised images (B, 3, H, W).

        extent  (B, 2) height and width of each image, in the top-left corner of the padded input; the padding affects
                neither embeddings nor gradients. None: images are not padded
        Raises ValueError for an extent if batch norm learns statistics, or if the backbone needs images of one size.
        """
        count = images.shape[0]  # symbolic in an export, where len() would be fixed
        if self.execution != "eager":
            images, extent = enlarged(images, extent, self.backbone.pads)
        mask = None
        if extent is not None:
            if self.training or not self.backbone.pads:
                why = "in training mode" if self.training else "with this backbone"
                raise ValueError(f"images of mixed sizes cannot share a batch {why}; batch images of one size")
            mask = mask_of(extent, *images.shape[2:])
            images = images * mask
        maps, mask = self.backbone(images, mask)
        embeddings = self.fc(self.pool(maps, mask))[:count]
        return F.normalize(embeddings.float() if embeddings.dtype == torch.bfloat16 else embeddings, dim=1)


class BackboneAbout(Strict):
    """What the weights of a backbone say of themselves; those of an embedder more, which their tensors tell too."""

    model_config = ConfigDict(extra="ignore")
    backbone: networks.Backbone
    numerics: Numerics | None = None
    origin: str | None = Field(default=None, alias="from")


class EmbedderAbout(BackboneAbout):
    """What the weights of an embedder say of themselves."""

    model_config = ConfigDict(extra="forbid")
    embedding: Annotated[int, Field(ge=0, le=2**16)]
    pooling: Literal["max", "average", "gem"]
    largest_side: Annotated[int, Field(ge=16, le=2**14)]
    collapsed: bool = False
    bias: bool = True
    square: bool = False


AGAIN = "give weights that `reid initialise`, pretrain or train wrote"
Network = TypeVar("Network", bound=nn.Module)


def backbone_of(weights: Weights, what: str) -> Backbone:
    """Build the backbone that the weights describe and load them. Raises InputError for what is not as it should be."""
    about = validated(BackboneAbout, weights.about, what, AGAIN)
    return _loaded(partial(build, about.backbone.described()), weights, what)


def embedder_of(weights: Weights, what: str) -> Embedder:
    """Build the embedder that the weights describe and load them. Raises InputError as `backbone_of`."""
    if "embedding" not in weights.about:
        raise InputError(f"{what}: weights of a backbone, not of an embedder; give those written by `reid train`")
    about = validated(EmbedderAbout, weights.about, what, AGAIN)
    return _loaded(
        lambda: Embedder(build(about.backbone.described()), about.embedding, about.pooling, about.bias, about.square),
        weights,
        what,
    )


def _loaded(make: Callable[[], Network], weights: Weights, what: str) -> Network:
    """Make a network and load its weights, after checking both against each other where nothing takes memory."""
    try:
        with torch.device("meta"):
            described = make()
    except (RuntimeError, ValueError) as error:  # channels that no number of groups divides
        raise InputError(f"{what}: describes no network ({reason_of(error)}); {AGAIN}") from None
    check_state(described, weights.state, what)
    broken = [name for name, values in weights.state.items() if not values.isfinite().all()]
    if broken:
        raise InputError(f"{what}: {broken[0]} holds values that are not finite; {AGAIN}")
    network = make()  # not the described one with its tensors assigned: `train` draws the rest after what this draws
    network.load_state_dict(dict(weights.state))
    return network


@torch.inference_mode()
def embed(embedder: Embedder, images: Images, indices: NDArray[np.int64], largest_side: int) -> NDArray[np.float32]:
    """Embed the images of `indices` (B,) without augmentation at largest side M, in evaluation mode: (B, D), in order.

    `PIXELS` bounds the memory; where that is too small still, batches are halved from then on, with a warning. The
    other images in a batch change an embedding only by rounding.
    Raises ValueError if an image is too small for the backbone.
    """
    embedder.eval()
    views = whole(images.sizes[indices], largest_side, embedder.square)
    each = int(views.size.prod(1).max(initial=1))
    rows = torch.empty((len(indices), embedder.dimension), device=images.device)
    while True:
        at_once = max(1, min(len(indices), (embedder.pixels or PIXELS[images.device.type]) // each))
        try:
            for some in batches(views.size, at_once, embedder.backbone.pads, embedder.backbone.smallest):
                rows[upload(some, images.device)] = embedder(*render(images, indices[some], views[some])).float()
            return rows.cpu().numpy()
        except RuntimeError as error:
            if not out_of_memory(error) or at_once == 1:
                raise
        embedder.pixels = at_once // 2 * each
        warnings.warn(f"out of memory: from now on {at_once // 2} images are embedded at once", stacklevel=2)
        torch.cuda.empty_cache()  # after the except block, where the error no longer holds activations
