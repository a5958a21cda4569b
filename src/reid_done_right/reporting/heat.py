"""Overlay the maps of a convolutional network on their image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates


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
