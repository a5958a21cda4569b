"""Index: one row for every image or box of a dataset, its counts checked, every image decoded once."""

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
    """Read the dataset that a manifest describes, decode all its images once, and write its index.

    settings   format: a key of `READERS`; counts: None, or some of the names of `reid_done_right.data.readers.count`
               and the numbers expected; read (optional): further arguments of the reader; allow_damaged (optional):
               files to leave out
    manifest   written by stage `dataset`
    out        index (Parquet)
    Prints the counts, found beside expected. Raises InputError if the folder changed since its manifest, is not what
    its reader expects, or counts differ; and naming all damaged images that are not allowed.
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
            f"{described['dataset']}: {len(whole.left_out)} damaged files left out as allow_damaged says, "
            f"with {len(rows) - len(whole)} of {len(rows)} rows: {', '.join(whole.left_out)}",
            file=sys.stderr,
        )
    write_index(out, whole)
