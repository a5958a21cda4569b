"""DukeMTMC-reID: eight cameras; single-camera persons of the gallery have ordinary ids and are never queried."""

from __future__ import annotations

import re
from pathlib import Path

from reid_done_right.artifacts import Index
from reid_done_right.data.readers.layout import expect_folders, join, labelled_images
from reid_done_right.data.sources import TABLE, how_to_obtain

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
GRAMMAR = "ID_cC_fFFFFFFF.jpg (ID four digits, C camera 1-8), such as 0005_c2_f0046985.jpg"
PATTERN = re.compile(r"(\d{4})_c([1-8])_f\d+", re.ASCII)
OBTAIN = how_to_obtain(TABLE["releases"]["dukemtmc"])

COUNTS = {"train": 16_522, "train_persons": 702, "query": 2_228, "query_persons": 702, "gallery": 17_661}


def read(root: Path) -> Index:
    """Index a DukeMTMC-reID folder: train, query, gallery, each in the order of the sorted file names.

    Raises InputError on a wrong folder, a name outside the grammar or an empty folder.
    """
    root = Path(root)
    expect_folders(root, list(FOLDERS.values()), OBTAIN)
    return join([labelled_images(root, folder, split, PATTERN, GRAMMAR) for split, folder in FOLDERS.items()])
