"""Readers on hand-made folders in the official formats, and on rendered releases."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from pedestrians import releases
from photos import fill
from reid_done_right.artifacts import Index, InputError, read_index, write_index
from reid_done_right.data.readers import COUNTS, READERS, check_counts, count
from reid_done_right.data.readers.layout import load_matrix
from reid_done_right.params.datasets import OWN

COLUMNS = ("path", "person_id", "camera_id", "tracklet_id", "split", "box")


def table(index: Index) -> list[tuple[str, int, int, str]]:
    columns = (index.path, index.person_id, index.camera_id, index.split)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# --- Market-1501 and DukeMTMC-reID


def market(root: Path) -> Path:
    return fill(
        root,
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0007_c6s4_012345_01.jpg.jpg",
        "bounding_box_train/Thumbs.db",
        "query/0001_c1s1_001051_00.jpg",
        "query/0003_c2s3_000100_00.jpg.jpg",
        "query/.0003_c2s3_000100_00.jpg",
        "bounding_box_test/0001_c2s1_000301_01.jpg",
        "bounding_box_test/0000_c5s1_000026_01.jpg",
        "bounding_box_test/-1_c3s2_000401_03.jpg",
        "bounding_box_test/0001_c1s1_001051_02.jpg",
        "bounding_box_test/Thumbs.db",
        "bounding_box_test/notes.png",
        "readme.txt",
    )


def test_market_keeps_and_marks_junk_and_distractors_in_the_order_of_the_official_lists(tmp_path: Path) -> None:
    index = READERS["market1501"](market(tmp_path))
    assert table(index) == [
        ("bounding_box_train/0002_c1s1_000451_03.jpg", 2, 1, "train"),
        ("bounding_box_train/0007_c6s4_012345_01.jpg.jpg", 7, 6, "train"),
        ("query/0001_c1s1_001051_00.jpg", 1, 1, "query"),
        ("query/0003_c2s3_000100_00.jpg.jpg", 3, 2, "query"),
        ("bounding_box_test/-1_c3s2_000401_03.jpg", -1, 3, "gallery"),
        ("bounding_box_test/0000_c5s1_000026_01.jpg", 0, 5, "gallery"),
        ("bounding_box_test/0001_c1s1_001051_02.jpg", 1, 1, "gallery"),
        ("bounding_box_test/0001_c2s1_000301_01.jpg", 1, 2, "gallery"),
    ]
    assert index.root == tmp_path
    assert not index.tracklet_id.any() and not index.box.any()
    assert index.person_id.dtype == index.camera_id.dtype == index.tracklet_id.dtype == np.int64
    assert index.box.dtype == np.int32 and index.gallery_lists is None


def test_market_pools_the_hand_drawn_boxes_of_a_querys_person_and_camera_only(tmp_path: Path) -> None:
    market(tmp_path)
    fill(
        tmp_path,
        "gt_bbox/0001_c1s1_001051_00.jpg",  # the query itself
        "gt_bbox/0001_c1s6_000200_00.jpg",  # same person and camera, another sequence
        "gt_bbox/0001_c2s1_000301_00.jpg",  # another camera
        "gt_bbox/0002_c1s1_000451_00.jpg",  # a training person
        "gt_bbox/0003_c2s3_000100_00.jpg",
        "gt_bbox/Thumbs.db",
    )
    index = READERS["market1501"](tmp_path)
    assert index.path[index.rows("boxes")].tolist() == [
        "gt_bbox/0001_c1s1_001051_00.jpg",
        "gt_bbox/0001_c1s6_000200_00.jpg",
        "gt_bbox/0003_c2s3_000100_00.jpg",
    ]
    assert len(index) == 8 + 3


def test_dukemtmc_has_eight_cameras_and_ordinary_ids_only(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "bounding_box_train/0001_c8_f0044158.jpg",
        "query/0005_c2_f0046985.jpg",
        "bounding_box_test/7140_c1_f0000001.jpg",
        "bounding_box_test/0005_c5_f0051781.jpg",
        "LICENSE_DukeMTMC.txt",
    )
    assert table(READERS["dukemtmc"](tmp_path)) == [
        ("bounding_box_train/0001_c8_f0044158.jpg", 1, 8, "train"),
        ("query/0005_c2_f0046985.jpg", 5, 2, "query"),
        ("bounding_box_test/0005_c5_f0051781.jpg", 5, 5, "gallery"),
        ("bounding_box_test/7140_c1_f0000001.jpg", 7140, 1, "gallery"),
    ]


@pytest.mark.parametrize(
    "name",
    ["holiday.jpg", "0005_c2_f0046985.jpg", "0001_c7s1_000001_00.jpg", "1_c1s1_000001_00.jpg", "-2_c1s1_0_00.jpg"],
)
def test_name_outside_the_grammar_is_an_error_that_shows_both(tmp_path: Path, name: str) -> None:
    fill(market(tmp_path), f"query/{name}")
    with pytest.raises(InputError, match=re.escape(f"query/{name}") + ".*ID_cCsS_FFFFFF_BB.jpg"):
        READERS["market1501"](tmp_path)


def test_market_folder_is_not_read_as_dukemtmc(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0002_c1s1_000451_03.jpg.*ID_cC_fFFFFFFF.jpg"):
        READERS["dukemtmc"](market(tmp_path))


def test_empty_folder_error_lists_content(tmp_path: Path) -> None:
    market(tmp_path)
    for image in (tmp_path / "query").glob("*.jpg"):
        image.unlink()
    with pytest.raises(InputError, match=r"query: no \.jpg image in it, found nothing"):
        READERS["market1501"](tmp_path)


# --- MARS

TRACKS = [(1, 2, -1, 1), (3, 4, 0, 5), (5, 7, 2, 1), (8, 9, 2, 3)]
TEST_NAMES = [
    "00-1C1T0001F001.jpg",
    "00-1C1T0001F002.jpg",
    "0000C5T0001F001.jpg",
    "0000C5T0001F002.jpg",
    "0002C1T0001F001.jpg",
    "0002C1T0001F002.jpg",
    "0002C1T0001F003.jpg",
    "0002C3T0001F001.jpg",
    "0002C3T0001F002.jpg",
]
TRAIN_NAMES = ["0001C6T0001F001.jpg", "0001C6T0001F002.jpg"]


def mars(root: Path, tracks: Sequence[tuple[int, int, int, int]] = TRACKS, queries: Sequence[int] = (3,)) -> Path:
    fill(root, *(f"bbox_test/{name[:4]}/{name}" for name in TEST_NAMES), "info/README.md")
    fill(root, *(f"bbox_train/{name[:4]}/{name}" for name in TRAIN_NAMES))
    for part, names, rows in (("train", TRAIN_NAMES, [(1, 2, 1, 6)]), ("test", TEST_NAMES, tracks)):
        (root / f"info/{part}_name.txt").write_bytes("".join(f"{name}\r\n" for name in names).encode())
        savemat(root / f"info/tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, np.int32)})
    savemat(root / "info/query_IDX.mat", {"query_IDX": np.array([queries], np.uint16)})
    return root


def test_mars_follows_its_tables_and_leaves_query_tracklets_in_the_gallery(tmp_path: Path) -> None:
    index = READERS["mars"](mars(tmp_path))
    assert table(index) == [
        ("bbox_train/0001/0001C6T0001F001.jpg", 1, 6, "train"),
        ("bbox_train/0001/0001C6T0001F002.jpg", 1, 6, "train"),
        ("bbox_test/00-1/00-1C1T0001F001.jpg", -1, 1, "gallery"),
        ("bbox_test/00-1/00-1C1T0001F002.jpg", -1, 1, "gallery"),
        ("bbox_test/0000/0000C5T0001F001.jpg", 0, 5, "gallery"),
        ("bbox_test/0000/0000C5T0001F002.jpg", 0, 5, "gallery"),
        ("bbox_test/0002/0002C1T0001F001.jpg", 2, 1, "query+gallery"),
        ("bbox_test/0002/0002C1T0001F002.jpg", 2, 1, "query+gallery"),
        ("bbox_test/0002/0002C1T0001F003.jpg", 2, 1, "query+gallery"),
        ("bbox_test/0002/0002C3T0001F001.jpg", 2, 3, "gallery"),
        ("bbox_test/0002/0002C3T0001F002.jpg", 2, 3, "gallery"),
    ]
    assert index.tracklet_id.tolist() == [1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4]


def test_mars_first_and_last_tracklet_can_be_queries(tmp_path: Path) -> None:
    index = READERS["mars"](mars(tmp_path, queries=(1, 4)))
    assert np.unique(index.tracklet_id[index.query]).tolist() == [1, 4]


def test_mars_agrees_with_a_walk_through_the_tables(tmp_path: Path) -> None:
    """The order of the tracklets is the table's, the order of the rows that of the names."""
    tracks = [(8, 9, 2, 3), (1, 1, -1, 4), (5, 6, 2, 2), (3, 4, 0, 2)]  # frames 2 and 7 are in no tracklet
    index = READERS["mars"](mars(tmp_path, tracks, queries=(1,)))
    expected = []
    for row, (first, last, person, camera) in enumerate(tracks, 1):
        for frame in range(first, last + 1):
            name = TEST_NAMES[frame - 1]
            expected.append((frame, f"bbox_test/{name[:4]}/{name}", person, camera, row))
    columns = (index.path, index.person_id, index.camera_id, index.tracklet_id)
    found = zip(*(column[index.gallery].tolist() for column in columns), strict=True)
    assert list(found) == [row[1:] for row in sorted(expected)]


