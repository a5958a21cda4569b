"""Manifests: number, size and digest of the files of a dataset when it was made or first seen."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from reid_done_right.artifacts import InputError, file_digest, read_json
from reid_done_right.params.messages import validated

CHUNK = 1024

Progress = Callable[[Sequence[list[str]]], Iterable[list[str]]]


def _path(text: str) -> str:
    """Return a path that the system takes. Raises ValueError for another."""
    if "\0" in text or len(text.encode(errors="surrogateescape")) > 4000 or max(map(len, text.split("/"))) > 255:
        raise ValueError("expected a path of at most 4,000 bytes, without a zero byte")
    return text


PathText = Annotated[str, AfterValidator(_path)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Images(BaseModel, frozen=True):
    """What the manifest of a dataset says of its images."""

    dataset: str
    format: str
    root: PathText
    files: Annotated[int, Field(ge=0, le=2**53)]
    bytes: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Sha256


def make_manifest(name: str, layout: str, root: Path, threads: int = 1, progress: Progress = iter) -> dict[str, Any]:
    """Describe the folder `root` of dataset `name` in a format (`layout`, a key of
    `reid_done_right.data.readers.READERS`).

    Returns the fields of `Images`. root is relative to the working directory if below it; sha256 is the digest of the
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
    return validated(Images, read_json(path), f"{path}: not a manifest", "run `reid dataset` again").model_dump()


def check_unchanged(manifest: Mapping[str, Any]) -> None:
    """Check cheaply, without reading contents, that the folder still holds as many files and bytes.

    Raises InputError if not.
    """
    root = Path(manifest["root"])
    sizes = file_sizes(root, most=manifest["files"] + 1)
    files, size = len(sizes), sum(sizes.values())
    if (files, size) != (manifest["files"], manifest["bytes"]):
        raise InputError(
            f"{root}: holds {files} files of {size} bytes in all, but its manifest says {manifest['files']} files of "
            f"{manifest['bytes']} bytes; restore the folder, or run `reid dataset` again"
        )


def file_sizes(root: Path, prefix: str = "", most: float = math.inf) -> dict[str, int]:
    """Return the size in bytes of every file below `root` by its posix path, `prefix` before it; none if no folder.

    Hidden files and folders and Thumbs.db are left out; links are followed. No more than `most` files are looked for.
    """
    sizes: dict[str, int] = {}
    if not root.is_dir():
        return sizes
    with os.scandir(root) as entries:
        for entry in entries:
            if len(sizes) >= most:
                break
            if entry.name.startswith(".") or entry.name == "Thumbs.db":
                continue
            readable(entry.name, root)
            if entry.is_dir():
                sizes |= file_sizes(Path(entry), f"{prefix}{entry.name}/", most - len(sizes))
            else:
                sizes[prefix + entry.name] = entry.stat().st_size
    return sizes


def readable(name: str, folder: Path) -> str:
    """Return the name of a file in a folder if it is one line of UTF-8. Raises InputError if not."""
    if name.isprintable() or not any(letter in "\r\n" or "\ud800" <= letter <= "\udfff" for letter in name):
        return name
    shown = f"{folder}/{ascii(name)[1:-1]}"
    raise InputError(f"{shown}: its name is not one line of UTF-8; rename it, or move it out of the folder")


def portable(root: Path) -> str:
    """Return a folder as POSIX text, relative to the working directory if below it, otherwise absolute."""
    absolute = root.absolute()
    inside = absolute.is_relative_to(Path.cwd())
    return (absolute.relative_to(Path.cwd()) if inside else absolute).as_posix()
