"""Embedded images: embeddings with their labels, validated once, on construction."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_ROWS = 8192
_UNIT = 1e-2
"""Norms within this distance of 1 count as 1."""
START = 4
"""Values of each row that are noted while it is read (`Embedded.starts`)."""
_EXACT = 1e-3
"""If norms may be corrected, those within this distance of 1 are kept, so that a memory map stays mapped."""


@dataclass(frozen=True)
class Labels:
    """Person and camera of each row: two (N,) integer arrays."""

    person_id: NDArray[np.int64]
    camera_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Cast to int64. Raise ValueError for anything that is not two equally long lists of integers."""
        for name in ("person_id", "camera_id"):
            object.__setattr__(self, name, integers(getattr(self, name), name))
        if len(self.person_id) != len(self.camera_id):
            raise ValueError(
                f"{len(self.person_id)} person_id but {len(self.camera_id)} camera_id; every row needs one of each"
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.person_id)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Labels:
        """Select rows."""
        return Labels(self.person_id[rows], self.camera_id[rows])


class UnnormalisedError(Exception):
    """Rows that were checked late are not all finite and of norm 1."""


@dataclass(frozen=True)
class Embedded:
    """Unit-norm embeddings and the labels of their rows, validated on construction.

    One pass over the embeddings, a few thousand rows at a time, checks that all are finite and of norm 1. Raises
    ValueError naming the first row that is not.
    """

    embeddings: NDArray[np.floating]
    """(N, D) of 16, 32 or 64 bits; may be a memory map."""
    labels: Labels
    """N rows."""
    name: str = "embeddings"
    """Name in error messages: query, gallery, or a file."""
    normalise: bool = False
    """Replace embeddings of other norms by a normalised copy instead of raising."""
    late: bool = False
    """Check rows when they are first read (`embedded[rows]`, `check_unread`), so that a memory map is read only once.
    These raise UnnormalisedError; `replace(embedded, late=False)` then names the row, or normalises."""
    _unread: NDArray[np.bool_] = field(init=False, repr=False)
    _starts: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check lengths, finiteness and norms."""
        if np.shape(self.embeddings)[:1] != (len(self.labels),):
            raise ValueError(f"{self.name}: {len(self.embeddings)} embeddings but {len(self.labels)} labels")
        object.__setattr__(self, "_unread", np.full(len(self.labels), self.late))
        if self.late:
            check_floats(self.embeddings, self.name)
            width = min(START, self.embeddings.shape[1])
            object.__setattr__(self, "_starts", np.empty((len(self.labels), width), np.float32))
        else:
            object.__setattr__(self, "embeddings", unit(self.embeddings, self.name, normalise=self.normalise))

    def __getitem__(self, rows: slice) -> NDArray[np.floating]:
        """Return embeddings, checked."""
        block = self.embeddings[rows]
        if self._unread[rows].any():
            try:
                as_it_is = unit(block, self.name, normalise=self.normalise) is block
            except ValueError:
                as_it_is = False
            if not as_it_is:
                raise UnnormalisedError(f"{self.name}: not all rows are finite and of norm 1")
            self._unread[rows] = False
            self._starts[rows] = block[:, :START]
        return block

    def starts(self) -> NDArray[np.float32]:
        """Return the first `START` values of each row, as noted when it was read if all of them were."""
        if self.late and not self._unread.any():
            return self._starts
        return np.ascontiguousarray(self.embeddings[:, :START], np.float32)

    def check_unread(self) -> None:
        """Check the rows that nobody has read."""
        for first in range(0, len(self), _ROWS):
            if self._unread[first : first + _ROWS].any():
                self[first : first + _ROWS]

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def norms(embeddings: NDArray[np.floating], name: str) -> NDArray[np.float32]:
    """Return the norms (N,) of embeddings (N, D).

    Raises ValueError naming `name` and the first row that has no direction or is not finite.
    """
    check_floats(embeddings, name)
    squared = np.empty(len(embeddings), dtype=np.float32)
    for first in range(0, len(embeddings), _ROWS):
        with np.errstate(over="ignore"):
            block = np.asarray(embeddings[first : first + _ROWS], dtype=np.float32)
            np.einsum("nd,nd->n", block, block, out=squared[first : first + _ROWS])
        bad = ~(np.isfinite(squared[first : first + _ROWS]) & (squared[first : first + _ROWS] > 0))
        if bad.any():
            row = first + int(np.argmax(bad))
            raise ValueError(f"{name}: embedding of row {row} {_fault(embeddings[row])}")
    return np.sqrt(squared)


def check_floats(embeddings: NDArray[np.floating], name: str) -> None:
    """Raise ValueError naming `name` unless embeddings are floats (N, D), of one row or more."""
    if embeddings.ndim != 2 or 0 in embeddings.shape[1:] or not np.issubdtype(embeddings.dtype, np.floating):
        raise ValueError(
            f"{name}: embeddings are {embeddings.dtype} of shape {embeddings.shape}, expected floats of shape (N, D)"
        )
    if len(embeddings) == 0:
        raise ValueError(f"{name}: no rows")


def _fault(embedding: NDArray[np.floating]) -> str:
    if not np.isfinite(embedding).all():
        return "holds a value that is not finite; embed that image again or leave it out"
    if not embedding.any():
        return "is all zeros; embed that image again or leave it out"
    return "is too long or too short for 32-bit floats; normalise the rows first"


def unit(embeddings: NDArray[np.floating], name: str, *, normalise: bool = False) -> NDArray[np.floating]:
    """Return embeddings (N, D) if all norms are 1; if not, and `normalise`, a normalised copy.

    Raises ValueError naming the first row that is not finite or, without `normalise`, whose norm is not 1.
    """
    norm = norms(embeddings, name)
    distance = np.abs(norm - 1)
    if normalise:
        return embeddings if distance.max() <= _EXACT else normalised(embeddings)
    if distance.max() >= _UNIT:
        row = int(np.argmax(distance >= _UNIT))
        raise ValueError(f"{name}: embedding of row {row} has norm {norm[row]:.4g}, expected 1: normalise first")
    return embeddings


def check_dimensions(query: NDArray[np.floating], gallery: NDArray[np.floating], names: tuple[str, str]) -> None:
    """Raise ValueError unless embeddings (Q, D) and (G, D) have the same D."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{names[0]}: embeddings of {query.shape[1]} dimensions, those of {names[1]} have {gallery.shape[1]}; "
            "embed both with the same model"
        )


