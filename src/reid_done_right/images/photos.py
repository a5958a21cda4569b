"""Decode photos for a single pass (files, arrays, Pillow images) in parts of bounded size, one part ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import read_regular, reason_of
from reid_done_right.images.decode import MOST_PIXELS, Image, decode, measure_file, of_pillow

PHOTOS = 1024
"""Largest number of photos in a part."""
BYTES = 3 * MOST_PIXELS
"""Largest number of decoded bytes in a part; the largest allowed photo takes as many alone."""


def decoded(photos: Sequence[Any], threads: int = 1) -> Iterator[list[Image | str]]:
    """Yield parts of the photos as (h, w, 3) uint8 RGB, upright, in order, with the reason instead of a damaged one.

    photos  files (str or Path), uint8 arrays (h, w, 3) or grey (h, w), Pillow images
    At most two parts of up to `PHOTOS` photos and `BYTES` are in memory: the next is decoded while one is used. The
    parts, and therefore a network's batches, do not depend on `threads`.
    """
    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as ahead:
        coming = None
        for part in (*_parts(photos, pool), None):
            current, coming = coming, None if part is None else ahead.submit(_decode_all, part, pool)
            if current is not None:
                yield current.result()


def _parts(photos: Sequence[Any], pool: ThreadPoolExecutor) -> Iterator[Sequence[Any]]:
    """Split photos into parts by the sizes in their headers."""
    for start in range(0, len(photos), PHOTOS):
        some = photos[start : start + PHOTOS]
        first = room = 0
        for number, size in enumerate(pool.map(_bytes, some)):
            if number > first and room + size > BYTES:
                yield some[first:number]
                first, room = number, 0
            room += size
        yield some[first:]


def _bytes(photo: Any) -> int:
    """Return the bytes of a decoded photo, 0 if it cannot be decoded."""
    if isinstance(photo, str | Path):
        with suppress(OSError, ValueError):
            height, width = measure_file(Path(photo))
            return 3 * height * width
        return 0
    if isinstance(photo, np.ndarray):
        return 3 * photo.size
    return 3 * getattr(photo, "width", 0) * getattr(photo, "height", 0)


def _decode_all(part: Sequence[Any], pool: ThreadPoolExecutor) -> list[Image | str]:
    return list(pool.map(decode_photo, part))


def decode_photo(photo: Any) -> Image | str:
    """Return a decoded photo, or what is wrong with it."""
    try:
        if isinstance(photo, str | Path):
            return decode(read_regular(Path(photo)), upright=True)
        if isinstance(photo, np.ndarray):
            return array_image(photo)
        if hasattr(photo, "getexif"):
            return of_pillow(photo)
    except FileNotFoundError:
        return "there is none"
    except (OSError, ValueError) as error:
        return reason_of(error)
    return f"it is of type {type(photo).__name__}; give a path, an array (h, w, 3) of uint8 or an image of Pillow"


def array_image(pixels: NDArray[Any]) -> Image:
    """Return an array as (h, w, 3), grey repeated. Raises ValueError for anything else."""
    if pixels.dtype == np.uint8 and pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"it is {pixels.dtype} of shape {pixels.shape}, expected uint8 (h, w, 3) in RGB order")
    return np.ascontiguousarray(pixels)
