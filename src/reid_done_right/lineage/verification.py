"""Whether every artifact is as it was made, from the inputs, settings and code that there are now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_done_right import records
from reid_done_right.artifacts import DAMAGED, InputError, read_json
from reid_done_right.data.manifest import make_manifest, read_manifest
from reid_done_right.lineage.contents import Digests, is_manifest
from reid_done_right.records import Record
from reid_done_right.store import code_digest

State = Literal["whole", "changed", "missing", "stale", "unknown"]

NOT_ARTIFACTS = ("settings", "logs", "benchmarks")
"""Folders of an experiment that no stage writes artifacts into."""

Progress = Callable[[list[Path]], Iterable[Path]]


@dataclass(frozen=True)
class Verdict:
    """What was found of one artifact.

    state   whole; changed: its content is not what any stage wrote there; missing; stale: whole, but made from other
            inputs, settings or code than there are now; unknown: no stage is known to have written it
    told    why, and what to do; empty if whole
    """

    path: Path
    state: State
    told: str = ""


def artifacts(folder: Path) -> list[Path]:
    """Give all files that stages wrote below a folder, and those beside them, sorted; images count by their manifest.

    Raises InputError if there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the results of an experiment, as in results/embedded")
    found: set[Path] = set()
    for kept in folder.rglob(records.FOLDER):
        if kept.is_dir():
            beside = kept.parent
            found |= {beside / entry.name for entry in kept.iterdir() if not (beside / entry.name).is_dir()}
            found |= {path for path in beside.iterdir() if path.is_file() and not _is_aside(path)}
    if not found:
        raise InputError(f"{folder}: holds nothing that a stage left a record of; run its experiment first")
    return sorted(path for path in found if not set(NOT_ARTIFACTS) & set(path.relative_to(folder).parts[:1]))


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix == DAMAGED


def verify(paths: list[Path], images: bool = True, progress: Progress = iter) -> list[Verdict]:
    """Check artifacts against their records, and those against today's inputs, settings and code.

    With `images`, every image of a dataset is read again and compared with its manifest. `progress` wraps the list of
    paths. Order: that of `paths`.
    """
    known = Digests()
    return [_verdict(path, known, images) for path in progress(paths)]


def _verdict(path: Path, known: Digests, images: bool) -> Verdict:
    content = known.of(path)
    if content is None:
        return Verdict(path, "missing", "run the experiment again; the store may still have it")
    try:
        record = records.record_of(path, content)
    except InputError as error:
        return Verdict(path, "changed", f"its record is damaged: {error}")
    if record is None:
        if records.is_foreign(path, content):
            return Verdict(path, "changed", "not as a stage wrote it; delete it and run the experiment again")
        return Verdict(path, "unknown", "no stage has left a record of it; move it elsewhere if it is yours")
    if stale := _stale(record, known):
        return Verdict(path, "stale", f"{stale}; run the experiment again")
    if images and is_manifest(path, record):
        return _images(path)
    return Verdict(path, "whole")


def _stale(record: Record, known: Digests) -> str:
    """Say what has changed since a record was written; empty if nothing."""
    for entries in record["inputs"].values():
        for entry in entries:
            now = known.of(Path(entry["path"]))
            if now != entry["sha256"]:
                return f"{entry['path']} is {'missing' if now is None else 'another one'} since"
    settings = record["settings"] and Path(record["settings"])
    if settings and not settings.is_file():
        return f"{settings} is gone: the parameters no longer ask for it"
    if settings and read_json(settings).get("parameters") != record["parameters"]:
        return f"{settings} has other parameters since"
    if code_digest(f"reid_done_right.stages.{record['stage']}") != record["code"]:
        return f"the code of `reid {record['stage']}` is another one since"
    return ""


def _images(path: Path) -> Verdict:
    """Read all images of a dataset again."""
    manifest = read_manifest(path)
    try:
        now = make_manifest(manifest["dataset"], manifest["format"], Path(manifest["root"]), os.cpu_count() or 1)
    except InputError as error:
        return Verdict(path, "changed", str(error))
    if now["sha256"] != manifest["sha256"]:
        mend = "restore them, or delete this file and run the experiment again if it renders them"
        return Verdict(path, "changed", f"images below {manifest['root']} are not those of the manifest; {mend}")
    return Verdict(path, "whole")
