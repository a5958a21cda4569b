"""Decode files to pixels and crop boxes, each file once; nothing is resized or normalised here."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from reid_done_right.artifacts import MOST_BYTES, Index, InputError, read_regular, reason_of, regular

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Image = NDArray[np.uint8]
"""(h, w, 3), RGB."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats that Pillow may detect, whatever a file's name. It would run PostScript through Ghostscript."""
JPEG_SIGNATURE = b"\xff\xd8"
MOST_PIXELS = 89_478_485
"""Largest image: Pillow's own limit against decompression bombs, 256 MiB as RGB."""
HEAD = 2**14
"""Bytes at the start of a JPEG that contain its size, unless it has a large preview."""

UNKNOWN_RANGE = "it has 32 bits a pixel, whose black and white are unknown; save it with 8 or 16"

Content = TypeVar("Content")
Part = TypeVar("Part")


def load(index: Index, rows: Sequence[int] | NDArray[np.int64], threads: int = 1) -> list[Image]:
    """Load the images of index rows.

    Returns one (h, w, 3) uint8 RGB array per row, in the order of `rows`: the whole image, or what of the row's box
    lies inside it. A file that several rows share is decoded once. The result does not depend on `threads`.
    Raises InputError naming file and row if a file is missing, damaged, no image or another one than was indexed, or a
    box lies outside it.
    """

    def read(path: Path, row: int) -> Image:
        content = read_regular(path)
        if index.content is not None and content_digest(content) != index.content[row]:
            raise ValueError("it is not the file that was indexed")
        return decode(content, index.upright)

    return _each(index, rows, threads, read, cut)


def content_digest(content: bytes) -> int:
    """Return the first 8 bytes of a file's SHA-256, which detect a changed file."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def measure(index: Index, rows: Sequence[int] | NDArray[np.int64], threads: int = 1) -> NDArray[np.int64]:
    """Return the sizes (N, 2), height and width, of the images from `load`, reading only the headers.

    Raises InputError as `load` does, for errors in a header.
    """
    sizes = _each(
        index, rows, threads, lambda path, _: measure_file(path, index.upright), lambda size, box: clip(size, box)[2:]
    )
    return np.array(sizes, np.int64).reshape(-1, 2)


def _each(
    index: Index,
    rows: Sequence[int] | NDArray[np.int64],
    threads: int,
    read: Callable[[Path, int], Content],
    part: Callable[[Content, Sequence[int]], Part],
) -> list[Part]:
    """Read every file of some rows once, and convert it for each row's box."""
    wanted: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(index.path[rows].tolist()):
        wanted[path].append(position)
    parts: dict[int, Part] = {}

    def read_files(paths: list[str]) -> None:
        for path in paths:
            row = rows[wanted[path][0]]
            try:
                content = read(index.root / path, int(row))
                for position in wanted[path]:
                    row = rows[position]
                    parts[position] = part(content, index.box[row].tolist())
            except (OSError, ValueError) as error:
                reason = "there is none" if isinstance(error, FileNotFoundError) else reason_of(error)
                raise InputError(
                    f"{index.root / path}: index row {row} needs an image here, but {reason}; "
                    "restore the release and run `reid dataset` again"
                ) from None

    files = list(wanted)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read_files, [files[first::threads] for first in range(threads)]))
    return [parts[position] for position in range(len(rows))]


def decode(content: bytes, upright: bool = False) -> Image:
    """Decode a file's bytes to (h, w, 3) uint8 RGB: JPEG, detected by its signature, or a format in `FORMATS`.

    Grey is repeated, CMYK converted, 16 bits reduced to the higher 8, transparency placed on white. `upright` applies
    the EXIF orientation; without it, pixels stay as stored, as the benchmarks' boxes and official evaluation code
    expect. Stray bytes between the segments of a JPEG are harmless; simplejpeg refuses them, Pillow skips them.
    Raises ValueError or OSError on empty, damaged, truncated or foreign content, on animations, on pixels of 32 bits
    and on more than `MOST_PIXELS`.
    """
    if inspect(content)[1]:
        try:
            return _turn(np.asarray(simplejpeg.decode_jpeg(content)), content, upright)
        except ValueError as error:
            if "extraneous bytes" not in str(error):
                raise
    from PIL import Image as pillow

    with _telling(), pillow.open(BytesIO(content), formats=FORMATS) as opened:
        return _turn(_rgb(opened), content, upright)


def inspect(content: bytes) -> tuple[tuple[int, int], bool]:
    """Read only a file's header: height and width, and whether it is a grey or RGB JPEG, for simplejpeg.

    Raises as `decode`, for errors in a header.
    """
    if not content:
        raise ValueError("it is empty (0 bytes)")
    if content.startswith(JPEG_SIGNATURE):
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
        except ValueError as error:
            raise ValueError(f"its JPEG header is damaged ({error})") from None
        except KeyError:  # an unknown number of colours
            raise ValueError("its JPEG header is damaged") from None
        if height * width <= MOST_PIXELS and colours != "CMYK":
            return (height, width), True
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    try:
        with _telling(), pillow.open(BytesIO(content), formats=FORMATS) as opened:
            width, height = opened.size
            frames, mode = getattr(opened, "n_frames", 1), opened.mode
    except UnidentifiedImageError:
        raise ValueError("it is not a recognised image format") from None
    if height * width > MOST_PIXELS:
        raise ValueError(f"its {width} x {height} pixels are more than {MOST_PIXELS}; scale it down")
    if frames > 1 and not content.startswith(JPEG_SIGNATURE):
        raise ValueError(f"it is an animation of {frames} frames; save the frame that you mean as an image of its own")
    if mode in ("I", "F"):
        raise ValueError(UNKNOWN_RANGE)
    return (height, width), False