@pytest.mark.parametrize(
    "tracks, queries, message",
    [
        ([(1, 2, 2, 1), (2, 3, 2, 1)], [1], "row 2 .* frames 2 to 3, which overlaps"),
        ([(0, 2, 2, 1)], [1], "row 1 .* frames 0 to 2, which overlaps another or leaves the 9 frames"),
        ([(1, 10, 2, 1)], [1], "row 1 .* frames 1 to 10"),
        ([(3, 2, 2, 1)], [1], "row 1 .* frames 3 to 2"),
        (
            [(4, 5, 2, 1)],
            [1],
            "line 5, 0002C1T0001F001.jpg, is in tracklet 1, which begins with 0000C5...: another person",
        ),
        ([(1, 2, 2, 1), (7, 8, 2, 1)], [1], "line 8, 0002C3T0001F001.jpg, is in tracklet 2, which begins with 0002C1"),
        (TRACKS, [0], "query_IDX.mat: no tracklet 0 "),
        (TRACKS, [5], "query_IDX.mat: no tracklet 5 "),
    ],
)
def test_mars_tables_that_do_not_belong_together_are_errors(
    tmp_path: Path, tracks: list[tuple[int, int, int, int]], queries: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        READERS["mars"](mars(tmp_path, tracks, queries))


def test_mars_errors_name_the_file_and_the_line(tmp_path: Path) -> None:
    mars(tmp_path)
    (tmp_path / "bbox_test/0002/0002C3T0001F001.jpg").unlink()
    with pytest.raises(InputError, match=r"0002C3T0001F001.jpg: listed in info/test_name.txt .* 1 of 9 missing"):
        READERS["mars"](tmp_path)
    (tmp_path / "info/test_name.txt").write_text("0002C1T0001F001.jpg\n0002C7T0001F001.jpg\n")
    with pytest.raises(
        InputError, match=r"test_name.txt: line 2, '0002C7T0001F001.jpg', is not of the form IIIICcTttttFfff"
    ):
        READERS["mars"](tmp_path)
    (tmp_path / "info/test_name.txt").unlink()
    with pytest.raises(InputError, match=r"test_name.txt: no such file.*MARS-evaluation"):
        READERS["mars"](tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [(None, "no such file"), (b"not MATLAB", "not a readable MATLAB file"), ("other", "expected a variable query_IDX")],
)
def test_matlab_file_that_is_missing_damaged_or_another_is_an_error(
    tmp_path: Path, content: bytes | str | None, message: str
) -> None:
    path = mars(tmp_path) / "info/query_IDX.mat"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        savemat(path, {content: [1]})
    with pytest.raises(InputError, match=f"query_IDX.mat: {message}"):
        READERS["mars"](tmp_path)


# --- Person Search

PLACE = ("imname", "idlocate", "ishard")
ABSENT = np.zeros((1, 0))


def structs(names: Sequence[str], *entries: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    array = np.empty((1, len(entries)), [(name, object) for name in names])
    for column, entry in enumerate(entries):
        array[0, column] = entry
    return array


def cells(*values: Any) -> np.ndarray[Any, Any]:
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def place(scene: str, *box: int) -> tuple[Any, ...]:
    return (scene, np.array([box], np.float64) if box else ABSENT, 0)


def lists(root: Path, size: int, *searches: tuple[tuple[Any, ...], list[tuple[Any, ...]]]) -> None:
    rows = [(structs((*PLACE, "idname"), (*query, "p9")), structs(PLACE, *gallery)) for query, gallery in searches]
    path = root / f"annotation/test/train_test/TestG{size}.mat"
    savemat(path, {f"TestG{size}": structs(("Query", "Gallery"), *rows)})


SEARCHES = (
    (place("s3.jpg", 1, 2, 3, 4), [place("s5.jpg", 5, 5, 5, 5), place("s4.jpg")]),
    (place("s4.jpg", 7, 7, 7, 7), [place("s3.jpg", 8, 8, 8, 8), place("s5.jpg")]),
)


def person_search(root: Path) -> Path:
    """Scenes s1, s2 to train; s4, s3, s5 (the order of the pool) to test, with two boxes each."""
    fill(root, *(f"Image/SSM/s{k}.jpg" for k in range(1, 6)), "annotation/test/train_test/readme.txt")
    boxes = {
        "s1.jpg": [(1, 1, 9, 9), (2, 2, 9, 9)],
        "s2.jpg": [(3, 3, 9, 9)],
        "s3.jpg": [(1, 2, 3, 4), (8, 8, 8, 8)],
        "s4.jpg": [(7, 7, 7, 7), (0, 0, 0, 9), (6, 6, 6, 6)],  # the second has no width
        "s5.jpg": [(5, 5, 5, 5), (4, 4, 4, 4)],
    }
    images = [
        (scene, len(own), structs(("idlocate", "ishard"), *((np.array([box], np.uint16), 0) for box in own)))
        for scene, own in boxes.items()
    ]
    savemat(root / "annotation/Images.mat", {"Img": structs(("imname", "nAppear", "box"), *images)})
    savemat(root / "annotation/pool.mat", {"pool": cells("s4.jpg", "s3.jpg", "s5.jpg")})
    persons = (
        [place("s2.jpg", 3, 3, 9, 9), place("s1.jpg", 2, 2, 9, 9)],
        [place("s1.jpg", 1, 1, 9, 9), place("s2.jpg", 5, 5, 0, 5)],  # the second has no width
    )
    fields = ("idname", "nAppear", "scene")
    train = cells(*(structs(fields, (f"p{k}", len(own), structs(PLACE, *own))) for k, own in enumerate(persons)))
    savemat(root / "annotation/test/train_test/Train.mat", {"Train": train})
    lists(root, 2, *SEARCHES)
    lists(root, 1, *((query, gallery[:1]) for query, gallery in SEARCHES))
    return root


def test_person_search_indexes_ground_truth_boxes_and_each_querys_gallery(tmp_path: Path) -> None:
    index = READERS["person-search"](person_search(tmp_path))
    rows = [
        (path[10:], person, tuple(box))
        for path, person, box in zip(index.path, index.person_id, index.box, strict=True)
    ]
    assert rows == [
        ("s2.jpg", 1, (3, 3, 9, 9)),  # 0: train
        ("s1.jpg", 1, (2, 2, 9, 9)),
        ("s1.jpg", 2, (1, 1, 9, 9)),
        ("s3.jpg", 3, (1, 2, 3, 4)),  # 3: queries
        ("s4.jpg", 4, (7, 7, 7, 7)),
        ("s4.jpg", 4, (7, 7, 7, 7)),  # 5: gallery
        ("s4.jpg", -1, (6, 6, 6, 6)),
        ("s3.jpg", 3, (1, 2, 3, 4)),
        ("s3.jpg", 4, (8, 8, 8, 8)),
        ("s5.jpg", 3, (5, 5, 5, 5)),
        ("s5.jpg", -1, (4, 4, 4, 4)),
    ]
    assert index.path[0] == "Image/SSM/s2.jpg"
    assert index.split.tolist() == ["train"] * 3 + ["query"] * 2 + ["gallery"] * 6
    assert not index.camera_id.any() and not index.tracklet_id.any()
    assert index.gallery_lists is not None
    assert {size: [members.tolist() for members in lists] for size, lists in index.gallery_lists.items()} == {
        "1": [[9, 10], [7, 8]],
        "2": [[9, 10, 5, 6], [7, 8, 9, 10]],  # in the order of the lists, not of the pool
    }


def test_scene_without_a_valid_box_adds_nothing(tmp_path: Path) -> None:
    person_search(tmp_path)
    images = load_matrix(tmp_path / "annotation/Images.mat", "Img")
    empty = structs(("idlocate", "ishard"), (np.array([(5, 5, 0, 9)], np.uint16), 0))
    added = np.concatenate([images, structs(images.dtype.names, ("s6.jpg", 1, empty))], axis=1)
    savemat(tmp_path / "annotation/Images.mat", {"Img": added})
    before = READERS["person-search"](tmp_path)
    savemat(tmp_path / "annotation/pool.mat", {"pool": cells("s4.jpg", "s6.jpg", "s3.jpg", "s5.jpg")})
    assert table(READERS["person-search"](tmp_path)) == table(before)


def test_person_search_survives_the_way_to_disk(tmp_path: Path) -> None:
    index = READERS["person-search"](person_search(tmp_path))
    write_index(tmp_path / "index.parquet", index)
    again = read_index(tmp_path / "index.parquet")
    assert all(np.array_equal(getattr(index, column), getattr(again, column)) for column in COLUMNS)
    assert index.gallery_lists is not None and again.gallery_lists is not None
    assert index.gallery_lists.keys() == again.gallery_lists.keys()
    for size, expected in index.gallery_lists.items():
        assert all(map(np.array_equal, expected, again.gallery_lists[size]))


def test_person_search_adds_a_labelled_box_that_the_images_file_lacks(tmp_path: Path) -> None:
    query, gallery = place("s3.jpg", 1, 2, 3, 4), [place("s5.jpg", 40, 5, 5, 5)]
    lists(person_search(tmp_path), 1, (query, gallery), SEARCHES[1])
    index = READERS["person-search"](tmp_path)
    added = np.flatnonzero((index.box == (40, 5, 5, 5)).all(1))
    assert index.person_id[added].tolist() == [3] and index.gallery_lists is not None
    assert index.gallery_lists["1"][0].tolist() == [9, 10, *added]


def test_person_search_takes_queries_that_share_a_box_for_one_person(tmp_path: Path) -> None:
    first = (place("s3.jpg", 1, 2, 3, 4), [place("s5.jpg", 5, 5, 5, 5)])
    second = (place("s5.jpg", 5, 5, 5, 5), [place("s3.jpg", 1, 2, 3, 4)])
    third = (place("s4.jpg", 7, 7, 7, 7), [place("s3.jpg", 8, 8, 8, 8)])
    person_search(tmp_path)
    lists(tmp_path, 1, first, second, third)
    (tmp_path / "annotation/test/train_test/TestG2.mat").unlink()
    index = READERS["person-search"](tmp_path)
    assert index.person_id[index.query].tolist() == [3, 3, 4]


def test_person_search_annotation_that_does_not_belong_together_is_an_error(tmp_path: Path) -> None:
    person_search(tmp_path)
    lists(tmp_path, 1, SEARCHES[1], SEARCHES[0])
    with pytest.raises(InputError, match="TestG lists of sizes 1, 2 differ in their queries"):
        READERS["person-search"](tmp_path)
    lists(tmp_path, 1, SEARCHES[0], (SEARCHES[1][0], [place("s1.jpg")]))
    with pytest.raises(InputError, match=r"pool.mat: lacks s1.jpg"):
        READERS["person-search"](tmp_path)
    lists(tmp_path, 1, *SEARCHES)
    savemat(tmp_path / "annotation/pool.mat", {"pool": cells("s4.jpg", "s3.jpg", "s5.jpg", "s6.jpg")})
    with pytest.raises(InputError, match=r"Images.mat: no boxes of s6.jpg"):
        READERS["person-search"](tmp_path)
    person_search(tmp_path)
    (tmp_path / "Image/SSM/s5.jpg").unlink()
    with pytest.raises(InputError, match=r"s5.jpg: listed in annotation"):
        READERS["person-search"](tmp_path)
    for path in (tmp_path / "annotation/test/train_test").glob("TestG*"):
        path.unlink()
    with pytest.raises(InputError, match="no list TestG"):
        READERS["person-search"](tmp_path)


def test_person_search_leaves_the_largest_lists_unread(tmp_path: Path) -> None:
    person_search(tmp_path)
    (tmp_path / "annotation/test/train_test/TestG4000.mat").write_bytes(b"of gigabytes")
    lists = READERS["person-search"](tmp_path).gallery_lists
    assert lists is not None and list(lists) == ["1", "2"]


# --- distractors


@pytest.mark.parametrize("folder", ["", "images/"])
def test_every_image_is_distractor_for_any_name(tmp_path: Path, folder: str) -> None:
    names = ["-1_c1s1_000001_00.jpg", "0007_c2s1_000001_00.jpg", "anything.jpeg", "b.PNG"]
    fill(tmp_path, *(folder + name for name in names), folder + "Thumbs.db", folder + ".hidden.jpg")
    index = READERS["distractors"](tmp_path)
    assert table(index) == [(folder + name, 0, 0, "gallery") for name in names]


# --- all formats

MAKERS: dict[str, Callable[[Path], Path]] = {
    "market1501": market,
    "mars": mars,
    "person-search": person_search,
    "distractors": lambda root: fill(root, "images/a.jpg"),
}


@pytest.mark.parametrize(
    "name, inner, holds",
    [
        ("market1501", "query", "bounding_box_train, query, bounding_box_test"),
        ("mars", "bbox_test/0002", "bbox_train, bbox_test, info"),
        ("person-search", "Image/SSM", "Image/SSM, annotation/test/train_test"),
    ],
)
def test_wrong_level_is_an_error_that_names_the_right_folder(tmp_path: Path, name: str, inner: str, holds: str) -> None:
    right = MAKERS[name](tmp_path / "outer" / "release")
    for wrong in (right.parent, right / inner):
        with pytest.raises(InputError, match=f"expected a folder that holds {holds}, found .*; give {right} instead"):
            READERS[name](wrong)
    with pytest.raises(InputError, match="found outer; "):
        READERS[name](tmp_path)


def test_folder_of_packed_archives_is_reported(tmp_path: Path) -> None:
    fill(tmp_path, "bbox_test.zip", "bbox_train.zip", "info/query_IDX.mat")
    with pytest.raises(
        InputError, match=r"found bbox_test.zip, bbox_train.zip, info; unpack bbox_test.zip and bbox_train.zip here"
    ):
        READERS["mars"](tmp_path)


@pytest.mark.parametrize("name", COUNTS)
def test_missing_folder_error_names_source(tmp_path: Path, name: str) -> None:
    advice = "withdrawn by its owner.*never downloaded" if name == "dukemtmc" else "obtain|unpack"
    with pytest.raises(InputError, match=f"nowhere: no such folder; .*({advice})"):
        READERS[name](tmp_path / "nowhere")


def test_counts_name_every_difference(tmp_path: Path) -> None:
    index = READERS["market1501"](market(tmp_path))
    found = count(index)
    assert {name: found[name] for name in ("train", "query", "gallery", "boxes", "junk", "distractors")} == {
        "train": 2,
        "query": 2,
        "gallery": 4,
        "boxes": 0,
        "junk": 1,
        "distractors": 1,
    }
    assert (found["train_persons"], found["query_persons"], found["gallery_files"]) == (2, 2, 4)
    check_counts(index, found)
    with pytest.raises(InputError, match=r"found train 2 \(3 expected\), query 2 \(2 expected\)"):
        check_counts(index, {"train": 3, "query": 2})
    with pytest.raises(InputError, match="no count is called images"):
        check_counts(index, {"images": 2})


def test_counts_of_tracklets_and_scenes(tmp_path: Path) -> None:
    found = count(READERS["mars"](mars(tmp_path / "mars")))
    assert [found[f"{part}_tracklets"] for part in ("train", "query", "gallery")] == [1, 1, 4]
    assert (found["query"], found["gallery"]) == (3, 9)
    found = count(READERS["person-search"](person_search(tmp_path / "scenes")))
    assert (found["gallery"], found["gallery_files"], found["junk"]) == (6, 3, 2)


def test_published_counts_use_the_terms_of_count(tmp_path: Path) -> None:
    known = count(READERS["distractors"](fill(tmp_path, "a.jpg"))).keys()
    assert READERS.keys() - COUNTS.keys() == set(OWN)
    assert all(counts.keys() <= known for counts in COUNTS.values())
    market1501 = COUNTS["market1501"]
    assert market1501["gallery"] - market1501["junk"] - market1501["distractors"] == 13_115


# --- what the renderer writes

WORLD = {"world": 1, "hardness": 0.45, "workers": 1}


def matches_elsewhere(index: Index, query: int) -> int:
    """Count the gallery rows of the query's person in other cameras."""
    gallery = index.gallery
    same = index.person_id[gallery] == index.person_id[query]
    return int((same & (index.camera_id[gallery] != index.camera_id[query])).sum())


def test_rendered_market_round_trip(tmp_path: Path) -> None:
    releases.write_market1501(tmp_path, train_ids=2, test_ids=3, distractors=2, junk=3, **WORLD)
    index = READERS["market1501"](tmp_path)
    found = count(index)
    assert (found["train_persons"], found["query_persons"], found["junk"], found["distractors"]) == (2, 3, 3, 2)
    assert all(matches_elsewhere(index, query) > 0 for query in index.query)
    assert set(index.person_id[index.train]).isdisjoint(index.person_id[index.query])
    pairs = {(index.person_id[row], index.camera_id[row]) for row in index.rows("boxes")}
    assert pairs == {(index.person_id[row], index.camera_id[row]) for row in index.query}


def test_rendered_dukemtmc_round_trip(tmp_path: Path) -> None:
    releases.write_dukemtmc(tmp_path, train_ids=2, test_ids=2, distractor_ids=2, **WORLD)
    index = READERS["dukemtmc"](tmp_path)
    found = count(index)
    assert (found["train_persons"], found["query_persons"], found["junk"], found["distractors"]) == (2, 2, 0, 0)
    assert len(set(index.person_id[index.gallery])) == 4
    assert all(matches_elsewhere(index, query) > 0 for query in index.query)


def test_rendered_mars_round_trip(tmp_path: Path) -> None:
    releases.write_mars(tmp_path, train_ids=2, test_ids=2, frames=3, distractor_tracklets=2, junk_tracklets=2, **WORLD)
    index = READERS["mars"](tmp_path)
    assert all(matches_elsewhere(index, query) > 0 for query in index.query)
    for path, person, camera in zip(index.path, index.person_id, index.camera_id, strict=True):
        name = path.rpartition("/")[2]
        assert (name[:4], name[5]) == ("00-1" if person == -1 else f"{person:04d}", str(camera))
    assert {-1, 0} < set(index.person_id[index.gallery])


def test_rendered_person_search_round_trip(tmp_path: Path) -> None:
    ids = {"train_ids": 3, "test_ids": 3, "train_scenes": 5, "test_scenes": 8, "gallery_sizes": (4, 6)}
    releases.write_person_search(tmp_path, **ids, **WORLD)
    index = READERS["person-search"](tmp_path)
    assert set(index.person_id[index.train]) == {1, 2, 3} and index.person_id[index.query].tolist() == [4, 5, 6]
    assert index.gallery_lists is not None and list(index.gallery_lists) == ["4", "6"]
    for size, galleries in index.gallery_lists.items():
        for query, members in zip(index.query, galleries, strict=True):
            assert len(set(index.path[members])) == int(size)
            assert index.path[query] not in index.path[members]
            assert 2 <= (index.person_id[members] == index.person_id[query]).sum() <= 3


def test_rendered_distractors_round_trip(tmp_path: Path) -> None:
    releases.write_distractors(tmp_path, images=3, **WORLD)
    index = READERS["distractors"](tmp_path)
    assert count(index)["distractors"] == len(index) == 3
