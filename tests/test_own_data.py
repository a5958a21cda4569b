"""Own photos: patterns and tables against slow references, splits by hand, and all messages."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photos import fill
from reid_done_right.artifacts import Embeddings, InputError, read_index, write_index
from reid_done_right.data.readers import READERS, count
from reid_done_right.data.readers.folder import compile_pattern
from reid_done_right.data.readers.own import Photos, index_photos, unmatched
from reid_done_right.data.readers.table import read_table
from reid_done_right.data.splits import choose_queries, training_persons
from reid_done_right.data.tasks import protocol_tasks
from reid_done_right.params import Params
from tiny import changed


def people(names: str = "abcd", cameras: Sequence[str] = ("c1", "c2"), photos: int = 2) -> list[str]:
    return [f"{name}/{camera}/{k}.jpg" for name in names for camera in cameras for k in range(photos)]


# --- patterns


@pytest.mark.parametrize(
    "pattern, path, labels",
    [
        ("{person}/{camera}/{name}", "Zoë B/back door/IMG 1.JPG", {"person": "Zoë B", "camera": "back door"}),
        ("{person}_c{camera}_{rest}.jpg", "anna_c2_000451.jpg", {"person": "anna", "camera": "2"}),
        ("{person}_c{camera}_{rest}.jpg", "a_b_c2_c3_0.jpg", {"person": "a_b", "camera": "2"}),
        ("{person:4}C{camera}T{tracklet}F{frame}.jpg", "0002C1T0012F001.jpg", {"person": "0002", "camera": "1", "tracklet": "0012"}),
        ("{person:2}{camera:1}{rest}", "abcdef", {"person": "ab", "camera": "c"}),
        ("{split}/{person}/{rest}", "train/bob/1.jpg", {"split": "train", "person": "bob"}),
        ("{person}/{person}_{rest}", "bob/bob_1.jpg", {"person": "bob"}),
        ("{rest}/{rest}/{person}.jpg", "x/y/bob.jpg", {"person": "bob"}),
        ("{{{person}}}.{ending}", "{bob}.jpg", {"person": "bob"}),
        ("{person}.+{rest}", "bob.+1.jpg", {"person": "bob"}),
        ("{person}/{camera}/{name}", "bob/1.jpg", None),
        ("{person}/{camera}/{name}", "bob/1/2/3.jpg", None),
        ("{person}/{person}_{rest}", "bob/eve_1.jpg", None),
        ("{person:4}_{rest}", "bob_1.jpg", None),
        ("{person}.+{rest}", "bobx+1.jpg", None),
    ],
)  # fmt: skip
def test_pattern_reads_its_fields(pattern: str, path: str, labels: dict[str, str] | None) -> None:
    match = compile_pattern(pattern).fullmatch(path)
    assert (match and match.groupdict()) == labels


WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="/_", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8
)


@given(person=WORDS, camera=WORDS, rest=WORDS)
def test_pattern_reads_back_filled_fields(person: str, camera: str, rest: str) -> None:
    for pattern in ("{person}/{camera}/{rest}", "{person}_{camera}_{rest}", "({person})/{camera}_{rest}"):
        match = compile_pattern(pattern).fullmatch(pattern.format(person=person, camera=camera, rest=rest))
        assert match is not None and match.groupdict() == {"person": person, "camera": camera}


@given(st.text("{}:_/abcpersoncamera0123!.", max_size=30))
def test_any_text_is_pattern_or_one_line_error(text: str) -> None:
    try:
        assert "person" in compile_pattern(text).groupindex
    except InputError as error:
        assert str(error).startswith(f"read.pattern: {text!r}") and "\n" not in str(error)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("{camera}/{name}", "has no field {person}; write {person} where the name says who"),
        ("{person}{camera}.jpg", "nothing says where the field before {camera} ends; write what stands between"),
        ("{person:x}/{name}", "a field is a word in braces, such as {person}, or of fixed width, {person:4}; 'person' is"),
        ("{person!r}/{name}", "'person' is not"),
        ("{}/{name}", "'an empty one' is not"),
        ("{Person}/{name}", "'Person' is not"),
        ("{person/{name}", "write fields as {person}, and a brace twice"),
    ],
)  # fmt: skip
def test_wrong_pattern_is_reported(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        compile_pattern(pattern)


# --- the folder


def test_folder_is_read_by_its_names(tmp_path: Path) -> None:
    fill(tmp_path, *people("ab"), "c/c1/0.PNG", "c/c2/0.jpeg", "readme.txt", "a/.hidden.jpg", "a/c1/Thumbs.db")
    index = READERS["folder"](tmp_path, train=0.7, seed=3)
    assert index.path.tolist() == sorted([*people("ab"), "c/c1/0.PNG", "c/c2/0.jpeg"])
    assert index.person is not None and index.camera is not None
    assert dict(zip(index.person.tolist(), index.person_id.tolist(), strict=True)) == {"a": 1, "b": 2, "c": 3}
    assert dict(zip(index.camera.tolist(), index.camera_id.tolist(), strict=True)) == {"c1": 1, "c2": 2}
    assert index.upright and not index.tracklet_id.any() and not index.box.any()


def test_names_and_turning_survive_the_way_to_disk(tmp_path: Path) -> None:
    index = READERS["folder"](fill(tmp_path / "photos", *people()))
    write_index(tmp_path / "index.parquet", index)
    again = read_index(tmp_path / "index.parquet")
    assert again.person is not None and again.camera is not None and again.upright and again.left_out == []
    assert again.person.tolist() == [path[0] for path in index.path.tolist()]
    assert again.camera.tolist() == [path.split("/")[1] for path in index.path.tolist()]


def test_images_outside_pattern_are_reported_together(tmp_path: Path) -> None:
    fill(tmp_path, *people("ab"), "stray.jpg", "a/stray.jpg", "a/c1/x/stray.png", "b/stray.tif")
    with pytest.raises(InputError) as raised:
        READERS["folder"](tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: 4 of 12 images are not of the form {{person}}/{{camera}}/{{name}}: a/c1/x/stray.png, a/stray.jpg, "
        "b/stray.tif and 1 more; move them out of the folder, or correct read.pattern"
    )


def test_missing_or_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no image \(\.jpg.*\) in it or below it; give the folder of your photos as source"
    ):
        READERS["folder"](fill(tmp_path, "a/notes.txt"))
    with pytest.raises(InputError, match=r"none: no such folder; give the folder of your photos as source\.folder"):
        READERS["folder"](tmp_path / "none")


# --- the table


def table(root: Path, text: str, *paths: str) -> Path:
    fill(root, *(paths or people()))
    (root / "people.csv").write_text(text, encoding="utf-8")
    return root


def rows_of(paths: Sequence[str]) -> str:
    return "path,person_id,camera_id\n" + "".join(f"{path},{path[0]},{path[2:4]}\n" for path in paths)


def test_table_and_folder_give_same_index(tmp_path: Path) -> None:
    root = table(tmp_path, rows_of(sorted(people())))
    one, other = READERS["folder"](root), READERS["csv"](root, table="people.csv")
    for column in ("path", "person_id", "camera_id", "tracklet_id", "split", "person", "camera"):
        assert np.array_equal(getattr(one, column), getattr(other, column)), column


def test_table_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """With a mark of its encoding, blanks, quotes, Windows line ends, an empty last line and a column of notes."""
    text = '\ufeffpath , person_id,notes,camera_id,tracklet_id,split\r\na/c1/0.jpg,"Doe, Jane","a ""b""",x,1,train\r\n'
    text += "a/c1/1.jpg, Doe Jim ,,x,1,train\r\na/c2/0.jpg,Doe Jim,,y,1,train\r\n\r\n"
    text += "b/c1/0.jpg,z,,x,1,query\r\nb/c2/0.jpg,z,,y,1,gallery\r\n"
    index = READERS["csv"](table(tmp_path, text), table="people.csv")
    assert index.person is not None
    assert index.person.tolist() == ["Doe, Jane", "Doe Jim", "Doe Jim", "z", "z"]
    assert index.person_id.tolist() == [2, 1, 1, 3, 3]
    assert index.tracklet_id.tolist() == [3, 1, 2, 4, 5]  # counted within person and camera
    assert index.split.tolist() == ["train", "train", "train", "query", "gallery"]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
