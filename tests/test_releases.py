"""Readers on skeletons of the official releases at full scale, and on any file name.

The skeletons have the persons, cameras and numbers of files of the official lists, and no images. Labels of
DukeMTMC-reID (files for each person and camera) and MARS (tracklets) are in tests/structure, those of Market-1501
in benchmarks/market1501.csv. Training persons, whose lists are not needed, are made up in the official number.
"""

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import savemat

from conftest import ROOT
from reid_done_right.artifacts import Index, InputError
from reid_done_right.data.readers import COUNTS, READERS, check_counts, count, dukemtmc, market1501, mars, report
from reid_done_right.data.readers.layout import labelled_images

Pairs = NDArray[np.int64]


def listed(path: Path, cameras: int) -> tuple[Pairs, Pairs]:
    """Return person and camera of each gallery file and of each query (N, 2), from a table of numbers of files."""
    with path.open(newline="") as opened:
        table = np.array([[int(cell) for cell in row] for row in list(csv.reader(opened))[1:]])
    pairs = np.stack([np.repeat(table[:, 0], cameras), np.tile(np.arange(1, cameras + 1), len(table))], axis=1)
    gallery, query = (table[:, 1 + first :][:, :cameras].ravel() for first in (0, cameras))
    return np.repeat(pairs, gallery, axis=0), np.repeat(pairs, query, axis=0)


