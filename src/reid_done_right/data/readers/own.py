"""Own photos: turn text labels into ids, and split identities unless the user did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.readers.layout import rows
from reid_done_right.data.splits import choose_queries, training_persons
from reid_done_right.evaluation.embedded import Labels
from reid_done_right.evaluation.rules import Rule, relevant_and_junk

SPLITS = ("train", "test", "query", "gallery")
"""What labels may say; the queries of `test` are chosen here."""

Items = Literal["image", "tracklet"]


@dataclass(frozen=True)
class Photos:
    """Labels of N photos, as text; a column that the user does not give is None.

    place   name of each row in messages, such as its file or the line of a table
    """

    path: Sequence[str]
    place: Sequence[str]
    person: Sequence[str]
    camera: Sequence[str] | None = None
    tracklet: Sequence[str] | None = None
    split: Sequence[str] | None = None


def index_photos(
    root: Path,
    photos: Photos,
    *,
    unknown: Sequence[str] = (),
    train: float = 0.5,
    seed: int = 0,
    items: Items = "image",
    same_camera_is_junk: bool = True,
) -> Index:
    """Turn labels into an index: rows in the order of the photos.

    Person and camera ids are numbered from 1 in the order of their texts, which the index keeps; tracklets in that of
    (person, camera, tracklet). unknown: texts without an identity, id 0, never trained on nor queried. Without
    splits, `train` of the persons, drawn by `seed`, are trained on; of the others, one item of each person and camera
    is a query and the rest is gallery. items: what is a query or a match, an image or a whole tracklet.
    Raises InputError naming the photo for labels that contradict each other, and if no query could find anything.
    """
    person_id = _number(photos.person, skip=unknown)
    camera_id = _number(photos.camera) if photos.camera is not None else np.zeros(len(person_id), np.int64)
    tracklet_id = np.zeros(len(person_id), np.int64)
    if photos.tracklet is not None:
        triples = np.stack([person_id, camera_id, _number(photos.tracklet)], axis=1)
        tracklet_id = np.unique(triples, axis=0, return_inverse=True)[1].ravel() + 1
    elif items == "tracklet":
        raise InputError(f"{root}: protocol.items is tracklet, but no tracklets are given; add them, or use image")
    item_id = tracklet_id if items == "tracklet" else np.arange(len(person_id))
    split = _splits(photos, person_id, train, seed)
    test = np.flatnonzero(split == "test")
    chosen = choose_queries(
        person_id[test], camera_id[test], item_id[test], same_camera_is_junk, np.random.default_rng((seed, 1))
    )
    split[test] = np.where(chosen, "query", "gallery")
    _check_items(photos, item_id, split)
    index = rows(root, photos.path, person_id, camera_id, split.astype(np.str_), tracklet_id)
    camera = photos.camera if photos.camera is not None else [""] * len(person_id)
    index = replace(index, person=np.array(photos.person, np.str_), camera=np.array(camera, np.str_), upright=True)
    _check_usable(index, photos, same_camera_is_junk)
    return index


def unmatched(index: Index, same_camera_is_junk: bool) -> NDArray[np.int64]:
    """Return the rows of the queries that have nothing to find in the gallery."""
    query, gallery = (Labels(index.person_id[part], index.camera_id[part]) for part in (index.query, index.gallery))
    relevant, _ = relevant_and_junk(query, gallery, Rule(same_camera_is_junk=same_camera_is_junk))
    return np.asarray(index.query[relevant.counts == 0])


def _number(labels: Sequence[str], skip: Sequence[str] = ()) -> NDArray[np.int64]:
    """Number texts from 1 in their order; those to skip get 0."""
    numbers = {label: number for number, label in enumerate(sorted(set(labels) - set(skip)), 1)}
    return np.array([numbers.get(label, 0) for label in labels], np.int64)


def _splits(photos: Photos, person_id: NDArray[np.int64], train: float, seed: int) -> NDArray[np.object_]:
    """Return each photo's split, still with "test"; drawn by identity if the user gives none."""
    if photos.split is None:
        trained = training_persons(person_id[person_id > 0], train, np.random.default_rng(seed))
        return np.where(np.isin(person_id, trained), "train", "test").astype(object)
    split = np.array(photos.split, object)
    for row, given in enumerate(photos.split):
        if given not in SPLITS:
            raise InputError(f"{photos.place[row]}: split is {given!r}, expected one of {', '.join(SPLITS)}")
        if given in ("train", "query") and person_id[row] == 0:
            raise InputError(
                f"{photos.place[row]}: {photos.person[row]!r} is in read.unknown, so it has no identity and cannot "
                f"be in split {given}; make it gallery or test"
            )
    if {"test", "query"} <= set(split):
        row = photos.split.index("test")
        raise InputError(
            f"{photos.place[row]}: split is test, whose queries are chosen here, but other rows are queries already; "
            "write gallery instead of test, or test instead of query"
        )
    return split


def _check_items(photos: Photos, item_id: NDArray[np.int64], split: NDArray[np.object_]) -> None:
    """Raise InputError naming the first photo whose split is not that of its tracklet's first one."""
    _, first, item = np.unique(item_id, return_index=True, return_inverse=True)
    expected = split[first[item.ravel()]]
    for row in np.flatnonzero(split != expected).tolist():
        raise InputError(
            f"{photos.place[row]}: split is {split[row]}, but its tracklet began as {expected[row]}; give all photos "
            "of a tracklet one split"
        )


def _check_usable(index: Index, photos: Photos, same_camera_is_junk: bool) -> None:
    """Raise InputError, with what to change, if the index cannot be trained on or no query can find anything."""
    persons, images = np.unique(index.person_id[index.train], return_counts=True)
    if len(persons) < 2 or images.max() < 2:
        raise InputError(
            f"{index.root}: {len(index.train)} photos of {len(persons)} persons to train on; at least two persons are "
            "needed, one of them with two photos: give more, or raise read.train"
        )
    missed = unmatched(index, same_camera_is_junk) if len(index.gallery) else index.query
    if len(missed) < len(index.query):
        return
    tested = np.setdiff1d(np.arange(len(index)), index.train)
    tested = tested[index.person_id[tested] > 0]
    counts = f"{index.root}: {len(tested)} photos of {len(np.unique(index.person_id[tested]))} known persons to test on"
    if len(tested) and same_camera_is_junk:
        cameras = len(np.unique(index.camera_id[tested]))
        seen = "by one camera only" if cameras == 1 and photos.camera is not None else "and no person by two cameras"
        seen = "without cameras" if photos.camera is None else seen
        raise InputError(
            f"{counts}, {seen}: what the query's own camera saw does not count, so that nothing is left to find. To "
            "let it count, give the dataset protocol: {same_camera_is_junk: false}; else label the cameras"
        )
    raise InputError(
        f"{counts}, but no query has a photo of its person in the gallery; give two photos of a person, or lower "
        "read.train"
    )
