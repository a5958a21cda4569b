"""PRW: frames of six cameras; a query is searched in all other test frames, as in the evaluation of person search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.readers import layout
from reid_done_right.data.sources import how_to_obtain

FRAME = re.compile(r"c[1-6]s\d{1,3}_\d{1,9}", re.ASCII)
ID, PLACE, SIDE = r"([1-9]\d{0,8})", r"(-?\d{1,8}(?:\.\d*)?)", r"([1-9]\d{0,7}(?:\.\d*)?)"
QUERY = re.compile(" +".join([ID, PLACE, PLACE, SIDE, SIDE, f"({FRAME.pattern})"]), re.ASCII)
GRAMMAR = "ID X Y W H FRAME, such as 479 1096.5 415 93.25 247 c1s3_016471"
VARIABLES = ("box_new", "anno_file", "anno_previous")  # a frame's boxes are in one of them

RELEASE = {
    "title": "PRW",
    "page": "https://zheng-lab-anu.github.io/Project/project_prw.html",
    "licence": "no terms known; ask its authors about any use but research",
    "obtain": "obtain PRW-v16.04.20.zip by the links of https://zheng-lab-anu.github.io/Project/project_prw.html",
    "folder": "PRW-v16.04.20",
    "holds": ["frames", "annotations", "frame_train.mat", "frame_test.mat", "query_info.txt"],
}
OBTAIN = how_to_obtain(RELEASE)

COUNTS = {"train_persons": 483, "query": 2_057, "query_persons": 450, "gallery_files": 6_112}
"""As programs that read the files print them; papers print 482 persons to train on."""


def read(root: Path) -> Index:
    """Index a folder PRW-v16.04.20 by its annotated boxes; those without an area are left out.

    train      the labelled boxes of the frames in frame_train.mat, frame by frame
    query      the lines of query_info.txt
    gallery    all boxes of the frames in frame_test.mat; -1 if unlabelled. Of a person who is twice in a frame only
               the first box is labelled, as the evaluation of person search has one true box in a frame.
    Raises InputError on a wrong folder, naming file and row, and for a query whose person is trained on.
    """
    root = Path(root)
    layout.expect_folders(root, ("frames", "annotations"), OBTAIN)
    train, gallery = _annotated(root, "train", "train"), _annotated(root, "test", "gallery")
    lines = layout.matched_lines(root / "query_info.txt", QUERY, GRAMMAR, OBTAIN)
    query = _rows(root, [line[6] for line in lines], np.array([line.groups()[:5] for line in lines], float), "query")
    known = layout.join([layout.select(train, train.person_id > 0), query])
    _, frame = np.unique(gallery.path, return_inverse=True)
    _, first = np.unique(np.stack([frame, gallery.person_id]), axis=1, return_index=True)
    gallery.person_id[np.setdiff1d(np.arange(len(gallery)), first)] = -1
    index = layout.join([layout.check_disjoint(known, OBTAIN), gallery])
    layout.expect_files(root, sorted(set(index.path.tolist())), "the lists of the release")
    return index


def _annotated(root: Path, half: str, split: str) -> Index:
    """Index the boxes of a half, `train` or `test`, in the order of its list of frames."""
    path = root / f"frame_{half}.mat"
    cells = layout.load_matrix(path, f"img_index_{half}").ravel()
    with layout.as_released(path):
        frames = [str(np.ravel(cell)[0]) for cell in cells]
    for row, frame in enumerate(frames, 1):
        if not FRAME.fullmatch(frame):
            raise InputError(f"{path}: row {row}, {frame[:200]!r}, is no frame such as c1s3_016471; {OBTAIN}")
    names = [f"annotations/{frame}.jpg.mat" for frame in frames]
    layout.expect_files(root, names, path.name)
    tables = [_table(root / name) for name in names]
    own = [frame for frame, table in zip(frames, tables, strict=True) for _ in table]
    return _rows(root, own, np.concatenate([np.zeros((0, 5)), *tables]), split)


def _table(path: Path) -> NDArray[np.float64]:
    """Read the boxes of a frame, (N, 5): id (-2: unlabelled), x, y, w, h."""
    for variable in VARIABLES:
        with suppress(InputError):
            found = layout.load_matrix(path, variable)
            break
    else:
        found = layout.load_matrix(path, VARIABLES[0])  # for the reason
    with layout.as_released(path):
        table = found.astype(np.float64).reshape(len(found), 5)
    person = table[:, 0]
    bad = ~(np.abs(table) < 1e9).all(axis=1) | (np.rint(person) != person) | ((person < 1) & (person != -2))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"{path}: row {row + 1} is {table[row].tolist()}, not id (1.., or -2), x, y, w, h; {OBTAIN}")
    return table


def _rows(root: Path, frames: Sequence[str], table: NDArray[np.float64], split: str) -> Index:
    """Index boxes, each in its frame; their corners are cut to whole pixels, as in the evaluation of person search."""
    low, high = np.trunc(table[:, 1:3]), np.trunc(table[:, 1:3] + table[:, 3:])
    person, camera = np.where(table[:, 0] > 0, table[:, 0], -1), [int(frame[1]) for frame in frames]
    box = np.concatenate([low, high - low], axis=1)
    index = layout.rows(root, [f"frames/{frame}.jpg" for frame in frames], person, camera, split, box=box)
    return layout.select(index, np.all(high > low, axis=1))
