"""Fetch: what a job needs from outside, found, fetched or unpacked, and verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_done_right.data.fetch import obtain


def fetch(*, settings: Mapping[str, Any], offline: bool = False) -> Path | None:
    """Make sure that what a job of `dataset` or `initialise` comes from is there (`reid_done_right.data.fetch.obtain`).

    Returns the file that the job's result depends on, None if there is none. Raises InputError that says what to obtain
    where and where to put it, at once if `offline` or if there is no network.
    """
    return obtain(settings, offline)
