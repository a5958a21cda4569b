"""Index: one row per image or box of a dataset; checks the counts and decodes every image once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reid_done_right.artifacts import write_index
from reid_done_right.data.damage import leave_out
from reid_done_right.data.manifest import check_unchanged, read_manifest
from reid_done_right.data.readers import READERS, check_counts, report


def index(*, settings: Mapping[str, Any], manifest: Path, out: Path, workers: int = 1) -> None:
    """Read the dataset described by a manifest, decode all its images once, and write its index.

    settings   format: a key of `READERS`; counts: None, or some of the names of `reid_done_right.data.readers.count`
               and the expected numbers; read (optional): more arguments of the reader; allow_damaged (optional):
               files to leave out
    manifest   written by stage `dataset`
    out        index (Parquet)
    Prints actual and expected counts. Raises InputError if the folder changed since its manifest was written, if the
    reader cannot read it, if counts differ, or if images are damaged and not allowed, naming all of them.
    """
    described = read_manifest(manifest)
    check_unchanged(described)
    rows = READERS[settings["format"]](Path(described["root"]), **settings.get("read", {}))
    expected = settings["counts"] or {}
    print(report(rows, expected), file=sys.stderr)
    check_counts(rows, expected)
    progress = partial(tqdm, desc=f"decode {described['dataset']}", unit="file")
    whole = leave_out(rows, settings.get("allow_damaged", []), workers, progress)
    if whole.left_out:
        print(
            f"{described['dataset']}: {len(whole.left_out)} damaged files left out according to allow_damaged, "
            f"with {len(rows) - len(whole)} of {len(rows)} rows: {', '.join(whole.left_out)}",
            file=sys.stderr,
        )
    write_index(out, whole)
