"""The paper's architecture: backbone -> max | average pooling -> fully-connected layer -> l2 (section 3.1)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from reid.artifacts import InputError, Weights
from reid.functional.transforms import Images, apply_by_size, whole
from reid.models.backbone import Backbone, load_state, pool


class Embedder(nn.Module):
    """Images of any size to unit-norm embeddings: (B, 3, H, W) -> (B, D)."""

    def __init__(self, backbone: Backbone, embedding: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.fc = nn.Linear(backbone.features, embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images of one size."""
        return F.normalize(self.fc(pool(self.backbone(images), self.pooling)), dim=1)


def backbone_of(weights: Weights, what: str) -> Backbone:
    """Build the backbone that the weights describe and load them. Raises InputError listing keys that do not fit."""
    backbone = Backbone(**weights.about["backbone"])
    load_state(backbone, weights.state, what)
    return backbone


def embedder_of(weights: Weights, what: str) -> Embedder:
    """Build the embedder that the weights describe and load them. Raises InputError if they are a backbone's only."""
    about = weights.about
    if "embedding" not in about:
        raise InputError(f"{what}: weights of a backbone, not of an embedder; give those that `reid train` wrote")
    embedder = Embedder(Backbone(**about["backbone"]), about["embedding"], about["pooling"])
    load_state(embedder, weights.state, what)
    return embedder


@torch.inference_mode()
def embed(network: nn.Module, images: Images, places: NDArray[np.int64], largest_side: int) -> NDArray[np.float32]:
    """Embed the images at `places` (B,), clean, at largest side M, in evaluation mode; give (B, D) in their order."""
    network.eval()
    rows = apply_by_size(network, images, places, whole(images.sizes[places], largest_side))
    return rows.cpu().numpy().astype(np.float32)