def test_any_texts_survive_a_table(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "people.csv"
    with path.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("path", "person_id", "camera_id"), *rows])
    lines, columns = read_table(path)
    assert lines == list(range(2, 2 + len(rows)))
    assert list(zip(*columns.values(), strict=True)) == rows


GOOD = "a/c1/0.jpg,a,c1\na/c2/0.jpg,a,c2\n"


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "people.csv: no such file; read.table names a CSV file in source.folder"),
        ("", "people.csv: no column path; found nothing"),
        ("path;person_id;camera_id\n", "the header is 'path;person_id;camera_id'; separate the columns by commas"),
        ("path,camera_id\n", "people.csv: no column person_id; found path, camera_id"),
        ("path,person\n", "people.csv: no column person_id; is 'person' meant? Rename it"),
        ("path,person_id,camera\n", "people.csv: no column camera_id; is 'camera' meant? Rename it"),
        ("path,person_id,person_id\n", "people.csv: column person_id is there twice; leave one out"),
        ("path,person_id,camera_id\n", "people.csv: no rows below its header; list your photos, one a line"),
        (f"path,person_id,camera_id\n{GOOD}b/c1/0.jpg,b\n", "people.csv: line 4 has 2 values, the header has 3 columns"),
        (f"path,person_id,camera_id\n{GOOD}b/c1/0.jpg,b,x,y\n", "people.csv: line 4 has 4 values"),
        (f"path,person_id,camera_id\n{GOOD}b/c1/0.jpg, ,x\n", "people.csv: line 4: person_id is empty; fill it in, or"),
        (f"path,person_id,camera_id\n{GOOD}a/c1/0.jpg,a,c1\n", "line 4: a/c1/0.jpg was on line 2 already; list each photo once"),
        (f"path,person_id,camera_id\n{GOOD}/a/c1/1.jpg,a,c1\n", "line 4: path '/a/c1/1.jpg'; write it relative to"),
        (f"path,person_id,camera_id\n{GOOD}../1.jpg,a,c1\n", "line 4: path '../1.jpg'; write it relative to"),
        (f"path,person_id,camera_id\n{GOOD}a\\1.jpg,a,c1\n", "line 4: path 'a\\\\1.jpg'; write it relative to"),
        (f"path,person_id,camera_id\n{GOOD}a/c1/9.jpg,a,c1\nb/9.jpg,b,c1\n", "c1/9.jpg, with 2 of 4 missing in all; put the files there, or take"),
        (f"path,person_id,split\n{GOOD}", "line 2: split is 'c1', expected one of train, test, query, gallery"),
        ('path,person_id\n"a/c1', "not a readable CSV file in UTF-8"),
    ],
)  # fmt: skip
def test_wrong_table_is_reported(tmp_path: Path, text: str | None, message: str) -> None:
    root = table(tmp_path, text or "")
    if text is None:
        (root / "people.csv").unlink()
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        READERS["csv"](root, table="people.csv")
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_table_with_other_encoding_is_reported(tmp_path: Path) -> None:
    table(tmp_path, "")
    (tmp_path / "people.csv").write_bytes("path,person_id\na.jpg,Zoë\n".encode("latin-1"))
    with pytest.raises(InputError, match="not a readable CSV file in UTF-8"):
        READERS["csv"](tmp_path, table="people.csv")


