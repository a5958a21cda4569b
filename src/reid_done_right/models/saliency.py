"""Grad-CAM (Selvaraju et al., 2017) of single dimensions of an embedding, at the last convolutional stage (4.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from reid_done_right.models.embedder import Embedder


def maps_and_embeddings(network: Embedder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run normalised images (B, 3, H, W) of one size; return the last maps (B, F, h, w) and unit embeddings (B, D)."""
    maps, _ = network.backbone(images)
    return maps, embed_maps(network, maps)


def embed_maps(network: Embedder, maps: Tensor) -> Tensor:
    """Run the layers after the convolutions: maps (B, F, h, w) to unit embeddings (B, D)."""
    return F.normalize(network.fc(network.pool(maps)), dim=1)


def grad_cam(network: Embedder, images: Tensor, dimensions: Tensor, accumulate: bool = False) -> Tensor:
    """Return heat maps of the regions behind embedding dimensions, with values at least 0.

    images (B, 3, H, W), normalised, of one size; dimensions (B, K) int64, those to explain per image. Returns
    (B, K, h, w) or, with `accumulate`, (B, 1, h, w) for the sum of their strengths. The strength of a dimension is its
    absolute value, because two negative values also make a pair similar. Each map is weighted by the spatial mean of
    the gradient of the strength; the weighted maps are summed over F and clamped at 0.
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


@dataclass(frozen=True)
class Cells:
    """Where the cells of the last maps look, in pixels of the image: those of row i at rows[i], of column j alike.

    rows, columns  (h,), (w,) ascending centres; cells that look at one place share it
    reach          standard deviations of what a cell looks at, down and across; the mean over cells
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    reach: tuple[float, float]


def cells(network: Embedder, images: Tensor) -> Cells:
    """Measure where the cells of the last maps look in normalised images (B, 3, H, W) of one size.

    By the gradient of each cell with respect to the pixels: centre and deviation of its absolute values, over all
    images. Near a border this is not where kernels, strides and padding would put it, as there is nothing to see beside
    the image.
    """
    network.eval()
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        maps, _ = network.backbone(images)
    found = []
    for cell in maps.sum((0, 1)).flatten():
        (gradient,) = torch.autograd.grad(cell, images, retain_graph=True)
        for axis in (2, 3):
            weights = gradient.abs().double().sum((0, 1, 5 - axis)) + 1e-12  # what sees nothing: in the middle
            place = torch.arange(len(weights), dtype=torch.float64, device=weights.device)
            centre = (weights * place).sum() / weights.sum()
            found.append(torch.stack([centre, ((weights * (place - centre) ** 2).sum() / weights.sum()).sqrt()]))
    seen = torch.stack(found).cpu().numpy().reshape(*maps.shape[2:], 2, 2)  # by axis: centre and deviation
    down, across = seen[..., 1].mean((0, 1)).tolist()
    rows, columns = seen[:, :, 0, 0].mean(1), seen[:, :, 1, 0].mean(0)
    return Cells(np.maximum.accumulate(rows), np.maximum.accumulate(columns), (down, across))


def strongest(embeddings: Tensor, count: int, by: str = "absolute") -> Tensor:
    """Give the (B, count) dimensions of greatest value, or absolute value, of embeddings (B, D), strongest first."""
    strengths = embeddings.abs() if by == "absolute" else embeddings
    return strengths.argsort(dim=1, descending=True, stable=True)[:, :count]


def shared(left: Tensor, right: Tensor, count: int) -> Tensor:
    """Return the (B, count) dimensions that contribute most to the similarities of pairs of embeddings (B, D)."""
    return (left * right).argsort(dim=1, descending=True, stable=True)[:, :count]
