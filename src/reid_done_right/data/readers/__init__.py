"""Datasets as their authors released them, and one's own: a reader for each grammar, and the published counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.readers import (
    cuhk03,
    distractors,
    dukemtmc,
    folder,
    market1501,
    mars,
    msmt17,
    person_search,
    prw,
    table,
    vehicleid,
    veri776,
)
from reid_done_right.data.sources import TABLE, how_to_obtain

READERS: dict[str, Callable[..., Index]] = {
    "market1501": market1501.read,
    "dukemtmc": dukemtmc.read,
    "mars": mars.read,
    "person-search": person_search.read,
    "distractors": distractors.read,
    "prw": prw.read,
    "msmt17": msmt17.read,
    "cuhk03-labelled": partial(cuhk03.read, boxes="labeled"),
    "cuhk03-detected": partial(cuhk03.read, boxes="detected"),
    "veri776": veri776.read,
    "vehicleid-800": partial(vehicleid.read, test=800),
    "vehicleid-1600": partial(vehicleid.read, test=1600),
    "vehicleid-2400": partial(vehicleid.read, test=2400),
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
    "prw": prw.COUNTS,
    "msmt17": msmt17.COUNTS,
    "cuhk03-labelled": cuhk03.LABELLED,
    "cuhk03-detected": cuhk03.DETECTED,
    "veri776": veri776.COUNTS,
    "vehicleid-800": vehicleid.SMALL,
    "vehicleid-1600": vehicleid.MEDIUM,
    "vehicleid-2400": vehicleid.LARGE,
}
"""What the real releases hold, in the terms of `count`."""

RELEASES: dict[str, Mapping[str, Any]] = {
    **TABLE["releases"],
    "prw": prw.RELEASE,
    "msmt17": msmt17.RELEASE,
    "cuhk03-labelled": cuhk03.RELEASE,
    "cuhk03-detected": cuhk03.RELEASE,
    "veri776": veri776.RELEASE,
    "vehicleid-800": vehicleid.RELEASE,
    "vehicleid-1600": vehicleid.RELEASE,
    "vehicleid-2400": vehicleid.RELEASE,
}
"""What the real releases are called, where they come from and on what terms."""


def advice(layout: str) -> str:
    """Return how to obtain the release of a format; own photos have no source."""
    return how_to_obtain(RELEASES[layout]) if layout in RELEASES else "these are photos of your own"


def released_archives(layout: str, folder: Path) -> list[dict[str, Any]]:
    """Return the archives of a format's release as settings for `file_of`; they are beside its folder."""
    archives = []
    for archive in RELEASES.get(layout, {}).get("archives", []):
        known = {key: archive[key] for key in ("sha256", "bytes") if key in archive}
        urls = [archive["url"]] if "url" in archive else []
        archives.append({"path": (folder.parent / archive["name"]).as_posix(), "urls": urls, **known})
    return archives


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
