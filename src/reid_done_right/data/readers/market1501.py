"""Market-1501: hand-drawn queries, detected gallery boxes with junk (-1) and distractors (0), six cameras."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index
from reid_done_right.data.readers.layout import expect_folders, join, labelled_images, select
from reid_done_right.data.sources import TABLE, how_to_obtain

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
BOXES = "gt_bbox"
GRAMMAR = "ID_cCsS_FFFFFF_BB.jpg (ID four digits or -1, C camera 1-6), such as 0002_c1s1_000451_03.jpg"
PATTERN = re.compile(r"(-1|\d{4})_c([1-6])s\d+_", re.ASCII)
OBTAIN = how_to_obtain(TABLE["releases"]["market1501"])

COUNTS = {
    "train": 12_936,
    "train_persons": 751,
    "query": 3_368,
    "query_persons": 750,
    "gallery": 19_732,
    "junk": 3_819,
    "distractors": 2_798,
}
"""Of the release; its web page says 2,793 distractors."""


def read(root: Path) -> Index:
    """Index a Market-1501 folder: train, query, gallery, then the boxes to pool in the multi-query protocol.

    Splits follow each other, each in the order of the sorted file names. Junk (-1) and distractors (0) are kept.
    Rows of split "boxes" are the images of the optional folder gt_bbox that share person and camera with a query,
    which is what the multi-query protocol pools. Raises InputError on a wrong folder, name or empty folder.
    """
    root = Path(root)
    expect_folders(root, list(FOLDERS.values()), OBTAIN)
    index = join([labelled_images(root, folder, split, PATTERN, GRAMMAR) for split, folder in FOLDERS.items()])
    if not (root / BOXES).is_dir():
        return index
    boxes = labelled_images(root, BOXES, "boxes", PATTERN, GRAMMAR)
    pooled = np.isin(_views(boxes), _views(index)[index.query])
    return join([index, select(boxes, pooled)])


def _views(index: Index) -> NDArray[np.int64]:
    """Return one number (N,) for each (person, camera) pair."""
    return index.person_id * 10 + index.camera_id
