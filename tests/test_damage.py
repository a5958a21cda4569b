"""Unusual and damaged images: conversion, rejection, joint reports, and allowed exceptions."""

import re
import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pedestrians.releases import write_market1501
from reid_done_right.artifacts import Index, InputError, read_index, write_index
from reid_done_right.data.damage import check_allowed, find_damaged, leave_out, without
from reid_done_right.data.manifest import make_manifest
from reid_done_right.data.readers.layout import join, rows
from reid_done_right.images import decode as images
from reid_done_right.images.decode import decode, inspect, load, measure, measure_file
from reid_done_right.images.photos import decode_photo
from reid_done_right.stages.index import index as index_stage


def pixels(height: int = 24, width: int = 16) -> NDArray[np.uint8]:
    """Smooth, so that a JPEG of it is close to it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([9 * y, 11 * x, 200 - 5 * y], axis=2).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    written = BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


PICTURE = Image.fromarray(pixels())
JPEG = saved(PICTURE, "JPEG", quality=95, subsampling=0)
PNG = saved(PICTURE, "PNG")


# --- unusual images


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_decode_reads_every_format(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(saved(PICTURE.quantize(64) if kind == "GIF" else PICTURE, kind, **options))
    assert image.shape == (24, 16, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - pixels()).max() <= (40 if kind == "GIF" else 0)


def test_cmyk_is_converted() -> None:
    for content in (saved(PICTURE.convert("CMYK"), "JPEG", quality=95), saved(PICTURE.convert("CMYK"), "TIFF")):
        assert np.abs(decode(content).astype(int) - pixels()).max() <= 12


def test_grey_is_repeated() -> None:
    for kind in ("JPEG", "PNG"):
        image = decode(saved(PICTURE.convert("L"), kind))
        assert image.shape == (24, 16, 3) and (image == image[:, :, :1]).all() and image.std() > 10


def test_sixteen_bits_keep_their_higher_eight() -> None:
    deep = pixels().astype(np.uint16) * 256 + 77
    for kind in (".png", ".tiff"):
        colour, grey = (cv2.imencode(kind, part)[1].tobytes() for part in (deep[:, :, ::-1], deep[:, :, 0]))
        np.testing.assert_array_equal(decode(colour), pixels())
        np.testing.assert_array_equal(decode(grey), np.repeat(pixels()[:, :, :1], 3, axis=2))


def test_decode_places_transparency_on_white() -> None:
    layered = PICTURE.convert("RGBA")
    layered.paste((9, 9, 9, 0), (0, 0, 16, 12))
    for image in (layered, layered.quantize(32)):
        decoded = decode(saved(image, "PNG"))
        assert (decoded[:12] == 255).all() and np.abs(decoded[12:].astype(int) - pixels()[12:]).max() <= 60


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_own_photos_are_turned_upright_and_official_ones_stay(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = saved(PICTURE, kind, exif=exif)
    opened = Image.open(BytesIO(content))
    stored, upright = np.asarray(opened), np.asarray(ImageOps.exif_transpose(opened))
    assert np.abs(decode(content).astype(int) - stored).max() <= 2
    turned = decode(content, upright=True)
    assert turned.shape == upright.shape and np.abs(turned.astype(int) - upright).max() <= 2


def stating(kind: int, value: bytes) -> bytes:
    """Return an EXIF block whose only field is the orientation, of any of TIFF's kinds."""
    inside = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", 26)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI", 1, 274, kind, 1) + inside + bytes(4) + value


ORIENTATIONS = {
    **{f"{number}": stating(3, struct.pack("<H", number)) for number in (0, 1, 9, 65535)},
    **{f"{up}/{down}": stating(5, struct.pack("<II", up, down)) for up, down in ((6, 1), (1, 0), (0, 0), (7, 2))},
    **{"text": stating(2, b"6"), "float": stating(12, struct.pack("<d", 6.0)), "signed": stating(8, b"\xff\xff")},
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("stated", ORIENTATIONS)
def test_orientation_of_any_kind_is_taken_as_pillow_does(tmp_path: Path, kind: str, stated: str) -> None:
    content = saved(
        PICTURE, kind, exif=ORIENTATIONS[stated], **({"quality": 100} if kind == "JPEG" else {"lossless": True})
    )
    (tmp_path / "a").write_bytes(content)
    with Image.open(tmp_path / "a") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    with Image.open(tmp_path / "a") as opened:
        found = [decode(content, upright=True), decode_photo(tmp_path / "a"), decode_photo(opened)]
    for image in found:
        assert isinstance(image, np.ndarray) and image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).max() <= 2
    assert measure_file(tmp_path / "a", upright=True) == expected.shape[:2]


def test_index_records_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "a.jpg").write_bytes(saved(PICTURE, "JPEG", exif=exif))
    index = rows(tmp_path, ["a.jpg"], 1, 1, "train")
    assert load(index, [0])[0].shape == (24, 16, 3)
    assert load(replace(index, upright=True), [0])[0].shape == (16, 24, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [False, True])
