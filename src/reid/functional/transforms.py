"""Images on their way into a network: resize without distortion, flip, crop, noise cut-out, normalisation.

Images are uint8 tensors (3, h, w) until `normalise`. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's training images on [0, 1], RGB: what torchvision's V1 weights expect."""


def by_size(images: Sequence[Tensor]) -> list[list[int]]:
    """Give the places of images of the same size together, sizes in order of first appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(place)
    return list(groups.values())


def apply_by_size(network: Callable[[Tensor], Tensor], images: Sequence[Tensor], batch: int = 256) -> Tensor:
    """Run a network over uint8 images (3, h, w) of mixed sizes, same sizes together; give (N, D) in their order.

    With frozen batch norm the result and its gradient are those of one image at a time. Batches are filled up to a
    multiple of 8 with copies whose outputs are dropped: the CPU's kernels are compiled for each new batch size.
    """
    outputs: list[Tensor] = []
    order: list[int] = []
    for places in by_size(images):
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            filled = some + some[:1] * (-len(some) % 8)
            outputs.append(network(normalise(torch.stack([images[i] for i in filled])))[: len(some)])
            order += some
    back = torch.empty(len(order), dtype=torch.int64)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(outputs)[back.to(outputs[0].device)]


def resize(images: Sequence[NDArray[np.uint8]], largest_side: int) -> list[Tensor]:
    """Scale images (h, w, 3) so that their largest side is M pixels, keeping their aspect ratio (section 3.2).

    Bilinear with antialiasing, up-scaling allowed, the other side rounded to nearest. Gives uint8 (3, h', w').
    """
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    resized: list[Tensor] = list(tensors)
    for places in by_size(tensors):
        height, width = tensors[places[0]].shape[1:]
        scale = largest_side / max(height, width)
        target = (max(1, round(height * scale)), max(1, round(width * scale)))
        for start in range(0, len(places), 512):
            some = places[start : start + 512]
            batch = _scale(torch.stack([tensors[i] for i in some]), target)
            for place, image in zip(some, batch, strict=True):
                resized[place] = image
    return resized


def random_crops(
    images: Sequence[Tensor],
    size: tuple[int, int],
    smallest_area: float,
    flip: bool,
    generator: np.random.Generator,
) -> Tensor:
    """Cut a window of random area and aspect from each image and scale it to `size`: uint8 (B, 3, *size).

    "Random-sized crops" of the classification stage (section 4.1): an area in [smallest_area, 1] of the image is drawn,
    then one side stretched and the other shrunk by exp(+-0.3), each cut at the image's own; mirrored half of the time
    if `flip`.
    """
    crops = []
    for image in images:
        _, height, width = image.shape
        area, aspect = generator.uniform(smallest_area, 1.0), np.exp(generator.uniform(-0.3, 0.3))
        h = min(height, max(8, int(height * np.sqrt(area) * aspect)))
        w = min(width, max(6, int(width * np.sqrt(area) / aspect)))
        top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
        window = image[None, :, top : top + h, left : left + w]
        if flip and generator.random() < 0.5:
            window = window.flip(3)
        crops.append(_scale(window, size, antialias=False)[0])
    return torch.stack(crops)


def augment(image: Tensor, flip: bool, crop: float, cutout: float, generator: np.random.Generator) -> Tensor:
    """Augment one training image of the ranking stage; its size stays as it is.

    flip    mirror half of the time
    crop    smallest side of a random window, as a fraction of the image's sides, scaled back; 0 = no crop
    cutout  largest side of the noise rectangle, as a fraction of the image's sides; 0 = none. Each side is drawn
            uniformly from [0, cutout], the pixels are independent uniform noise (section 3.2, "cut-out")
    """
    _, height, width = image.shape
    if flip and generator.random() < 0.5:
        image = image.flip(2)
    if crop:
        scale = generator.uniform(crop, 1.0)
        h, w = max(1, int(height * scale)), max(1, int(width * scale))
        top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
        image = _scale(image[None, :, top : top + h, left : left + w], (height, width), antialias=False)[0]
    h, w = int(height * generator.uniform(0, cutout)), int(width * generator.uniform(0, cutout))
    if h and w:
        top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
        noise = generator.integers(0, 256, (3, h, w), dtype=np.uint8)
        image = image.clone()
        image[:, top : top + h, left : left + w] = torch.from_numpy(noise)
    return image


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 images (B, 3, h, w) into float32 with ImageNet's mean and deviation, channels last."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _scale(images: Tensor, size: tuple[int, int], antialias: bool = True) -> Tensor:
    """Bilinear scaling of uint8 images (B, 3, h, w), rounded to nearest."""
    if tuple(images.shape[2:]) == size:
        return images
    scaled = F.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=antialias)
    return scaled.clamp(0, 255).round().to(torch.uint8)
