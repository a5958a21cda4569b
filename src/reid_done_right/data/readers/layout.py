"""Shared by the readers: check folders, list images, and turn labels into index rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid_done_right.artifacts import Index, InputError, read_text
from reid_done_right.data.manifest import readable
from reid_done_right.data.matlab import load_variable

PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
COLUMNS = ("path", "person_id", "camera_id", "tracklet_id", "split", "box")


def expect_folders(root: Path, folders: Sequence[str], advice: str) -> None:
    """Check that `root` is the release's own folder, the one that holds all of `folders`.

    Raises InputError that names what was found and, if `root` is a level too high or too low, the right folder, or
    the archives still packed in it; otherwise `advice` says how to obtain the release.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; {advice}")
    if _holds(root, folders):
        return
    near = [*root.resolve().parents[:2], *sorted(child for child in root.iterdir() if child.is_dir())]
    right = next((folder for folder in near if _holds(folder, folders)), None)
    packed = [name for name in _names(root) if name.lower().endswith(PACKED)]
    todo = f"give {right} instead" if right else f"unpack {' and '.join(packed)} here" if packed else advice
    raise InputError(f"{root}: expected a folder that holds {', '.join(folders)}, found {_content(root)}; {todo}")


def expect_files(root: Path, paths: Sequence[str], listed_in: str) -> None:
    """Check that all `paths` (relative to `root`) exist, by one listing per folder. Raises InputError if not."""
    folders = {path.rpartition("/")[0] for path in paths}
    present = {f"{folder}/{name}" for folder in folders if (root / folder).is_dir() for name in _names(root / folder)}
    missing = [path for path in paths if path not in present]
    if missing:
        raise InputError(
            f"{root / missing[0]}: listed in {listed_in} but not there, with {len(missing)} of {len(paths)} "
            "missing in all; unpack the release again"
        )


def image_names(folder: Path, suffixes: tuple[str, ...] = (".jpg",)) -> list[str]:
    """List the images of one folder in plain character order, as the official lists are ("-1_..." comes first).

    Hidden files and files of other kinds (`Thumbs.db`) are ignored. Raises InputError if no image is there.
    """
    names = [name for name in _names(folder) if name.lower().endswith(suffixes) and not name.startswith(".")]
    if not names:
        raise InputError(
            f"{folder}: no {' or '.join(suffixes)} image in it, found {_content(folder)}; "
            "give the folder whose images lie directly in it, or unpack the release again"
        )
    return names


def labelled_images(
    root: Path,
    folder: str,
    split: str,
    pattern: re.Pattern[str],
    grammar: str,
    suffixes: tuple[str, ...] = (".jpg",),
) -> Index:
    """Index the images of `root / folder`, person and camera read from their names.

    `pattern` is matched at the start of a name and has two groups, person and camera. Only leading fields count:
    some official names end in ".jpg.jpg". Raises InputError on a name outside the grammar.
    """
    names = image_names(root / folder, suffixes)
    fields = [pattern.match(name) for name in names]
    if None in fields:
        stray = root / folder / names[fields.index(None)]
        raise InputError(f"{stray}: name is not of the form {grammar}; move the file out of the folder")
    persons, cameras = np.array([(int(m[1]), int(m[2])) for m in fields if m], np.int64).T
    return rows(root, [f"{folder}/{name}" for name in names], persons, cameras, split)


def labelled_folders(
    root: Path,
    folders: Mapping[str, str],
    pattern: re.Pattern[str],
    grammar: str,
    advice: str,
    suffixes: tuple[str, ...] = (".jpg",),
) -> Index:
    """Index the images of a folder for each split, as `labelled_images` does.

    folders: split -> folder. Raises InputError on a wrong folder or name, and if a person is in training and test.
    """
    expect_folders(root, list(folders.values()), advice)
    parts = (labelled_images(root, folder, split, pattern, grammar, suffixes) for split, folder in folders.items())
    return check_disjoint(join(list(parts)), advice)


def check_disjoint(index: Index, advice: str) -> Index:
    """Return the index. Raises InputError naming an image to test on whose person is trained on."""
    tested = np.setdiff1d(np.arange(len(index)), index.train)
    shared = tested[np.isin(index.person_id[tested], index.person_id[index.train]) & (index.person_id[tested] > 0)]
    if len(shared) == 0:
        return index
    path, person = index.path[shared[0]], index.person_id[shared[0]]
    known = index.path[index.train[index.person_id[index.train] == person][0]]
    raise InputError(
        f"{index.root / path}: {person} is to be tested on, but trained on too, as in {known}, with {len(shared)} such "
        f"images in all; {advice}"
    )


def matched_lines(path: Path, pattern: re.Pattern[str], grammar: str, advice: str) -> list[re.Match[str]]:
    """Match each line of a list, empty ones left out. Raises InputError naming file and line."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; {advice}")
    with as_released(path):
        lines = [line.strip() for line in read_text(path, "ascii").splitlines()]
    matches = [(number, line, pattern.fullmatch(line)) for number, line in enumerate(lines, 1) if line]
    for number, line, match in matches:
        if match is None:
            raise InputError(f"{path}: line {number}, {line[:200]!r}, is not of the form {grammar}; {advice}")
    if not matches:
        raise InputError(f"{path}: empty; {advice}")
    return [match for *_, match in matches if match]


def rows(
    root: Path,
    paths: Sequence[str],
    person_id: ArrayLike,
    camera_id: ArrayLike,
    split: str | NDArray[np.str_],
    tracklet_id: ArrayLike = 0,
    box: ArrayLike = 0,
) -> Index:
    """Make index rows, one per path; a single value stands for every row. Box 0 is the whole image."""
    n = len(paths)
    return Index(
        root=root,
        path=np.array(paths, np.str_),
        person_id=np.broadcast_to(np.asarray(person_id, np.int64), n).copy(),
        camera_id=np.broadcast_to(np.asarray(camera_id, np.int64), n).copy(),
        tracklet_id=np.broadcast_to(np.asarray(tracklet_id, np.int64), n).copy(),
        split=np.broadcast_to(np.asarray(split, np.str_), n).copy(),
        box=np.broadcast_to(np.asarray(box, np.int32), (n, 4)).copy(),
    )


def select(index: Index, keep: NDArray[np.bool_]) -> Index:
    """Return the rows of `index` inside the mask (N,), in order."""
    return replace(index, **{column: getattr(index, column)[keep] for column in COLUMNS})


def join(parts: Sequence[Index]) -> Index:
    """Stack the rows of several indexes of one root, in order."""
    stacked: dict[str, Any] = {column: np.concatenate([getattr(part, column) for part in parts]) for column in COLUMNS}
    return replace(parts[0], **stacked)


def load_matrix(path: Path, variable: str) -> NDArray[Any]:
    """Load one variable of a MATLAB file. Raises InputError if the file is missing, damaged or lacks it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; unpack the release again")
    try:
        found = load_variable(path, variable)
    except (ValueError, IndexError, StopIteration, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "damaged"
        raise InputError(f"{path}: not a readable MATLAB file ({reason}); unpack the release again") from None
    if found is None:
        raise InputError(f"{path}: expected a variable {variable} in it; take the file of the official release")
    return found


@contextmanager
def as_released(path: Path) -> Iterator[None]:
    """Turn errors while parsing the file at `path` into an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, StopIteration) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not built as in the official release ({reason}); unpack the release again") from None


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_dir() for name in names)


def _content(folder: Path) -> str:
    names = _names(folder)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "") or "nothing"


def _names(folder: Path) -> list[str]:
    return sorted(readable(entry.name, folder) for entry in folder.iterdir())