def of_pillow(opened: PillowImage) -> Image:
    """Convert a Pillow image to (h, w, 3) uint8 RGB, upright, as `decode` would.

    Raises ValueError or OSError if its pixels are damaged or of 32 bits.
    """
    if opened.mode in ("I", "F"):
        raise ValueError(UNKNOWN_RANGE)
    turn = TURNS.get(_stated(opened))
    image = _rgb(opened)
    return image if turn is None else np.ascontiguousarray(turn(image))


def _rgb(opened: PillowImage) -> Image:
    """Convert an open Pillow image to (h, w, 3) uint8 RGB."""
    from PIL import Image as pillow

    if opened.mode.startswith("I;16"):
        grey = (np.asarray(opened).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if opened.has_transparency_data:
        coloured = opened.convert("RGBA")
        white = pillow.new("RGBA", coloured.size, "white")
        return np.asarray(pillow.alpha_composite(white, coloured).convert("RGB"))
    return np.asarray(opened.convert("RGB"))


TURNS: dict[int, Callable[[Image], Image]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}
"""EXIF orientation -> transposition to upright; 1 is upright."""
LYING = (5, 6, 7, 8)
"""Orientations that swap height and width."""
ORIENTATION = 274
"""EXIF tag of the orientation."""


def _turn(image: Image, content: bytes, upright: bool) -> Image:
    turn = TURNS.get(_orientation(content)) if upright else None
    return image if turn is None else np.ascontiguousarray(turn(image))


def _orientation(content: bytes) -> int:
    """Return the EXIF orientation of a file."""
    from PIL import Image as pillow

    with _telling(), pillow.open(BytesIO(content), formats=FORMATS) as opened:
        return _stated(opened)


def is_turned(path: Path) -> bool:
    """Return whether a file states an EXIF orientation that turns it. Raises as `decode`, for errors in a header."""
    content = read_regular(path)
    inspect(content)
    return _orientation(content) in TURNS


def _stated(opened: PillowImage) -> int:
    """Return the EXIF orientation of an image, 1 if there is none or none that EXIF knows, as Pillow takes it.

    A fraction counts if it is whole: 6/1 is 6, and 1/0, as some cameras write it, is none.
    """
    found = opened.getexif().get(ORIENTATION, 1)
    return next((known for known in TURNS if known == found), 1)


@contextmanager
def _telling() -> Iterator[None]:
    """Turn everything that Pillow raises on damaged files into ValueError, except OSError."""
    from PIL import Image as pillow

    try:
        yield
    except (OSError, ValueError):
        raise
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        raise ValueError(f"it has more than {MOST_PIXELS} pixels; scale it down") from None
    except Exception as error:  # SyntaxError, TypeError, struct.error, zlib.error, KeyError, ...
        raise ValueError(f"it is damaged ({str(error) or type(error).__name__})") from None


def measure_file(path: Path, upright: bool = False) -> tuple[int, int]:
    """Return height and width of a decoded file; for a JPEG, the beginning is usually enough."""
    with regular(path, MOST_BYTES).open("rb") as file:
        content = file.read(HEAD)
        if content.startswith(JPEG_SIGNATURE):
            with suppress(ValueError, OSError):  # a longer or damaged header: read the whole file
                return _size(content, upright)
        return _size(content + file.read(), upright)


def _size(content: bytes, upright: bool) -> tuple[int, int]:
    height, width = inspect(content)[0]
    return (width, height) if upright and _orientation(content) in LYING else (height, width)


def cut(image: Image, box: Sequence[int]) -> Image:
    """Crop a box x, y, w, h (pixels), clipped to the image (h, w, 3); w = 0 means the whole image.

    A crop is a copy, so that it does not keep its scene in memory. Raises ValueError if the box is outside the image.
    """
    top, left, height, width = clip(image.shape[:2], box)
    return image if box[2] == 0 else image[top : top + height, left : left + width].copy()


def clip(size: tuple[int, ...], box: Sequence[int]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the intersection of a box x, y, w, h with an image of `size`.

    size  height and width. w = 0 means the whole image. Raises ValueError if the box is outside the image.
    """
    x, y, w, h = box if box[2] else (0, 0, size[1], size[0])
    top, left = max(y, 0), max(x, 0)
    height, width = min(y + h, size[0]) - top, min(x + w, size[1]) - left
    if height < 1 or width < 1:
        raise ValueError(f"box {x} {y} {w} {h} lies outside its {size[1]} x {size[0]} pixels")
    return top, left, height, width
