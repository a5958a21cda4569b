"""Datasets as their authors released them, and one's own: a reader for each grammar, and the published counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.readers import distractors, dukemtmc, folder, market1501, mars, person_search, table

READERS: dict[str, Callable[..., Index]] = {
    "market1501": market1501.read,
    "dukemtmc": dukemtmc.read,
    "mars": mars.read,
    "person-search": person_search.read,
    "distractors": distractors.read,
    "folder": folder.read,
    "csv": table.read,
}
"""Format -> function of the folder and, for one's own photos, of what the parameters say of them (section `read`)."""

COUNTS: dict[str, Mapping[str, int]] = {
    "market1501": market1501.COUNTS,
    "dukemtmc": dukemtmc.COUNTS,
    "mars": mars.COUNTS,
    "person-search": person_search.COUNTS,
    "distractors": distractors.COUNTS,
}
"""What the real releases hold, in the terms of `count`."""


def count(index: Index) -> dict[str, int]:
    """Count the rows, persons (ids above 0), tracklets and gallery files of an index.

    train, query, gallery, boxes: rows; a frame of split "query+gallery" counts in both.
    junk, distractors: gallery rows with person id -1 (Person Search: unlabelled) and 0.
    """
    rows = {"train": index.train, "query": index.query, "gallery": index.gallery, "boxes": index.rows("boxes")}
    found = {name: len(members) for name, members in rows.items()}
    for name in ("train", "query"):
        found[f"{name}_persons"] = _distinct(index.person_id[rows[name]])
    for name in ("train", "query", "gallery"):
        found[f"{name}_tracklets"] = _distinct(index.tracklet_id[rows[name]])
    found["junk"] = int((index.person_id[rows["gallery"]] == -1).sum())
    found["distractors"] = int((index.person_id[rows["gallery"]] == 0).sum())
    found["gallery_files"] = len(set(index.path[rows["gallery"]].tolist()))
    return found


def report(index: Index, expected: Mapping[str, int]) -> str:
    """Return a table of the counts that are not 0 or are expected, found beside expected."""
    found = {name: number for name, number in count(index).items() if number or name in expected}
    lines = [f"{'count':18}{'found':>10}{'expected':>10}"]
    for name, number in found.items():
        lines.append(f"{name:18}{number:10}{expected.get(name, ''):>10}")
    return "\n".join(lines)


def check_counts(index: Index, expected: Mapping[str, int]) -> None:
    """Check some of the counts. Raises InputError that lists every one, found beside expected, if any differs."""
    found = count(index)
    unknown = sorted(set(expected) - set(found))
    if unknown:
        raise InputError(f"no count is called {', '.join(unknown)}; known are {', '.join(found)}")
    if any(found[name] != number for name, number in expected.items()):
        listed = (f"{name} {found[name]} ({number} expected)" for name, number in expected.items())
        raise InputError(
            f"{index.root}: counts differ, found {', '.join(listed)}; unpack the release again or correct the counts"
        )


def _distinct(ids: NDArray[np.int64]) -> int:
    return len(np.unique(ids[ids > 0]))
