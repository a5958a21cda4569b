"""Transform batches of stored images for a network: crop, resize, flip, noise, normalisation.

`Views` describes the transform of each image in integers (window, size, mirroring, noise), drawn only from (seed,
update, image). `render` then computes the pixels on the device that holds them.

Resizing is the fixed-point bilinear filter with antialiasing of torch and torchvision for uint8 images: horizontally,
then vertically, integer weights, grey levels after each pass. A CPU uses torch's own kernel, grouping equal sizes: from
128 x 64 to 64 x 32 it takes a quarter of the time of float32 matrix products, to 416 x 208 a sixth. CUDA has no such
kernel; there the same integers form one matrix per axis and image, multiplied in float64, where sums of integers are
exact for any order and padding, even under TF32 or autocast. So an image's pixels depend neither on the batch nor on
the device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from reid_done_right.images.randomness import bits, noise, uniform
from reid_done_right.images.upload import upload

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's training images in [0, 1], RGB, as torchvision's V1 weights expect."""

CHUNK = {"cpu": 2**22, "cuda": 2**25}
"""Values that `render` processes at a time: bounds memory, and measured to be fast on a CPU."""

_FLIP, _SCALE, _ASPECT, _TOP, _LEFT, _CUTOUT_HEIGHT, _CUTOUT_WIDTH, _CUTOUT_TOP, _CUTOUT_LEFT, _PIXELS = range(10)
_DRAWS = np.arange(_PIXELS)[:, None]  # (k, 1): a row of draws each for (B,) images
_MORE = _PIXELS + 1
"""Of draws beyond those: tries of a crop, further regions of a cut-out."""
TRIES, LEAST_ASPECT, LARGEST_ASPECT = 10, 3 / 4, 4 / 3
"""Of a crop whose aspect, width / height, is in pixels: how often it is drawn until it fits, its bounds."""
_CROPS = np.arange(2 * TRIES)[:, None] + _MORE


class Images(Protocol):
    """N stored images of mixed sizes (`reid_done_right.images.pixels.Pixels`)."""

    sizes: NDArray[np.int64]
    """(N, 2) height, width."""
    device: torch.device

    def batch(self, indices: NDArray[np.int64]) -> Tensor:
        """Return images as uint8 (B, 3, H, W), channels last, each at the top left, on `device`."""


@dataclass(frozen=True)
class Views:
    """The transforms of B images, in pixels.

    window    (B, 4) int64 top, left, height, width in the stored image
    size      (B, 2) int64 height, width that the window is scaled to
    mirrored  (B,) bool, left and right exchanged
    cutout    (B, R, 4) int64 top, left, height, width of R regions in the scaled image; height or width 0 = none
    key       (B,) uint64 of their pixels
    """

    window: NDArray[np.int64]
    size: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    cutout: NDArray[np.int64]
    key: NDArray[np.uint64]

    def __len__(self) -> int:
        """Return B."""
        return len(self.size)

    def __getitem__(self, which: Any) -> Views:
        """Return some of the views: a slice, indices or a mask."""
        return Views(*(getattr(self, field.name)[which] for field in fields(self)))


def resized(sizes: NDArray[np.int64], largest_side: int, square: bool = False) -> NDArray[np.int64]:
    """Return `sizes` (N, 2) scaled to largest side M: aspect kept, other side rounded, never 0; if `square`, M x M."""
    if square:
        return np.full_like(sizes, largest_side)
    scaled = np.rint(sizes * (largest_side / sizes.max(1, keepdims=True)))
    return np.asarray(np.maximum(1, scaled), np.int64)


def whole(sizes: NDArray[np.int64], largest_side: int, square: bool = False) -> Views:
    """Return views of whole images of `sizes` (B, 2), resized up or down to largest side M (section 3.2), or M x M."""
    nothing = np.zeros_like(sizes)
    flat = np.zeros(len(sizes), np.int64)
    return Views(
        np.hstack([nothing, sizes]),
        resized(sizes, largest_side, square),
        flat.astype(np.bool_),
        np.zeros((len(sizes), 1, 4), np.int64),
        flat.astype(np.uint64),
    )


