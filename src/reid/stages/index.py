"""Index: one row for every image or box of a dataset, its counts checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid.artifacts import InputError, write_index
from reid.data.manifest import check_unchanged, read_manifest
from reid.data.readers import READERS, check_counts, report


def index(*, settings: Mapping[str, Any], manifest: Path, out: Path) -> None:
    """Read the dataset that a manifest describes and write its index.

    settings   counts: None, or some of the names of `reid.data.readers.count` and the numbers expected
    manifest   written by stage `dataset`
    out        index (Parquet)
    Prints the counts, found beside expected. Raises InputError if the folder changed since its manifest, is not what
    its reader expects, or counts differ.
    """
    described = read_manifest(manifest)
    layout = described["format"]
    if layout not in READERS:
        raise InputError(f"{manifest}: unknown format {layout!r}, expected one of {', '.join(READERS)}")
    check_unchanged(described)
    rows = READERS[layout](Path(described["root"]))
    expected = settings["counts"] or {}
    print(report(rows, expected), file=sys.stderr)
    check_counts(rows, expected)
    write_index(out, rows)
