"""Find, download or unpack releases and files, and verify them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from tqdm import tqdm

from reid_done_right.artifacts import InputError, file_digest, read_json, write_text
from reid_done_right.data.download import PATIENCE, Patience, download
from reid_done_right.data.manifest import file_sizes
from reid_done_right.data.readers import advice
from reid_done_right.data.sources import File, file_of, weights_file
from reid_done_right.data.unpack import RECEIPT, unpack

UNKNOWN = 1 << 38
"""Largest download of unknown size in bytes: a quarter of a terabyte."""


ALLOWED = "REID_DATA"
"""Environment variable: folders, separated by colons, where releases and weights may be put besides the one that the
command runs in. Parameters may be anybody's."""


@dataclass(frozen=True)
class External:
    """The state of an external file or release on disk, and what to do about it.

    path    the file, or the release's folder
    state   there; to unpack: its archives exist; to fetch: from known addresses; missing: obtain it by hand
    bytes   to download, None if unknown
    todo    next step, automatic or manual, in one line; "" if it is there
    """

    path: Path
    state: Literal["there", "to unpack", "to fetch", "missing"]
    bytes: int | None
    todo: str


def find(settings: Mapping[str, Any]) -> External | None:
    """Look for the external data of a job, without reading it; None if the job needs none.

    settings: the parameters of a job of `dataset`, with its source: {"folder"} and perhaps "archives", or of
    `initialise`: {"imagenet", "architecture", "folder"} or {"checkpoint"}. Raises InputError if an unpacked folder has
    lost or changed files.
    """
    if release := _release(settings):
        return find_release(*release)
    return find_file(*file) if (file := _file(settings)) else None


def obtain(settings: Mapping[str, Any], offline: bool = False) -> Path | None:
    """Make sure that a job's external data exists, given its settings as in `find`; download it if necessary.

    Returns the file that the job's result depends on: the receipt of an unpacked release, the file of the weights;
    None if there is none. Raises InputError as `obtain_release` and `obtain_file` do.
    """
    if release := _release(settings):
        return obtain_release(*release, offline)
    if not (found := _file(settings)):
        return None
    file, how = found
    if "checkpoint" not in settings:
        obtain_file(file, how, offline)
    elif not file.path.is_file():
        raise InputError(f"{file.path}: no such file; {how}")
    return file.path


def _release(settings: Mapping[str, Any]) -> tuple[Path, list[File], str] | None:
    source = settings.get("source", {})
    if "folder" not in source:
        return None
    archives = [file_of(archive) for archive in source.get("archives", [])]
    return Path(source["folder"]), archives, advice(settings["format"])


def _file(settings: Mapping[str, Any]) -> tuple[File, str] | None:
    if "imagenet" in settings:
        file = weights_file(settings["imagenet"], settings["architecture"], Path(settings["folder"]))
        return file, f"download it from {file.urls[0]}"
    if "checkpoint" in settings:
        return File(Path(settings["checkpoint"])), "give the path of your weights in initialise.checkpoints"
    return None


def find_file(file: File, how: str) -> External:
    """Look for a file, without reading it. how: instructions to obtain it by hand."""
    if file.path.is_file():
        return External(file.path, "there", 0, "")
    if file.urls:
        return External(file.path, "to fetch", file.bytes, f"fetch {file.urls[0]}")
    return External(file.path, "missing", None, f"{how}; put it at {file.path}")


def find_release(folder: Path, archives: Sequence[File], how: str) -> External:
    """Look for a release's folder, else for what it can be made from, without reading them.

    Raises InputError if the folder was unpacked here and has lost or changed files since.
    """
    if folder.is_dir():
        _check_whole(folder)
        return External(folder, "there", 0, "")
    absent = [file for file in archives if not file.path.is_file()]
    if archives and not absent:
        return External(folder, "to unpack", 0, f"unpack {_names(archives)}")
    if archives and all(file.urls for file in absent):
        sizes = [file.bytes for file in absent if file.bytes is not None]
        total = sum(sizes) if len(sizes) == len(absent) else None
        return External(folder, "to fetch", total, f"fetch {', '.join(file.urls[0] for file in absent)} and unpack")
    put = f"{_names(absent)}, or its folder to {folder}" if absent else f"{folder}"
    return External(folder, "missing", None, f"{how}; put it at {put}")


def obtain_file(file: File, how: str, offline: bool = False, patience: Patience = PATIENCE) -> str:
    """Make sure that a file exists at its path and is the published or first seen one; download it if necessary.

    Returns its SHA-256. Where none is published, it is recorded beside the file in `<name>.sha256`, as the program
    sha256sum writes it, and compared from then on. A download goes to `<name>.part` and gets its name once it is
    verified. Raises InputError if the file is another, or is not there and cannot be fetched: no address, offline, no
    connection, or what `reid_done_right.data.download.download` raises.
    """
    if file.path.is_file():
        return _verified(file, file.path, f"{file.path}", "obtain it again")
    if not file.urls:
        raise InputError(f"{file.path}: no such file; {how}; put it at {file.path}")
    by_hand = f"download {file.urls[0]}{_megabytes(file)} where there is a network and put it at {file.path}"
    if offline:
        raise InputError(f"{file.path}: no such file, and nothing is fetched offline; {by_hand}")
    part = file.path.with_name(f"{file.path.name}.part")
    limit = UNKNOWN if file.bytes is None else file.bytes + file.bytes // 100
    problems = []
    with _alone(file.path):
        if file.path.is_file():  # another process fetched it while this one waited
            return _verified(file, file.path, f"{file.path}", "obtain it again")
        for url in file.urls:
            try:
                download(url, part, limit, patience)
                digest = _verified(file, part, url, "what came was discarded; use another address")
                part.replace(file.path)
                return digest
            except InputError as error:
                problems.append(f"{error}")
    raise InputError(f"{file.path}: no such file; {'; '.join(problems)}; or {by_hand}")


