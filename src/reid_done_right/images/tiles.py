"""Images in rows and columns of tiles, as equal as whole pixels allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def tile_means(values: NDArray[np.floating], tiles: tuple[int, int]) -> NDArray[np.float64]:
    """Return the mean of values (H, W) in each of `tiles` rows and columns, none of which may exceed H or W."""
    rows, columns = _edges(values.shape, tiles)
    sums = np.add.reduceat(np.add.reduceat(values.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
    return np.asarray(sums / np.outer(np.diff(rows), np.diff(columns)), np.float64)


def blanked(picture: NDArray[np.uint8], tiles: tuple[int, int], which: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) with some of its tiles, counted row by row from 0, filled with its mean colour."""
    filled = picture.copy()
    rows, columns = _edges(picture.shape, tiles)
    colour = np.rint(picture.mean((0, 1))).astype(np.uint8)
    for row, column in zip(*np.divmod(which, tiles[1]), strict=True):
        filled[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = colour
    return filled


def _edges(size: tuple[int, ...], tiles: tuple[int, int]) -> list[NDArray[np.int64]]:
    """Return where the rows of tiles begin and the last ends, and so the columns."""
    return [
        np.linspace(0, side, count + 1).round().astype(np.int64) for side, count in zip(size[:2], tiles, strict=True)
    ]
