"""Person Search (CUHK-SYSU): boxes in street scenes; no cameras; every query has gallery lists of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.readers.layout import as_released, expect_files, expect_folders, join, load_matrix, rows
from reid_done_right.data.sources import TABLE, how_to_obtain

SCENES = "Image/SSM"
LISTS = "annotation/test/train_test"
LARGEST_GALLERY = 100
"""Larger TestG lists are left unread: the paper uses 100, and stored box by box they grow to gigabytes."""
OBTAIN = how_to_obtain(TABLE["releases"]["person-search"])

COUNTS = {"train_persons": 5_532, "query": 2_900, "query_persons": 2_900, "gallery_files": 6_978}

Box = tuple[int, int, int, int]


class Place(NamedTuple):
    """A box, x y w h in pixels, in the scene of that file name; no box where a list names the scene only."""

    scene: str
    box: Box | None


class Search(NamedTuple):
    """A query and the scenes of its gallery in list order, with the person's box in those that show the person."""

    query: Place
    gallery: list[Place]


def read(root: Path) -> Index:
    """Index a CUHK-SYSU folder by its ground-truth boxes, the setting of the paper (OIM's "GT" figures).

    train      the labelled boxes of Train.mat, in its order; its k-th person has id k
    query      the Query boxes of the TestG lists, in their order; their person ids follow those of Train.mat
    gallery    all boxes of the scenes in pool.mat, scene by scene; -1 if no list labels them
    `gallery_lists`: for each TestG<size>.mat up to `LARGEST_GALLERY` and each query, all boxes of the listed scenes.
    Boxes without width or height are dropped. A labelled box that Images.mat lacks joins the boxes of its scene.
    A box that two queries share makes them one person. Raises InputError if folder and annotation do not agree.
    """
    root = Path(root)
    expect_folders(root, [SCENES, LISTS], OBTAIN)
    train = _train_boxes(root / LISTS / "Train.mat")
    searches = _searches(root / LISTS)
    queries = [search.query for search in next(iter(searches.values()))]

    pool = _pool(root / "annotation" / "pool.mat", searches)
    person_of = _person_of_place(searches, first=1 + max(train.values(), default=0))
    gallery = _gallery_boxes(root / "annotation" / "Images.mat", pool, person_of)
    parts = [
        _rows(root, list(train), list(train.values()), "train"),
        _rows(root, queries, [person_of[query] for query in queries], "query"),
        _rows(root, gallery, [person_of.get(place, -1) for place in gallery], "gallery"),
    ]
    index = join(parts)
    expect_files(root, sorted(set(index.path.tolist())), "annotation")
    lists = _gallery_lists(searches, gallery, first_row=len(train) + len(queries))
    return replace(index, gallery_lists=lists)


def _train_boxes(path: Path) -> dict[Place, int]:
    """Return the person of each labelled training box: `Train` holds {idname, nAppear, scene} for each person."""
    persons = load_matrix(path, "Train").ravel()
    with as_released(path):
        return {
            place: person
            for person, cell in enumerate(persons, 1)
            for place in _places(np.ravel(cell)[0][2])
            if place.box is not None
        }


def _searches(folder: Path) -> dict[str, list[Search]]:
    """Read the TestG lists, smallest first: {Query, Gallery} for each query. All must hold the same queries."""
    sizes = sorted(int(path.stem[5:]) for path in folder.glob("TestG*.mat") if path.stem[5:].isdecimal())
    searches = {}
    for size in (size for size in sizes if size <= LARGEST_GALLERY):
        path = folder / f"TestG{size}.mat"
        table = load_matrix(path, path.stem).ravel()
        with as_released(path):
            searches[str(size)] = [
                Search(next(_places(entry["Query"])), list(_places(entry["Gallery"]))) for entry in table
            ]
    if not searches:
        raise InputError(f"{folder}: no list TestG<size>.mat of size {LARGEST_GALLERY} or less; {OBTAIN}")
    queries = [[search.query for search in listed] for listed in searches.values()]
    if any(listed != queries[0] for listed in queries) or any(query.box is None for query in queries[0]):
        raise InputError(
            f"{folder}: the TestG lists of sizes {', '.join(searches)} differ in their queries, or a query has no "
            "box; take all of one release"
        )
    return searches


def _pool(path: Path, searches: dict[str, list[Search]]) -> list[str]:
    """Read the gallery scenes. Raises InputError if a list names another."""
    cells = load_matrix(path, "pool").ravel()
    with as_released(path):
        pool = [_text(cell) for cell in cells]
    listed = {place.scene for searched in searches.values() for search in searched for place in search.gallery}
    if strays := sorted(listed - set(pool)):
        raise InputError(f"{path}: lacks {strays[0]}, which a TestG list names; take all of one release")
    return pool


def _person_of_place(searches: dict[str, list[Search]], first: int) -> dict[Place, int]:
    """Number the persons of the queries from `first` on, and give the person of every box that a list labels."""
    person_of: dict[Place, int] = {}
    unused = count(first)
    for same_query in zip(*searches.values(), strict=True):
        labelled = [place for search in same_query for place in (search.query, *search.gallery) if place.box]
        known = [person_of[place] for place in labelled if place in person_of]
        person = known[0] if known else next(unused)
        person_of.update(dict.fromkeys(labelled, person))
    return person_of


def _gallery_boxes(path: Path, pool: Sequence[str], labelled: dict[Place, int]) -> list[Place]:
    """List the boxes of the pool's scenes: `Img` holds {imname, nAppear, box} for each scene, then labelled ones."""
    places: dict[str, dict[Place, None]] = {scene: {} for scene in pool}
    absent = set(pool)
    entries = load_matrix(path, "Img").ravel()
    with as_released(path):
        for entry in entries:
            scene = _text(entry[0])
            absent.discard(scene)
            if scene in places:
                boxes = (_box(annotated[0]) for annotated in np.ravel(entry[2]))
                places[scene] |= {Place(scene, box): None for box in boxes if box}
    for place in labelled:
        if place.scene in places:
            places[place.scene].setdefault(place)
    if absent:
        raise InputError(f"{path}: no boxes of {min(absent)}, which pool.mat lists; take all of one release")
    return [place for scene in pool for place in places[scene]]


def _gallery_lists(
    searches: dict[str, list[Search]], gallery: Sequence[Place], first_row: int
) -> dict[str, list[NDArray[np.int64]]]:
    """Return for each size and query the index rows of all boxes in the listed scenes, in list order."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, place in enumerate(gallery, first_row):
        rows_of[place.scene].append(row)
    return {
        size: [
            np.array([row for place in search.gallery for row in rows_of[place.scene]], np.int64) for search in listed
        ]
        for size, listed in searches.items()
    }


def _rows(root: Path, places: Sequence[Place], persons: Sequence[int], split: str) -> Index:
    paths = [f"{SCENES}/{place.scene}" for place in places]
    return rows(root, paths, persons, 0, split, box=np.reshape([place.box for place in places], (-1, 4)))


def _places(entries: Any) -> Iterator[Place]:
    """Read scenes and boxes: the first two fields of every entry, by position as in the official code."""
    for entry in np.ravel(entries):
        yield Place(_text(entry[0]), _box(entry[1]))


def _text(cell: Any) -> str:
    return str(np.ravel(cell)[0])


def _box(cell: Any) -> Box | None:
    """Read x, y, w, h, whole pixels; None for the empty array of a scene without the person or a box of no area."""
    numbers = np.ravel(cell).astype(np.int64).tolist()
    if len(numbers) != 4 or min(numbers[2:]) <= 0:
        return None
    x, y, w, h = numbers
    return x, y, w, h
