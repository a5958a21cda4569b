"""Contents of files as they are now."""

from __future__ import annotations

from pathlib import Path

from reid_done_right.records import Record, content_digest


class Digests:
    """Digests of contents, each read once."""

    def __init__(self) -> None:
        self.seen: dict[Path, str | None] = {}

    def of(self, path: Path) -> str | None:
        """Give the digest of a file or folder; None if there is none."""
        if path not in self.seen:
            self.seen[path] = content_digest(path) if path.exists() else None
        return self.seen[path]


def is_manifest(path: Path, record: Record) -> bool:
    """Tell the manifest of a dataset, which stands for its images."""
    return bool(record["stage"] == "dataset" and path.suffix == ".json")
