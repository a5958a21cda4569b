"""Splits of individuals that are known already: closed sets, and splits by time.

wildlife-datasets calls them closed-set and time-proportion splits (Adam et al., WildlifeDatasets, WACV 2024): part of
the photos of every individual are its database, which is trained on and searched; the queries are the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Literal

import numpy as np

from reid_done_right.artifacts import InputError
from reid_done_right.data.readers.own import SPLITS, Photos

Splits = Literal["disjoint", "closed", "time-aware"]


def with_splits(
    photos: Photos,
    splits: Splits,
    dates: Sequence[str] | None = None,
    *,
    unknown: Sequence[str] = (),
    train: float = 0.5,
    seed: int = 0,
) -> Photos:
    """Split photos: return them with splits, or as they are if these are drawn later (disjoint, none given).

    disjoint     no individual is in train and in another split, which is checked if the photos have splits
    closed       `train` of each individual's photos, drawn by `seed`, are the database; with splits: those in train,
                 while those in gallery are searched only
    time-aware   the first `train` of each individual's days (ISO 8601) are
    The database is listed twice, as train and as gallery; the other photos are queries, but unknown individuals are in
    the gallery alone. An individual with a single photo, or day, is in the database. Raises InputError naming the row.
    """
    if splits == "disjoint":
        _check_disjoint(photos)
        return photos
    if splits == "time-aware" and photos.split is not None:
        raise InputError(
            f"{photos.place[0]}: has a split, but read.splits is time-aware, which splits by date; use closed to keep "
            "the table's splits, or drop the column"
        )
    person = np.array(photos.person, object)
    order = _days(photos, dates or ()) if splits == "time-aware" else np.arange(len(person))
    given = np.array(photos.split or [""] * len(person), object)
    if strays := np.flatnonzero(~np.isin(given, ["", *SPLITS])).tolist():
        raise InputError(
            f"{photos.place[strays[0]]}: split is {given[strays[0]]!r}, expected one of {', '.join(SPLITS)}"
        )
    searched_only = np.isin(person, list(unknown)) | (given == "gallery")
    generator = np.random.default_rng(seed)
    database = ~searched_only & (given == "train")
    drawn = np.flatnonzero(~searched_only & (given == ""))
    _, number = np.unique(person[drawn].astype(np.str_), return_inverse=True)
    for own in np.split(drawn[np.argsort(number, kind="stable")], np.cumsum(np.bincount(number))[:-1]):
        units = np.unique(order[own])  # photos or days
        first = min(max(int(train * len(units) + 0.5), 1), max(len(units) - 1, 1))
        chosen = units if splits == "time-aware" else generator.permutation(units)
        database[own] = np.isin(order[own], chosen[:first])
    listed = database | searched_only
    rows = [np.flatnonzero(database), np.flatnonzero(listed), np.flatnonzero(~listed)]
    names = np.repeat(["train", "gallery", "query"], [len(part) for part in rows])
    return replace(_take(photos, np.concatenate(rows).tolist()), split=names.tolist())


def _check_disjoint(photos: Photos) -> None:
    first: dict[str, tuple[bool, int]] = {}
    for row, (person, split) in enumerate(zip(photos.person, photos.split or (), strict=False)):
        trained, before = first.setdefault(person, (split == "train", row))
        if trained != (split == "train"):
            raise InputError(
                f"{photos.place[row]}: {person!r} is in split {split}, but {photos.place[before].rpartition(': ')[2]} "
                f"has it in {(photos.split or ())[before]}; put all of it on one side, or set read.splits to closed"
            )


def _days(photos: Photos, dates: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return each photo's day as a number."""
    days: list[date] = []
    for place, text in zip(photos.place, dates, strict=True):
        try:
            days.append(datetime.fromisoformat(text).date())
        except ValueError:
            raise InputError(f"{place}: date {text!r}; write it as 2024-05-31, with or without the time") from None
    return np.array([day.toordinal() for day in days], np.int64)


def _take(photos: Photos, rows: Sequence[int]) -> Photos:
    columns = {name: column for name, column in vars(photos).items() if column is not None}
    return Photos(**{name: [column[row] for row in rows] for name, column in columns.items()})
