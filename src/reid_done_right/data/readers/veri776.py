"""VeRi-776: vehicles before twenty cameras; the gallery holds the images of the queries as well."""

from __future__ import annotations

import re
from pathlib import Path

from reid_done_right.artifacts import Index
from reid_done_right.data.readers.layout import labelled_folders
from reid_done_right.data.sources import how_to_obtain

FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
GRAMMAR = "ID_cCCC_FFFFFFFF_N.jpg (ID four digits, CCC camera 001-020), such as 0001_c001_00016450_0.jpg"
PATTERN = re.compile(r"(\d{4})_c(00[1-9]|01\d|020)_", re.ASCII)

RELEASE = {
    "title": "VeRi-776",
    "page": "https://vehiclereid.github.io/VeRi/",
    "licence": "research only, on request",
    "obtain": "ask the authors of VeRi-776 for it, https://vehiclereid.github.io/VeRi/, and unpack it",
    "folder": "VeRi",
    "holds": ["image_train", "image_query", "image_test"],
}

COUNTS = {"train": 37_778, "train_persons": 576, "query": 1_678, "query_persons": 200, "gallery": 11_579}


def read(root: Path) -> Index:
    """Index a folder VeRi: train, query, gallery, each in the order of the sorted file names.

    Raises InputError on a wrong folder, a name outside the grammar, or a vehicle in training and test.
    """
    return labelled_folders(Path(root), FOLDERS, PATTERN, GRAMMAR, how_to_obtain(RELEASE))
