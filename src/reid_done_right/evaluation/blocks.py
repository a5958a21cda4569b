"""Work in blocks, so that memory does not grow with queries x gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Wraps a list of blocks to show progress, as tqdm does."""


def split(span: slice, width: int) -> list[slice]:
    """Return consecutive slices of at most `width` that cover a span."""
    return [slice(first, min(first + width, span.stop)) for first in range(span.start, span.stop, width)]


def blocks(parts: Sequence[NDArray[np.floating]], rows: int) -> list[tuple[int, Callable[[], NDArray[np.float32]]]]:
    """Return blocks of rows: the number of the first, the parts counted in turn, and how to get them as float32."""
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return [
        (start + first, partial(np.require, part[first : first + rows], np.float32, ["C", "W"]))
        for start, part in zip(starts, parts, strict=False)
        for first in range(0, len(part), rows)
    ]
