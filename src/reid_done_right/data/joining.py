"""Join the training images of several datasets into one index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError, reason_of
from reid_done_right.images.decode import is_turned


def join_training(parts: Sequence[Index]) -> Index:
    """Return an index of the training images of several, one after the other.

    Persons, cameras and tracklets are numbered from 1 on, in the order of the parts, so that no two parts share any;
    camera and tracklet 0 stay 0. Paths are below the working directory, or absolute. If photos of some part are turned
    upright, those of all are.
    Raises InputError if a part has no training images, if two have an image in common, and for an image that would be
    turned otherwise than in its own index.
    """
    for part in parts:
        if len(part.train) == 0:
            raise InputError(f"{part.root}: no images to train on; leave it out of train_on")
    upright = any(part.upright for part in parts)
    paths = [_paths(part) for part in parts]
    for part, own in zip(parts, paths, strict=True):
        if part.upright != upright:
            _check_unturned(own)
    _check_apart(parts, paths)
    person, camera, tracklet = (
        [getattr(part, name)[part.train] for part in parts] for name in ("person_id", "camera_id", "tracklet_id")
    )
    contents = [part.content[part.train] for part in parts if part.content is not None]
    return Index(
        root=Path(),
        path=np.concatenate([np.array(own, np.str_) for own in paths]),
        person_id=_apart(person),
        camera_id=np.where(np.concatenate(camera) == 0, 0, _apart(camera)),
        tracklet_id=np.where(np.concatenate(tracklet) == 0, 0, _apart(tracklet)),
        split=np.concatenate([part.split[part.train] for part in parts]),
        box=np.concatenate([part.box[part.train] for part in parts]),
        upright=upright,
        content=np.concatenate(contents) if len(contents) == len(parts) else None,
    )


def _paths(part: Index) -> list[str]:
    return [(part.root / path).as_posix() for path in part.path[part.train].tolist()]


def _apart(columns: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Number the ids of several columns (N,) from 1 on, ascending in each; equal ids of two columns differ then."""
    found, last = [], 0
    for ids in columns:
        known, number = np.unique(ids, return_inverse=True)
        found.append(number + last + 1)
        last += len(known)
    return np.concatenate(found).astype(np.int64)


def _check_apart(parts: Sequence[Index], paths: Sequence[list[str]]) -> None:
    """Raise InputError naming an image that two parts train on: of the same content, or path if that is unknown."""
    known: dict[str | int, str] = {}
    for part, own in zip(parts, paths, strict=True):
        images = own if part.content is None else part.content[part.train].tolist()
        for image, path in zip(images, own, strict=True):
            if image in known:
                raise InputError(
                    f"{path}: the same image as {known[image]}, whose person would be two; leave one of their datasets "
                    "out of train_on"
                )
        known |= dict(zip(images, own, strict=True))


def _check_unturned(paths: Sequence[str]) -> None:
    """Raise InputError naming an image that other parts' photos would have turned."""
    for path in dict.fromkeys(paths):
        try:
            turned = is_turned(Path(path))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not an image ({reason_of(error)}); restore it") from None
        if turned:
            raise InputError(
                f"{path}: states an EXIF orientation, which its dataset ignores and photos of your own follow; "
                "leave one of the two out of train_on"
            )
