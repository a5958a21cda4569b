"""List photos from a folder or a table, with labels if known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reid_done_right.artifacts import InputError
from reid_done_right.data.readers.folder import images_below, labels_of
from reid_done_right.data.readers.table import check_paths, read_table

LABELS = ("person", "camera")


@dataclass(frozen=True)
class Listing:
    """Photos by their POSIX paths below a folder, and their labels, if known: person and camera."""

    root: Path
    path: Sequence[str]
    labels: Mapping[str, Sequence[str]]


def list_photos(source: Path, pattern: str | None = None) -> Listing:
    """List the photos in a folder and below it, by their paths; or those that a CSV table beside them lists.

    pattern: of a folder's paths, such as "{person}/{camera}/{name}"
    (`reid_done_right.data.readers.folder.compile_pattern`), if they say who is who. A table has the column path and,
    if known, person_id and camera_id, which are any text. Raises InputError if there is no photo, and naming the line
    of a table, or the photos that a pattern does not match.
    """
    if source.is_dir():
        paths = images_below(source, "give the folder of your photos, or a table of them (.csv)")
        try:
            found = labels_of(source, paths, pattern) if pattern else {}
        except InputError as error:
            raise InputError(str(error).replace("read.pattern", "--pattern")) from None
        return Listing(source, paths, {name: found[name] for name in LABELS if name in found})
    if not source.exists():
        raise InputError(
            f"{source}: no such folder or table; give the folder of your photos, or a table of them (.csv)"
        )
    if source.suffix.lower() != ".csv":
        raise InputError(f"{source}: neither a folder nor a table (.csv); give the folder of your photos")
    if pattern:
        raise InputError(f"{source}: a table says in its columns who is who; drop --pattern")
    lines, rows = read_table(source, needed=("path",))
    check_paths(source.parent, rows["path"], [f"{source}: line {line}" for line in lines], lines)
    return Listing(source.parent, rows["path"], {name: rows[f"{name}_id"] for name in LABELS if f"{name}_id" in rows})
