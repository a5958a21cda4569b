"""Maps of a convolutional network over the image that they were computed from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates


def enlarge(
    heat: NDArray[np.floating], looks: Sequence[NDArray[np.float64]], seen: tuple[int, int], shown: tuple[int, int]
) -> NDArray[np.float32]:
    """Interpolate a map (h, w) of an image that the network saw at height and width `seen` to the size `shown`.

    looks  (h,) and (w,): where the cells of each row and column look, in pixels of `seen`, ascending
    Bilinear between these places; beyond the last cell its value goes on.
    """
    lines = []
    for centres, side, pixels in zip(looks, seen, shown, strict=True):
        places = (np.arange(pixels) + 0.5) * side / pixels - 0.5
        lines.append(np.interp(places, centres, np.arange(len(centres))))
    grid = np.stack(np.meshgrid(*lines, indexing="ij"))
    return np.asarray(map_coordinates(heat.astype(np.float64), grid, order=1, mode="nearest"), dtype=np.float32)