def augmented(
    sizes: NDArray[np.int64],
    largest_side: int,
    flip: bool,
    crop: float,
    cutout_largest: float,
    cutout_least: float,
    seed: int,
    update: int,
    image: NDArray[np.int64],
    regions: int = 1,
    copy: NDArray[np.int64] | int = 0,
    square: bool = False,
) -> Views:
    """Augment training images of the ranking stage, `image` (B,) of `sizes` (B, 2), at `update`.

    flip            mirror half of them
    crop            smallest side of a random window, as a fraction of the image's sides, scaled back; 0 = no crop
    cutout_largest  largest side of the cut-out, a rectangle of noise, as a fraction of the image's sides; 0 = none
    cutout_least    its smallest side, as a fraction of the largest
    regions         R, rectangles an image, each independent. Their sides are divided by the root of R, so that together
                    they cover as much as one would, apart from overlaps
    copy            (B,) number of the image's view, below 2^32: each is augmented independently
    square          distort images to M x M
    Each side of the cut-out is drawn uniformly, its pixels are independent uniform noise (section 3.2).
    """
    moment = update + np.asarray(copy, np.int64) * 2**32
    draw = uniform(seed, moment, image, _DRAWS)
    shown = whole(sizes, largest_side, square)
    window = shown.window
    if crop:
        scale = crop + (1 - crop) * draw[_SCALE]
        window = _placed(np.maximum(1, (sizes * scale[:, None]).astype(np.int64)), sizes, draw[_TOP], draw[_LEFT])
    cutouts = []
    for region in range(regions):
        four = draw[_CUTOUT_HEIGHT : _CUTOUT_LEFT + 1]
        if region:
            four = uniform(seed, moment, image, np.arange(4)[:, None] + _MORE + 4 * (region - 1))
        cutouts.append(_cutout(shown.size, cutout_largest / regions**0.5, cutout_least, four))
    mirrored = (draw[_FLIP] < 0.5) & flip
    return Views(window, shown.size, mirrored, np.stack(cutouts, 1), bits(seed, moment, image, _PIXELS))


def random_crops(
    sizes: NDArray[np.int64],
    size: tuple[int, int],
    smallest_area: float,
    flip: bool,
    seed: int,
    update: int,
    image: NDArray[np.int64],
    aspect: str = "image",
    cutout_largest: float = 0.0,
) -> Views:
    """Return views of random area and aspect ratio of each image, `image` (B,) of `sizes` (B, 2), resized to `size`.

    "Random-sized crops" of the classification stage (section 4.1): an area in [smallest_area, 1] of the image is drawn;
    mirrored half of the time if `flip`.
    aspect          pixels: width / height from 3/4 to 4/3, its logarithm uniform, as the RandomResizedCrop of
                    torchvision; image: one of the image's sides stretched and the other shrunk by exp(+-0.3), each cut
                    at the image's own
    cutout_largest  largest side of a rectangle of noise, as a fraction of the crop's sides, of at least half of that
    """
    draw = uniform(seed, update, image, _DRAWS)
    if aspect == "pixels":
        window = _by_pixels(sizes, smallest_area, draw, uniform(seed, update, image, _CROPS))
    else:
        area, stretch = smallest_area + (1 - smallest_area) * draw[_SCALE], np.exp(0.6 * draw[_ASPECT] - 0.3)
        sides = sizes * np.sqrt(area)[:, None] * np.stack([stretch, 1 / stretch], 1)
        part = np.minimum(sizes, np.maximum([8, 6], sides.astype(np.int64)))
        window = _placed(part, sizes, draw[_TOP], draw[_LEFT])
    crop = np.tile(np.array(size, np.int64), (len(sizes), 1))
    cutout = _cutout(crop, cutout_largest, 0.5, draw[_CUTOUT_HEIGHT : _CUTOUT_LEFT + 1])
    return Views(window, crop, (draw[_FLIP] < 0.5) & flip, cutout[:, None], bits(seed, update, image, _PIXELS))


