"""VehicleID: vehicles without cameras, listed in files; one image of each test vehicle is the gallery."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from reid_done_right.artifacts import Index
from reid_done_right.data.readers.layout import check_disjoint, expect_files, expect_folders, join, matched_lines, rows
from reid_done_right.data.sources import how_to_obtain

GRAMMAR = "IMAGE VEHICLE, two numbers, such as 0000001 123"
PATTERN = re.compile(r"(\d{1,9}) (\d{1,9})", re.ASCII)

RELEASE = {
    "title": "PKU VehicleID",
    "page": "https://www.pkuml.org/resources/pku-vehicleid.html",
    "licence": "research only, on request",
    "obtain": "ask the authors of VehicleID for it, https://www.pkuml.org/resources/pku-vehicleid.html, and unpack it",
    "folder": "VehicleID_V1.0",
    "holds": ["image", "train_test_split"],
}
OBTAIN = how_to_obtain(RELEASE)

_TRAIN = {"train": 113_346, "train_persons": 13_164}
SMALL = _TRAIN | {"query": 5_693, "query_persons": 800, "gallery": 800}
MEDIUM = _TRAIN | {"query": 11_777, "query_persons": 1_600, "gallery": 1_600}
LARGE = _TRAIN | {"query": 17_377, "query_persons": 2_400, "gallery": 2_400}
"""Of the lists as released; the paper prints other numbers of images."""


def read(root: Path, *, test: int, seed: int = 0) -> Index:
    """Index a VehicleID folder in the order of train_list.txt and of test_list_<test>.txt, test vehicles' number.

    The gallery is one image of each test vehicle, drawn by `seed`, and the others are queries. The official protocol
    draws ten times and averages. Ids are the lists' plus 1. Raises InputError on a wrong folder, naming file and line
    of a list, and if a vehicle is in training and test.
    """
    root = Path(root)
    expect_folders(root, ["image", "train_test_split"], OBTAIN)
    train, tested = (_listed(root, f"train_test_split/{name}.txt") for name in ("train_list", f"test_list_{test}"))
    order = np.random.default_rng(seed).permutation(len(tested))
    chosen = order[np.unique(tested.person_id[order], return_index=True)[1]]
    split = np.where(np.isin(np.arange(len(tested)), chosen), "gallery", "query")
    return check_disjoint(join([train, replace(tested, split=split)]), OBTAIN)


def _listed(root: Path, name: str) -> Index:
    lines = matched_lines(root / name, PATTERN, GRAMMAR, OBTAIN)
    paths = [f"image/{line[1]}.jpg" for line in lines]
    expect_files(root, paths, name)
    return rows(root, paths, [int(line[2]) + 1 for line in lines], 0, "train")