def test_sizes_equal_loaded_images(tmp_path: Path, kind: str, orientation: int, upright: bool) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "a").write_bytes(saved(PICTURE, kind, exif=exif))
    index = replace(rows(tmp_path, ["a", "a"], 1, 1, "train"), upright=upright)
    index.box[1] = (3, 1, 7, 40)
    for image, size in zip(load(index, [0, 1]), measure(index, [0, 1]).tolist(), strict=True):
        assert image.shape[:2] == tuple(size)


@pytest.mark.parametrize("length", [0, 100, images.HEAD - 100, images.HEAD - 20, 3 * images.HEAD])
def test_size_behind_a_long_preamble_is_found(tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = JPEG[:2] + b"\xff\xfe" + (length + 2).to_bytes(2) + bytes(length) + JPEG[2:]
    (tmp_path / "a.jpg").write_bytes(content)
    seen, inspect = [], images.inspect
    monkeypatch.setattr(images, "inspect", lambda part: seen.append(len(part)) or inspect(part))
    assert measure(rows(tmp_path, ["a.jpg"], 1, 1, "train"), [0]).tolist() == [[24, 16]]
    assert seen[0] == min(len(content), images.HEAD)
    assert (len(seen) == 2) == (length >= images.HEAD - 100)


# --- damaged images

ANIMATED = [
    saved(PICTURE, kind, save_all=True, append_images=[Image.fromarray(255 - pixels())])
    for kind in ("GIF", "PNG", "TIFF")
]
CORRUPT = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)), "JPEG")
CORRUPT = CORRUPT[: len(CORRUPT) // 2] + b"\xff\xd9"  # ends as it should

DAMAGED = {
    "empty.jpg": (b"", r"it is empty \(0 bytes\)"),
    "page.jpg": (b"<html>404</html>", "it is not a recognised image format"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "JPEG"),
    "header.jpg": (JPEG[:100], "its JPEG header is damaged"),
    "middle.jpg": (CORRUPT, "Corrupt JPEG data"),
    "half.png": (PNG[: len(PNG) // 2], "truncated|broken|incomplete"),
    "gif.gif": (ANIMATED[0], "it is an animation of 2 frames; save the frame that you mean as an image of its own"),
    "png.png": (ANIMATED[1], "it is an animation of 2 frames"),
    "tiff.tiff": (ANIMATED[2], "it is an animation of 2 frames"),
    "float.tiff": (saved(Image.fromarray(pixels()[:, :, 0].astype(np.float32)), "TIFF"), "it has 32 bits a pixel"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_image_is_rejected_for_its_reason(name: str) -> None:
    content, reason = DAMAGED[name]
    with pytest.raises((ValueError, OSError), match=reason):
        decode(content)


@pytest.mark.parametrize("name", sorted(set(DAMAGED) - {"half.png", "half.jpg", "middle.jpg"}))
def test_header_errors_precede_decoding(tmp_path: Path, name: str) -> None:
    content, reason = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: index row 0 needs an image here, but {reason}"):
        measure(rows(tmp_path, [name], 1, 1, "train"), [0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_more_pixels_than_the_limit_are_never_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 24 * 16 - 1)
    with pytest.raises(ValueError, match="its 16 x 24 pixels are more than 383; scale it down"):
        decode(saved(PICTURE, kind))


def test_bomb_is_rejected_by_its_header() -> None:
    """A PNG that says it has 10^10 pixels."""
    header = b"IHDR" + (100_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    import zlib

    bomb = PNG[:8] + (13).to_bytes(4) + header + zlib.crc32(header).to_bytes(4) + PNG[33:]
    for reading in (decode, inspect):
        with pytest.raises(ValueError, match="it has more than 89478485 pixels; scale it down"):
            reading(bomb)


def folder(root: Path) -> Index:
    """Put good and damaged images, and one that is not there, into a folder; two rows of one of them."""
    files = {"good.jpg": JPEG, "good.png": PNG} | {name: content for name, (content, _) in DAMAGED.items()}
    for name, content in files.items():
        (root / name).write_bytes(content)
    names = [*files, "gone.jpg", "good.jpg"]
    return rows(root, names, np.arange(len(names)), 1, "train")


@pytest.mark.parametrize("threads", [1, 3])
def test_all_damaged_images_are_found_together(tmp_path: Path, threads: int) -> None:
    index = folder(tmp_path)
    found = find_damaged(index, threads)
    assert list(found) == [*DAMAGED, "gone.jpg"]
    assert found["gone.jpg"] == "there is none"
    assert all(re.search(reason, found[name]) for name, (_, reason) in DAMAGED.items())
    assert not any("\n" in reason for reason in found.values())
    quick = find_damaged(index, threads, whole=False)
    assert set(found) - set(quick) == {"middle.jpg"}  # which only its pixels tell


def test_headers_are_enough_for_whole_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    monkeypatch.setattr("reid_done_right.data.damage.decode", None)
    good = replace(rows(tmp_path, ["good.jpg", "good.png"], 1, 1, "train"), upright=True)
    assert find_damaged(good, whole=False) == {}


def test_box_outside_its_image_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    index = rows(tmp_path, ["a.jpg"] * 2, 1, 1, "train", box=[(0, 0, 4, 4), (16, 0, 4, 4)])
    for whole in (True, False):
        assert find_damaged(index, whole=whole) == {"a.jpg": "box 16 0 4 4 lies outside its 16 x 24 pixels"}


# --- what may be left out


def test_damaged_images_stop_the_run_unless_they_are_listed(tmp_path: Path) -> None:
    index = folder(tmp_path)
    with pytest.raises(InputError) as raised:
        leave_out(index, ["empty.jpg", "page.jpg"])
    head, *lines = str(raised.value).split("\n")
    assert head == (
        f"{tmp_path}: 9 of 13 images are damaged; restore them, or list them in the dataset's allow_damaged to leave "
        "them out:"
    )
    assert [line.split(":")[0].strip() for line in lines] == sorted({*DAMAGED, "gone.jpg"} - {"empty.jpg", "page.jpg"})
    left = leave_out(index, [*DAMAGED, "gone.jpg"])
    assert left.path.tolist() == ["good.jpg", "good.png", "good.jpg"]
    assert left.left_out == sorted([*DAMAGED, "gone.jpg"])


def test_only_damaged_images_may_be_left_out(tmp_path: Path) -> None:
    index = folder(tmp_path)
    message = (
        "allow_damaged lists files that are not damaged: good.jpg can be decoded, typo.jpg is not in the dataset; take"
    )
    with pytest.raises(InputError, match=message):
        check_allowed(index, find_damaged(index), ["typo.jpg", "good.jpg", *DAMAGED, "gone.jpg"])


def test_gallery_lists_lose_the_rows_left_out() -> None:
    root = Path("root")
    index = join([rows(root, ["q0", "q1"], [1, 2], 0, "query"), rows(root, ["a", "b", "c"], [1, 2, 3], 0, "gallery")])
    index = replace(
        index,
        gallery_lists={"2": [np.array([2, 3]), np.array([4, 3])]},
        person=np.array(list("pqrst")),
        camera=np.array(list("vwxyz")),
    )
    left = without(index, ["q0", "b"])
    assert left.path.tolist() == ["q1", "a", "c"]
    assert left.gallery_lists is not None and [members.tolist() for members in left.gallery_lists["2"]] == [[2]]
    assert left.person is not None and left.camera is not None
    assert (left.person.tolist(), left.camera.tolist()) == (["q", "r", "t"], ["w", "x", "z"])


def test_index_stage_reports_all_and_leaves_out_what_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reid_done_right.artifacts import write_json

    root = tmp_path / "market"
    write_market1501(root, world=1, hardness=0.4, train_ids=2, test_ids=2, cameras=2, distractors=0, junk=0, workers=1)
    train = sorted((root / "bounding_box_train").glob("*.jpg"))[:2]
    train[0].write_bytes(train[0].read_bytes()[:-9])
    train[1].write_bytes(b"")
    bad = [path.relative_to(root).as_posix() for path in train]
    write_json(tmp_path / "market.json", make_manifest("market", "market1501", root))
    arguments: dict[str, Any] = {"manifest": tmp_path / "market.json", "out": tmp_path / "index.parquet"}
    with pytest.raises(InputError) as raised:
        index_stage(settings={"format": "market1501", "counts": None}, **arguments)
    assert all(path in str(raised.value) for path in bad) and not arguments["out"].exists()
    with pytest.raises(InputError, match="1 of "):
        index_stage(settings={"format": "market1501", "counts": None, "allow_damaged": bad[:1]}, **arguments)
    index_stage(settings={"format": "market1501", "counts": None, "allow_damaged": bad}, **arguments)
    index = read_index(arguments["out"])
    assert index.left_out == bad and not set(bad) & set(index.path.tolist())
    assert "market: 2 damaged files left out according to allow_damaged, with 2 of" in capsys.readouterr().err


def test_workers_change_no_byte_of_an_index(tmp_path: Path) -> None:
    index = folder(tmp_path)
    for threads in (1, 4):
        write_index(tmp_path / f"{threads}.parquet", leave_out(index, [*DAMAGED, "gone.jpg"], threads))
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "4.parquet").read_bytes()


def test_simplejpeg_reads_the_ordinary_ones() -> None:
    assert inspect(JPEG) == ((24, 16), True)
    assert inspect(PNG) == ((24, 16), False)
    np.testing.assert_array_equal(decode(JPEG), simplejpeg.decode_jpeg(JPEG))
