"""Grad-CAM (Selvaraju et al., 2017) of single dimensions of an embedding, at the last convolutional stage (4.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reid_done_right.models.embedder import Embedder


def maps_and_embeddings(network: Embedder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run normalised images (B, 3, H, W) of one size; give the last maps (B, F, h, w) and unit embeddings (B, D)."""
    maps, _ = network.backbone(images)
    return maps, embed_maps(network, maps)


def embed_maps(network: Embedder, maps: Tensor) -> Tensor:
    """Run what follows the convolutions: maps (B, F, h, w) to unit embeddings (B, D)."""
    return F.normalize(network.fc(network.pool(maps)), dim=1)


def grad_cam(network: Embedder, images: Tensor, dimensions: Tensor, accumulate: bool = False) -> Tensor:
    """Show where the strengths of embedding dimensions come from.

    images (B, 3, H, W), normalised, of one size; dimensions (B, K) int64, those to explain of each. Gives (B, K, h, w),
    or, with `accumulate`, (B, 1, h, w) for the sum of their strengths, all at least 0. The strength of a dimension
    is its absolute value: two negative values too make a pair similar. A map is weighted by the mean over space of
    the gradient of the strength, the weighted maps are summed over F, and what is negative is cut off.
    """
    network.eval()
    with torch.enable_grad():
        maps, embeddings = maps_and_embeddings(network, images)
        strengths = embeddings.gather(1, dimensions).abs()
        if accumulate:
            strengths = strengths.sum(1, keepdim=True)
        found = []
        for strength in strengths.unbind(1):
            (gradient,) = torch.autograd.grad(strength.sum(), maps, retain_graph=True)
            found.append(F.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1)))
    return torch.stack(found, dim=1).detach()


def strongest(embeddings: Tensor, count: int) -> Tensor:
    """Give the (B, count) dimensions of greatest absolute value of embeddings (B, D), strongest first."""
    return embeddings.abs().argsort(dim=1, descending=True, stable=True)[:, :count]


def shared(left: Tensor, right: Tensor, count: int) -> Tensor:
    """Give the (B, count) dimensions that contribute most to the similarities of pairs of embeddings (B, D)."""
    return (left * right).argsort(dim=1, descending=True, stable=True)[:, :count]
