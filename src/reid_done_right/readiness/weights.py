"""Check initial weights before a run: trained here, or files, verified by their digests."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from functools import cache
from typing import Any

from reid_done_right.artifacts import InputError
from reid_done_right.data.fetch import find, obtain
from reid_done_right.data.sources import weights_file
from reid_done_right.plan import Jobs
from reid_done_right.readiness.checks import Check

PATIENCE = 5
"""Timeout for the server of the weights, in seconds."""


def examine_weights(jobs: Mapping[str, Jobs]) -> list[Check]:
    """Check the initial weights of each backbone in use, from the jobs that read them."""
    return [_examine(backbone, job.parameters) for backbone, job in sorted(jobs["initialise"].items())]


def _examine(backbone: str, settings: Mapping[str, Any]) -> Check:
    found = find(settings)
    if found is None:
        return Check(backbone, "ready", "learned by the run, from rendered objects")
    if found.state == "there":
        try:
            obtain(settings, offline=True)
        except InputError as error:
            return Check(backbone, "damaged", str(error), (str(found.path),))
        return Check(backbone, "ready", f"{found.path}, verified" if "imagenet" in settings else f"{found.path}")
    if found.state == "to fetch":
        url = weights_file(settings["imagenet"], settings["architecture"], found.path.parent).urls[0]
        if answers(url):
            return Check(backbone, "note", f"{found.path}: not there yet; the run fetches it from {url}")
        return Check(backbone, "missing", f"{found.path}: not there, and no network reaches {url}; put it there")
    return Check(backbone, "missing", f"{found.path}: no such file; {found.todo}")


@cache
def answers(url: str) -> bool:
    """Ask a server whether a file is available."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return True
    except OSError:
        return False
