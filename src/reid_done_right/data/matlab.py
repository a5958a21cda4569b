"""Read MATLAB files of version 5 safely.

SciPy's reader uses type numbers of the file as memory indices without a check, so one flipped bit crashes the process.
This one supports the types in the releases: numbers, text, cells and structs, compressed or not.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import read_regular

HEADER = 128
MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Storage of numbers: type number -> NumPy's name."""
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Class of a numeric matrix: class number -> NumPy's name."""
CELL, STRUCT, TEXT = 1, 2, 4
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
LARGEST = 1 << 31
"""Largest size of an unpacked variable in bytes."""
DEEPEST = 16


class Element(NamedTuple):
    """A part of a file: its type number and its bytes."""

    kind: int
    content: memoryview


def load_variable(path: Path, variable: str) -> NDArray[Any] | None:
    """Read one variable, None if the file has none of that name; shapes as SciPy's `loadmat` gives them.

    Structs are arrays with fields of objects, cells arrays of objects, rows of text one string each.
    Raises ValueError if the file is damaged, of another version, or the variable holds what is of no other kind.
    """
    content = read_regular(path)
    mark = content[126:HEADER]
    if len(content) < HEADER or mark not in (b"IM", b"MI") or b"\x01" not in content[124:126]:
        raise ValueError("it is no MATLAB file of version 5; save it with -v7")
    order = "<" if mark == b"IM" else ">"
    for element in _elements(memoryview(content)[HEADER:], order, padded=False):
        if element.kind == COMPRESSED:
            element = next(_elements(_unpacked(element.content), order))
        if element.kind == MATRIX:
            parts = list(_elements(element.content, order, most=3))
            if len(parts) == 3 and bytes(parts[2].content).decode("latin-1") == variable:
                return _matrix(element.content, order, 0)
    return None


def _unpacked(packed: memoryview) -> memoryview:
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(packed, LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacking.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {LARGEST} bytes")
    return memoryview(unpacked)


def _elements(content: memoryview, order: str, most: int | None = None, padded: bool = True) -> Iterator[Element]:
    """Yield consecutive elements; each starts at a multiple of 8 if `padded`, otherwise right after the last one."""
    place = given = 0
    while place < len(content) and given != most:
        if len(content) - place < 8:
            raise ValueError("it is cut off")
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # small: size and type in one number, content in the other
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise ValueError(f"an element of 4 bytes says that it has {size}")
            yield Element(kind, content[place + 4 : place + 4 + size])
            place += 8
        else:
            end = place + 8 + size
            if end > len(content):
                raise ValueError("it is cut off")
            yield Element(kind, content[place + 8 : end])
            place = end if kind == COMPRESSED or not padded else end + -size % 8
        given += 1


def _matrix(content: memoryview, order: str, depth: int) -> NDArray[Any]:
    if not content:
        return np.zeros((0, 0))
    if depth > DEEPEST:
        raise ValueError(f"its cells lie more than {DEEPEST} deep in each other")
    flags, shape, _, *rest = _elements(content, order)
    word = int(_numbers(flags, order)[0])
    kind, dims = word & 0xFF, [int(side) for side in _numbers(shape, order)]
    if not 2 <= len(dims) <= 32 or min(dims) < 0 or word & 0x800:
        raise ValueError(f"it has a variable of shape {dims}, or of complex numbers")
    length = math.prod(dims)
    if kind == TEXT:
        return _text(rest[0], dims, order) if length else np.zeros(0, "<U1")
    if kind in CLASSES:
        stored = _numbers(rest[0], order) if rest else np.zeros(0)
        if len(stored) != length:
            raise ValueError(f"{len(stored)} numbers stand for an array of shape {dims}")
        return stored.astype(CLASSES[kind]).reshape(dims, order="F")
    names = [""]
    if kind == STRUCT:
        (width, *_), names = _numbers(rest[0], order), []
        joined = bytes(rest[1].content)
        names = [joined[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(joined), int(width))]
        rest = rest[2:]
    elif kind != CELL:
        raise ValueError(f"it has a variable of class {kind}, which is neither numbers, text, cell nor struct")
    if len(rest) != length * len(names) or any(part.kind != MATRIX for part in rest):
        raise ValueError(f"{len(rest)} matrices stand for an array of shape {dims}")
    parts = [_matrix(part.content, order, depth + 1) for part in rest]
    array = np.empty(length, [(name, object) for name in names] if kind == STRUCT else object)
    for i in range(length):
        array[i] = tuple(parts[i * len(names) : (i + 1) * len(names)]) if kind == STRUCT else parts[i]
    return array.reshape(dims, order="F")


def _numbers(element: Element, order: str) -> NDArray[Any]:
    if element.kind not in STORED:
        raise ValueError(f"numbers are stored as type {element.kind}, which is unknown")
    return np.frombuffer(element.content, f"{order}{STORED[element.kind]}")


def _text(element: Element, dims: list[int], order: str) -> NDArray[np.str_]:
    """Join each row of characters, which lie column by column."""
    if element.kind not in ENCODINGS:
        raise ValueError(f"text is stored as type {element.kind}, which is unknown")
    encoding = ENCODINGS[element.kind]
    if not encoding.startswith(("latin", "utf-8")):
        encoding += "-le" if order == "<" else "-be"
    letters = np.array(list(bytes(element.content).decode(encoding)), "<U1")
    if len(letters) != math.prod(dims):
        raise ValueError(f"{len(letters)} letters stand for text of shape {dims}")
    rows = letters.reshape(dims, order="F").reshape(-1, dims[-1])
    return np.array(["".join(row) for row in rows]).reshape(dims[:-1])
