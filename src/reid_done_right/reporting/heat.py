"""Maps of a convolutional network over the image that they were computed from."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates


def enlarge(heat: NDArray[np.floating], seen: tuple[int, int], shown: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate a map (h, w) of an image that the network saw at height and width `seen` to the size `shown`.

    In networks whose convolutions pad both sides alike, cell i looks at pixel i x stride, not at the middle of the
    i-th of h parts: drawn there, small maps shift to the right and down by half a cell. Beyond the last cell its value
    goes on.
    """
    lines = []
    for cells, side, pixels in zip(heat.shape, seen, shown, strict=True):
        stride = 2 ** round(np.log2(side / cells))
        lines.append(((np.arange(pixels) + 0.5) * side / pixels - 0.5) / stride)
    places = np.stack(np.meshgrid(*lines, indexing="ij"))
    return np.asarray(map_coordinates(heat.astype(np.float64), places, order=1, mode="nearest"), dtype=np.float32)
