"""CUHK03 by its new protocol of 767 and 700 persons: two cameras, boxes drawn by hand or detected."""

from __future__ import annotations

import re
from pathlib import Path

from reid_done_right.artifacts import Index
from reid_done_right.data.readers.layout import labelled_folders
from reid_done_right.data.sources import how_to_obtain

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
GRAMMAR = "ID_cC_N.png (ID four digits, C camera 1 or 2), such as 0003_c1_21.png"
PATTERN = re.compile(r"(\d{4})_c([12])_", re.ASCII)

RELEASE = {
    "title": "CUHK03, new protocol",
    "page": "https://github.com/zhunzhong07/person-re-ranking/tree/master/CUHK03-NP",
    "licence": "academic use only",
    "obtain": "obtain CUHK03-NP by the links of https://github.com/zhunzhong07/person-re-ranking, folder CUHK03-NP",
    "folder": "cuhk03-np",
    "holds": ["labeled", "detected"],
}

LABELLED = {"train": 7_368, "train_persons": 767, "query": 1_400, "query_persons": 700, "gallery": 5_328}
DETECTED = {"train": 7_365, "train_persons": 767, "query": 1_400, "query_persons": 700, "gallery": 5_332}


def read(root: Path, *, boxes: str) -> Index:
    """Index one half of a folder cuhk03-np, `labeled` or `detected`: train, query, gallery, by sorted file names.

    Raises InputError on a wrong folder, a name outside the grammar, or a person in training and test.
    """
    folders = {split: f"{boxes}/{folder}" for split, folder in FOLDERS.items()}
    return labelled_folders(Path(root), folders, PATTERN, GRAMMAR, how_to_obtain(RELEASE), (".png", ".jpg"))
