"""Fetch: find, download or unpack a job's external inputs, and verify them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_done_right.data.fetch import obtain


def fetch(*, settings: Mapping[str, Any], offline: bool = False) -> Path | None:
    """Make sure that a job's external inputs exist (`reid_done_right.data.fetch.obtain`).

    Returns the file on which the job's result depends, or None. Raises InputError that says what to obtain, from where,
    and where to put it, immediately if `offline` or without a network.
    """
    return obtain(settings, offline)
