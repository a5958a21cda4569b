"""Check datasets before a run: folder, structure, counts and images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reid_done_right.artifacts import Index, InputError, read_index
from reid_done_right.data.damage import Progress, check_allowed, find_damaged
from reid_done_right.data.fetch import find
from reid_done_right.data.joining import join_training
from reid_done_right.data.readers import COUNTS, READERS, check_counts, count
from reid_done_right.data.readers.own import unmatched
from reid_done_right.params.datasets import OWN, Dataset
from reid_done_right.readiness.checks import Check

Depth = Literal["names", "headers", "pixels"]
"""How to check images: not at all, their headers and ends, or every pixel."""


def examine(
    name: str,
    dataset: Dataset,
    settings: Mapping[str, Any],
    made: Path,
    depth: Depth = "headers",
    threads: int = 1,
    progress: Progress = iter,
) -> tuple[Check, Index | None]:
    """Check one dataset; return the result, and its index if it can be read.

    settings: of its job, with its source. made: where the run writes the index, which stands for an already rendered
    dataset.
    """
    if dataset.source.folder is None:
        try:
            index = read_index(made)
        except InputError:  # not there, or damaged: the run brings it back, or makes it anew
            return Check(name, "ready", "rendered by the run"), None
        return Check(name, "ready", f"rendered; {_counted(index, {})}"), index
    root = Path(settings["root"])
    try:
        outside = find(settings)
    except InputError as error:
        return Check(name, "damaged", str(error)), None
    if outside is not None and outside.state in ("to unpack", "to fetch"):
        size = f" ({outside.bytes / 1e9:.1f} GB)" if outside.bytes else ""
        return Check(name, "note", f"{root}: not there yet; the run will {outside.todo}{size}"), None
    if outside is not None and outside.state == "missing":
        return Check(name, "missing", f"{root}: no such folder; {outside.todo}"), None
    try:
        index = READERS[dataset.format](root, **dataset.reading)
    except (InputError, OSError) as error:
        return Check(name, "wrong" if root.is_dir() and any(root.iterdir()) else "missing", str(error)), None
    expected = COUNTS[dataset.format] if dataset.counts == "published" else dataset.counts or {}
    try:
        check_counts(index, expected)
    except InputError as error:
        return Check(name, "wrong", str(error)), index
    told = f"{root}: {_counted(index, expected)}"
    if depth != "names":
        damaged = find_damaged(index, threads, depth == "pixels", progress)
        if depth == "pixels":
            told += f"; {len(set(index.path.tolist()))} images decoded"
        lines = tuple(f"{path}: {reason}" for path, reason in damaged.items() if path not in dataset.allow_damaged)
        try:
            check_allowed(index, damaged, dataset.allow_damaged if depth == "pixels" else list(damaged))
        except InputError as error:
            return Check(name, "damaged", str(error).split("\n")[0], lines), index
        if lines:
            return Check(name, "damaged", f"{told}; {len(lines)} damaged images: {MEND}", lines), index
        if dataset.allow_damaged:
            told += f"; {len(dataset.allow_damaged)} damaged images left out, as allow_damaged says"
    notes = _notes(index, dataset) if dataset.format in OWN else ""
    return Check(name, "note" if notes else "ready", told + notes), index


def examine_joint(name: str, parts: Mapping[str, Index | None]) -> Check:
    """Check whether datasets can be trained on together, as far as their indexes can be read."""
    names = ", ".join(parts)
    known = [index for index in parts.values() if index is not None]
    if len(known) < len(parts):
        return Check(name, "ready", f"joins the training images of {names}, when all are there")
    try:
        return Check(name, "ready", f"joins {names}: {_counted(join_training(known), {})}")
    except InputError as error:
        return Check(name, "wrong", str(error))


MEND = "restore them, or list them in allow_damaged to leave them out"


def _counted(index: Index, expected: Mapping[str, int]) -> str:
    """Return the numbers of images and persons in each split, and whether they match the published ones."""
    found = count(index)
    parts = []
    for split in ("train", "query", "gallery"):
        persons = found.get(f"{split}_persons")
        parts.append(f"{split} {found[split]}" + (f" of {persons} persons" if persons else "") if found[split] else "")
    agree = f"; {len(expected)} counts as expected" if expected else ""
    return ", ".join(part for part in parts if part) + agree


def _notes(index: Index, dataset: Dataset) -> str:
    """Return warnings about user-defined splits."""
    notes = ""
    lost = unmatched(index, dataset.rule.same_camera_is_junk)
    if len(lost):
        notes += (
            f"; {len(lost)} of {len(index.query)} queries have nothing to find and score 0, first {index.path[lost[0]]}"
        )
    tested = np.concatenate([index.query, index.gallery])
    both = np.intersect1d(index.person_id[index.train], index.person_id[tested])
    meant = dataset.read is not None and dataset.read.splits in ("closed", "time-aware")
    if len(both) and index.person is not None and not meant:
        names = sorted(set(index.person[np.isin(index.person_id, both)].tolist()))
        notes += f"; {len(both)} persons are both trained and tested on, first {names[0]!r}: scores will flatter"
    return notes
