"""From files to pixels: every file is decoded once, boxes are cut out, nothing is resized or normalised here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from reid.artifacts import Index, InputError

Image = NDArray[np.uint8]
"""(h, w, 3), RGB."""

JPEG_SIGNATURE = b"\xff\xd8"


def load(index: Index, rows: Sequence[int] | NDArray[np.int64], threads: int = 1) -> list[Image]:
    """Load the images of some index rows.

    Returns one (h, w, 3) uint8 RGB array per row, in the order of `rows`: the whole image, or what of the row's box
    lies inside it. A file that several rows share is decoded once. The result does not depend on `threads`.
    Raises InputError naming file and row if a file is missing, damaged or no image, or a box lies outside it.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, path in enumerate(index.path[rows].tolist()):
        places[path].append(place)
    images: list[Image] = [np.empty((0, 0, 3), np.uint8)] * len(rows)

    def load_files(paths: list[str]) -> None:
        for path in paths:
            row = rows[places[path][0]]
            try:
                whole = decode((index.root / path).read_bytes())
                for place in places[path]:
                    row = rows[place]
                    images[place] = cut(whole, index.box[row].tolist())
            except (OSError, ValueError) as error:
                reason = "there is none" if isinstance(error, FileNotFoundError) else error
                raise InputError(
                    f"{index.root / path}: index row {row} needs an image here, but {reason}; "
                    "restore the release and run `reid dataset` again"
                ) from None

    files = list(places)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(load_files, [files[first::threads] for first in range(threads)]))
    return images


def decode(content: bytes) -> Image:
    """Decode a file's bytes to (h, w, 3) uint8 RGB: JPEG, known by its signature, else whatever Pillow reads.

    Stray bytes between the segments of a JPEG harm no pixel; simplejpeg refuses them, Pillow passes over them.
    Raises ValueError or OSError on damaged, truncated or foreign content.
    """
    if content.startswith(JPEG_SIGNATURE):
        try:
            return np.asarray(simplejpeg.decode_jpeg(content))
        except ValueError as error:
            if "extraneous bytes" not in str(error):
                raise
    from PIL import Image as pillow

    with pillow.open(BytesIO(content)) as opened:
        return np.asarray(opened.convert("RGB"))


def cut(image: Image, box: Sequence[int]) -> Image:
    """Cut out a box x, y, w, h (pixels), clipped to the image (h, w, 3); w = 0 gives the whole image.

    A cut is a copy, so that it does not keep its scene in memory. Raises ValueError if nothing of the box is inside.
    """
    x, y, w, h = box
    if w == 0:
        return image
    inside = image[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
    if inside.size == 0:
        raise ValueError(f"box {x} {y} {w} {h} lies outside its {image.shape[1]} x {image.shape[0]} pixels")
    return inside.copy()
