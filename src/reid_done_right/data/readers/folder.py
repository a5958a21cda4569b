"""Photos in a folder, labelled by their paths: a pattern with named fields describes any scheme."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.manifest import file_sizes
from reid_done_right.data.readers.layout import expect_folders
from reid_done_right.data.readers.own import Photos, index_photos

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
FIELDS = ("person", "camera", "tracklet", "split")
PATTERN = "{person}/{camera}/{name}"
OBTAIN = "give the folder of your photos as source.folder"


def read(root: Path, *, pattern: str = PATTERN, **options: Any) -> Index:
    """Index the images below a folder, in the order of their paths, labelled by their paths.

    pattern: see `compile_pattern`. options: those of `reid_done_right.data.readers.own.index_photos`. Hidden files and
    files of other kinds are passed over. Raises InputError on a folder without images, and naming all images that the
    pattern does not match.
    """
    root = Path(root)
    expect_folders(root, [], OBTAIN)
    paths = images_below(root, OBTAIN)
    columns = labels_of(root, paths, pattern)
    return index_photos(root, Photos(path=paths, place=[f"{root}/{path}" for path in paths], **columns), **options)


def images_below(root: Path, advice: str) -> list[str]:
    """List the images in a folder and below it by their posix paths, sorted. Raises InputError if there is none."""
    paths = sorted(path for path in file_sizes(root) if path.lower().endswith(SUFFIXES))
    if not paths:
        raise InputError(f"{root}: no image ({', '.join(SUFFIXES)}) in it or below it; {advice}")
    return paths


def labels_of(root: Path, paths: Sequence[str], pattern: str) -> dict[str, list[str]]:
    """Read from paths what a pattern names: field -> its text for each path. Raises InputError naming the strays."""
    matcher = compile_pattern(pattern)
    matches = [matcher.fullmatch(path) for path in paths]
    strays = [path for path, match in zip(paths, matches, strict=True) if match is None]
    if strays:
        shown = ", ".join(strays[:3]) + (f" and {len(strays) - 3} more" if strays[3:] else "")
        raise InputError(
            f"{root}: {len(strays)} of {len(paths)} images are not of the form {pattern}: {shown}; "
            "move them out of the folder, or correct read.pattern"
        )
    labels = [match.groupdict() for match in matches if match is not None]
    return {field: [label[field] for label in labels] for field in FIELDS if field in matcher.groupindex}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn a pattern such as "{person}_c{camera}_{rest}.jpg" into a regular expression for paths below the folder.

    {person}, {camera}, {tracklet} and {split} are read; other fields match parts that vary. A field has at least one
    character, never a "/", and ends as early as the rest of the pattern allows;
    {person:4} is exactly four characters. A field that is read and stands twice must be the same text both times.
    Braces themselves are written twice.
    Raises InputError on a pattern without {person}, on fields with nothing between them, and on a mistake of syntax.
    """
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError as error:
        raise InputError(f"read.pattern: {pattern!r}: {error}; write fields as {{person}}, and a brace twice") from None
    named = [field for _, field, _, _ in parts if field in FIELDS]
    pieces, kept, seen, open_ended = [""], False, set(), False
    for literal, field, width, conversion in parts:
        pieces[-1] += re.escape(literal)
        if field is None:
            continue
        if not re.fullmatch(r"[a-z_]\w*", field) or conversion or not re.fullmatch(r"([1-9]\d*)?", width or ""):
            raise InputError(
                f"read.pattern: {pattern!r}: a field is a word in braces, such as {{person}}, or of fixed width, "
                f"{{person:4}}; {field or 'an empty one'!r} is not"
            )
        if open_ended and not literal:
            raise InputError(
                f"read.pattern: {pattern!r}: nothing says where the field before {{{field}}} ends; "
                "write what stands between them, or its width, as in {person:4}"
            )
        open_ended = not width
        if field in FIELDS and field in seen:
            pieces[-1] += f"(?P={field})"
            continue
        characters = "[^/]{%s}" % width if width else "[^/]+?"  # noqa: UP031
        if not width:
            if kept:  # where it ends first is as good as anywhere later, so other places need not be tried: no hangs
                pieces[-1] = f"(?>{pieces[-1]})"
            pieces.append("")
            kept = named.count(field) < 2
        pieces[-1] += f"(?P<{field}>{characters})" if field in FIELDS else characters
        seen.add(field)
    if "person" not in seen:
        raise InputError(f"read.pattern: {pattern!r} has no field {{person}}; write {{person}} where the name says who")
    return re.compile("".join(pieces))
