"""Unpack archives safely: nothing outside the folder, bounded size, and no half-unpacked folders."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from reid_done_right.artifacts import HARMLESS, RATIO, InputError, regular, write_text

CHUNK = 1 << 20
RECEIPT = ".unpacked.json"
PADDING = 64 << 20
"""Bytes that a tar may have after its end mark."""
LONGEST_HEADER = 1 << 20
"""Bytes of a tar's long name, or of its other attributes, which tarfile reads whole."""
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    struct.error,
    ValueError,
    OverflowError,
)
"""Exceptions of the libraries on damaged and unusual archives, besides an OSError without a number."""

Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Bounds:
    """Limits of an unpacked archive: files, bytes, and bytes per byte of the archive. Photos barely compress."""

    files: int = 3_000_000
    bytes: int = 1 << 40
    ratio: int = RATIO


BOUNDS = Bounds()


class Entry(NamedTuple):
    """A file of an archive: its safe path, declared size in bytes, and how to read it."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archives: Sequence[Path],
    folder: Path,
    receipt: Callable[[Path], str],
    progress: Progress = iter,
    bounds: Bounds = BOUNDS,
) -> None:
    """Unpack zip and tar archives together into the new folder `folder`, atomically.

    Files are unpacked into a hidden folder beside it, flushed to disk and renamed; leftovers of a killed run are
    removed. If everything is in a single folder, that one becomes `folder`. receipt: returns, given the folder before
    it is renamed, the text of the hidden file `RECEIPT`, which marks a folder as unpacked here. `progress` wraps the
    entries. Raises InputError, before it writes anything of that archive, on names that are absolute, climb with "..",
    come twice or mean something else on another system; on links, devices and encryption; and beyond `bounds`. Raises
    InputError on damage and on entries that hold other than they declare. Modes, owners and times are not taken over.
    """
    hidden = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    try:
        taken: set[str] = set()
        for archive in archives:
            with _entries(archive, bounds, taken) as entries:
                free = shutil.disk_usage(hidden).free
                if (needed := sum(entry.size for entry in entries)) > free:
                    raise InputError(
                        f"{hidden.parent}: {free} bytes free, but {archive} unpacks to {needed}; free some"
                    )
                for entry in progress(entries):
                    _write(archive, entry, hidden.joinpath(*entry.path.parts))
        root = _content(hidden)
        write_text(root / RECEIPT, receipt(root))
        os.sync()  # once for all: flushing hundreds of thousands of small files one by one takes hours
        root.rename(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _entries(archive: Path, bounds: Bounds, taken: set[str]) -> Iterator[list[Entry]]:
    """Open an archive and give its files, all checked."""
    kinds = ((zipfile.is_zipfile, _zip), (_is_tar, _tar))
    try:
        regular(archive)
        kind = next((opener for known, opener in kinds if known(archive)), None)
        if kind is None:
            raise InputError(
                f"{archive}: neither a zip nor a tar archive, or cut off; obtain it again or unpack it by hand"
            )
        with kind(archive) as found:
            yield list(_within(archive, found, bounds, taken))
    except InputError:
        raise
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the archive's
        raise InputError(f"{archive}: damaged ({error}); delete it and obtain it again") from None


@contextmanager
def _zip(archive: Path) -> Iterator[Iterable[Entry | None]]:
    with zipfile.ZipFile(archive) as opened:

        def entry(info: zipfile.ZipInfo) -> Entry | None:
            mode = info.external_attr >> 16
            if info.flag_bits & 1:
                raise InputError(f"{archive}: is encrypted; unpack it by hand with its password and give the folder")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, info.filename, "is a link or a device")
            path = _path(archive, info.orig_filename)
            return None if info.is_dir() else Entry(path, info.file_size, lambda: opened.open(info))

        yield (entry(info) for info in opened.infolist())


class _Header(tarfile.TarInfo):
    """An entry's header, refused if it says that an endless name follows."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG and header.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a name of {header.size:,} bytes")
        return header


_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def _is_tar(archive: Path) -> bool:
    try:
        tarfile.open(archive, tarinfo=_Header).close()
    except tarfile.TarError:
        return False
    return True


