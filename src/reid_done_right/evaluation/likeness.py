"""What a similarity means in a gallery, from those of its photos whose people are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.open_set import threshold_at

SAMPLE = 1000
"""Photos compared with the whole gallery."""
FEWEST = 20
"""Photos of people whom the gallery has again, below which it says nothing."""
SURE = 0.95
ROWS = 8192

Nearest = tuple[NDArray[np.floating], NDArray[np.floating]]
Likeness = Literal["the same", "perhaps", "another"]


@dataclass(frozen=True)
class Bands:
    """Similarities between which a photo may or may not show the person asked for.

    another  all but 5 % of the photos have a photo of their person above it
    same     all but 5 % of the photos have no other person above it; the larger of the two if these overlap
    photos   number of photos that say so
    """

    another: float
    same: float
    photos: int

    def of(self, similarity: float) -> Likeness:
        """Return the band of a similarity."""
        return "the same" if similarity >= self.same else "perhaps" if similarity >= self.another else "another"


def bands(
    embeddings: NDArray[np.floating], person: NDArray[np.int64], camera: NDArray[np.int64] | None = None
) -> Bands | None:
    """Return the bands of a gallery (N, D) of unit norm; None if too few of its people are there again.

    person  (N,) numbers; -1 is unknown and counts for nobody
    camera  (N,) numbers; if given, only a photo of another camera counts as one's own, as for a query
    Memory holds a block of the gallery's rows. The bands hold for queries that resemble the gallery's photos.
    """
    nearest = _nearest(embeddings, person, camera)
    if nearest is None:
        return None
    own, other = nearest
    another = float(np.quantile(own, 1 - SURE))
    return Bands(another, max(another, float(np.quantile(other, SURE))), len(own))


def nobody(
    embeddings: NDArray[np.floating],
    person: NDArray[np.int64],
    camera: NDArray[np.int64] | None,
    false_alarms: float,
) -> float | None:
    """Return the similarity that only this share of strangers to a gallery exceeds; None if it is too small to say.

    A photo of the gallery is a stranger's once its person's own photos are left out, as `evaluation.open_set` has it.
    Arguments are as for `bands`; `false_alarms` is in (0, 1), and needs one photo for each of its fraction at least.
    """
    nearest = _nearest(embeddings, person, camera)
    if nearest is None or len(nearest[1]) * false_alarms < 1:
        return None
    return threshold_at(np.sort(nearest[1])[::-1], false_alarms)


def _nearest(
    embeddings: NDArray[np.floating], person: NDArray[np.int64], camera: NDArray[np.int64] | None
) -> Nearest | None:
    """Return for a sample of the photos the similarity of the best photo of their person and of the best of another."""
    told = np.flatnonzero(person >= 0)
    if len(told) < FEWEST:
        return None
    chosen = told[np.unique(np.linspace(0, len(told) - 1, SAMPLE).round().astype(np.int64))]
    asked = np.asarray(embeddings[chosen], np.float32)
    nearest = {"same": np.full(len(chosen), -np.inf), "other": np.full(len(chosen), -np.inf)}
    for first in range(0, len(embeddings), ROWS):
        rows = np.arange(first, min(first + ROWS, len(embeddings)))
        similarity = asked @ np.asarray(embeddings[rows], np.float32).T
        same = person[chosen, None] == person[rows]
        again = same & (chosen[:, None] != rows if camera is None else camera[chosen, None] != camera[rows])
        for kind, counts in (("same", again), ("other", ~same & (person[rows] >= 0))):
            best = np.where(counts, similarity, -np.inf).max(axis=1)
            nearest[kind] = np.maximum(nearest[kind], best)
    known = np.isfinite(nearest["same"]) & np.isfinite(nearest["other"])
    if known.sum() < FEWEST:
        return None
    return nearest["same"][known], nearest["other"][known]