def training(files: int, persons: int, cameras: int) -> Pairs:
    """Make up training files of as many persons."""
    rows = np.arange(files)
    return np.stack([rows % persons + 2, rows // persons % cameras + 1], axis=1)


def fill(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def first_hits_possible(index: Index) -> bool:
    """Return whether every query has its person in another camera of the gallery."""
    seen = {tuple(pair) for pair in zip(index.person_id[index.gallery], index.camera_id[index.gallery], strict=True)}
    cameras_of: dict[int, set[int]] = {}
    for person, camera in seen:
        cameras_of.setdefault(int(person), set()).add(int(camera))
    pairs = zip(index.person_id[index.query].tolist(), index.camera_id[index.query].tolist(), strict=True)
    return all(cameras_of[person] - {camera} for person, camera in pairs)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("market")
    gallery, query = listed(ROOT / "benchmarks/market1501.csv", 6)
    parts = {"bounding_box_train": training(12_936, 751, 6), "query": query, "bounding_box_test": gallery}
    for folder, pairs in parts.items():
        names = []
        for k, (person, camera) in enumerate(pairs.tolist()):
            doubled = person == 1488 or (folder == "bounding_box_test" and k in (0, 1, 4000, 4001, 4002))
            suffix = ".jpg.jpg" if doubled else ".jpg"  # as the files of 1488, two of -1 and three of 0 really end
            box = "00" if folder == "query" else f"{k % 30 + 1:02}"
            names.append(f"{person if person < 0 else f'{person:04}'}_c{camera}s{k % 6 + 1}_{k:06}_{box}{suffix}")
        fill(root / folder, [*names, "Thumbs.db"])
    return root


def test_market1501_has_the_published_counts(market: Path) -> None:
    index = READERS["market1501"](market)
    check_counts(index, COUNTS["market1501"])
    assert len(index) == 36_036 and first_hits_possible(index)
    gallery, query = listed(ROOT / "benchmarks/market1501.csv", 6)
    for rows, pairs in ((index.gallery, gallery), (index.query, query)):
        found = np.stack([index.person_id[rows], index.camera_id[rows]], axis=1)
        assert np.array_equal(
            np.unique(found, axis=0, return_counts=True)[1], np.unique(pairs, axis=0, return_counts=True)[1]
        )
    assert sum(path.endswith(".jpg.jpg") for path in index.path.tolist()) == 6 + 18
    junk = np.flatnonzero(index.person_id[index.gallery] == -1)
    assert np.array_equal(junk, np.arange(3_819))  # "-1" sorts first, as in the official lists


def test_lost_file_is_counted(market: Path) -> None:
    lost = next((market / "query").glob("*.jpg"))
    lost.unlink()
    with pytest.raises(
        InputError, match=r"counts differ, found train 12936 \(12936 expected\), .*query 3367 \(3368 expected\)"
    ):
        check_counts(READERS["market1501"](market), COUNTS["market1501"])
    lost.touch()


def test_report_shows_found_beside_expected(market: Path) -> None:
    lines = report(READERS["market1501"](market), COUNTS["market1501"]).splitlines()
    assert lines[0].split() == ["count", "found", "expected"]
    assert ["gallery", "19732", "19732"] in [line.split() for line in lines]
    assert ["gallery_files", "19732"] in [line.split() for line in lines]


def test_dukemtmc_has_the_published_counts(tmp_path: Path) -> None:
    gallery, query = listed(ROOT / "tests/structure/dukemtmc.csv", 8)
    parts = {"bounding_box_train": training(16_522, 702, 8), "query": query, "bounding_box_test": gallery}
    for folder, pairs in parts.items():
        fill(tmp_path / folder, [f"{p:04}_c{c}_f{k:07}.jpg" for k, (p, c) in enumerate(pairs.tolist())])
    index = READERS["dukemtmc"](tmp_path)
    check_counts(index, COUNTS["dukemtmc"])
    assert count(index)["junk"] == count(index)["distractors"] == 0
    persons = index.person_id[index.gallery]
    assert len(np.unique(persons)) == 1_110 and len(np.setdiff1d(persons, index.person_id[index.query])) > 0
    assert first_hits_possible(index)


@pytest.mark.slow
def test_mars_has_the_counts_of_its_official_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million empty files would only show that the disk is slow: that all frames are there is tested elsewhere."""
    monkeypatch.setattr(mars, "expect_files", lambda root, paths, listed_in: None)
    structure = np.load(ROOT / "tests/structure/mars.npz")
    train_frames = np.full(8_298, 509_914 // 8_298)
    train_frames[: 509_914 % 8_298] += 1
    made_up = training(8_298, 625, 6)
    parts = {
        "train": (train_frames, made_up[:, 0], made_up[:, 1]),
        "test": (structure["frames"].astype(int), structure["person"].astype(int), structure["camera"].astype(int)),
    }
    (tmp_path / "info").mkdir()
    for part, (frames, person, camera) in parts.items():
        (tmp_path / f"bbox_{part}").mkdir()
        last = np.cumsum(frames)
        tracks = np.stack([last - frames + 1, last, person, camera], axis=1).astype(np.int32)
        savemat(tmp_path / f"info/tracks_{part}_info.mat", {f"track_{part}_info": tracks})
        names = []
        for row, (count_of, p, c) in enumerate(zip(frames.tolist(), person.tolist(), camera.tolist(), strict=True), 1):
            head = f"{'00-1' if p < 0 else f'{p:04}'}C{c}T{row % 10_000:04}F"
            names += [f"{head}{frame:03}.jpg\r\n" for frame in range(1, count_of + 1)]
        (tmp_path / f"info/{part}_name.txt").write_bytes("".join(names).encode())
    savemat(tmp_path / "info/query_IDX.mat", {"query_IDX": structure["query"][None]})
    assert structure["query"].dtype == np.uint16
    index = READERS["mars"](tmp_path)
    check_counts(index, COUNTS["mars"])
    assert len(index) == 1_191_003 and first_hits_possible(index)


def test_page_of_the_datasets_has_all_counts() -> None:
    rows = (ROOT / "docs/datasets.md").read_text().split("\n## Sources")[0]
    assert not [
        f"{layout}: {name}" for layout, counts in COUNTS.items() for name, n in counts.items() if f"{n:,}" not in rows
    ]


# --- any name


def read_one(name: str, pattern: object, grammar: str = "GRAMMAR") -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).touch()
        index = labelled_images(Path(folder), "", "query", pattern, grammar)  # type: ignore[arg-type]
    return int(index.person_id[0]), int(index.camera_id[0])


PERSONS = st.one_of(st.just(-1), st.integers(0, 9999))
SUFFIXES = st.sampled_from([".jpg", ".jpg.jpg", ".JPG"])


@given(PERSONS, st.integers(1, 6), st.integers(1, 12), st.integers(0, 999_999), st.integers(0, 99), SUFFIXES)
def test_market_names_are_read_as_written(
    person: int, camera: int, sequence: int, frame: int, box: int, suffix: str
) -> None:
    identity = "-1" if person < 0 else f"{person:04}"
    name = f"{identity}_c{camera}s{sequence}_{frame:06}_{box:02}{suffix}"
    assert read_one(name, market1501.PATTERN) == (person, camera)


@given(st.integers(0, 9999), st.integers(1, 8), st.integers(0, 9_999_999), SUFFIXES)
def test_duke_names_are_read_as_written(person: int, camera: int, frame: int, suffix: str) -> None:
    assert read_one(f"{person:04}_c{camera}_f{frame:07}{suffix}", dukemtmc.PATTERN) == (person, camera)


NAMES = st.text(st.characters(exclude_characters="/\0\r\n", exclude_categories=["Cs"]), min_size=1, max_size=40)
NEARLY = st.from_regex(r"-?\d{1,5}_c\ds?\d?_f?\d{1,7}(_\d\d)?", fullmatch=True)


@given(st.one_of(NAMES, NEARLY).filter(lambda name: not name.startswith(".")), st.sampled_from([market1501, dukemtmc]))
def test_other_names_are_rejected_or_literal(name: str, reader: object) -> None:
    pattern, grammar = reader.PATTERN, reader.GRAMMAR  # type: ignore[attr-defined]
    try:
        person, camera = read_one(f"{name}.jpg", pattern, grammar)
    except InputError as error:
        assert str(InputError(f"{name}.jpg: name is not of the form {grammar}")) in str(error)
    else:
        identity = "-1" if person < 0 else f"{person:04}"
        assert name.startswith(f"{identity}_c{camera}") and 1 <= camera <= 8 and person >= -1


@pytest.mark.parametrize("name", ["0001_c1s1\n_000001_00", "\r", "a\r\nb"])
@pytest.mark.parametrize("reader", [market1501, dukemtmc])
def test_name_with_line_break_is_rejected_in_one_line(name: str, reader: object) -> None:
    with pytest.raises(InputError, match="its name is not one line of UTF-8") as refused:
        read_one(f"{name}.jpg", reader.PATTERN, reader.GRAMMAR)  # type: ignore[attr-defined]
    assert len(str(refused.value).splitlines()) == 1


@given(PERSONS, st.integers(1, 6), st.integers(0, 9999), st.integers(1, 9999))
def test_mars_names_are_known(person: int, camera: int, track: int, frame: int) -> None:
    identity = "00-1" if person < 0 else f"{person:04}"
    assert mars.PATTERN.fullmatch(f"{identity}C{camera}T{track:04}F{frame:03}.jpg")


@given(st.one_of(NAMES, st.from_regex(r"\d{3}[-\d]\dC\dT\d*F\d*\.jpg", fullmatch=True)))
def test_no_other_mars_name_is_known(name: str) -> None:
    if found := mars.PATTERN.fullmatch(name):
        assert (found[0][:4] == "00-1" or found[0][:4].isdecimal()) and found[0][4] == "C" and found[0][5] in "123456"
