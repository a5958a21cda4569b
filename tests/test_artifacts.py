"""Artifacts survive a round trip; a damaged, missing or foreign file is a one-line error that names it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_done_right.artifacts import (
    Embeddings,
    Index,
    InputError,
    Weights,
    clear_place,
    read_embeddings,
    read_index,
    read_json,
    read_weights,
    replacing,
    write_embeddings,
    write_index,
    write_log,
    write_text,
    write_weights,
)

SPLITS = ["train", "query", "gallery", "query+gallery", "boxes", "gallery"]


def index(**changes: Any) -> Index:
    whole = Index(
        root=Path("data/market"),
        path=np.array([f"{k}.jpg" for k in range(5)] + ["ä b.jpg"]),
        person_id=np.array([7, 1, -1, 1, 1, 0]),
        camera_id=np.array([1, 2, 3, 1, 2, 0]),
        tracklet_id=np.array([0, 0, 0, 4, 0, 0]),
        split=np.array(SPLITS),
        box=np.arange(24, dtype=np.int32).reshape(6, 4),
    )
    return replace(whole, **changes)


def embeddings() -> Embeddings:
    return Embeddings(np.array([5, 1, 3]), np.eye(3, dtype=np.float32), {"pooling": "max"})


def weights() -> Weights:
    return Weights({"fc.weight": torch.arange(6.0).view(2, 3)}, {"backbone": {"width": 4}, "collapsed": False})


# --- round trips


def test_index_comes_back_whole(tmp_path: Path) -> None:
    written = index()
    write_index(tmp_path / "i.parquet", written)
    read = read_index(tmp_path / "i.parquet")
    assert read.root == written.root
    assert read.gallery_lists is None and read.content is None
    content = np.array([0, 2**64 - 1, 2, 3, 4, 5], np.uint64)
    write_index(tmp_path / "i.parquet", index(content=content))
    np.testing.assert_array_equal(read_index(tmp_path / "i.parquet").content, content)
    for name in ("path", "person_id", "camera_id", "tracklet_id", "split", "box"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype.kind == getattr(written, name).dtype.kind
    assert (read.person_id.dtype, read.box.dtype) == (np.int64, np.int32)


def test_gallery_lists_come_back_in_the_order_of_the_queries(tmp_path: Path) -> None:
    lists = {"50": [np.array([2, 5]), np.array([], np.int64)], "100": [np.array([5, 2, 3]), np.array([3])]}
    write_index(tmp_path / "i.parquet", index(gallery_lists=lists))
    read = read_index(tmp_path / "i.parquet").gallery_lists
    assert read is not None
    assert {size: [row.tolist() for row in rows] for size, rows in read.items()} == {
        "50": [[2, 5], []],
        "100": [[5, 2, 3], [3]],
    }


def test_splits_select_rows() -> None:
    assert index().train.tolist() == [0]
    assert index().query.tolist() == [1, 3]
    assert index().gallery.tolist() == [2, 3, 5]
    assert index().rows("boxes").tolist() == [4]


def test_weights_round_trip_with_metadata(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", weights())
    read = read_weights(tmp_path / "w.safetensors")
    assert read.about == weights().about
    assert list(read.state) == ["fc.weight"]
    assert torch.equal(read.state["fc.weight"], weights().state["fc.weight"])


def test_weights_may_be_views_of_other_tensors(tmp_path: Path) -> None:
    view = torch.arange(12.0).view(3, 4).T  # not contiguous, as in channels-last networks
    write_weights(tmp_path / "w.safetensors", Weights({"conv": view}, weights().about))
    assert torch.equal(read_weights(tmp_path / "w.safetensors").state["conv"], view)


def test_embeddings_come_back_and_are_found_by_row(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "e.safetensors", embeddings())
    read = read_embeddings(tmp_path / "e.safetensors")
    assert read.about == {"pooling": "max"}
    assert read.of(np.array([3, 5, 3, 1])).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_embeddings_may_be_views_of_other_arrays(tmp_path: Path) -> None:
    every_third, transposed = np.arange(9)[1::3], np.arange(9, dtype=np.float32).reshape(3, 3).T
    write_embeddings(tmp_path / "e.safetensors", Embeddings(every_third, transposed))
    read = read_embeddings(tmp_path / "e.safetensors")
    assert read.rows.tolist() == [1, 4, 7]
    assert read.embeddings.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


@pytest.mark.parametrize("row", [0, 2, 6])
def test_row_without_embedding_is_named(row: int) -> None:
    with pytest.raises(InputError, match=f"index row {row} has no embedding; run"):
        embeddings().of(np.array([1, row]))


def test_no_embedding_at_all_is_the_same_mistake() -> None:
    nothing = Embeddings(np.empty(0, np.int64), np.empty((0, 3), np.float32))
    with pytest.raises(InputError, match="index row 4 has no embedding; run"):
        nothing.of(np.array([4]))


def test_log_has_a_row_an_update_of_six_digits(tmp_path: Path) -> None:
    write_log(tmp_path / "l.csv", [{"update": 0, "loss": 1 / 3}, {"update": 1, "loss": 1e-7}])
    assert (tmp_path / "l.csv").read_text() == "update,loss\n0,0.333333\n1,1e-07\n"


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    written: list[list[bytes]] = []
    for _ in range(8):
        write_index(tmp_path / "i.parquet", index())
        write_weights(tmp_path / "w.safetensors", weights())
        write_embeddings(tmp_path / "e.safetensors", embeddings())
        written.append([path.read_bytes() for path in sorted(tmp_path.iterdir())])
    assert all(content == written[0] for content in written)


# --- atomic writing


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_write_makes_its_folder_and_replaces_a_read_only_link(tmp_path: Path) -> None:
    kept, path = tmp_path / "store" / "t.txt", tmp_path / "results" / "t.txt"
    write_text(kept, "kept")
    kept.chmod(0o444)
    path.parent.mkdir()
    os.link(kept, path)
    write_text(path, "new")
    assert (kept.read_text(), path.read_text()) == ("kept", "new")


# --- files that are not what they should be

READERS = {
    "i.parquet": read_index,
    "w.safetensors": read_weights,
    "e.safetensors": read_embeddings,
    "s.json": read_json,
}


def test_place_of_a_file_is_cleared_of_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inside").touch()
    (tmp_path / "to a folder").symlink_to("folder")
    (tmp_path / "file").touch()
    (tmp_path / "to a file").symlink_to("file")
    found = {
        name: clear_place(tmp_path / name) for name in [*sorted(path.name for path in tmp_path.iterdir()), "missing"]
    }
    assert found == {
        "file": "",
        "folder": "a folder; set aside with the ending .damaged",
        "loop": "a link to nowhere; removed",
        "missing": "",
        "nowhere": "a link to nowhere; removed",
        "pipe": "a pipe; removed",
        "to a file": "",
        "to a folder": "a link to nowhere; removed",  # of the folder just set aside
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.damaged", "to a file"]


def test_folder_is_set_aside_over_an_earlier_one(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / "artifact").mkdir()
        (tmp_path / "artifact" / name).touch()
        clear_place(tmp_path / "artifact")
    assert [path.name for path in (tmp_path / "artifact.damaged").iterdir()] == ["second"]


@pytest.mark.parametrize("name", READERS)
def test_missing_file_is_reported_with_remedy(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: no such (file|index); run ") as raised:
        READERS[name](tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [b"", b"\x80garbage", b"PAR1garbagePAR1"])
def test_damaged_file_is_reported_with_remedy(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: (not|damaged) .*; delete it and run"):
        READERS[name](tmp_path / name)


def test_truncated_file_is_a_damaged_one(tmp_path: Path) -> None:
    write_index(tmp_path / "i.parquet", index())
    write_weights(tmp_path / "w.safetensors", weights())
    write_embeddings(tmp_path / "e.safetensors", embeddings())
    for name in ("i.parquet", "w.safetensors", "e.safetensors"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(InputError, match=name):
            READERS[name](tmp_path / name)


def test_json_that_is_not_a_object_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("[1]")
    with pytest.raises(InputError, match=r"s.json: expected a JSON object, found list"):
        read_json(tmp_path / "s.json")


def test_artifact_of_another_kind_is_rejected(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_weights(tmp_path / "w.safetensors", weights())
    write_embeddings(tmp_path / "e.safetensors", embeddings())
    pq.write_table(pa.table({"ap": [0.5]}), tmp_path / "q.parquet")
    with pytest.raises(InputError, match=r"w.safetensors: expected tensors rows \(N,\) and embeddings"):
        read_embeddings(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"e.safetensors: not a network's weights; give those that"):
        read_weights(tmp_path / "e.safetensors")
    with pytest.raises(InputError, match=r"q.parquet: not an index, it lacks camera_id, h, path, .*; give one that"):
        read_index(tmp_path / "q.parquet")


def test_index_of_unequal_columns_or_unknown_splits_is_rejected() -> None:
    with pytest.raises(InputError, match="index of data/market: column camera_id has 5 rows, not 6"):
        index(camera_id=np.zeros(5, np.int64))
    with pytest.raises(InputError, match=r"index of data/market: unknown split test, expected one of train, query"):
        index(split=np.array(["test", *SPLITS[1:]]))


def test_view_of_rows_is_written_as_it_reads(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.int64)[::3]
    write_embeddings(tmp_path / "e", Embeddings(rows, np.eye(2, 3, dtype=np.float32)[:, ::-1]))
    read = read_embeddings(tmp_path / "e")
    assert read.rows.tolist() == [0, 3]
    assert read.embeddings.tolist() == [[0, 0, 1], [0, 1, 0]]
