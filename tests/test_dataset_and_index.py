"""Manifests against a hand-made digest; both stages on rendered, own, changed and wrong folders."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_done_right.artifacts import InputError, read_index, read_json, write_json
from reid_done_right.data.manifest import check_unchanged, file_sizes, make_manifest
from reid_done_right.images.decode import load
from reid_done_right.stages import dataset as stage
from reid_done_right.stages.dataset import dataset
from reid_done_right.stages.index import index

RENDER = {"world": 1, "hardness": 0.45, "train_ids": 2, "test_ids": 2, "cameras": 3, "distractors": 2, "junk": 1}


def market(**source: Any) -> dict[str, Any]:
    return {"name": "market", "format": "market1501", "source": source or {"render": RENDER}}


def folder(root: Path) -> Path:
    for path, content in (("b/x.jpg", b"xx"), ("b/.hidden", b"h"), ("a.jpg", b"a"), ("b/Thumbs.db", b"t")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


# --- manifests


def test_digest_is_that_of_the_sorted_lines(tmp_path: Path) -> None:
    content = {path: hashlib.sha256(text).hexdigest() for path, text in (("a.jpg", b"a"), ("b/x.jpg", b"xx"))}
    lines = f"a.jpg\t1\t{content['a.jpg']}\nb/x.jpg\t2\t{content['b/x.jpg']}\n"
    for threads in (1, 3):
        assert make_manifest("market", "market1501", folder(tmp_path), threads=threads) == {
            "dataset": "market",
            "format": "market1501",
            "root": tmp_path.as_posix(),
            "files": 2,
            "bytes": 3,
            "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        }


def test_chunks_change_nothing_and_are_shown_to_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(5):
        (tmp_path / f"{k}.jpg").write_bytes(bytes(k))
    whole = make_manifest("m", "market1501", tmp_path)
    monkeypatch.setattr("reid_done_right.data.manifest.CHUNK", 2)
    seen: list[list[str]] = []
    assert make_manifest("m", "market1501", tmp_path, progress=lambda chunks: seen.extend(chunks) or chunks) == whole
    assert seen == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"], ["4.jpg"]]


def test_root_below_the_working_directory_is_written_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert make_manifest("m", "market1501", tmp_path / "data")["root"] == "data"
    assert make_manifest("m", "market1501", Path("data"))["root"] == "data"


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(folder(tmp_path / "elsewhere"))
    assert file_sizes(tmp_path / "root") == {"linked/a.jpg": 1, "linked/b/x.jpg": 2}


def test_folder_with_other_files_or_sizes_is_an_error(tmp_path: Path) -> None:
    manifest = make_manifest("m", "market1501", folder(tmp_path / "data"))
    check_unchanged(manifest)
    (tmp_path / "data/.DS_Store").write_bytes(b"ignored")
    check_unchanged(manifest)
    (tmp_path / "data/a.jpg").write_bytes(b"aa")
    with pytest.raises(InputError, match=r"holds 2 files of 4 bytes .* says 2 files of 3 bytes.*`reid dataset` again"):
        check_unchanged(manifest)
    (tmp_path / "data/a.jpg").unlink()
    with pytest.raises(InputError, match="holds 1 files of 2 bytes"):
        check_unchanged(manifest)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(InputError, match="holds 0 files of 0 bytes"):
        check_unchanged(manifest)
    with pytest.raises(InputError, match="no such folder, or no file in it"):
        make_manifest("m", "market1501", tmp_path / "data")


# --- stages


def test_rendered_dataset_is_indexed_and_loaded(tmp_path: Path) -> None:
    dataset(settings=market(), images=tmp_path / "market", out=tmp_path / "market.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["market", "market.json"]
    manifest = read_json(tmp_path / "market.json")
    assert manifest["root"] == (tmp_path / "market").as_posix()
    assert manifest == make_manifest("market", "market1501", tmp_path / "market")

    index(
        settings={"format": "market1501", "counts": None},
        manifest=tmp_path / "market.json",
        out=tmp_path / "index.parquet",
    )
    rows = read_index(tmp_path / "index.parquet")
    gallery = rows.person_id[rows.gallery]
    assert (np.sum(gallery == -1), np.sum(gallery == 0)) == (1, 2)
    assert all(image.shape == (128, 64, 3) for image in load(rows, np.arange(len(rows))))


def test_manifest_names_the_root_that_the_settings_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rendered folder may be written to a passing place and moved to its own afterwards."""
    monkeypatch.chdir(tmp_path)
    settings = {**market(), "root": "results/market"}
    dataset(settings=settings, images=tmp_path / "passing", out=tmp_path / "market.json")
    assert read_json(tmp_path / "market.json")["root"] == "results/market"
    Path("results").mkdir()
    (tmp_path / "passing").rename("results/market")
    index(
        settings={"format": "market1501", "counts": None},
        manifest=tmp_path / "market.json",
        out=tmp_path / "index.parquet",
    )
    assert read_index(tmp_path / "index.parquet").root == Path("results/market")


