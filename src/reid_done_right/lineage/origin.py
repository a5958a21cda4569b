"""Where an artifact came from: the jobs behind it, back to the images and weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid_done_right import records
from reid_done_right.artifacts import InputError
from reid_done_right.data.manifest import read_manifest
from reid_done_right.lineage.contents import Digests, is_manifest
from reid_done_right.records import Record


@dataclass(frozen=True)
class Origin:
    """A file, what made it, and where that came from.

    record    None if no stage is known to have written it: a file of the user's own, or a changed one
    changed   it has records, but of other contents
    images    of a manifest: {root, files, bytes, sha256}
    inputs    name -> origins, in the order of the stage's inputs
    """

    path: Path
    sha256: str
    record: Record | None
    changed: bool = False
    images: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, list[Origin]] = field(default_factory=dict)


def trace(path: Path) -> Origin:
    """Follow an artifact back to the images and weights that it comes from. Raises InputError if there is no file."""
    known = Digests()
    content = known.of(path)
    if content is None:
        raise InputError(f"{path}: no such file; give an artifact, such as a table of a report")
    return _origin(path, content, known, {})


def _origin(path: Path, content: str, known: Digests, done: dict[tuple[Path, str], Origin]) -> Origin:
    """Give the origin of a content, which need not be what lies at its path now."""
    if (path, content) in done:
        return done[path, content]
    record = records.record_of(path, content)
    inputs = {
        name: [_origin(Path(entry["path"]), entry["sha256"], known, done) for entry in entries]
        for name, entries in (record["inputs"] if record else {}).items()
    }
    images = {}
    if record and is_manifest(path, record) and known.of(path) == content:
        images = {name: read_manifest(path)[name] for name in ("root", "files", "bytes", "sha256")}
    changed = record is None and records.is_foreign(path, content)
    return done.setdefault((path, content), Origin(path, content, record, changed, images, inputs))
