"""MARS: tracklets of frames; queries stay in the gallery, junk is 00-1 (-1), distractors are 0000 (0)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError, read_text
from reid_done_right.data.readers.layout import (
    as_released,
    expect_files,
    expect_folders,
    join,
    load_matrix,
    rows,
    select,
)
from reid_done_right.data.sources import TABLE, how_to_obtain

GRAMMAR = "IIIICcTttttFfff.jpg (IIII four digits or 00-1, c camera 1-6), such as 0002C1T0001F001.jpg"
PATTERN = re.compile(r"(?:\d{4}|00-1)C[1-6]T\d+F\d+\.jpg")
OBTAIN = how_to_obtain(TABLE["releases"]["mars"])

COUNTS = {
    "train": 509_914,
    "train_persons": 625,
    "train_tracklets": 8_298,
    "gallery": 681_089,
    "gallery_tracklets": 12_180,
    "query_tracklets": 1_980,
    "query_persons": 626,
    "junk": 23_380,
    "distractors": 147_743,
}
"""Of the official info files; no sum of them gives the 1,067,516 frames, 631 and 630 persons that papers print."""


def read(root: Path) -> Index:
    """Index a MARS folder by its info files: the frames of train_name.txt, then those of test_name.txt.

    The labels of a frame are those of its row in tracks_{train,test}_info.mat (first frame, last frame, person,
    camera; frames are counted from 1 and the last one belongs to the tracklet); `tracklet_id` is that row, counted
    from 1 for train and test apart. Frames of the tracklets in query_IDX.mat have split "query+gallery": the
    official protocol leaves queries in the gallery. Raises InputError if folder, names or tables do not agree, such as
    when a tracklet spans frames of two persons or cameras by their names.
    """
    root = Path(root)
    expect_folders(root, ["bbox_train", "bbox_test", "info"], OBTAIN)
    test = _frames(root, "test", "gallery")
    query_idx = root / "info" / "query_IDX.mat"
    queries = load_matrix(query_idx, "query_IDX").ravel().astype(np.int64)  # uint16 in the file
    unknown = queries[(queries < 1) | (queries > test.tracklet_id.max())]
    if unknown.size:
        raise InputError(f"{query_idx}: no tracklet {unknown[0]} in tracks_test_info.mat; take both of one release")
    split = np.where(np.isin(test.tracklet_id, queries), "query+gallery", "gallery")
    return join([_frames(root, "train", "train"), replace(test, split=split)])


def _frames(root: Path, part: str, split: str) -> Index:
    """Index the frames that some tracklet of one part (train or test) holds."""
    names_file = root / "info" / f"{part}_name.txt"
    names = _names(names_file)
    tracks = load_matrix(root / "info" / f"tracks_{part}_info.mat", f"track_{part}_info").astype(np.int64)
    track = _track_of_frame(tracks, len(names), names_file)
    _check_tracklets(names, track, names_file)
    paths = [f"bbox_{part}/{name[:4]}/{name}" for name in names]
    expect_files(root, paths, f"info/{names_file.name}")
    labels = tracks[track - 1]  # of frames in no tracklet: anything, as they are left out
    index = rows(root, paths, labels[:, 2], labels[:, 3], split, track)
    return select(index, track > 0)


def _names(path: Path) -> list[str]:
    """Read the list of frames; its lines end in CRLF in the official file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; {OBTAIN}")
    with as_released(path):
        names = read_text(path, "ascii").split()
    stray = next((line for line, name in enumerate(names, 1) if not PATTERN.fullmatch(name)), None)
    if stray is not None:
        raise InputError(f"{path}: line {stray}, {names[stray - 1]!r}, is not of the form {GRAMMAR}; {OBTAIN}")
    return names


def _track_of_frame(tracks: NDArray[np.int64], frames: int, names_file: Path) -> NDArray[np.int64]:
    """Return for each of the frames (N,) the row of its tracklet counted from 1, 0 if it is in none."""
    track = np.zeros(frames, np.int64)
    for row, (first, last) in enumerate(tracks[:, :2].tolist(), 1):
        frames_of_row = track[first - 1 : last]
        if not 1 <= first <= last <= frames or frames_of_row.any():
            raise InputError(
                f"{names_file}: row {row} of the tracklet table spans frames {first} to {last}, which overlaps another "
                f"or leaves the {frames} frames listed; take both files of one release"
            )
        frames_of_row[:] = row
    return track


def _check_tracklets(names: Sequence[str], track: NDArray[np.int64], names_file: Path) -> None:
    """Check that the frames of a tracklet are of one person and camera; lists of different versions shift them."""
    owner: dict[int, str] = {}
    for line, (row, name) in enumerate(zip(track.tolist(), names, strict=True), 1):
        if row and owner.setdefault(row, name[:6]) != name[:6]:
            raise InputError(
                f"{names_file}: line {line}, {name}, is in tracklet {row}, which begins with {owner[row]}...: another "
                "person or camera; take this file and the tracklet table of one release"
            )