# --- splits


def chosen(views: str, same_camera_is_junk: bool, seed: int = 0) -> list[str]:
    """Choose queries of photos such as "a1 a1 a2" (person, camera); return the views chosen."""
    photos = views.split()
    person, camera = (
        np.array(column, np.int64) for column in zip(*((ord(p[0]) - 96, int(p[1])) for p in photos), strict=True)
    )
    rng = np.random.default_rng(seed)
    mask = choose_queries(person, camera, np.arange(len(photos)), same_camera_is_junk, rng)
    return [photo for photo, query in zip(photos, mask, strict=True) if query]


@pytest.mark.parametrize(
    "views, across, within",
    [
        ("a1 a1 a2 a2", ["a1", "a2"], ["a1", "a2"]),
        ("a1 a2", ["a1"], ["a1"]),  # one stays, to be found
        ("a1 a2 a3", ["a1", "a2"], ["a1", "a2"]),
        ("a1 a2 a2", ["a2"], ["a1", "a2"]),  # a1 alone is what the query of camera 2 finds
        ("a1 a1 a1", [], ["a1"]),
        ("a1 b2", [], []),
        ("a1 a2 b1 b1", ["a1"], ["a1", "b1"]),
    ],
)
def test_queries_by_hand(views: str, across: list[str], within: list[str]) -> None:
    for seed in range(5):
        assert chosen(views, True, seed) == across
        assert chosen(views, False, seed) == within


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=30),
    st.booleans(),
    st.integers(0, 5),
)
def test_every_query_finds_something_and_is_the_only_one_of_its_view(
    photos: list[tuple[int, int]], same_camera_is_junk: bool, seed: int
) -> None:
    person, camera = np.array(photos, np.int64).T
    rng = np.random.default_rng(seed)
    query = choose_queries(person, camera, np.arange(len(photos)), same_camera_is_junk, rng)
    views = [photo for photo, is_query in zip(photos, query, strict=True) if is_query]
    assert len(views) == len(set(views)) and all(view[0] > 0 for view in views)
    for p, c in views:
        others = [g for g, is_query in zip(photos, query, strict=True) if not is_query and g[0] == p]
        assert any(not same_camera_is_junk or other[1] != c for other in others)
    several = {view for view in photos if photos.count(view) > 1 and view[0] > 0}
    if same_camera_is_junk:
        several = {view for view in several if len({c for p, c in photos if p == view[0]}) > 1}
    assert several <= set(views)  # who can lose a photo without harm does


