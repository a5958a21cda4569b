"""Fetch: what a job needs from outside, found, fetched or unpacked, and verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid.artifacts import InputError
from reid.data.fetch import obtain_file, obtain_release
from reid.data.sources import File, advice, file_of, weights_file


def fetch(*, settings: Mapping[str, Any], offline: bool = False) -> Path | None:
    """Make sure that what a dataset or the first weights of a backbone come from is there.

    settings: the parameters of a job of `dataset`, with its source: {"folder"} and perhaps "archives", or of
    `initialise`: {"imagenet", "architecture", "folder"} or {"checkpoint"}. Returns the file that the job's result
    depends on: the receipt of an unpacked release, the file of the weights; None if there is none. Raises InputError
    that says what to obtain where and where to put it, at once if `offline` or if there is no network.
    """
    source = settings.get("source", {})
    if "folder" in source:
        archives = [file_of(archive) for archive in source.get("archives", [])]
        return obtain_release(Path(source["folder"]), archives, advice(settings["format"]), offline)
    if "imagenet" in settings:
        file = weights_file(settings["imagenet"], settings["architecture"], Path(settings["folder"]))
        obtain_file(file, "", offline)
        return file.path
    if "checkpoint" in settings:
        file = File(Path(settings["checkpoint"]))
        if not file.path.is_file():
            raise InputError(f"initialise.checkpoints: {file.path}: no such file; give the path of your weights")
        return file.path
    return None
