"""Archives: valid, hostile, damaged, and interrupted by a kill."""

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reid_done_right.artifacts import InputError, read_json
from reid_done_right.data import unpack as module
from reid_done_right.data.fetch import find_release, obtain_release
from reid_done_right.data.sources import File
from reid_done_right.data.unpack import RECEIPT, Bounds, unpack

RELEASE = {"Release/query/1.jpg": b"one", "Release/test/2.jpg": b"two!", "Release/test/Thumbs.db": b"t"}


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


WRITERS: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "a.zip": write_zip,
    "a.tar": write_tar,
    "a.tar.gz": write_tar,
}


def into(folder: Path, *archives: Path, bounds: Bounds = module.BOUNDS) -> dict[str, bytes]:
    """Unpack and give what lies there."""
    unpack(archives, folder, lambda root: "{}", bounds=bounds)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(tmp_path: Path, archive: Path, message: str, bounds: Bounds = module.BOUNDS) -> None:
    """Check that an archive is refused with this message and that nothing is left of the attempt, anywhere."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        unpack([archive], tmp_path / "release", lambda root: "{}", bounds=bounds)
    assert "\n" not in str(caught.value) and archive.name in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


# --- sound archives


@pytest.mark.parametrize("name", WRITERS)
def test_release_is_unpacked_without_its_outer_folder(tmp_path: Path, name: str) -> None:
    archive = WRITERS[name](tmp_path / name, RELEASE)
    found = into(tmp_path / "deep" / "release", archive)
    assert found == {"query/1.jpg": b"one", "test/2.jpg": b"two!", "test/Thumbs.db": b"t", RECEIPT: b"{}"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["release"]


def test_several_archives_make_one_folder(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "bbox_train.zip", {"bbox_train/0001/a.jpg": b"a"})
    second = write_tar(tmp_path / "bbox_test.tar.gz", {"bbox_test/0002/b.jpg": b"b", "__MACOSX/._b.jpg": b"fork"})
    found = into(tmp_path / "MARS", first, second)
    assert set(found) == {"bbox_train/0001/a.jpg", "bbox_test/0002/b.jpg", RECEIPT}


def test_modes_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("r/run.sh")
    info.external_attr = (stat.S_IFREG | 0o6777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(info, b"x")
    into(tmp_path / "release", tmp_path / "a.zip")
    assert not (tmp_path / "release/run.sh").stat().st_mode & 0o7133


# --- attacks


@pytest.mark.parametrize("archive", WRITERS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.jpg", "leads outside the folder"),
        ("r/../../evil.jpg", "leads outside the folder"),
        ("/tmp/evil.jpg", "leads outside the folder"),
        ("..\\evil.jpg", "means something else on another system"),
        ("C:\\evil.jpg", "means something else on another system"),
        ("C:evil.jpg", "means something else on another system"),
        ("r/CON", "means something else on another system"),
        ("r/nul.jpg", "means something else on another system"),
        ("r/com1.jpg", "means something else on another system"),
        ("r/evil.jpg.", "means something else on another system"),
        ("r/evil.jpg ", "means something else on another system"),
        ("r/evil\x07.jpg", "means something else on another system"),
        ("r/evil\u202egpj.exe", "means something else on another system"),
    ],
)
def test_name_that_leads_elsewhere_is_rejected(tmp_path: Path, archive: str, name: str, why: str) -> None:
    files = {"r/sound.jpg": b"x", name: b"evil"}
    refused(tmp_path, WRITERS[archive](tmp_path / archive, files), f"entry .*evil|CON|nul|com1.* {why}; not unpacked")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_rejected(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        member = tarfile.TarInfo("r/evil")
        member.type, member.linkname = kind, "/etc/passwd"
        opened.addfile(member)
        beyond = tarfile.TarInfo("r/evil/through")
        opened.addfile(beyond)
    refused(tmp_path, tmp_path / "a.tar", "entry 'r/evil' is a link, a device or a sparse file")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_rejected(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("r/evil")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    refused(tmp_path, tmp_path / "a.zip", "entry 'r/evil' is a link or a device")


def test_name_hidden_behind_a_null_is_rejected(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"r/sound.jpg_evil": b"x", "r/b.jpg": b"y"})
    archive.write_bytes(archive.read_bytes().replace(b"sound.jpg_evil", b"sound.jpg\0evil"))
    refused(tmp_path, archive, "means something else on another system|damaged")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["r/a.jpg", "r/./a.jpg", "r/A.JPG"])
def test_name_that_comes_twice_is_rejected(tmp_path: Path, second: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened, tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("r/a.jpg", second):
            opened.writestr(name, b"")
            tar.addfile(tarfile.TarInfo(name))
    for archive in ("a.zip", "a.tar"):
        refused(tmp_path, tmp_path / archive, f"entry '{second.replace('./', '')}' comes twice")


def test_two_archives_must_not_write_over_each_other(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "a.zip", {"r/a.jpg": b"1"})
    second = write_zip(tmp_path / "b.zip", {"r/a.jpg": b"2"})
    with pytest.raises(InputError, match=r"b.zip: entry 'r/a.jpg' comes twice"):
        unpack([first, second], tmp_path / "release", lambda root: "{}")
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("names", [("r/a", "r/a/b.jpg"), ("r/a/b.jpg", "r/a")])
def test_file_that_is_a_folder_too_is_rejected(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = write_tar(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    refused(tmp_path, archive, "comes twice, as a file and as a folder")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_bomb_is_rejected_by_its_declared_size(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = WRITERS[name](tmp_path / name, {f"r/{k}.jpg": bytes(1 << 20) for k in range(4)})
    monkeypatch.setattr(module, "HARMLESS", 1 << 20)
    refused(
        tmp_path,
        archive,
        r"\d+ bytes that unpack to [234] files of \d+ bytes or more, beyond the bounds of .*unpack it by hand",
    )
    monkeypatch.setattr(module, "HARMLESS", 1 << 23)
    refused(tmp_path, archive, "beyond the bounds of 3 files", Bounds(files=3))
    refused(tmp_path, archive, "beyond the bounds of .* 1000000 bytes", Bounds(bytes=1_000_000))
    assert len(into(tmp_path / "release", archive)) == 5


def test_zip_with_understated_size_is_rejected(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"r/bomb.jpg": bytes(5000), "r/b.jpg": b"x"})
    size, lie = (5000).to_bytes(4, "little"), (50).to_bytes(4, "little")
    assert archive.read_bytes().count(size) == 2
    archive.write_bytes(archive.read_bytes().replace(size, lie))
    refused(tmp_path, archive, "damaged|holds more bytes than it declares")


def test_small_disk_is_reported_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_zip(tmp_path / "a.zip", RELEASE)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 7}))
    refused(tmp_path, archive, "7 bytes free, but .*a.zip unpacks to 8; free some")


# --- damage


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("keep", [0.3, 0.6, 8 / 9, 0.9])
def test_truncated_archive_is_reported_and_leaves_nothing(tmp_path: Path, name: str, keep: float) -> None:
    """8/9 cuts a tar between two entries, 0.9 inside a header."""
    archive = WRITERS[name](tmp_path / name, {f"r/{k}.jpg": os.urandom(3000) for k in range(9)})
    content = archive.read_bytes()
    length = 9 * (512 + 3072) if name == "a.tar" else len(content)
    archive.write_bytes(content[: int(length * keep)])
    refused(tmp_path, archive, "neither a zip nor a tar archive, or cut off; obtain it again|damaged .*obtain it again")


def test_tar_with_trailing_data_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PADDING", 2 * module.CHUNK)
    archive = write_tar(tmp_path / "a.tar", RELEASE)
    archive.write_bytes(archive.read_bytes() + bytes(3 * module.CHUNK))
    refused(tmp_path, archive, r"damaged \(goes on after its end\)")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_flipped_byte_is_reported(tmp_path: Path, name: str) -> None:
    archive = WRITERS[name](tmp_path / name, {f"r/{k}.jpg": os.urandom(3000) for k in range(9)})
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 0xFF
    archive.write_bytes(content)
    refused(tmp_path, archive, "damaged .*delete it and obtain it again")


def test_non_archive_and_encrypted_archive_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c rest")
    refused(
        tmp_path, tmp_path / "a.7z", "neither a zip nor a tar archive, or cut off; obtain it again or unpack it by hand"
    )
    archive = write_zip(tmp_path / "a.zip", RELEASE)
    content = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + place] |= 1
    archive.write_bytes(content)
    refused(tmp_path, archive, "is encrypted; unpack it by hand with its password and give the folder")


# --- releases


def release(tmp_path: Path) -> tuple[Path, list[File]]:
    return tmp_path / "data" / "Release", [File(write_zip(tmp_path / "a.zip", RELEASE))]


def test_release_is_unpacked_once_and_watched(tmp_path: Path) -> None:
    folder, archives = release(tmp_path)
    assert find_release(folder, archives, "").state == "to unpack"
    receipt = obtain_release(folder, archives, "")
    assert receipt == folder / RECEIPT
    known = read_json(receipt)
    assert (known["files"], known["bytes"]) == (2, 7)  # without Thumbs.db
    before = receipt.stat().st_mtime_ns
    assert obtain_release(folder, archives, "", offline=True) == receipt and receipt.stat().st_mtime_ns == before
    assert find_release(folder, archives, "").state == "there"

    write_zip(tmp_path / "a.zip", {"other.jpg": b"x"})
    with pytest.raises(InputError, match=r"a.zip: its SHA-256 is \w+, but was \w+ when it was first seen"):
        obtain_release(folder, archives, "")
    (tmp_path / "a.zip.sha256").unlink()
    with pytest.raises(
        InputError, match=r"Release: was unpacked from another a.zip than the one at .*delete the folder"
    ):
        obtain_release(folder, archives, "")
    archives[0].path.unlink()  # to free the disk
    assert obtain_release(folder, archives, "") == receipt

    (folder / "query/1.jpg").unlink()
    with pytest.raises(
        InputError, match="holds 1 files of 4 bytes in all, but 2 of 7 were unpacked; delete the folder"
    ):
        obtain_release(folder, archives, "")


def test_own_folder_is_unchanged(tmp_path: Path) -> None:
    folder, archives = release(tmp_path)
    folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert obtain_release(folder, archives, "") is None
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_results_are_reported(tmp_path: Path) -> None:
    folder, absent = tmp_path / "Release", File(tmp_path / "b.zip")
    with pytest.raises(
        InputError, match=f"{folder}: no such folder; ask them; put it at {absent.path}, or its folder to {folder}$"
    ):
        obtain_release(folder, [absent], "ask them")
    with pytest.raises(InputError, match=f"{folder}: no such folder; ask them; put it at {folder}$"):
        obtain_release(folder, [], "ask them")
    known = File(absent.path, ("https://a.invalid/b.zip",), bytes=5)
    found = find_release(folder, [known], "ask them")
    assert (found.state, found.bytes, found.todo) == ("to fetch", 5, "fetch https://a.invalid/b.zip and unpack")
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
from pathlib import Path
from reid_done_right.data.unpack import unpack
slowly = lambda entries: (time.sleep(0.02) or entry for entry in entries)
unpack([Path(sys.argv[1])], Path(sys.argv[2]), lambda root: "{}", slowly)
"""


def test_killed_unpacking_never_looks_finished_and_starts_again(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {f"r/{k}.jpg": b"x" * 1000 for k in range(300)})
    folder, hidden = tmp_path / "release", tmp_path / ".release.unpacking"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen([sys.executable, "-c", KILLED, str(archive), str(folder)], env=environment)
    while len(list(hidden.rglob("*.jpg"))) < 5:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert hidden.exists() and not folder.exists()
    assert find_release(folder, [File(archive)], "").state == "to unpack"
    obtain_release(folder, [File(archive)], "")
    assert len(list(folder.glob("*.jpg"))) == 300 and not hidden.exists()