def _by_pixels(
    sizes: NDArray[np.int64], smallest_area: float, draw: NDArray[np.float64], tries: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Place a window of random area and aspect, in pixels, in images of `sizes` (B, 2): (B, 4).

    Of as many tries (2 * TRIES, B), for area and aspect, the first that fits; where none does, the largest window in
    the middle whose aspect is within the bounds.
    """
    area = sizes.prod(1) * (smallest_area + (1 - smallest_area) * tries[:TRIES])
    low, high = np.log([LEAST_ASPECT, LARGEST_ASPECT])
    aspect = np.exp(low + (high - low) * tries[TRIES:])
    sides = np.rint(np.sqrt(np.stack([area / aspect, area * aspect], 2))).astype(np.int64)  # (TRIES, B, 2)
    fits = ((sides > 0) & (sides <= sizes)).all(2)
    drawn = np.take_along_axis(sides, fits.argmax(0)[None, :, None], 0)[0]
    bounded = np.rint(np.stack([sizes[:, 1] / LEAST_ASPECT, sizes[:, 0] * LARGEST_ASPECT], 1)).astype(np.int64)
    middle = np.maximum(1, np.minimum(sizes, bounded))
    some = fits.any(0)
    placed = _placed(np.where(some[:, None], drawn, middle), sizes, draw[_TOP], draw[_LEFT])
    return np.where(some[:, None], placed, np.hstack([(sizes - middle) // 2, middle]))


def _cutout(shown: NDArray[np.int64], largest: float, least: float, draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place a rectangle in images shown at sizes (B, 2), its sides fractions from `least` of `largest` up: (B, 4).

    draw  (4, B) for its height, width, top and left
    """
    sides = (least + (1 - least) * draw[:2].T) * largest
    return _placed((shown * sides).astype(np.int64), shown, draw[2], draw[3])


def _placed(
    part: NDArray[np.int64], sizes: NDArray[np.int64], top: NDArray[np.float64], left: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Place rectangles of sides `part` (B, 2) in `sizes` (B, 2) at uniformly random positions: (B, 4)."""
    corner = ((sizes - part + 1) * np.stack([top, left], 1)).astype(np.int64)
    return np.hstack([corner, part])


def render(images: Images, indices: NDArray[np.int64], views: Views) -> tuple[Tensor, Tensor | None]:
    """Compute views of the images at `indices` (B,), ready for a network.

    Returns float32 (B, 3, H, W), channels last, normalised, each image at the top left and padded by exact zeros, on
    the device of the images; and their heights and widths (B, 2) int64, or None if all fill (H, W). An image's pixels
    do not depend on the others.
    Raises ValueError if there are no views, or if a view lies outside its image.
    """
    sizes = images.sizes[indices]
    _check(sizes, views)
    height, width = views.size.max(0).tolist()
    out = torch.empty((len(views), height, width, 3), device=images.device)
    step = max(1, CHUNK[images.device.type] // (3 * int(max(height * width, sizes.max(0).prod()))))
    for start in range(0, len(views), step):
        some = slice(start, start + step)
        grey = resample(images.batch(indices[some]), views[some], (height, width))
        fill_cutouts(grey, views[some])
        normalise(grey, views[some], out[some])
    full = np.array_equal(views.size.min(0), [height, width])
    return out.permute(0, 3, 1, 2), None if full else upload(views.size, images.device)


def _check(sizes: NDArray[np.int64], views: Views) -> None:
    """Raise ValueError unless every view lies in its image and every cut-out in its view."""
    if len(views) != len(sizes) or len(sizes) == 0:
        raise ValueError(f"{len(views)} views of {len(sizes)} images; expected one of each, and one at least")
    regions = views.cutout.transpose(1, 0, 2)
    checked = [("window", views.window, sizes, 1), *(("cutout", region, views.size, 0) for region in regions)]
    for what, parts, bounds, least in checked:
        corner, sides = parts[:, :2], parts[:, 2:]
        bad = ((corner < 0) | (sides < least) | (corner + sides > bounds)).any(1)
        if bad.any():
            at = int(bad.argmax())
            top, left, height, width = parts[at].tolist()
            within = " x ".join(map(str, bounds[at].tolist()))
            raise ValueError(f"{what} {at} of {height} x {width} at {top}, {left} leaves its {within} pixels")
    if (views.size < 1).any():
        raise ValueError(f"view {int((views.size < 1).any(1).argmax())} has a side below one pixel")


def resample(images: Tensor, views: Views, grid: tuple[int, int]) -> Tensor:
    """Scale windows of uint8 images (B, 3, H, W) to their sizes: uint8 (B, 3, *grid), channels last, at the top left.

    What lies beside an image is undefined.
    """
    return (_by_matrices if images.is_cuda else _by_kernel)(images, views, grid)


def _by_kernel(images: Tensor, views: Views, grid: tuple[int, int]) -> Tensor:
    """Scale with torch's kernel for uint8 on CPUs, windows of one size to one size together."""
    kinds = np.hstack([views.window[:, 2:], views.mirrored[:, None], views.size])
    shapes, shape = np.unique(kinds, axis=0, return_inverse=True)
    rows = images.permute(0, 2, 3, 1)
    out = torch.empty((len(views), *grid, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for which, (height, width, mirrored, *size) in enumerate(shapes.tolist()):
        indices = np.flatnonzero(shape == which).tolist()
        corners = views.window[indices, :2].tolist()
        windows = [rows[at, y : y + height, x : x + width] for at, (y, x) in zip(indices, corners, strict=True)]
        scaled = F.interpolate(torch.stack(windows).permute(0, 3, 1, 2), size, mode="bilinear", antialias=True)
        scaled = scaled.flip(3) if mirrored else scaled
        if len(shapes) == 1 and tuple(size) == grid:
            return scaled
        for at, image in zip(indices, scaled, strict=True):
            out[at, :, : size[0], : size[1]] = image
    return out


def _by_matrices(images: Tensor, views: Views, grid: tuple[int, int]) -> Tensor:
    """Scale with two matrix products of integers in float64: the bits of `_by_kernel` on any device."""
    numbers = upload(np.column_stack([views.window, views.size, views.mirrored]), images.device)
    window, size, mirrored = numbers[:, :4], numbers[:, 4:6], numbers[:, 6].bool()
    batch, _, height, width = images.shape
    down, down_unit = _filters(window[:, 0], window[:, 2], size[:, 0], mirrored & False, height, grid[0])
    along, along_unit = _filters(window[:, 1], window[:, 3], size[:, 1], mirrored, width, grid[1])
    rows = images.to(torch.float64, memory_format=torch.contiguous_format).view(batch, 3 * height, width)
    rows = _grey(rows @ along.transpose(1, 2), along_unit).view(batch, 3, height, grid[1])
    grey = _grey((down[:, None] @ rows).view(batch, 3 * grid[0], grid[1]), down_unit)
    return grey.view(batch, 3, *grid).to(torch.uint8, memory_format=torch.channels_last)


def _filters(
    start: Tensor, length: Tensor, size: Tensor, mirrored: Tensor, pixels: int, grid: int
) -> tuple[Tensor, Tensor]:
    """Return the integer weights (B, grid, pixels) of one axis, and what a filter's weights sum to (B, 1, 1), about.

    A triangle as wide as two steps of the coarser of the two rasters, cut at the window; then as many bits as an int16
    has room for, as in ATen's UpSampleKernel (`_compute_index_ranges_int16_weights`).
    """
    start, length, size, mirrored = (of.view(-1, 1, 1) for of in (start, length, size, mirrored))
    scale = length.double() / size
    target = torch.arange(grid, device=start.device).view(1, -1, 1)
    target = torch.where(mirrored, size - 1 - target, target)
    source = torch.arange(pixels, device=start.device) - start
    distance = (source - scale * (target + 0.5) + 0.5).abs() * torch.where(scale > 1, 1 / scale, 1.0)
    weights = (1 - distance).clamp_(min=0) * ((source >= 0) & (source < length) & (target >= 0) & (target < size))
    weights = weights / weights.sum(2, keepdim=True).clamp_(min=1e-9)
    largest = weights.amax((1, 2)).view(-1, 1, 1)
    powers = torch.arange(1, 23, device=start.device).double().exp2()
    unit = ((0.5 + largest * powers).floor() < 2**15).sum(2, keepdim=True).double().exp2()
    return (0.5 + weights * unit).floor_(), unit


def _grey(sums: Tensor, unit: Tensor) -> Tensor:
    """Round sums of weighted grey levels, in place, to grey levels."""
    return sums.add_(unit / 2).div_(unit).floor_().clamp_(max=255)


def fill_cutouts(grey: Tensor, views: Views) -> None:
    """Fill each view's cut-outs with noise, on its grey levels, uint8 (B, 3, H, W) channels last, in place."""
    regions = views.cutout.shape[1]
    cutout = views.cutout.reshape(-1, 4)
    count = cutout[:, 2:].prod(1)
    total = int(count.sum())
    of_image = np.column_stack([np.arange(len(views)), views.key.view(np.int64)]).repeat(regions, 0)
    described = np.column_stack([of_image, count.cumsum() - count, cutout])
    of_region = upload(described, grey.device)
    of_pixel = of_region.repeat_interleave(of_region[:, 5] * of_region[:, 6], 0, output_size=total)
    image, key, first, top, left, _, width = of_pixel.unbind(1)
    position = torch.arange(total, device=grey.device) - first
    row, column = top + position // width, left + position % width
    grey.permute(0, 2, 3, 1)[image, row, column] = noise(key, row, column)


def normalise(grey: Tensor, views: Views, out: Tensor) -> None:
    """Write uint8 views (B, 3, H, W), channels last, with ImageNet's mean and deviation, to float32 (B, H, W, 3).

    What lies beside a view becomes zero.
    """
    batch, _, height, width = grey.shape
    mean, std = (torch.tensor(of, dtype=torch.float64).repeat(width) for of in (MEAN, STD))
    slope, start = upload(torch.stack([1 / (255 * std), -mean / std]).float().numpy(), out.device)
    rows = out.view(batch, height, 3 * width)  # a colour innermost would be a loop of three
    rows.copy_(grey.permute(0, 2, 3, 1).reshape(rows.shape))
    torch.addcmul(start, rows, slope, out=rows)
    if (views.size != (height, width)).any():
        size = upload(views.size, out.device).view(batch, 2, 1, 1)
        rows.mul_((torch.arange(height, device=out.device).view(-1, 1) < size[:, 0]).float())
        rows.mul_((torch.arange(3 * width, device=out.device) < 3 * size[:, 1]).float())
