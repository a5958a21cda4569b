"""MSMT17: fifteen cameras; lists say who is where. V2 is V1 with blurred faces, in folders of other names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reid_done_right.artifacts import Index
from reid_done_right.data.readers.layout import expect_files, expect_folders, join, matched_lines, rows
from reid_done_right.data.sources import how_to_obtain

VERSIONS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
"""Folders of the images in V1 and V2."""
GRAMMAR = "PATH ID (PATH with the camera, 01-15, as third field), such as 0000/0000_000_01_0303morning_0008_0.jpg 0"
PATTERN = re.compile(r"(\d{4}/\d+_\d+_(0[1-9]|1[0-5])_\w+\.jpg) (\d{1,9})", re.ASCII)

RELEASE = {
    "title": "MSMT17",
    "page": "https://www.pkuvmc.com/dataset.html",
    "licence": "research only, on request",
    "obtain": "ask the authors of MSMT17 for it, https://www.pkuvmc.com/dataset.html, and unpack it",
    "folder": "MSMT17_V1",
    "holds": ["train", "test", "list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt"],
}
OBTAIN = how_to_obtain(RELEASE)

COUNTS = {"train": 32_621, "train_persons": 1_041, "query": 11_659, "query_persons": 3_060, "gallery": 82_161}
"""Of both versions, validation images among those to train on."""


def read(root: Path) -> Index:
    """Index a folder MSMT17_V1 or MSMT17_V2 in the order of its lists: train, val, query, gallery.

    The authors' training set is train and val together. Training persons have the lists' number plus 1; test persons,
    which the lists count from 0 again, follow them. Raises InputError on a wrong folder, and naming file and line.
    """
    root = Path(root)
    folders = next((pair for pair in VERSIONS if (root / pair[0]).is_dir()), VERSIONS[0])
    expect_folders(root, folders, OBTAIN)
    trained = [_listed(root, folders[0], name, "train", 1) for name in ("train", "val")]
    first = 1 + max(int(part.person_id.max()) for part in trained)
    return join([*trained, *(_listed(root, folders[1], name, name, first) for name in ("query", "gallery"))])


def _listed(root: Path, folder: str, name: str, split: str, first: int) -> Index:
    """Index the images of one list; person 0 of it has the id `first`."""
    lines: Sequence[re.Match[str]] = matched_lines(root / f"list_{name}.txt", PATTERN, GRAMMAR, OBTAIN)
    paths = [f"{folder}/{line[1]}" for line in lines]
    expect_files(root, paths, f"list_{name}.txt")
    persons, cameras = np.array([(int(line[3]), int(line[2])) for line in lines], np.int64).T
    return rows(root, paths, persons + first, cameras, split)