def test_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    for workers in (1, 2):
        out = tmp_path / f"{workers}.json"
        dataset(settings={**market(), "root": "r"}, images=tmp_path / str(workers), out=out, workers=workers)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_render_that_fails_leaves_the_former_folder_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(root: Path, *, workers: int, progress: object) -> None:
        (root / "half.jpg").touch()
        raise RuntimeError("disk full")

    monkeypatch.setitem(stage.WRITERS, "market1501", fails)
    folder(tmp_path / "market")
    before = file_sizes(tmp_path)
    with pytest.raises(RuntimeError, match="disk full"):
        dataset(settings=market(render={}), images=tmp_path / "market", out=tmp_path / "market.json")
    assert file_sizes(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["market"]


def test_new_render_takes_the_place_of_the_former(tmp_path: Path) -> None:
    folder(tmp_path / "market")
    dataset(settings=market(), images=tmp_path / "market", out=tmp_path / "market.json")
    assert not (tmp_path / "market/a.jpg").exists() and (tmp_path / "market/query").is_dir()


@pytest.mark.parametrize(
    "render, message",
    [({"world": 1}, "missing 6 required|missing a required argument"), ({**RENDER, "cats": 1}, "unexpected .*'cats'")],
)
def test_arguments_that_the_writer_does_not_take_are_named(
    tmp_path: Path, render: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"dataset market: .*({message}).*correct its source.render"):
        dataset(settings=market(render=render), images=tmp_path / "market", out=tmp_path / "market.json")
    assert not list(tmp_path.iterdir())


def test_owned_folder_is_checked_and_left_alone(tmp_path: Path) -> None:
    dataset(settings=market(), images=tmp_path / "owned", out=tmp_path / "rendered.json")
    before = sorted(tmp_path.rglob("*"))
    settings = market(folder=str(tmp_path / "owned"))
    dataset(settings=settings, images=tmp_path / "unused", out=tmp_path / "owned.json")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "owned.json"])
    assert read_json(tmp_path / "owned.json") == read_json(tmp_path / "rendered.json")

    wrong = market(folder=str(tmp_path / "owned" / "query"))
    with pytest.raises(InputError, match=f"query: expected a folder that holds .*; give {tmp_path}/owned instead"):
        dataset(settings=wrong, images=tmp_path / "unused", out=tmp_path / "wrong.json")
    assert not (tmp_path / "wrong.json").exists()


def test_dukemtmc_is_never_downloaded(tmp_path: Path) -> None:
    settings = {"name": "duke", "format": "dukemtmc", "source": {"folder": str(tmp_path / "DukeMTMC-reID")}}
    with pytest.raises(
        InputError, match=r"DukeMTMC-reID: no such folder; .*withdrawn by its owner .* never downloaded"
    ):
        dataset(settings=settings, images=tmp_path / "unused", out=tmp_path / "duke.json")


def test_index_rejects_other_counts_changed_folders_and_foreign_manifests(tmp_path: Path) -> None:
    manifest, out = tmp_path / "market.json", tmp_path / "index.parquet"
    dataset(settings=market(), images=tmp_path / "market", out=manifest)
    with pytest.raises(InputError, match=r"junk 1 \(2 expected\)"):
        index(settings={"format": "market1501", "counts": {"junk": 2}}, manifest=manifest, out=out)
    index(settings={"format": "market1501", "counts": {"junk": 1, "distractors": 2}}, manifest=manifest, out=out)
    out.unlink()

    next((tmp_path / "market/query").glob("*.jpg")).unlink()
    with pytest.raises(InputError, match="its manifest says"):
        index(settings={"format": "market1501", "counts": None}, manifest=manifest, out=out)
    write_json(manifest, {"dataset": "market"})
    with pytest.raises(InputError, match=r"market\.json: not a manifest: format: missing; add it; root: missing"):
        index(settings={"format": "market1501", "counts": None}, manifest=manifest, out=out)
    assert not out.exists()