def obtain_release(
    folder: Path, archives: Sequence[File], how: str, offline: bool = False, patience: Patience = PATIENCE
) -> Path | None:
    """Make sure that a release's folder is there: your own, or unpacked from its archives, fetched if need be.

    Returns the receipt of an unpacked folder, or None for a user's folder. Raises InputError as
    `obtain_file` and `reid_done_right.data.unpack.unpack` do; if there is neither folder nor archive; if the folder has
    lost or changed files since it was unpacked, or was unpacked from other archives than the present ones.
    """
    found = find_release(folder, archives, how)
    if found.state == "missing":
        raise InputError(f"{folder}: no such folder; {found.todo}")
    if found.state != "there":
        with _alone(folder):
            if not folder.is_dir():  # else another process unpacked it while this one waited
                digests = {file.path.name: obtain_file(file, how, offline, patience) for file in archives}
                progress = partial(tqdm, desc=f"unpack {folder.name}", unit="file")
                unpack([file.path for file in archives], folder, partial(_receipt, digests), progress)
    if not was_unpacked(folder):
        return None
    _check_archives(folder, archives, how)
    return folder / RECEIPT


def was_unpacked(folder: Path) -> bool:
    """Return whether a folder was unpacked here, rather than provided by the user."""
    return (folder / RECEIPT).is_file()


def _verified(file: File, path: Path, what: str, remedy: str) -> str:
    """Return a file's digest if it equals the published or recorded one; record it if there is neither.

    A download of another digest is removed, and InputError raised.
    """
    digest = file_digest(path)
    record = file.path.with_name(f"{file.path.name}.sha256")
    if file.sha256:
        expected, whose = file.sha256.lower(), f"but {file.sha256} is published"
    elif record.is_file():
        expected, _, _ = record.read_text(encoding="utf-8").partition(" ")
        whose = f"but was {expected} when it was first seen ({record})"
        remedy += ", or delete that record if you trust the new one"
    else:
        _write_record(record, f"{digest}  {file.path.name}\n")
        return digest
    if not digest.startswith(expected):
        if path != file.path:
            path.unlink()
        raise InputError(f"{what}: its SHA-256 is {digest}, {whose}; {remedy}")
    return digest


def _write_record(record: Path, text: str) -> None:
    try:
        write_text(record, text)
    except OSError as error:
        raise InputError(
            f"{record}: {error.strerror}; make its folder writable, or give the archive's sha256"
        ) from None


def _check_whole(folder: Path) -> None:
    """Check cheaply that an unpacked folder holds as many files and bytes as it did. Raises InputError if not."""
    if was_unpacked(folder):
        known = read_json(folder / RECEIPT)
        sizes = file_sizes(folder)
        if (len(sizes), sum(sizes.values())) != (known.get("files"), known.get("bytes")):
            raise InputError(
                f"{folder}: holds {len(sizes)} files of {sum(sizes.values())} bytes in all, but {known.get('files')} "
                f"of {known.get('bytes')} were unpacked; delete the folder and run again to unpack it"
            )


def _check_archives(folder: Path, archives: Sequence[File], how: str) -> None:
    """Check that the archives still present are those that the folder was unpacked from."""
    known = read_json(folder / RECEIPT).get("archives", {})
    for file in archives:
        if file.path.is_file() and obtain_file(file, how) != known.get(file.path.name):
            raise InputError(
                f"{folder}: was unpacked from another {file.path.name} than the one at {file.path}; delete the folder "
                "to unpack the new one, or restore the archive"
            )


def _receipt(digests: Mapping[str, str], folder: Path) -> str:
    """Describe an unpacked folder: the digests of its archives, its number of files and bytes."""
    sizes = file_sizes(folder)
    return json.dumps({"archives": digests, "files": len(sizes), "bytes": sum(sizes.values())}, indent=1) + "\n"


def _alone(path: Path) -> FileLock:
    """Lock what is to lie at `path` against other processes.

    Raises InputError where parameters of others must not choose what is written: see `ALLOWED`.
    """
    allowed = [os.getcwd(), *filter(None, os.environ.get(ALLOWED, "").split(os.pathsep))]  # noqa: PTH109
    if not any(Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)) for folder in allowed):  # noqa: PTH100
        raise InputError(f"{path}: would be written outside of this folder; if it is meant, {ALLOWED}={path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _names(files: Sequence[File]) -> str:
    return ", ".join(str(file.path) for file in files)


def _megabytes(file: File) -> str:
    return f" ({file.bytes / 1e6:.0f} MB)" if file.bytes else ""
