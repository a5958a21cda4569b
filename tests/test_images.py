"""Decoding and cropping against Pillow, file by file and row by row; and all errors."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.damage import leave_out
from reid_done_right.images import decode as images
from reid_done_right.images.decode import cut, load


def pixels(height: int = 24, width: int = 16, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng((24, seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def index(root: Path, paths: Sequence[str], boxes: Sequence[tuple[int, int, int, int]] | None = None) -> Index:
    n = len(paths)
    zeros = np.zeros(n, np.int64)
    box = np.array(boxes if boxes is not None else np.zeros((n, 4)), np.int32)
    return Index(root, np.array(paths), zeros, zeros, zeros, np.full(n, "gallery"), box)


def test_images_equal_pillows_row_by_row(tmp_path: Path) -> None:
    paths, boxes = ["a.jpg", "b.jpg", "a.jpg", "c.jpg", "a.jpg"], [(0, 0, 0, 0)] * 5
    boxes[1], boxes[2], boxes[4] = (3, 5, 4, 7), (0, 0, 16, 24), (2, 1, 14, 23)
    for seed, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        (tmp_path / name).write_bytes(simplejpeg.encode_jpeg(pixels(seed=seed)))
    rows = [4, 1, 0, 3, 2, 1]
    loaded = load(index(tmp_path, paths, boxes), rows)
    assert [image.shape for image in loaded] == [
        (23, 14, 3),
        (7, 4, 3),
        (24, 16, 3),
        (24, 16, 3),
        (24, 16, 3),
        (7, 4, 3),
    ]
    for row, image in zip(rows, loaded, strict=True):
        x, y, w, h = boxes[row]
        whole = Image.open(tmp_path / paths[row]).convert("RGB")
        expected = np.asarray(whole.crop((x, y, x + w, y + h)) if w else whole)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected)


def test_image_that_is_another_one_than_was_indexed_is_rejected(tmp_path: Path) -> None:
    paths = ["a.jpg", "b.jpg", "a.jpg"]
    for seed, path in enumerate(paths[:2]):
        (tmp_path / path).write_bytes(simplejpeg.encode_jpeg(pixels(seed=seed)))
    indexed = index(tmp_path, paths)
    indexed = leave_out(indexed, [], threads=2)
    sha256 = hashlib.sha256((tmp_path / "b.jpg").read_bytes()).hexdigest()
    assert indexed.content is not None
    assert [f"{digest:016x}" for digest in indexed.content.tolist()][1] == sha256[:16]
    assert len(load(indexed, [0, 1, 2])) == 3
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes() + b"\0")
    assert len(load(indexed, [0, 2])) == 2
    with pytest.raises(
        InputError, match=r"b\.jpg: index row 1 needs an image here, but it is not the file that was indexed"
    ):
        load(indexed, [0, 1, 2])


def test_threads_change_nothing(tmp_path: Path) -> None:
    paths = [f"{k}.jpg" for k in range(7)]
    for k, path in enumerate(paths):
        (tmp_path / path).write_bytes(simplejpeg.encode_jpeg(pixels(8 + k, 8, seed=k)))
    rows = np.random.default_rng(0).integers(0, 7, 30)
    one, many = (load(index(tmp_path, paths), rows, threads=threads) for threads in (1, 3))
    assert all(map(np.array_equal, one, many))
    assert [len(image) for image in one] == (8 + rows).tolist()


def test_no_rows_give_no_images(tmp_path: Path) -> None:
    assert load(index(tmp_path, ["a.jpg"]), np.array([], np.int64)) == []


def test_scene_is_decoded_once_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s1.jpg").write_bytes(simplejpeg.encode_jpeg(pixels()))
    calls, decode = [], images.decode
    monkeypatch.setattr(images, "decode", lambda *content: calls.append(1) or decode(*content))
    loaded = load(index(tmp_path, ["s1.jpg"] * 3, [(0, 0, 4, 4), (1, 1, 4, 4), (2, 2, 4, 4)]), [0, 1, 2])
    assert len(calls) == 1
    assert all(image.base is None and image.flags.c_contiguous for image in loaded)


def test_cut_clips_to_the_image() -> None:
    image = pixels(4, 6)
    np.testing.assert_array_equal(cut(image, (4, 1, 10, 2)), image[1:3, 4:])
    np.testing.assert_array_equal(cut(image, (-2, -1, 5, 3)), image[:2, :3])
    np.testing.assert_array_equal(cut(image, (0, 0, 0, 0)), image)
    for outside in ((6, 0, 3, 3), (0, 4, 3, 3), (-3, 0, 3, 3), (-4, 0, 3, 3), (0, -4, 3, 3)):
        with pytest.raises(ValueError, match="lies outside its 6 x 4 pixels"):
            cut(image, outside)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "named.jpg"])
def test_other_formats_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    Image.fromarray(pixels()).save(tmp_path / name, format="BMP" if name == "a.bmp" else "PNG")
    np.testing.assert_array_equal(load(index(tmp_path, [name]), [0])[0], pixels())


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(simplejpeg.encode_jpeg(pixels()[:, :, :1].copy(), colorspace="GRAY"))
    Image.fromarray(pixels()).convert("L").save(tmp_path / "b.png")
    for image in load(index(tmp_path, ["a.jpg", "b.png"]), [0, 1]):
        assert image.shape == (24, 16, 3) and (image == image[:, :, :1]).all()


def test_stray_bytes_between_segments_are_passed_over(tmp_path: Path) -> None:
    content = simplejpeg.encode_jpeg(pixels())
    scan = content.index(b"\xff\xda")
    stray = content[:scan] + b"\x12\x34" + content[scan:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(stray)
    (tmp_path / "a.jpg").write_bytes(stray)
    np.testing.assert_array_equal(load(index(tmp_path, ["a.jpg"]), [0])[0], simplejpeg.decode_jpeg(content))


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "there is none"),
        (b"", r"it is empty \(0 bytes\)"),
        (b"<html>not found</html>", "not a recognised image format"),
        (simplejpeg.encode_jpeg(pixels())[:300], "JPEG header is damaged"),
        (simplejpeg.encode_jpeg(pixels())[:-2], "Premature end of JPEG file"),
    ],
    ids=["missing", "empty", "a web page", "half", "without its end"],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_bad_file_is_an_error_that_names_file_and_row(
    tmp_path: Path, content: bytes | None, reason: str, threads: int
) -> None:
    (tmp_path / "good.jpg").write_bytes(simplejpeg.encode_jpeg(pixels()))
    if content is not None:
        (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"bad\.jpg: index row 1 .*{reason}.*`reid dataset` again"):
        load(index(tmp_path, ["good.jpg", "bad.jpg"]), [0, 1], threads=threads)


def test_truncated_png_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.png: index row 0"):
        load(index(tmp_path, ["a.png"]), [0])


def test_box_outside_its_image_is_an_error_that_names_its_own_row(tmp_path: Path) -> None:
    (tmp_path / "s1.jpg").write_bytes(simplejpeg.encode_jpeg(pixels()))
    boxes = [(0, 0, 4, 4), (90, 0, 4, 4)]
    with pytest.raises(InputError, match=r"s1\.jpg: index row 1 .*box 90 0 4 4 lies outside its 16 x 24 pixels"):
        load(index(tmp_path, ["s1.jpg"] * 2, boxes), [0, 1])
