"""Grad-CAM (Selvaraju et al., 2017) of single dimensions of an embedding, at the last convolutional stage (4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional as F

from reid_done_right.models.embedder import Embedder

ATTENTION = 50 / 2048
"""Share of the dimensions whose heat Figure 6 shows together."""


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


def share_inside(heat: NDArray[np.floating], mask: NDArray[np.floating]) -> float:
    """Return the share of a map (H, W), at least 0, that lies on a mask (H, W) of shares of pixels; NaN of no heat."""
    weights = heat.astype(np.float64)
    return float((weights * mask).sum() / weights.sum()) if weights.any() else np.nan


def enlarge(
    heat: NDArray[np.floating],
    looks: Sequence[NDArray[np.float64]],
    reach: tuple[float, float],
    seen: tuple[int, int],
    shown: tuple[int, int],
) -> NDArray[np.float32]:
    """Interpolate a map (h, w) of an image that the network saw at height and width `seen` to the size `shown`.

    looks  (h,) and (w,): where the cells of each row and column look, in pixels of `seen`, ascending
    reach  standard deviations, down and across, of what a cell looks at
    Bilinear between these places; beyond the outermost cells it fades, to nothing at twice the reach.
    """
    lines = []
    for centres, deviation, side, pixels in zip(looks, reach, seen, shown, strict=True):
        ends = (centres[0] - 2 * deviation, *centres, centres[-1] + 2 * deviation)
        places = (np.arange(pixels) + 0.5) * side / pixels - 0.5
        lines.append(np.interp(places, ends, np.arange(len(ends))))
    grid = np.stack(np.meshgrid(*lines, indexing="ij"))
    return np.asarray(map_coordinates(np.pad(heat.astype(np.float64), 1), grid, order=1), dtype=np.float32)


@dataclass(frozen=True)
class Heat:
    """Heat maps of a network, drawn over normalised images (1, 3, H, W).

    activations  which dimensions are the strongest: those of greatest value, or absolute value
    measured     size of images -> where their cells look
    """

    network: Embedder
    activations: str
    measured: dict[tuple[int, int], Cells] = field(default_factory=dict)

    @property
    def many(self) -> int:
        """The number of dimensions whose heat is shown together."""
        return max(1, round(ATTENTION * self.network.dimension))

    def cells(self, image: Tensor) -> Cells:
        """Return where the cells of an image look: as measured on the first of its size, as others hardly differ."""
        size = (image.shape[2], image.shape[3])
        if size not in self.measured:
            self.measured[size] = cells(self.network, image)
        return self.measured[size]

    def over(
        self, image: Tensor, dimensions: Tensor, shown: tuple[int, int], accumulate: bool = False
    ) -> list[NDArray[np.float32]]:
        """Return the maps of `grad_cam` at the size `shown` of the stored image."""
        heat = grad_cam(self.network, image, dimensions, accumulate)[0].float().cpu().numpy()
        of = self.cells(image)
        size = (image.shape[2], image.shape[3])
        return [enlarge(each, (of.rows, of.columns), of.reach, size, shown) for each in heat]

    def strongest(self, image: Tensor, count: int) -> Tensor:
        """Return the (1, count) strongest dimensions of an image's embedding."""
        with torch.no_grad():
            return strongest(maps_and_embeddings(self.network, image)[1], count, self.activations)

    def attention(self, image: Tensor, shown: tuple[int, int]) -> NDArray[np.float32]:
        """Return the joint map, at the size `shown`, of the strongest dimensions: that of Figure 6."""
        return self.over(image, self.strongest(image, self.many), shown, accumulate=True)[0]