def normalised(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows of unit norm, (N, D) float32. Raises ValueError for a row of zeros."""
    norm = np.linalg.norm(embeddings.astype(np.float32, copy=False), axis=1, keepdims=True)
    if not norm.all():
        raise ValueError(f"embedding of row {int(np.argmin(norm))} is all zeros and has no direction")
    unit: NDArray[np.float32] = np.divide(embeddings, norm, dtype=np.float32)
    return unit


def integers(values: object, name: str) -> NDArray[np.int64]:
    """Return integers of any type as (N,) int64, including integral floats.

    Raises ValueError, naming `name` and the row, for anything else and for numbers that int64 or their own type of
    float cannot hold exactly.
    """
    array = np.asarray(values)
    numbers = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if array.dtype.kind in "SU":
        raise ValueError(f"{name} holds text, expected integers: number them")
    if array.ndim != 1 or not (numbers or array.size == 0):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected integers of shape (N,)")
    if np.issubdtype(array.dtype, np.floating):
        exact = 2.0 ** min(np.finfo(array.dtype).nmant + 1, 63)
        bad, why = (
            ~((np.abs(array) < exact) & (array == np.rint(array))),
            f"not a whole number that {array.dtype} holds",
        )
    else:
        bad, why = array > np.iinfo(np.int64).max, "too large for a signed integer of 64 bits"
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name} of row {row} is {array[row]}, {why}")
    return array.astype(np.int64)
