"""Photos listed in a CSV table: path, person_id and optional labels."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from reid_done_right.artifacts import Index, InputError, read_text, reason_of
from reid_done_right.data.manifest import file_sizes
from reid_done_right.data.readers.closed import Splits, with_splits
from reid_done_right.data.readers.layout import expect_folders
from reid_done_right.data.readers.own import Photos, index_photos

NEEDED = ("path", "person_id")
OPTIONAL = ("camera_id", "tracklet_id", "split")
OBTAIN = "give the folder that the paths of the table are relative to as source.folder"


def read(
    root: Path,
    *,
    table: str,
    columns: Mapping[str, str] | None = None,
    splits: Splits | None = None,
    **options: Any,
) -> Index:
    """Index the photos that a CSV table in their folder lists, in its order.

    table: UTF-8, commas, a header with the columns path (relative to the folder) and person_id and, if known,
    camera_id, tracklet_id, split; others are passed over. columns: what the table calls some of them. splits: see
    `reid_done_right.data.readers.closed.with_splits`; time-aware ones need the column date. options: as of
    `reid_done_right.data.readers.own.index_photos`. Raises InputError naming the line of the table for a row that is
    too short or too long, an empty or repeated value, and naming the file if it is not there.
    """
    root = Path(root)
    expect_folders(root, [], OBTAIN)
    needed = (*NEEDED, "date") if splits == "time-aware" else NEEDED
    lines, rows = read_table(root / table, needed, columns or {})
    place = [f"{root / table}: line {line}" for line in lines]
    check_paths(root, rows["path"], place, lines)
    labels = {name.removesuffix("_id"): rows[name] for name in ("person_id", *OPTIONAL) if name in rows}
    photos = Photos(path=rows["path"], place=place, **labels)
    if splits is not None:
        how = {name: options[name] for name in ("unknown", "train", "seed") if name in options}
        photos = with_splits(photos, splits, rows.get("date"), **how)
    return index_photos(root, photos, **options)


def check_paths(root: Path, paths: Sequence[str], place: Sequence[str], lines: Sequence[int]) -> None:
    """Check that the paths of a table lead to files below `root`, each listed once.

    place  how messages name each row. Raises InputError naming it.
    """
    first: dict[str, int] = {}
    for path, where, line in zip(paths, place, lines, strict=True):
        if path.startswith("/") or ".." in path.split("/") or "\\" in path:
            raise InputError(f"{where}: path {path!r}; write it relative to {root}, with /, without ..")
        if first.setdefault(path, line) != line:
            raise InputError(f"{where}: {path} was on line {first[path]} already; list each photo once")
    present = file_sizes(root)
    missing = [row for row, path in enumerate(paths) if path not in present]
    if missing:
        raise InputError(
            f"{place[missing[0]]}: no file {root / paths[missing[0]]}, with {len(missing)} of {len(place)} "
            "missing in all; put the files there, or take them out of the table"
        )


def read_table(
    path: Path, needed: Sequence[str] = NEEDED, columns: Mapping[str, str] | None = None
) -> tuple[list[int], dict[str, list[str]]]:
    """Read the known columns of a table as text, blanks around values dropped, and the line of each row.

    columns: known name -> what the table calls it, where that differs. Raises InputError naming file and line.
    """
    try:
        reader = csv.reader(StringIO(read_text(path, "utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, [value.strip() for value in row]) for row in reader if row]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; read.table names a CSV file in source.folder") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a readable CSV file in UTF-8 ({reason_of(error)}); save it again as one"
        ) from None
    for line, row in [(1, header), *rows]:
        if any("\n" in value for value in row):
            raise InputError(f"{path}: line {line}: a value has a line break in it; take it out, or close its quotes")
    called = {name: name for name in (*NEEDED, *OPTIONAL, *needed)} | dict(columns or {})
    _check_header(path, header, needed, called)
    if not rows:
        raise InputError(f"{path}: no rows below its header; list your photos, one a line")
    at = {name: header.index(column) for name, column in called.items() if column in header}
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}: line {line} has {len(row)} values, the header has {len(header)} columns")
        for name, column in at.items():
            if not row[column]:
                raise InputError(
                    f"{path}: line {line}: {called[name]} is empty; fill it in, or leave out the row or the column"
                )
    return [line for line, _ in rows], {name: [row[column] for _, row in rows] for name, column in at.items()}


def _check_header(path: Path, header: list[str], needed: Sequence[str], called: Mapping[str, str]) -> None:
    found = ", ".join(header) or "nothing"
    if len(header) == 1 and any(mark in found for mark in ";\t|"):
        raise InputError(f"{path}: the header is {found!r}; separate the columns by commas")
    for name, column in called.items():
        if header.count(column) > 1:
            raise InputError(f"{path}: column {column} is there twice; leave one out")
        if column not in header:
            if column != name:
                raise InputError(f"{path}: no column {column!r}, which read.columns gives for {name}; found {found}")
            others = [other for other in header if other not in called.values()]
            near = difflib.get_close_matches(name, others, 1, cutoff=0.7)
            if near or name in needed:
                hint = f"; is {near[0]!r} meant? Rename it" if near else f"; found {found}"
                raise InputError(f"{path}: no column {name}{hint}")
