"""What a dataset folder held when it was made or first seen: its files' number, bytes and digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reid_done_right.artifacts import InputError, file_digest, read_json

FIELDS = ("dataset", "format", "root", "files", "bytes", "sha256")
CHUNK = 1024

Progress = Callable[[Sequence[list[str]]], Iterable[list[str]]]


def make_manifest(name: str, layout: str, root: Path, threads: int = 1, progress: Progress = iter) -> dict[str, Any]:
    """Describe the folder `root` of dataset `name` in a format (`layout`, a key of
    `reid_done_right.data.readers.READERS`).

    Returns the fields `FIELDS`. root is relative to the working directory if below it; sha256 is the digest of the
    lines "path, size, SHA-256 of the content" (separated by tabs, path relative to root, sorted by path).
    Hidden files and Thumbs.db do not count. `progress` wraps the list of chunks of files. The result does not depend
    on `threads`. Raises InputError if the folder is missing or empty.
    """
    sizes = file_sizes(root)
    if not sizes:
        raise InputError(f"{root}: no such folder, or no file in it; give the folder of the dataset")
    paths = sorted(sizes)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(threads) as pool:
        for chunk in progress([paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]):
            contents = pool.map(file_digest, [root / path for path in chunk])
            for path, content in zip(chunk, contents, strict=True):
                digest.update(f"{path}\t{sizes[path]}\t{content}\n".encode())
    return {
        "dataset": name,
        "format": layout,
        "root": portable(root),
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "sha256": digest.hexdigest(),
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest. Raises InputError if the file is missing or is not one."""
    manifest = read_json(path)
    if missing := [field for field in FIELDS if field not in manifest]:
        raise InputError(f"{path}: not a manifest, it lacks {', '.join(missing)}; run `reid dataset` again")
    return manifest


def check_unchanged(manifest: Mapping[str, Any]) -> None:
    """Check cheaply, without reading contents, that the folder still holds as many files and bytes.

    Raises InputError if not.
    """
    root = Path(manifest["root"])
    sizes = file_sizes(root)
    files, size = len(sizes), sum(sizes.values())
    if (files, size) != (manifest["files"], manifest["bytes"]):
        raise InputError(
            f"{root}: holds {files} files of {size} bytes in all, but its manifest says {manifest['files']} files of "
            f"{manifest['bytes']} bytes; restore the folder, or run `reid dataset` again"
        )


def file_sizes(root: Path, prefix: str = "") -> dict[str, int]:
    """Give the size in bytes of every file below `root` by its posix path, `prefix` before it; none if no folder.

    Hidden files and folders and Thumbs.db are left out; links are followed.
    """
    sizes: dict[str, int] = {}
    if not root.is_dir():
        return sizes
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "Thumbs.db":
                continue
            readable(entry.name, root)
            if entry.is_dir():
                sizes |= file_sizes(Path(entry), f"{prefix}{entry.name}/")
            else:
                sizes[prefix + entry.name] = entry.stat().st_size
    return sizes


def readable(name: str, folder: Path) -> str:
    """Give the name of a file in a folder if it is one line of UTF-8. Raises InputError if not."""
    if name.isprintable() or not any(letter in "\r\n" or "\ud800" <= letter <= "\udfff" for letter in name):
        return name
    shown = f"{folder}/{ascii(name)[1:-1]}"
    raise InputError(f"{shown}: its name is not one line of UTF-8; rename it, or move it out of the folder")


def portable(root: Path) -> str:
    """Give a folder as posix text, relative to the working directory if below it, else absolute."""
    absolute = root.absolute()
    inside = absolute.is_relative_to(Path.cwd())
    return (absolute.relative_to(Path.cwd()) if inside else absolute).as_posix()
