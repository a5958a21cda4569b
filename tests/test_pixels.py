"""Images in one block: equal for every storage, order and number of threads; and all errors."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from conftest import needs
from reid_done_right.artifacts import Index, InputError
from reid_done_right.images import decode as images
from reid_done_right.images import pixels
from reid_done_right.images.decode import load, measure
from reid_done_right.images.pixels import Pixels, ahead

CPU = torch.device("cpu")
RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """23 rows: 19 files of mixed sizes, one of them a PNG, one a scene with five boxes in rows far apart."""
    root = tmp_path_factory.mktemp("release")
    paths = [f"{k % 5}_{k}.jpg" for k in range(18)] + ["3.png"]
    for k, path in enumerate(paths):
        pixel = RNG.integers(0, 256, (5 + 2 * k, 30 - k, 3), dtype=np.uint8)
        Image.fromarray(pixel).save(root / path, quality=95)
    rows = [*paths, *["0_15.jpg"] * 4]
    order = RNG.permutation(len(rows))
    box = np.zeros((len(rows), 4), np.int32)
    box[19:] = [[1, 2, 6, 9], [-3, 0, 9, 9], [4, 4, 5, 5], [10, 30, 20, 20]]
    zeros = np.zeros(len(rows), np.int64)
    return Index(root, np.array(rows)[order], zeros, zeros, zeros, np.full(len(rows), "train"), box[order])


def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "IN_MEMORY", 0.0)


def in_file(read: Pixels) -> bool:
    """Return whether the block is mapped from a file, which has no name any more."""
    address = read.flat.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(end, 16) for end in line.split()[0].split("-"))
        if start <= address < stop:
            return line.endswith("(deleted)")
    raise AssertionError("mapped nowhere")


def places(read: Pixels, which: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    batch = read.batch(which).permute(0, 2, 3, 1).numpy()
    return [one[:h, :w] for one, (h, w) in zip(batch, read.sizes[which], strict=True)]


def test_sizes_equal_loaded_images(index: Index) -> None:
    rows = np.arange(len(index))[::-1]
    assert measure(index, rows).tolist() == [list(image.shape[:2]) for image in load(index, rows)]
    assert measure(index, rows[:0]).shape == (0, 2)


@pytest.mark.parametrize("chunk", [1, 4, 1024])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["memory", "file"])
def test_pixels_batch_equals_load(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, threads: int, where: str
) -> None:
    monkeypatch.setattr(pixels, "CHUNK", chunk)
    if where == "file":
        no_memory(monkeypatch)
    rows = RNG.permutation(len(index))[:20]
    read = Pixels.read(index, rows, CPU, tmp_path, threads)
    wanted = np.array([3, 19, 0, 3, 7])
    assert in_file(read) == (where == "file")
    for mine, expected in zip(places(read, wanted), load(index, rows[wanted]), strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert not list(tmp_path.iterdir())  # the file has no name


def test_beside_an_image_are_zeros() -> None:
    read = Pixels.of([np.full((h, w, 3), 9, np.uint8) for h, w in ((2, 3), (4, 1))], CPU)
    batch = read.batch(np.array([0, 1]))
    assert batch.shape == (2, 3, 4, 3)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[:, 1].tolist() == [
        [[9, 9, 9], [9, 9, 9], [0, 0, 0], [0, 0, 0]],
        [[9, 0, 0], [9, 0, 0], [9, 0, 0], [9, 0, 0]],
    ]


def test_device_batches_equal_memory_batches(index: Index) -> None:
    read = Pixels.of(load(index, np.arange(len(index))), CPU)
    which = RNG.integers(0, len(read), 40)
    height, width = read.sizes[which].max(0).tolist()
    assert torch.equal(read._on_device(which, height, width), read._in_memory(which, height, width))


def test_no_images_are_no_error(index: Index, tmp_path: Path) -> None:
    none = np.empty(0, np.int64)
    for read in (Pixels.of([], CPU), Pixels.read(index, none, CPU, tmp_path)):
        assert len(read) == 0
        assert read.batch(none).shape == (0, 3, 0, 0)
    assert list(ahead(index, none, CPU)) == []


def test_every_file_is_decoded_once_in_memory_of_a_chunk(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "CHUNK", 3)
    contents: list[bytes] = []
    done: list[int] = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda content, upright: contents.append(content) or decode(content))
    Pixels.read(index, np.arange(len(index)), CPU, tmp_path, progress=done.append)
    assert len(contents) == len(set(contents)) == 19
    assert sum(done) == len(index)
    assert max(done) <= 3 + 4  # the scene's five boxes stay together


@pytest.mark.parametrize("size", [1, 5, 100])
def test_single_pass_has_every_row_in_order(index: Index, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(pixels, "AHEAD", size)
    rows = RNG.permutation(len(index))
    passed = list(ahead(index, rows, CPU, threads=2))
    assert [len(part) for part in passed] == [min(size, 23 - start) for start in range(0, 23, size)]
    seen = [image for part in passed for image in places(part, np.arange(len(part)))]
    assert all(map(np.array_equal, seen, load(index, rows)))


def test_pixels_use_memory_up_to_share(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(len(index))
    size = int(3 * measure(index, rows).prod(1).sum())

    class Memory:
        available = 2 * size

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    assert not in_file(Pixels.read(index, rows, CPU, tmp_path))
    Memory.available = 2 * size - 2
    assert in_file(Pixels.read(index, rows, CPU, tmp_path))


def test_full_disk_is_reported_before_decoding(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    no_memory(monkeypatch)
    monkeypatch.setattr(pixels, "posix_fallocate", full)
    monkeypatch.setattr(pixels, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(
        InputError, match=r"0\.0 GiB of decoded images fit neither .*No space left on device.*REID_STORE"
    ):
        Pixels.read(index, np.arange(len(index)), CPU, tmp_path)
    assert not list(tmp_path.iterdir())


def damage(content: bytes) -> bytes:
    return content[: len(content) - 200]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), r"0_15\.jpg: index row \d+ needs an image here, but there is none"),
        (lambda path: path.write_bytes(b"\xff\xd8 no"), r"0_15\.jpg: .* but its JPEG header is damaged"),
        (lambda path: path.write_bytes(damage(path.read_bytes())), r"0_15\.jpg: index row \d+ needs an image here"),
    ],
    ids=["missing", "no image", "cut short"],
)
def test_bad_file_is_named(index: Index, tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    path = index.root / "0_15.jpg"
    content = path.read_bytes()
    change(path)
    try:
        with pytest.raises(InputError, match=message):
            Pixels.read(index, np.arange(len(index)), CPU, tmp_path)
    finally:
        path.write_bytes(content)


def test_file_that_changes_meanwhile_is_named(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decode", lambda *_: np.zeros((99, 99, 3), np.uint8))
    with pytest.raises(InputError, match=r"jpg: changed while it was read"):
        Pixels.read(index, np.arange(len(index)), CPU, tmp_path)


def test_jpeg_with_a_large_preview_is_measured(tmp_path: Path) -> None:
    content = simplejpeg.encode_jpeg(np.zeros((20, 30, 3), np.uint8))
    segment = b"\xff\xe2" + (60_000).to_bytes(2, "big") + bytes(59_998)
    (tmp_path / "a.jpg").write_bytes(content[:2] + segment + content[2:])
    zeros = np.zeros(1, np.int64)
    one = Index(tmp_path, np.array(["a.jpg"]), zeros, zeros, zeros, np.array(["train"]), np.zeros((1, 4), np.int32))
    assert measure(one, zeros).tolist() == [[20, 30]]


@pytest.mark.parametrize("place", [-1, 2])
def test_place_of_no_image_is_an_error(place: int) -> None:
    read = Pixels.of([np.zeros((2, 2, 3), np.uint8)] * 2, CPU)
    with pytest.raises(IndexError, match=rf"index {place} of 2 images" if place < 0 else "2"):
        read.batch(np.array([0, place]))


def test_block_that_does_not_hold_its_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="11 bytes do not hold the 1 images"):
        Pixels(torch.zeros(11, dtype=torch.uint8), np.array([[2, 2]]), np.array([0]), CPU)


@pytest.mark.gpu
@needs("a GPU", torch.cuda.is_available())
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_gpu_has_the_same_images(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(pixels, "ON_DEVICE", share)
    rows, which = np.arange(len(index)), RNG.integers(0, len(index), 40)
    there = Pixels.read(index, rows, torch.device("cuda"), tmp_path)
    assert there.flat.is_cuda == bool(share)
    assert torch.equal(there.batch(which).cpu(), Pixels.read(index, rows, CPU, tmp_path).batch(which))