@contextmanager
def _tar(archive: Path) -> Iterator[Iterable[Entry | None]]:
    with tarfile.open(archive, tarinfo=_Header) as opened:

        def entry(member: tarfile.TarInfo) -> Entry | None:
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _refused(archive, member.name, "is a link, a device or a sparse file")
            path = _path(archive, member.name)
            return None if member.isdir() else Entry(path, member.size, lambda: opened.extractfile(member))  # type: ignore[arg-type,return-value]

        def entries() -> Iterator[Entry | None]:
            for member in opened:  # one by one: a bomb is noticed before it is read through
                yield entry(member)
            _check_end(opened)

        yield entries()


def _check_end(opened: tarfile.TarFile) -> None:
    """Check that a tar has its end mark, which tarfile does without, and a compressed one its checksum after that."""
    assert opened.fileobj is not None
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("cut off")
    for _ in range(PADDING // CHUNK):
        if not opened.fileobj.read(CHUNK):
            return
    raise tarfile.ReadError("goes on after its end")


def _path(archive: Path, name: str) -> PurePosixPath:
    """Check a name and give it as a path of plain parts."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise _refused(archive, name, "leads outside the folder")
    odd = any(character in '\\:*?"<>|' or unicodedata.category(character).startswith("C") for character in name)
    if odd or any(part != part.rstrip(". ") for part in path.parts) or any(_reserved(part) for part in path.parts):
        raise _refused(archive, name, "means something else on another system")
    return path


def _reserved(part: str) -> bool:
    """Tell the names that Windows keeps for devices, with any suffix."""
    stem = part.partition(".")[0].upper()
    return stem in ("CON", "PRN", "AUX", "NUL") or (stem[:3] in ("COM", "LPT") and stem[3:].isdecimal())


def _within(archive: Path, found: Iterable[Entry | None], bounds: Bounds, taken: set[str]) -> Iterator[Entry]:
    """Pass on the files of an archive while their names are new and their declared bytes within bounds."""
    size = archive.stat().st_size
    allowed = min(bounds.bytes, max(HARMLESS, bounds.ratio * size))
    files = total = 0
    for entry in found:
        if entry is None or entry.path.parts[0] == "__MACOSX":
            continue  # folders come with their files; __MACOSX holds no data of anybody's
        files, total = files + 1, total + entry.size
        if files > bounds.files or total > allowed:
            raise InputError(
                f"{archive}: {size} bytes that unpack to {files} files of {total} bytes or more, beyond the bounds of "
                f"{bounds.files} files and {allowed} bytes; if you trust it, unpack it by hand and give the folder"
            )
        name = unicodedata.normalize("NFC", str(entry.path)).casefold()
        if name in taken:
            raise _refused(archive, str(entry.path), "comes twice")
        taken.add(name)
        yield entry


def _write(archive: Path, entry: Entry, path: Path) -> None:
    """Copy one file out of an archive, exactly as many bytes as it declares."""
    left = entry.size
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, path.open("xb") as target:
            while left >= 0 and (chunk := source.read(min(CHUNK, left + 1))):
                left -= len(chunk)
                target.write(chunk)
    except (FileExistsError, NotADirectoryError):
        raise _refused(archive, str(entry.path), "comes twice, as a file and as a folder") from None
    except OSError as error:
        if error.errno is None:
            raise
        raise InputError(f"{path}: {error.strerror} while unpacking {archive}; see to it and run again") from None
    if left:
        raise _refused(archive, str(entry.path), f"holds {'more' if left < 0 else 'fewer'} bytes than it declares")


def _content(folder: Path) -> Path:
    """Go down while a folder holds nothing but one folder."""
    while len(inner := list(folder.iterdir())) == 1 and inner[0].is_dir():
        folder = inner[0]
    return folder


def _refused(archive: Path, name: str, why: str) -> InputError:
    return InputError(
        f"{archive}: entry {name!r} {why}; not unpacked; if you trust it, unpack it by hand and give the folder"
    )
