"""Photos listed in a CSV table: path, person_id and optional labels."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from reid_done_right.artifacts import Index, InputError, read_text, reason_of
from reid_done_right.data.manifest import file_sizes
from reid_done_right.data.readers.layout import expect_folders
from reid_done_right.data.readers.own import Photos, index_photos

NEEDED = ("path", "person_id")
OPTIONAL = ("camera_id", "tracklet_id", "split")
OBTAIN = "give the folder that the paths of the table are relative to as source.folder"


def read(root: Path, *, table: str, **options: Any) -> Index:
    """Index the photos that a CSV table in their folder lists, in its order.

    table: UTF-8, commas, a header with the columns path (relative to the folder) and person_id and, if known,
    camera_id, tracklet_id, split; others are passed over. options: as of
    `reid_done_right.data.readers.own.index_photos`. Raises InputError naming the line of the table for a row that is
    too short or too long, an empty or repeated value, and naming the file if it is not there.
    """
    root = Path(root)
    expect_folders(root, [], OBTAIN)
    lines, rows = read_table(root / table)
    place = [f"{root / table}: line {line}" for line in lines]
    check_paths(root, rows["path"], place, lines)
    columns = {name.removesuffix("_id"): rows[name] for name in ("person_id", *OPTIONAL) if name in rows}
    return index_photos(root, Photos(path=rows["path"], place=place, **columns), **options)


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


def read_table(path: Path, needed: Sequence[str] = NEEDED) -> tuple[list[int], dict[str, list[str]]]:
    """Read the known columns of a table as text, blanks around values dropped, and the line of each row.

    Raises InputError naming file and line.
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
    _check_header(path, header, needed)
    if not rows:
        raise InputError(f"{path}: no rows below its header; list your photos, one a line")
    known = [name for name in (*NEEDED, *OPTIONAL) if name in header]
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}: line {line} has {len(row)} values, the header has {len(header)} columns")
        for name in known:
            if not row[header.index(name)]:
                raise InputError(
                    f"{path}: line {line}: {name} is empty; fill it in, or leave out the row or the column"
                )
    return [line for line, _ in rows], {name: [row[header.index(name)] for _, row in rows] for name in known}


def _check_header(path: Path, header: list[str], needed: Sequence[str]) -> None:
    found = ", ".join(header) or "nothing"
    if len(header) == 1 and any(mark in found for mark in ";\t|"):
        raise InputError(f"{path}: the header is {found!r}; separate the columns by commas")
    for name in (*NEEDED, *OPTIONAL):
        if header.count(name) > 1:
            raise InputError(f"{path}: column {name} is there twice; leave one out")
        if name not in header:
            others = [other for other in header if other not in (*NEEDED, *OPTIONAL)]
            near = difflib.get_close_matches(name, others, 1, cutoff=0.7)
            if near or name in needed:
                hint = f"; is {near[0]!r} meant? Rename it" if near else f"; found {found}"
                raise InputError(f"{path}: no column {name}{hint}")
