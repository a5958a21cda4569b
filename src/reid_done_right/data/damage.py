"""Find all damaged images of a dataset before training, and drop those that are allowed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, InputError, read_regular, reason_of
from reid_done_right.data.readers.layout import select
from reid_done_right.images.decode import clip, content_digest, decode, inspect

ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")
"""Last bytes of a complete JPEG and a complete PNG."""

Progress = Callable[[list[str]], Iterable[str]]


def find_damaged(index: Index, threads: int = 1, whole: bool = True, progress: Progress = iter) -> dict[str, str]:
    """Return path -> reason for every file of an index that cannot be decoded, or whose box lies outside it.

    whole: decode every pixel; otherwise read headers, and decode only files with an incomplete end.
    `progress` wraps the list of files. The result does not depend on `threads`.
    """
    found = _examine(index, threads, whole, progress)
    return {path: reason for path, reason in found.items() if isinstance(reason, str)}


def _examine(index: Index, threads: int, whole: bool, progress: Progress) -> dict[str, str | int]:
    """Read every file of an index once: the reason why it is damaged, as `find_damaged` says, or its digest."""
    first: dict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(index.path.tolist()):
        first[path].append(row)

    def examine(path: str) -> str | int:
        try:
            content = read_regular(index.root / path)
            size = (0, 0) if whole else inspect(content)[0]
            if whole or not content.endswith(ENDS):
                size = decode(content, index.upright).shape[:2]
            for row in first[path]:
                clip(size, index.box[row].tolist())
        except FileNotFoundError:
            return "there is none"
        except (OSError, ValueError) as error:
            return reason_of(error)
        return content_digest(content)

    files = list(first)
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(files, pool.map(examine, progress(files), chunksize=64), strict=True))


def leave_out(index: Index, allowed: Sequence[str], threads: int = 1, progress: Progress = iter) -> Index:
    """Return the index without the rows of allowed damaged files, with the digest of every other file.

    Every file is read once, and decoded. Raises InputError naming the damaged files that are not allowed, and the
    allowed ones that are not damaged.
    """
    found = _examine(index, threads, True, progress)
    damaged = {path: reason for path, reason in found.items() if isinstance(reason, str)}
    check_allowed(index, damaged, allowed)
    left = without(index, sorted(damaged)) if damaged else index
    return replace(left, content=np.array([found[path] for path in left.path.tolist()], np.uint64))


def check_allowed(index: Index, damaged: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Compare the damaged files of an index with those that the parameters allow. Raises InputError if they differ."""
    fine = sorted(set(allowed) - set(damaged))
    if fine:
        known = set(index.path.tolist())
        reasons = [f"{path} {'can be decoded' if path in known else 'is not in the dataset'}" for path in fine]
        raise InputError(
            f"{index.root}: allow_damaged lists files that are not damaged: {', '.join(reasons)}; take them off it"
        )
    found = sorted(set(damaged) - set(allowed))
    if found:
        lines = [f"{path}: {damaged[path]}" for path in found]
        raise InputError(
            f"{index.root}: {len(found)} of {len(set(index.path.tolist()))} images are damaged; restore them, or list "
            "them in the dataset's allow_damaged to leave them out:",
            *(f"  {line}" for line in lines),
        )


def without(index: Index, paths: Sequence[str]) -> Index:
    """Return the index and its gallery lists without some files, which are listed in `left_out`."""
    keep = ~np.isin(index.path, paths)
    lists = index.gallery_lists
    if lists is not None:
        queries = keep[index.query]
        lists = {
            size: [_renumber(members, keep) for members, kept in zip(galleries, queries, strict=True) if kept]
            for size, galleries in lists.items()
        }
    labels = {name: label[keep] for name in ("person", "camera") if (label := getattr(index, name)) is not None}
    return replace(select(index, keep), gallery_lists=lists, left_out=list(paths), **labels)


def _renumber(members: NDArray[np.int64], keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    places = np.cumsum(keep) - 1
    return np.asarray(places[members[keep[members]]], np.int64)
