"""Batch images of mixed sizes exactly: choose batches, pad images to a common size, and mask the padding.

Every image is in the top-left corner of its padded input. `mask` is (B, 1, H, W) bool, true for pixels of the image, or
None if there is no padding. If kernels larger than 1 x 1 find zeros in the padding, as they do around a single image,
the network gives the embeddings and gradients of one image at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WASTE = 0.25
"""Largest share of padding in a batch, relative to the pixels of its images."""


def batches(sizes: NDArray[np.int64], at_once: int, pads: bool, smallest: int = 1) -> list[NDArray[np.int64]]:
    """Group images into batches: lists of rows of `sizes`, each row once.

    sizes     (N, 2) heights and widths
    at_once   largest number of images in a batch
    pads      images of different sizes may be padded to a common size, of at most 1 + WASTE times the pixels of the
              batch's images; otherwise a batch has one size
    smallest  smallest side in pixels that the network accepts
    Images are sorted by height, width and number, so the batches depend only on the sizes.
    Raises ValueError if an image is too small.
    """
    if len(sizes) and sizes.min() < smallest:
        height, width = sizes[sizes.min(1).argmin()]
        raise ValueError(too_small(height, width, smallest))
    bound = 1 + WASTE if pads else 1
    made: list[list[int]] = []
    tallest = widest = pixels = 0
    for row in np.lexsort((sizes[:, 1], sizes[:, 0])).tolist():
        height, width = sizes[row].tolist()
        tallest, widest, pixels = max(tallest, height), max(widest, width), pixels + height * width
        if made and len(made[-1]) < at_once and tallest * widest * (len(made[-1]) + 1) <= bound * pixels:
            made[-1].append(row)
        else:
            made.append([row])
            tallest, widest, pixels = height, width, height * width
    return [np.array(batch, np.int64) for batch in made]


def too_small(height: int, width: int, smallest: int) -> str:
    """Return the error message for an image that is too small for a backbone."""
    least = f"this backbone takes {smallest} x {smallest} or more"
    return f"an image is {height} x {width} pixels, {least}; enlarge images or crops, or choose another backbone"


def mask_of(extent: Tensor, height: int, width: int) -> Tensor:
    """Return the mask (B, 1, height, width) of images with these heights and widths (B, 2)."""
    rows = torch.arange(height, device=extent.device) < extent[:, :1]
    columns = torch.arange(width, device=extent.device) < extent[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def zero_(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Zero the padding of feature maps (B, C, H, W), in place: no gradient needs the overwritten values."""
    return maps if mask is None else maps.mul_(mask)


def halve(mask: Tensor | None) -> Tensor | None:
    """Return the mask after a stride of 2, which keeps ceil(n / 2) of n rows (kernel 2k + 1, padding k)."""
    return None if mask is None else mask[:, :, ::2, ::2].contiguous()
