"""Small files that would unpack to GiBs are refused by what they claim, before anything of that size is made."""

import io
import re
import resource
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_done_right.artifacts import InputError, read_index, read_state
from reid_done_right.data.arrays import read_arrays
from reid_done_right.data.unpack import unpack

GIB = 1 << 30
SPARE = 768 << 20
"""Bytes that a reader may take on top of what the process has: less than any bomb unpacks to."""


@contextmanager
def little_memory() -> Iterator[None]:
    """Leave the process `SPARE` bytes; more raises MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    (has,) = re.findall(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    resource.setrlimit(resource.RLIMIT_DATA, ((int(has) << 10) + SPARE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def zeros(size: int, before: bytes = b"") -> bytes:
    """Return a deflate stream of some bytes and then zeros, in the time of a few MiB of them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + part * (size // (16 << 20)) + packer.flush()


def zipped(name: str, content: bytes, size: int) -> bytes:
    """Return a zip archive of one deflated member."""
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(content), size, len(name), 0)
    local = b"PK\x03\x04" + common + name.encode()
    central = b"PK\x01\x02\x14\x00" + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    ends = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local) + len(content), 0)
    return local + content + central + ends


def npz(folder: Path) -> Path:
    np.lib.format.write_array_header_1_0(
        header := io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (3 * GIB // 8192, 2048)}
    )
    packed = zeros(3 * GIB, header.getvalue())
    (folder / "a.npz").write_bytes(zipped("embeddings.npy", packed, 3 * GIB + len(header.getvalue())))
    return folder / "a.npz"


def state(folder: Path) -> Path:
    (folder / "w.pt").write_bytes(zipped("w/data.pkl", zeros(3 * GIB), 3 * GIB))
    return folder / "w.pt"


def rows(folder: Path) -> Path:
    """Three hundred groups of a million rows of one value each."""
    table = pa.table({"person_id": pa.array(np.zeros(1_000_000, np.int64))})
    with pq.ParquetWriter(folder / "i.parquet", table.schema, compression="zstd") as writer:
        for _ in range(300):
            writer.write_table(table)
    return folder / "i.parquet"


def tar(kind: bytes) -> Callable[[Path], Path]:
    """Return a maker of a tar.gz whose first entry, of some kind, goes on for four GiB."""

    def made(folder: Path) -> Path:
        header = tarfile.TarInfo("r/a.jpg")
        header.type, header.size = kind, 4 * GIB
        packed = zeros(4 * GIB, header.tobuf(tarfile.GNU_FORMAT))
        (folder / "a.tar.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + packed + bytes(8))
        return folder / "a.tar.gz"

    return made


def unpacked(path: Path) -> None:
    unpack([path], path.with_name("out"), lambda root: "{}")


BOMBS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any], str]] = {
    "npz": (npz, lambda path: read_arrays(path, ("embeddings",)), "unpack to 3,221,225,600"),
    "pt": (state, read_state, "unpack to 3,221,225,472"),
    "parquet": (rows, read_index, "unpack to 2,4"),
    "zip": (state, unpacked, "beyond the bounds"),
    "tar": (tar(tarfile.REGTYPE), unpacked, "beyond the bounds"),
    "tar of a long name": (tar(tarfile.GNUTYPE_LONGNAME), unpacked, "neither a zip nor a tar"),
    "tar of attributes": (tar(tarfile.XHDTYPE), unpacked, "neither a zip nor a tar"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_by_what_it_claims(name: str, tmp_path: Path) -> None:
    make, read, said = BOMBS[name]
    path = make(tmp_path)
    assert path.stat().st_size < 8 << 20
    with little_memory(), pytest.raises(InputError, match=said):
        read(path)
    assert not (tmp_path / "out").exists()


def test_array_that_nobody_wants_may_be_of_any_size(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", embeddings=np.ones((2, 3), np.float32), more=np.zeros(20_000_000))
    assert read_arrays(tmp_path / "a.npz", ("embeddings",)).column("embeddings").shape == (2, 3)
