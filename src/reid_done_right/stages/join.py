"""Join: one index of the training images of several datasets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_done_right.artifacts import read_index, write_index
from reid_done_right.data.joining import join_training
from reid_done_right.data.readers import report


def join(*, settings: Mapping[str, Any], indexes: list[Path], out: Path) -> None:
    """Join the training images of several indexes, in order, and print their counts.

    settings: indexes, the names of the files, as they were planned. Raises InputError as `join_training` does.
    """
    joined = join_training([read_index(path) for path in indexes])
    print(report(joined, {}), file=sys.stderr)
    write_index(out, joined)
