"""Market-1501+500K: a flat folder of distractor images; whatever the names say, none of them is a query's person."""

from __future__ import annotations

from pathlib import Path

from reid_done_right.artifacts import Index
from reid_done_right.data.readers.layout import expect_folders, image_names, rows
from reid_done_right.data.sources import TABLE, how_to_obtain

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
OBTAIN = how_to_obtain(TABLE["releases"]["distractors"])

COUNTS: dict[str, int] = {}
"""Published as "500K" only."""


def read(root: Path) -> Index:
    """Index every image of the folder, or of its sub-folder `images`, as a distractor in file name order.

    Names are not parsed: one that began with -1 would otherwise be dropped as junk. Person and camera are 0.
    Raises InputError if the folder is missing or holds no image.
    """
    root = Path(root)
    expect_folders(root, [], OBTAIN)
    prefix = "images/" if (root / "images").is_dir() else ""
    names = image_names(root / prefix, SUFFIXES)
    return rows(root, [prefix + name for name in names], person_id=0, camera_id=0, split="gallery")
