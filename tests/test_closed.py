"""Tables of others: columns under other names, closed and time-aware splits, as wildlife-datasets writes them."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from photos import fill, write_photos
from reid_done_right.artifacts import Index, InputError, read_index
from reid_done_right.data.readers import READERS, count
from reid_done_right.params.datasets import Dataset
from reid_done_right.stages.dataset import dataset
from reid_done_right.stages.index import index as index_stage

COLUMNS = {"person_id": "identity"}
SEEN = {"a": [1, 1, 2, 3, 4], "b": [7, 8], "c": [5], "unknown": [1, 2]}
"""Individual -> day of each photo."""


def wildlife(
    root: Path, header: str = ",image_id,identity,path,date,bbox", extra: Callable[[str], str] = lambda _: ""
) -> Path:
    """Write the metadata of a few photos as pandas does, with a column of row numbers first."""
    rows = [(name, k, day) for name, days in SEEN.items() for k, day in enumerate(days)]
    fill(root, *(f"images/{name}/{k}.jpg" for name, k, _ in rows))
    lines = [
        f'{row},{row:x},{name},images/{name}/{k}.jpg,2019-05-{day:02} 1{k}:00:00,"[0, 0, 9, 9]"{extra(name)}'
        for row, (name, k, day) in enumerate(rows)
    ]
    (root / "metadata.csv").write_text("\n".join([header, *lines, ""]))
    return root


def read(root: Path, **options: Any) -> Index:
    how = {"table": "metadata.csv", "columns": COLUMNS, "unknown": ["unknown"], "same_camera_is_junk": False}
    return READERS["csv"](root, **how | options)


def rows_of(index: Index, split: str) -> list[str]:
    return [path.removeprefix("images/") for path in index.path[index.rows(split)].tolist()]


def test_closed_split_trains_on_and_searches_part_of_each_individual(tmp_path: Path) -> None:
    index = read(wildlife(tmp_path), splits="closed", train=0.5, seed=4)
    train, query = rows_of(index, "train"), rows_of(index, "query")
    assert [sum(path[0] == name for path in train) for name in "abc"] == [3, 1, 1]
    assert [sum(path[0] == name for path in query) for name in "abcu"] == [2, 1, 0, 0]
    assert rows_of(index, "gallery") == sorted([*train, "unknown/0.jpg", "unknown/1.jpg"])
    assert not set(train) & set(query) and len({*train, *query}) == 8
    assert index.person_id[index.gallery].tolist().count(0) == 2 and not index.camera_id.any()
    assert rows_of(read(tmp_path, splits="closed", seed=4), "query") == query
    assert {tuple(rows_of(read(tmp_path, splits="closed", seed=seed), "query")) for seed in range(9)} != {tuple(query)}


def test_time_aware_split_queries_later_days(tmp_path: Path) -> None:
    index = read(wildlife(tmp_path), splits="time-aware", train=0.5)
    assert rows_of(index, "query") == ["a/3.jpg", "a/4.jpg", "b/1.jpg"]  # a: days 1 1 2 | 3 4
    assert rows_of(index, "train") == ["a/0.jpg", "a/1.jpg", "a/2.jpg", "b/0.jpg", "c/0.jpg"]
    everything = read(tmp_path, splits="time-aware", train=1.0)
    assert rows_of(everything, "query") == ["a/4.jpg", "b/1.jpg"]  # one day is always left to ask for


def test_closed_split_keeps_the_splits_of_the_table(tmp_path: Path) -> None:
    given = iter(["train", "test", "test", "gallery", "train", "train", "test", "train", "gallery", "gallery"])
    root = wildlife(tmp_path, ",image_id,identity,path,date,bbox,split", lambda _: f",{next(given)}")
    index = read(root, splits="closed")
    assert rows_of(index, "train") == ["a/0.jpg", "a/4.jpg", "b/0.jpg", "c/0.jpg"]
    assert rows_of(index, "query") == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    assert set(rows_of(index, "gallery")) - set(rows_of(index, "train")) == {
        "a/3.jpg",
        "unknown/0.jpg",
        "unknown/1.jpg",
    }


def test_disjoint_split_of_individuals_is_the_default(tmp_path: Path) -> None:
    root = wildlife(tmp_path)
    index, same = read(root, train=0.67, seed=0), read(root, train=0.67, seed=0, splits="disjoint")
    assert index.split.tolist() == same.split.tolist()
    assert not set(index.person_id[index.train]) & set(index.person_id[index.query])


@pytest.mark.parametrize(
    ("options", "header", "message"),
    [
        ({"columns": {"person_id": "animal"}}, "", "metadata.csv: no column 'animal', which read.columns gives for person_id; found , image_id"),
        ({"columns": None}, "", "metadata.csv: no column person_id; found , image_id, identity"),
        ({"splits": "time-aware", "columns": {**COLUMNS, "date": "day"}}, "", "no column 'day', which read.columns gives for date"),
        ({"splits": "time-aware"}, ",i,identity,path,when,bbox", "metadata.csv: no column date; found"),
        ({"splits": "time-aware", "columns": {**COLUMNS, "date": "image_id"}}, "", "metadata.csv: line 2: date '0'; write it as 2024-05-31"),
        ({"splits": "disjoint", "columns": {**COLUMNS, "split": "side"}}, ",i,identity,path,d,b,side", "metadata.csv: line 3: 'a' is in split test, but line 2 has it in train; put all of it on one side, or set read.splits to closed"),
        ({"splits": "time-aware", "columns": {**COLUMNS, "split": "side"}}, ",i,identity,path,date,b,side", "line 2: has a split, but read.splits is time-aware"),
        ({"splits": "closed", "columns": {**COLUMNS, "split": "b"}}, ",i,identity,path,d,b", "line 2: split is '[0, 0, 9, 9]', expected one of train, test, query"),
        ({"columns": {**COLUMNS, "camera_id": "i"}}, ",i,identity,path,d,i", "metadata.csv: column i is there twice"),
    ],
)  # fmt: skip
def test_wrong_column_or_split_is_reported_in_one_line(
    tmp_path: Path, options: dict[str, Any], header: str, message: str
) -> None:
    sides = iter(["train", "test"] * 5)
    extra = (lambda _: f",{next(sides)}") if header.endswith("side") else (lambda _: "")
    root = wildlife(tmp_path, header or ",image_id,identity,path,date,bbox", extra)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read(root, **options)
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"format": "folder", "read": {"splits": "closed"}}, "read.columns and read.splits are for the format csv"),
        ({"format": "folder", "read": {"columns": {"path": "file"}}}, "read.columns and read.splits are for the format csv"),
        ({"read": {"table": "t.csv", "columns": {"person": "identity"}}}, "Input should be 'path', 'person_id', "),
        ({"read": {"table": "t.csv", "splits": "open"}}, "Input should be 'disjoint', 'closed' or 'time-aware'"),
        ({"read": {"table": "t.csv", "splits": "closed"}, "protocol": {"items": "tracklet"}}, "read.splits: closed splits single images"),
    ],
)  # fmt: skip
def test_wrong_parameters_of_a_table_are_reported(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Dataset.model_validate({"format": "csv", "source": {"folder": "data/herd"}} | section)


def test_rendered_wildlife_release_is_indexed_by_one_entry(tmp_path: Path) -> None:
    """From images to the index, as an entry of the parameters gives it."""
    root = write_photos(tmp_path / "herd")
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened)
        table.writerow(["", "image_id", "identity", "path", "date"])
        for k, path in enumerate(sorted(root.rglob("*.jpg"))):
            table.writerow([k, k, path.parts[-3], path.relative_to(root).as_posix(), f"202{k % 4}-01-0{k % 9 + 1}"])
    entry = Dataset.model_validate(
        {
            "format": "csv",
            "source": {"folder": str(root)},
            "read": {"table": "metadata.csv", "columns": COLUMNS, "splits": "time-aware", "train": 0.6},
            "protocol": {"same_camera_is_junk": False},
        }
    )
    settings = {"name": "herd", "format": entry.format, "source": {"folder": str(root)}, "read": entry.reading}
    dataset(settings=settings, images=tmp_path / "unused", out=tmp_path / "herd.json")
    index_stage(
        settings=settings | {"counts": {"train_persons": 8}},
        manifest=tmp_path / "herd.json",
        out=tmp_path / "i.parquet",
    )
    found = count(read_index(tmp_path / "i.parquet"))
    assert found["gallery"] == found["train"] and found["query"] > 0 and found["query_persons"] <= 8
