"""PRW: its reader, its protocol against a slow one from the files themselves, published counts, malformed files."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import loadmat

from pedestrians.matlab import cell_array, save_mat
from reid_done_right.artifacts import Embeddings, Index, InputError
from reid_done_right.data.readers import COUNTS, READERS, check_counts, count, layout, prw
from reid_done_right.data.tasks import protocol_tasks
from reid_done_right.evaluation.ranking import rank_gallery
from reid_done_right.evaluation.rules import GALLERIES
from reid_done_right.evaluation.task import OtherImages
from reid_done_right.params.datasets import SEARCHED

Table = list[tuple[float, ...]]
TRAIN: dict[str, Table] = {
    "c1s1_000001": [(5, 1, 2, 30, 60), (-2, 50, 2, 30, 60)],
    "c6s1_000002": [(7, 0.5, 0.5, 9.9, 9.9), (5, 40, 2, 30, 60), (7, 80, 2, 30, 60)],
}
TEST: dict[str, Table] = {
    "c2s1_000003": [(9, -3.5, 1.5, 20.2, 40.4), (-2, 30, 1, 20, 40), (933, 60, 1, 20, 40)],
    "c1s3_000001": [(933, 1, 1, 20, 40), (933, 100, 1, 20, 40), (5, 200, 1, 20, 40), (9, 0, 0, 0.4, 9)],
    "c2s1_000004": [],
    "c3s1_000005": [(9, 1, 1, 20, 40)],
}
QUERIES = ["9 -3.5 1.5 20.2 40.4 c2s1_000003", "933 1 1 20 40 c1s3_000001"]


def write(root: Path, train: dict[str, Table] = TRAIN, test: dict[str, Table] = TEST, queries: Any = QUERIES) -> Path:
    """Write a release without pixels."""
    for folder in ("frames", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for half, frames in (("train", train), ("test", test)):
        save_mat(root / f"frame_{half}.mat", **{f"img_index_{half}": cell_array(list(frames))})
        for k, (frame, table) in enumerate(frames.items()):
            (root / f"frames/{frame}.jpg").touch()
            boxes = np.array(table, np.float64).reshape(-1, 5)
            save_mat(root / f"annotations/{frame}.jpg.mat", **{prw.VARIABLES[k % 3]: boxes})
    (root / "query_info.txt").write_text("".join(f"{line}\r\n" for line in queries), newline="")
    return root


def test_boxes_are_read_frame_by_frame(tmp_path: Path) -> None:
    index = READERS["prw"](write(tmp_path))
    columns = (index.path, index.person_id, index.camera_id, index.split, index.box)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == [
        ("frames/c1s1_000001.jpg", 5, 1, "train", [1, 2, 30, 60]),
        ("frames/c6s1_000002.jpg", 7, 6, "train", [0, 0, 10, 10]),  # corners are cut, not sides
        ("frames/c6s1_000002.jpg", 5, 6, "train", [40, 2, 30, 60]),
        ("frames/c6s1_000002.jpg", 7, 6, "train", [80, 2, 30, 60]),
        ("frames/c2s1_000003.jpg", 9, 2, "query", [-3, 1, 19, 40]),
        ("frames/c1s3_000001.jpg", 933, 1, "query", [1, 1, 20, 40]),
        ("frames/c2s1_000003.jpg", 9, 2, "gallery", [-3, 1, 19, 40]),
        ("frames/c2s1_000003.jpg", -1, 2, "gallery", [30, 1, 20, 40]),
        ("frames/c2s1_000003.jpg", 933, 2, "gallery", [60, 1, 20, 40]),
        ("frames/c1s3_000001.jpg", 933, 1, "gallery", [1, 1, 20, 40]),
        ("frames/c1s3_000001.jpg", -1, 1, "gallery", [100, 1, 20, 40]),  # 933 is in the frame already
        ("frames/c1s3_000001.jpg", 5, 1, "gallery", [200, 1, 20, 40]),  # trained on; the last has no width
        ("frames/c3s1_000005.jpg", 9, 3, "gallery", [1, 1, 20, 40]),
    ]
    found = count(index)
    assert (found["train_persons"], found["gallery_files"], found["junk"]) == (2, 3, 2)


# --- protocol


def made_up(rng: np.random.Generator) -> tuple[dict[str, Table], list[str]]:
    """Make up 12 test frames of 3 cameras, with persons who are there twice, and a query for each person in two."""
    frames: dict[str, Table] = {}
    for k in range(12):
        persons = rng.choice([-2, 1, 2, 3, 4, 5], int(rng.integers(1, 6))).tolist()
        frames[f"c{k % 3 + 1}s1_{k:06}"] = [(one, 50.0 * i, 0, 40, 80) for i, one in enumerate(persons)]
    seen = [(row, frame) for frame, table in frames.items() for row in table if row[0] > 0]
    many = [(row, frame) for row, frame in seen if len({f for r, f in seen if r[0] == row[0]}) > 1]
    return frames, [" ".join(f"{number:g}" for number in row) + f" {frame}" for row, frame in many]


def look(*place: Any) -> NDArray[np.float32]:
    """Return the embedding of a box."""
    rng = np.random.default_rng([ord(letter) for letter in repr(place)])
    found = rng.normal(size=3)
    return (found / np.linalg.norm(found)).astype(np.float32)


def slow_scores(root: Path) -> list[tuple[float, bool]]:
    """Return AP and hit at rank 1 of each query, from the files, as NAE and SeqNet evaluate PRW, with true boxes.

    Every frame but the query's own is its gallery; in a frame that shows the person, the first box labelled so is true.
    """
    names = [str(cell[0][0]) for cell in loadmat(root / "frame_test.mat")["img_index_test"]]
    scores = []
    for line in (root / "query_info.txt").read_text().splitlines():
        person, x, _, _, _, own = line.split()
        asked = look("query", float(x), own)
        ranked = []
        for name in names:
            content = loadmat(root / f"annotations/{name}.jpg.mat")
            table = next(content[key] for key in ("box_new", "anno_file", "anno_previous") if key in content)
            true = [row for row in table.tolist() if row[0] == int(person)][:1]
            if name != own:
                ranked += [(float(look("gallery", row[1], name) @ asked), row in true) for row in table.tolist()]
        hits = [hit for _, hit in sorted(ranked, key=lambda item: -item[0])]
        precisions = [sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit]
        scores.append((sum(precisions) / len(precisions), hits[0]))
    return scores


def embedded(index: Index) -> Embeddings:
    places = zip(index.split.tolist(), index.box[:, 0].tolist(), index.path.tolist(), strict=True)
    return Embeddings(np.arange(len(index)), np.stack([look(split, float(x), Path(path).stem) for split, x, path in places]))  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_protocol_is_that_of_person_search(tmp_path: Path, seed: int) -> None:
    test, queries = made_up(np.random.default_rng(seed))
    root = write(tmp_path, {"c1s9_000001": [(99, 1, 1, 9, 9)]}, test, queries)
    index = READERS["prw"](root)
    settings = {"format": "prw", "person_search_gallery": 100}
    ((name, task),) = protocol_tasks(index, embedded(index), settings)
    found, expected = rank_gallery(task), slow_scores(root)
    assert name == "gallery-all" and len(expected) == len(queries) > 8
    assert found.average_precision("step").tolist() == pytest.approx([ap for ap, _ in expected])
    assert (found.first_hit_rank == 1).tolist() == [hit for _, hit in expected]
    assert 0 < sum(hit for _, hit in expected) < len(queries)


def test_rows_of_other_images_are_made_when_asked_for() -> None:
    lists = OtherImages(np.array([2, 7, 0]), np.array([0, 2, 2, 1]))
    assert [rows.tolist() for rows in lists] == [[0, 3], [0, 1, 2, 3], [1, 2, 3]]
    assert len(lists) == 3 and [rows.tolist() for rows in lists[1:]] == [[0, 1, 2, 3], [1, 2, 3]]
    with pytest.raises(IndexError):
        lists[3]


def test_formats_with_galleries_of_their_own_are_known_to_the_parameters() -> None:
    assert set(SEARCHED) == set(GALLERIES)


# --- published counts


def test_counts_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,704 frames to train on and 6,112 to test on; 18,048 and 25,062 boxes."""
    ids = {"train": [*range(1, 479), *range(480, 484), 932], "test": [479, *range(484, 932), 933]}
    frames = {half: [f"c{k % 6 + 1}s1_{k:06}" for k in span] for half, span in (("train", range(5_704)), ("test", range(6_000, 12_112)))}  # fmt: skip
    boxes = {"train": 18_048, "test": 25_062}
    tables: dict[str, Table] = {}
    for half, persons in ids.items():
        for k in range(boxes[half]):
            person = persons[k // 2 % len(persons)] if k % 2 else -2
            tables.setdefault(frames[half][k % len(frames[half])], []).append((person, 9 * k % 900, 1, 9, 9))
        save_mat(tmp_path / f"frame_{half}.mat", **{f"img_index_{half}": cell_array(frames[half])})
    for folder in ("frames", "annotations"):
        (tmp_path / folder).mkdir()
    lines = [f"{ids['test'][k % 450]} 1 1 9 9 {frames['test'][k]}\n" for k in range(2_057)]
    (tmp_path / "query_info.txt").write_text("".join(lines))
    monkeypatch.setattr(layout, "expect_files", lambda root, paths, listed_in: None)
    monkeypatch.setattr(prw, "_table", lambda path: np.array(tables[path.name.partition(".")[0]], np.float64))
    index = READERS["prw"](tmp_path)
    check_counts(index, COUNTS["prw"])
    assert len(tables) == 11_816 and len(index.gallery) == 25_062 and len(index.train) == 9_024


# --- malformed files


def matlab(path: str, **arrays: Any) -> tuple[str, Any]:
    return path, lambda file: save_mat(file, **arrays)


FIRST = "annotations/c1s1_000001.jpg.mat"
MALFORMED: list[tuple[tuple[str, Any], str]] = [
    (("query_info.txt", None), "query_info.txt: no such file; obtain PRW-v16.04.20.zip by the links of https://"),
    (("query_info.txt", b"9 1 1 20 40 c2s1_000003\n9 1 1 20 c2s1_000003"), "query_info.txt: line 2, '9 1 1 20 c2s1_000003', is not of the form ID X Y W H FRAME, such as"),
    (("query_info.txt", b"9 1 1 0.9 40 c2s1_000003"), "query_info.txt: line 1, '9 1 1 0.9 40 c2s1_000003', is not of the form"),
    (("query_info.txt", b"-2 1 1 20 40 c2s1_000003"), "query_info.txt: line 1, '-2 1 1"),
    (("query_info.txt", b"9 1 1 20 40 ../../etc/passwd"), "query_info.txt: line 1, '9 1 1"),
    (("query_info.txt", b"9 1 1 20 40 c4s1_000003"), "frames/c4s1_000003.jpg: listed in the lists of the release but not there, with 1 of"),
    (("query_info.txt", b"5 1 1 20 40 c2s1_000003"), "frames/c2s1_000003.jpg: 5 is to be tested on, but trained on too, as in frames/c1s1_000001.jpg, with 1 such"),
    (("query_info.txt", b""), "query_info.txt: empty"),
    (("frame_test.mat", None), "frame_test.mat: no such file; unpack the release again"),
    (("frame_test.mat", b"MATLAB"), "frame_test.mat: not a readable MATLAB file"),
    (matlab("frame_test.mat", img_index=np.ones(1)), "frame_test.mat: expected a variable img_index_test in it; take the file"),
    (matlab("frame_test.mat", img_index_test=cell_array(["c2s1_000003", "../x"])), "frame_test.mat: row 2, '../x', is no frame such as c1s3_016471; obtain PRW"),
    (matlab("frame_test.mat", img_index_test=cell_array([np.zeros(0)])), "frame_test.mat: not built as in the official release"),
    (matlab("frame_test.mat", img_index_test=cell_array(["c2s1_000009"])), "annotations/c2s1_000009.jpg.mat: listed in frame_test.mat but not there, with 1 of 1"),
    ((FIRST, b"MATLAB"), f"{FIRST}: not a readable MATLAB file"),
    ((FIRST, None), f"{FIRST}: listed in frame_train.mat but not there, with 1 of 2"),
    (matlab(FIRST, boxes=np.ones((1, 5))), f"{FIRST}: expected a variable box_new in it; take the file"),
    (matlab(FIRST, box_new=np.ones((2, 4))), f"{FIRST}: not built as in the official release (cannot reshape"),
    (matlab(FIRST, box_new=cell_array(["x"])), f"{FIRST}: not built as in the official release ("),
    (matlab(FIRST, box_new=np.array([[5.0, 1, 1, 9, 9], [0, 1, 1, 9, 9]])), f"{FIRST}: row 2 is [0.0, 1.0, 1.0, 9.0, 9.0], not id (1.., or -2), x, y, w, h; obtain PRW"),
    (matlab(FIRST, box_new=np.array([[1.5, 1, 1, 9, 9]])), f"{FIRST}: row 1 is [1.5,"),
    (matlab(FIRST, box_new=np.array([[5, 1, np.nan, 9, 9]])), f"{FIRST}: row 1 is [5.0, 1.0, nan,"),
    (matlab(FIRST, box_new=np.array([[5, 1, 1e10, 9, 9]])), f"{FIRST}: row 1 is [5.0, 1.0, 10000000000.0,"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MALFORMED)
def test_malformed_file_is_reported_in_one_line(tmp_path: Path, change: tuple[str, Any], message: str) -> None:
    name, content = change
    file = write(tmp_path) / name
    file.unlink()
    if callable(content):
        content(file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/{message}")) as raised:
        READERS["prw"](tmp_path)
    assert str(raised.value).isprintable()


def test_folder_above_is_reported(tmp_path: Path) -> None:
    root = write(tmp_path / "data/PRW-v16.04.20")
    with pytest.raises(InputError, match=f"expected a folder that holds frames, annotations, found .*; give {root} in"):
        READERS["prw"](root.parent)