def test_training_persons_are_a_share_drawn_by_the_seed() -> None:
    ids = np.repeat(np.arange(1, 11), 3)
    drawn = [training_persons(ids, 0.5, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(persons) == 5 and persons == sorted(set(persons)) for persons in drawn)
    assert len(training_persons(ids, 0.25, np.random.default_rng(0))) == 3  # 2.5, rounded up


def test_no_person_is_both_trained_and_tested_on_and_all_photos_have_a_place(tmp_path: Path) -> None:
    index = READERS["folder"](fill(tmp_path, *people("abcdefgh", photos=3)))
    assert not set(index.person_id[index.train]) & set(index.person_id[index.query])
    found = count(index)
    assert (found["train"], found["query"], found["gallery"]) == (24, 8, 16)
    assert len(unmatched(index, True)) == 0
    again, other = (READERS["folder"](tmp_path, seed=seed) for seed in (0, 1))
    assert np.array_equal(index.split, again.split) and not np.array_equal(index.split, other.split)


def test_unknown_people_are_searched_among_only(tmp_path: Path) -> None:
    index = READERS["folder"](fill(tmp_path, *people()), unknown=["a"])
    nobody = index.person_id == 0
    assert nobody.sum() == 4 and set(index.split[nobody]) == {"gallery"}
    assert index.person is not None and set(index.person[nobody]) == {"a"}


def photos_of(rows: Sequence[tuple[str, str, str, str]], **columns: None) -> Photos:
    person, camera, tracklet, split = ([row[i] for row in rows] for i in range(4))
    given: dict[str, Any] = {"camera": camera, "tracklet": tracklet, "split": split} | columns
    names = [f"{k}.jpg" for k in range(len(rows))]
    return Photos(path=names, place=[f"line {k}" for k in range(len(rows))], person=person, **given)


TRACKS = [(p, c, t, "train" if p in "ab" else "test") for p in "abcd" for c in "12" for t in "12" for _ in range(3)]


def test_tracklets_are_chosen_and_scored_whole() -> None:
    index = index_photos(Path("root"), photos_of(TRACKS), items="tracklet")
    queries = np.unique(index.tracklet_id[index.query])
    assert len(queries) == 4 and len(index.query) == 12  # of two persons and cameras, three frames each
    assert not set(queries) & set(index.tracklet_id[index.gallery])
    rows = np.setdiff1d(np.arange(len(index)), index.train)
    vectors = np.random.default_rng(0).normal(size=(len(rows), 8)).astype(np.float32)
    embedded = Embeddings(rows, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    own = {"items": "tracklet", "same_camera_is_junk": True, "ap_rule": "step"}
    ((name, task),) = protocol_tasks(index, embedded, {"format": "csv", "protocol": own, "tracklets": "mean"})
    assert (name, len(task.query), len(task.gallery), task.rule.ap_rule) == ("tracklet", 4, 4, "step")
    first = embedded.of(index.query[index.tracklet_id[index.query] == queries[0]]).mean(axis=0)
    np.testing.assert_allclose(task.query.embeddings[0], first / np.linalg.norm(first), rtol=1e-5)


def test_protocol_is_the_one_chosen() -> None:
    index = index_photos(Path("root"), photos_of(TRACKS), same_camera_is_junk=False)
    rows = np.setdiff1d(np.arange(len(index)), index.train)
    embedded = Embeddings(rows, np.eye(len(rows), dtype=np.float32))
    for junk in (True, False):
        own = {"items": "image", "same_camera_is_junk": junk, "ap_rule": "trapezoid"}
        ((name, task),) = protocol_tasks(index, embedded, {"format": "folder", "protocol": own, "multi_query": "mean"})
        assert task.rule.same_camera_is_junk is junk and name == "single-query"


ONE_CAMERA = [(p, "1", "1", "train" if p in "ab" else "test") for p in "abcd" for _ in range(3)]


@pytest.mark.parametrize(
    "photos, options, message",
    [
        (photos_of(ONE_CAMERA), {}, "root: 6 photos of 2 known persons to test on, by one camera only: what the query's own camera saw does not count, so that nothing is left to find. To let it count, give the dataset protocol: {same_camera_is_junk: false}; else label the cameras"),
        (photos_of(ONE_CAMERA, camera=None), {}, "2 known persons to test on, without cameras: what the query's own"),
        (photos_of([(p, {"a": "1", "b": "1", "c": "1", "d": "2"}[p], "1", s) for p, _, _, s in ONE_CAMERA]), {}, "and no person by two cameras: what"),
        (photos_of([*ONE_CAMERA[:6], ("c", "1", "1", "query"), ("d", "1", "1", "gallery")]), {"same_camera_is_junk": False}, "no query has a photo of its person in the gallery; give two photos of a person, or lower read.train"),
        (photos_of([row for row in ONE_CAMERA if row[0] != "a"]), {}, "root: 3 photos of 1 persons to train on; at least two persons are needed, one of them with two photos: give more, or raise read.train"),
        (photos_of([*ONE_CAMERA, ("c", "2", "1", "query")]), {}, "line 6: split is test, whose queries are chosen here, but other rows are queries already"),
        (photos_of(ONE_CAMERA), {"unknown": ["a"]}, "line 0: 'a' is in read.unknown, so it has no identity and cannot be in split train; make it gallery or test"),
        (photos_of(ONE_CAMERA, tracklet=None), {"items": "tracklet"}, "root: protocol.items is tracklet, but no tracklets are given; add them, or use image"),
        (photos_of([*TRACKS, ("c", "1", "1", "train")]), {"items": "tracklet"}, "line 48: split is train, but its tracklet began as"),
    ],
)  # fmt: skip
def test_untrainable_or_unscorable_data_is_reported(photos: Photos, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        index_photos(Path("root"), photos, **options)


def test_one_camera_is_scored_when_its_photos_may_count() -> None:
    index = index_photos(Path("root"), photos_of(ONE_CAMERA, camera=None), same_camera_is_junk=False)
    assert count(index)["query"] == 2 and len(unmatched(index, False)) == 0 and len(unmatched(index, True)) == 2


# --- the parameters

FOLDER = {"format": "folder", "source": {"folder": "data/photos"}, "variants": ["default"]}


def dataset(**keys: Any) -> dict[str, Any]:
    return changed({"datasets/photos": FOLDER | keys})


def test_parameters_reach_the_reader_and_the_evaluation() -> None:
    from reid_done_right.plan import plan

    keys = {"read": {"pattern": "{person}_{rest}", "seed": 3}, "protocol": {"same_camera_is_junk": False}}
    jobs = plan(Params.model_validate(dataset(**keys, allow_damaged=["x.jpg"])))
    read = {
        "pattern": "{person}_{rest}",
        "unknown": [],
        "train": 0.5,
        "seed": 3,
        "items": "image",
        "same_camera_is_junk": False,
    }
    assert jobs["dataset"]["photos"].parameters["read"] == read
    assert jobs["index"]["photos"].parameters == {
        "format": "folder",
        "counts": None,
        "read": read,
        "allow_damaged": ["x.jpg"],
        "numerics": "portable",
    }
    protocol = {"items": "image", "same_camera_is_junk": False, "ap_rule": "trapezoid"}
    assert jobs["evaluate"]["photos-default-draw0"].parameters["protocol"] == protocol
    assert set(jobs["index"]["market-draw0"].parameters) == {"format", "counts", "numerics"}
    assert "protocol" not in jobs["evaluate"]["market-default-draw0"].parameters


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": "csv"}, "format csv needs read: {table: FILE}, a CSV file in source.folder"),
        ({"read": {"table": "people.csv"}}, "read.pattern is for the format folder, read.table for the format csv"),
        ({"format": "csv", "read": {"table": "t.csv", "pattern": "{person}"}}, "read.pattern is for the format folder"),
        ({"source": {"render": {"world": 1, "hardness": 0.5}}}, "source.render: no release of the format folder is rendered; give source.folder"),
        ({"counts": "published"}, "format folder is for photos of your own, which have no published counts; give numbers"),
        ({"format": "market1501", "read": {}}, "read and protocol are for the formats folder and csv; market1501 has its own"),
        ({"format": "mars", "protocol": {}}, "read and protocol are for the formats folder and csv; mars has its own"),
        ({"protocol": {"items": "tracklets"}}, "Input should be 'image' or 'tracklet'"),
        ({"read": {"pattern": "{camera}"}}, "datasets.photos: read.pattern: '{camera}' has no field {person}"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_reported(changes: dict[str, Any], message: str) -> None:
    from reid_done_right.plan import plan

    with pytest.raises(ValueError, match=re.escape(message)):
        plan(Params.model_validate(dataset(**changes)))


def test_distractors_and_tables_of_the_paper_may_be_left_out() -> None:
    from reid_done_right.plan import plan
    from tiny import MISSING

    without = {"distract": MISSING, "report/contact_sheet": MISSING, "report/shown": MISSING} | {
        f"report/table{k}": MISSING for k in range(1, 5)
    }
    jobs = plan(Params.model_validate(changed(without)))
    assert jobs["embed_distractors"] == jobs["distract"] == {}
    tables = jobs["tabulate"]["tables"]
    assert tables.parameters["curves"] == [] and tables.parameters["tables"] == {}
    assert not [name for name in tables.outputs if name.startswith("table")]
    assert jobs["retrieve"] == jobs["illustrate"] == {} and jobs["publish"]["page"].parameters["shown"] == {}
