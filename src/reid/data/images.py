"""From files to pixels: every file is decoded once, boxes are cut out, nothing is resized or normalised here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from reid.artifacts import Index, InputError

Image = NDArray[np.uint8]
"""(h, w, 3), RGB."""

JPEG_SIGNATURE = b"\xff\xd8"
HEAD = 2**14
"""Bytes of a file in which a JPEG tells its size, unless it carries a large preview."""

Content = TypeVar("Content")
Part = TypeVar("Part")


def load(index: Index, rows: Sequence[int] | NDArray[np.int64], threads: int = 1) -> list[Image]:
    """Load the images of some index rows.

    Returns one (h, w, 3) uint8 RGB array per row, in the order of `rows`: the whole image, or what of the row's box
    lies inside it. A file that several rows share is decoded once. The result does not depend on `threads`.
    Raises InputError naming file and row if a file is missing, damaged or no image, or a box lies outside it.
    """
    return _each(index, rows, threads, lambda path: decode(path.read_bytes()), cut)


def measure(index: Index, rows: Sequence[int] | NDArray[np.int64], threads: int = 1) -> NDArray[np.int64]:
    """Give the sizes (N, 2), height and width, of what `load` loads, from the beginnings of the files alone.

    Raises InputError as `load` does, as far as it reads.
    """
    sizes = _each(index, rows, threads, _size, lambda size, box: _clip(size, box)[2:])
    return np.array(sizes, np.int64).reshape(-1, 2)


def _each(
    index: Index,
    rows: Sequence[int] | NDArray[np.int64],
    threads: int,
    read: Callable[[Path], Content],
    part: Callable[[Content, Sequence[int]], Part],
) -> list[Part]:
    """Read every file of some rows once, and give what part of it each row's box makes."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, path in enumerate(index.path[rows].tolist()):
        places[path].append(place)
    parts: dict[int, Part] = {}

    def read_files(paths: list[str]) -> None:
        for path in paths:
            row = rows[places[path][0]]
            try:
                content = read(index.root / path)
                for place in places[path]:
                    row = rows[place]
                    parts[place] = part(content, index.box[row].tolist())
            except (OSError, ValueError) as error:
                reason = "there is none" if isinstance(error, FileNotFoundError) else error
                raise InputError(
                    f"{index.root / path}: index row {row} needs an image here, but {reason}; "
                    "restore the release and run `reid dataset` again"
                ) from None

    files = list(places)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read_files, [files[first::threads] for first in range(threads)]))
    return [parts[place] for place in range(len(rows))]


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
    top, left, height, width = _clip(image.shape[:2], box)
    return image if box[2] == 0 else image[top : top + height, left : left + width].copy()


def _clip(size: tuple[int, ...], box: Sequence[int]) -> tuple[int, int, int, int]:
    """Give top, left, height and width of what a box x, y, w, h has in common with an image of `size`."""
    x, y, w, h = box if box[2] else (0, 0, size[1], size[0])
    top, left = max(y, 0), max(x, 0)
    height, width = min(y + h, size[0]) - top, min(x + w, size[1]) - left
    if height < 1 or width < 1:
        raise ValueError(f"box {x} {y} {w} {h} lies outside its {size[1]} x {size[0]} pixels")
    return top, left, height, width


def _size(path: Path) -> tuple[int, int]:
    """Give an image file's height and width."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head.startswith(JPEG_SIGNATURE):
            try:
                height, width, *_ = simplejpeg.decode_jpeg_header(head)
                return height, width
            except ValueError:  # a header beyond HEAD, or what only Pillow reads
                pass
        from PIL import Image as pillow

        with pillow.open(file) as opened:
            return opened.height, opened.width
