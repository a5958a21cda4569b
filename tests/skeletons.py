"""Skeletons of releases: rendered people in folders, names and lists of PRW, MSMT17, CUHK03, VeRi-776 and VehicleID."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pedestrians.matlab import cell_array, save_mat
from pedestrians.releases import write_market1501
from reid_done_right.artifacts import Index
from reid_done_right.data.readers import READERS

SPLITS = ("train", "query", "gallery")


def rendered(root: Path) -> Index:
    """Render four people to train on and three to test on before two cameras."""
    write_market1501(
        *(root,), world=5, hardness=0.4, train_ids=4, test_ids=3, cameras=2, distractors=0, junk=0, workers=1
    )
    return READERS["market1501"](root)


def rows_of(index: Index, split: str) -> list[tuple[Path, int, int]]:
    """Return file, person and camera of a split's rows."""
    rows = index.rows(split)
    persons, cameras = index.person_id[rows].tolist(), index.camera_id[rows].tolist()
    return [
        (index.root / path, person, camera)
        for path, person, camera in zip(index.path[rows].tolist(), persons, cameras, strict=True)
    ]


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".png":
        cv2.imwrite(str(target), cv2.imread(str(source)))
    else:
        shutil.copyfile(source, target)


def msmt17(index: Index, root: Path, folders: tuple[str, str] = ("train", "test")) -> Path:
    """Lay out MSMT17; its lists count the persons of each half from 0, and one training image is for validation."""
    lines: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    for split in SPLITS:
        parts = SPLITS[:1] if split == "train" else SPLITS[1:]
        half = sorted({person for part in parts for _, person, _ in rows_of(index, part)})
        for k, (source, person, camera) in enumerate(rows_of(index, split)):
            label = half.index(person)
            path = f"{label:04}/{label:04}_{k:03}_{camera:02}_0303morning_{k:04}_{split == 'query':d}.jpg"
            _put(source, root / folders[split != "train"] / path)
            lines["val" if split == "train" and k == 3 else split].append(f"{path} {label}\n")
    for name, content in lines.items():
        (root / f"list_{name}.txt").write_text("".join(content))
    return root


def cuhk03(index: Index, root: Path) -> Path:
    """Lay out CUHK03-NP, both halves alike."""
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    for boxes in ("labeled", "detected"):
        for split, folder in folders.items():
            for k, (source, person, camera) in enumerate(rows_of(index, split)):
                _put(source, root / boxes / folder / f"{person:04}_c{camera}_{k}.png")
    return root


def veri776(index: Index, root: Path) -> Path:
    """Lay out VeRi, whose queries are in the gallery too."""
    folders = {"train": ["image_train"], "query": ["image_query", "image_test"], "gallery": ["image_test"]}
    for split, names in folders.items():
        for k, (source, person, camera) in enumerate(rows_of(index, split)):
            for folder in names:
                _put(source, root / folder / f"{person:04}_c{camera + 9:03}_{k:08}_{split == 'query':d}.jpg")
    return root


def vehicleid(index: Index, root: Path) -> Path:
    """Lay out VehicleID with a list for each number of test vehicles; ids from 0."""
    lists: dict[str, list[str]] = {"train_list": [], "test_list": []}
    for number, (split, (source, person, _)) in enumerate((s, row) for s in SPLITS for row in rows_of(index, s)):
        _put(source, root / f"image/{number:07}.jpg")
        lists["train_list" if split == "train" else "test_list"].append(f"{number:07} {person - 1}\n")
    (root / "train_test_split").mkdir()
    for size in ("_800", "_1600", "_2400"):
        (root / f"train_test_split/test_list{size}.txt").write_text("".join(lists["test_list"]))
    (root / "train_test_split/train_list.txt").write_text("".join(lists["train_list"]))
    return root


def prw(index: Index, root: Path) -> Path:
    """Lay out PRW: nobody is twice in a frame, and the last in each is unlabelled. Queries are in test frames."""
    (root / "frames").mkdir(parents=True)
    (root / "annotations").mkdir()
    queries: list[str] = []
    for half, splits in (("train", SPLITS[:1]), ("test", SPLITS[1:])):
        shown = [(camera, person, path, split) for split in splits for path, person, camera in rows_of(index, split)]
        frames: list[str] = []
        for camera in (1, 2):
            own = sorted(row for row in shown if row[0] == camera)
            width = max(Counter(person for _, person, *_ in own).values())  # frames, as often as one is seen
            for k in range(width):
                frames.append(f"c{camera}s{len(splits)}_{len(frames) + 7:06}")
                here = [*own[k::width], own[k]]
                crops = [cv2.imread(str(path)) for _, _, path, _ in here]
                cv2.imwrite(str(root / f"frames/{frames[-1]}.jpg"), np.hstack(crops))
                boxes = [[person, 64 * i + 0.6, -0.4, 63.9, 128.2] for i, (_, person, *_) in enumerate(here)]
                boxes[-1][0] = -2
                variable = ("box_new", "anno_file", "anno_previous")[len(frames) % 3]
                save_mat(root / f"annotations/{frames[-1]}.jpg.mat", **{variable: np.array(boxes)})
                for row, box in zip(here[:-1], boxes, strict=False):
                    if row[3] == "query":
                        queries.append(" ".join(f"{number:g}" for number in box) + f" {frames[-1]}\r\n")
        save_mat(root / f"frame_{half}.mat", **{f"img_index_{half}": cell_array(frames)})
    (root / "query_info.txt").write_text("".join(queries), newline="")
    return root


LAY_OUT: dict[str, Callable[[Index, Path], Path]] = {
    "prw": prw,
    "msmt17": msmt17,
    "cuhk03-labelled": cuhk03,
    "cuhk03-detected": cuhk03,
    "veri776": veri776,
    "vehicleid-800": vehicleid,
    "vehicleid-1600": vehicleid,
    "vehicleid-2400": vehicleid,
}
