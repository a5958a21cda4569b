"""PRW, MSMT17, CUHK03, VeRi-776, VehicleID: readers on rendered skeletons, published counts, protocols, bad input."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_done_right.artifacts import Embeddings, Index, InputError, read_index, read_json, write_embeddings
from reid_done_right.data.readers import COUNTS, READERS, RELEASES, check_counts, count, msmt17, vehicleid
from reid_done_right.evaluation.rules import RULES, Labels, relevant_and_junk
from reid_done_right.params.datasets import RENDERED, SEEDED, Dataset
from reid_done_right.stages.dataset import dataset
from reid_done_right.stages.evaluate import evaluate
from reid_done_right.stages.index import index as index_stage
from skeletons import LAY_OUT, rendered
from skeletons import msmt17 as lay_out_msmt17
from test_releases import fill


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return rendered(tmp_path_factory.mktemp("people") / "market")


def test_every_format_without_a_renderer_has_a_skeleton() -> None:
    assert set(LAY_OUT) == set(COUNTS) - set(RENDERED) and set(SEEDED) < set(LAY_OUT)
    assert all({"title", "page", "licence", "obtain", "folder", "holds"} <= set(RELEASES[name]) for name in LAY_OUT)


@pytest.mark.parametrize("layout", LAY_OUT)
def test_skeleton_is_read_as_it_was_laid_out(people: Index, tmp_path: Path, layout: str) -> None:
    index = READERS[layout](LAY_OUT[layout](people, tmp_path / layout))
    found, meant = count(index), count(people)
    assert found["train"] == meant["train"] and found["train_persons"] == 4 and found["query_persons"] == 3
    assert all((index.root / path).is_file() for path in index.path)
    assert not set(index.person_id[index.train]) & set(index.person_id[index.query])
    assert index.person_id.min() > 0 or layout == "prw"
    query, gallery = (Labels(index.person_id[rows], index.camera_id[rows]) for rows in (index.query, index.gallery))
    relevant, junk = relevant_and_junk(query, gallery, RULES[layout])
    assert relevant.counts.min() > 0
    if layout in SEEDED:
        assert found["gallery"] == 3 and found["query"] == meant["query"] + meant["gallery"] - 3
        assert set(relevant.counts) == {1} and not index.camera_id.any()
    elif layout == "prw":
        assert found["gallery"] - found["junk"] == meant["gallery"] + meant["query"] and junk.counts.max() == 0
        assert found["gallery_files"] == found["junk"] == 8 and set(index.camera_id) == {1, 2}
    elif layout == "veri776":
        assert found["gallery"] == meant["gallery"] + meant["query"] and junk.counts.min() >= 1
        assert set(index.camera_id) == {10, 11}
    else:
        assert (found["query"], found["gallery"]) == (meant["query"], meant["gallery"])
        assert set(index.camera_id) == {1, 2}


def test_both_versions_of_msmt17_give_the_same_labels(people: Index, tmp_path: Path) -> None:
    one = READERS["msmt17"](lay_out_msmt17(people, tmp_path / "MSMT17_V1"))
    other = READERS["msmt17"](lay_out_msmt17(people, tmp_path / "MSMT17_V2", ("mask_train_v2", "mask_test_v2")))
    for column in ("person_id", "camera_id", "split"):
        assert np.array_equal(getattr(one, column), getattr(other, column))
    assert one.path[-1].startswith("test/") and other.path[-1].startswith("mask_test_v2/")
    assert set(one.person_id[one.train]) == {1, 2, 3, 4} and set(one.person_id[one.query]) == {5, 6, 7}


def test_gallery_of_vehicleid_is_drawn_by_the_seed(people: Index, tmp_path: Path) -> None:
    root = LAY_OUT["vehicleid-800"](people, tmp_path / "cars")
    draws = [READERS["vehicleid-800"](root, seed=seed).split.tolist() for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1] and len({tuple(split) for split in draws}) > 2
    entry = {"format": "vehicleid-800", "source": {"folder": str(root)}}
    assert Dataset.model_validate(entry | {"read": {"seed": 3}}).reading == {"seed": 3}
    assert Dataset.model_validate(entry).reading == {}
    with pytest.raises(ValueError, match=r"vehicleid-800 has its own, and takes read: \{seed: NUMBER\} only"):
        Dataset.model_validate(entry | {"read": {"seed": 3, "train": 0.4}})


@pytest.mark.parametrize("layout", ["prw", "msmt17", "cuhk03-detected", "veri776", "vehicleid-800"])
def test_entry_runs_from_images_to_scores(people: Index, tmp_path: Path, layout: str) -> None:
    """With random embeddings, which the rule of the format scores."""
    root = LAY_OUT[layout](people, tmp_path / layout)
    settings = {"name": "d", "format": layout, "source": {"folder": str(root)}}
    settings |= {"read": {"seed": 1}} if layout in SEEDED else {}
    dataset(settings=settings, images=tmp_path / "unused", out=tmp_path / "d.json")
    index_stage(settings=settings | {"counts": {"query_persons": 3}}, manifest=tmp_path / "d.json", out=tmp_path / "i.parquet")  # fmt: skip
    rows = read_index(tmp_path / "i.parquet")
    random = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    write_embeddings(tmp_path / "e.safetensors", Embeddings(np.arange(len(rows)), random, {}))
    options = {"multi_query": "mean", "tracklets": "mean", "person_search_gallery": 100, "rerank_junk": True}
    reranking = {"qe_dba": {"query_neighbours": 1, "database_neighbours": 1}, "k_reciprocal": {"k1": 2, "k2": 1}}
    evaluate(
        settings={"run": {}, "format": layout, "threads": 1, **options, **reranking},
        index=tmp_path / "i.parquet",
        embeddings=tmp_path / "e.safetensors",
        out=tmp_path / "scores.json",
        queries=tmp_path / "q.parquet",
    )
    first, *others = read_json(tmp_path / "scores.json")["results"]
    assert first["protocol"] == ("gallery-all" if layout == "prw" else "single-query") and 0 < first["mAP"] < 1
    assert [each["rerank"] for each in others] == ([] if layout == "prw" else ["qe-dba", "k-reciprocal"])


# --- published counts


def made_up(files: int, first: int, persons: int, cameras: int) -> list[tuple[int, int]]:
    """Return person and camera of as many files, persons numbered from `first`."""
    return [(first + k % persons, k // persons % cameras + 1) for k in range(files)]


def test_msmt17_has_the_published_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msmt17, "expect_files", lambda root, paths, listed_in: None)
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
    parts = {"train": (30_248, 1041), "val": (2_373, 1041), "query": (11_659, 3060), "gallery": (82_161, 3060)}
    for name, (files, persons) in parts.items():
        rows = enumerate(made_up(files, 0, persons, 15))
        lines = [f"{p:04}/{p:04}_{k:03}_{c:02}_0113noon_{k:04}_0.jpg {p}\n" for k, (p, c) in rows]
        (tmp_path / f"list_{name}.txt").write_text("".join(lines))
    index = READERS["msmt17"](tmp_path)
    check_counts(index, COUNTS["msmt17"])
    assert (
        len(index) == 126_441 and len(np.unique(index.person_id)) == 4_101 and set(index.camera_id) == set(range(1, 16))
    )


@pytest.mark.parametrize(("layout", "half"), [("cuhk03-labelled", "labeled"), ("cuhk03-detected", "detected")])
def test_cuhk03_has_the_published_counts(tmp_path: Path, layout: str, half: str) -> None:
    counts = COUNTS[layout]
    parts = {"bounding_box_train": made_up(counts["train"], 1, 767, 2), "query": made_up(1_400, 768, 700, 2)}
    for folder, rows in (parts | {"bounding_box_test": made_up(counts["gallery"], 768, 700, 2)}).items():
        fill(tmp_path / half / folder, [f"{p:04}_c{c}_{k}.png" for k, (p, c) in enumerate(rows)])
    index = READERS[layout](tmp_path)
    check_counts(index, counts)
    assert len(index) == {"labeled": 14_096, "detected": 14_097}[half] and len(np.unique(index.person_id)) == 1_467


@pytest.mark.slow
def test_veri776_has_the_published_counts(tmp_path: Path) -> None:
    parts = {"image_train": (37_778, 1, 576), "image_query": (1_678, 577, 200), "image_test": (11_579, 577, 200)}
    for folder, (files, first, vehicles) in parts.items():
        rows = enumerate(made_up(files, first, vehicles, 20))
        fill(tmp_path / folder, [f"{p:04}_c{c:03}_{k:08}_0.jpg" for k, (p, c) in rows])
    index = READERS["veri776"](tmp_path)
    check_counts(index, COUNTS["veri776"])
    assert len(np.unique(index.person_id)) == 776 and len(index.train) + len(index.gallery) == 49_357


@pytest.mark.parametrize(("size", "files"), [(800, 6_493), (1600, 13_377), (2400, 19_777)])
def test_vehicleid_has_the_published_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, files: int
) -> None:
    monkeypatch.setattr(vehicleid, "expect_files", lambda root, paths, listed_in: None)
    for folder in ("image", "train_test_split"):
        (tmp_path / folder).mkdir()
    for name, rows in (("train_list", (113_346, 0, 13_164)), (f"test_list_{size}", (files, 13_164, size))):
        lines = [f"{k:07} {p}\n" for k, (p, _) in enumerate(made_up(*rows, 1))]
        (tmp_path / f"train_test_split/{name}.txt").write_text("".join(lines))
    check_counts(READERS[f"vehicleid-{size}"](tmp_path), COUNTS[f"vehicleid-{size}"])


# --- bad input


def broken(root: Path, layout: str, **change: str) -> Path:
    """Change one file of a laid out release: `file` loses `old` for `new`, or is removed if there is no `old`."""
    file = root / change["file"]
    if "old" in change:
        assert change["old"] in file.read_text()
        file.write_text(file.read_text().replace(change["old"], change["new"], 1))
    else:
        file.unlink()
    return root


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("msmt17", {"file": "list_val.txt"}, "list_val.txt: no such file; ask the authors of MSMT17 for it"),
        ("msmt17", {"file": "list_query.txt", "old": ".jpg 0", "new": ".jpg"}, "list_query.txt: line 1, '0000/"),
        ("msmt17", {"file": "list_query.txt", "old": "_01_", "new": "_16_"}, "is not of the form PATH ID (PATH with the camera, 01-15"),
        ("msmt17", {"file": "list_gallery.txt", "old": "morning", "new": "evening"}, "evening_0000_0.jpg: listed in list_gallery.txt but not there, with 1 of"),
        ("vehicleid-800", {"file": "train_test_split/test_list_800.txt"}, "test_list_800.txt: no such file; ask the authors of VehicleID"),
        ("vehicleid-800", {"file": "train_test_split/train_list.txt", "old": "0000000 ", "new": "0000000,"}, "train_list.txt: line 1, '0000000,"),
        ("vehicleid-800", {"file": "image/0000002.jpg"}, "image/0000002.jpg: listed in train_test_split/train_list.txt but not there, with 1 of"),
    ],
)  # fmt: skip
def test_broken_release_is_reported_in_one_line(
    people: Index, tmp_path: Path, layout: str, change: dict[str, str], message: str
) -> None:
    root = broken(LAY_OUT[layout](people, tmp_path / layout), layout, **change)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        READERS[layout](root)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\xff 1\n",
        b"0000/0000_000_01_../../../x.jpg 0\n",
        b"0000001 " + b"9" * 5000,
        b"\0\x1b[2J 1",
        b"1 -1",
    ],
)
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("msmt17", "list_gallery.txt"),
        ("msmt17", "list_train.txt"),
        ("prw", "query_info.txt"),
        ("vehicleid-800", "train_test_split/train_list.txt"),
    ],
)
def test_hostile_list_is_reported_in_one_printable_line(
    people: Index, tmp_path: Path, layout: str, name: str, content: bytes
) -> None:
    root = LAY_OUT[layout](people, tmp_path / layout)
    (root / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        READERS[layout](root)
    assert str(raised.value).startswith(str(root / name)) and str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("layout", "name", "message"),
    [
        ("veri776", "image_train/9_c001_1_0.jpg", "name is not of the form ID_cCCC_"),
        ("veri776", "image_test/0001_c021_00000001_0.jpg", "name is not of the form ID_cCCC_"),
        ("cuhk03-labelled", "labeled/query/0001_c3_1.png", "name is not of the form ID_cC_N.png"),
    ],
)
def test_name_outside_the_grammar_is_reported(
    people: Index, tmp_path: Path, layout: str, name: str, message: str
) -> None:
    root = LAY_OUT[layout](people, tmp_path / layout)
    (root / name).touch()
    with pytest.raises(InputError, match=re.escape(f"{root / name}: {message}")):
        READERS[layout](root)


def test_identity_in_two_splits_is_reported_with_both_images(people: Index, tmp_path: Path) -> None:
    root = LAY_OUT["veri776"](people, tmp_path / "VeRi")
    trained = next((root / "image_train").iterdir())
    (root / "image_test" / trained.name).touch()
    with pytest.raises(InputError, match=rf"image_test/{trained.name}: {int(trained.name[:4])} is to be tested on, but trained on too, as in image_train/.*, with 1 such images in all; ask the authors"):  # fmt: skip
        READERS["veri776"](root)


def test_format_that_is_not_rendered_is_reported() -> None:
    section: dict[str, Any] = {"format": "msmt17", "source": {"render": {"world": 1, "hardness": 0.5}}}
    with pytest.raises(ValueError, match=r"source.render: no release of the format msmt17 is rendered; give source.f"):
        Dataset.model_validate(section)
