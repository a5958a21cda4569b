"""The rendered herd: coats that tell individuals and their two sides apart, and a table that the reader of CSV reads."""

import csv
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import ROOT, contents
from pedestrians.animal import Animal, Flank, Marks, Side, Stance, draw_animal, sample_animal
from pedestrians.herd import COLUMNS, photograph, waterhole, write_herd
from reid_done_right.artifacts import Embeddings, Index, InputError, read_json, write_embeddings
from reid_done_right.data.readers import count, table
from reid_done_right.params import load
from reid_done_right.plan import plan
from reid_done_right.stages.dataset import dataset
from reid_done_right.stages.evaluate import evaluate
from reid_done_right.stages.index import index

HERD: dict[str, Any] = {"world": 3, "train_ids": 4, "test_ids": 3, "photos": 6, "hardness": 0.3}
read = partial(table.read, table="metadata.csv", same_camera_is_junk=False)


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("herd") / "release"
    write_herd(root, **HERD, workers=1)
    return root


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_herd_bytes_do_not_depend_on_the_workers(herd: Path, tmp_path: Path) -> None:
    write_herd(tmp_path / "two", **HERD, workers=2)
    assert contents(tmp_path / "two") == contents(herd)


def test_herd_prefix_does_not_depend_on_its_size(herd: Path, tmp_path: Path) -> None:
    write_herd(tmp_path / "more", **HERD | {"test_ids": 4}, workers=1)
    more = contents(tmp_path / "more")
    assert all(more[path] == data for path, data in contents(herd).items() if path != "metadata.csv")


def test_herd_table_describes_each_photo(herd: Path) -> None:
    listed = rows(herd)
    assert tuple(listed[0]) == COLUMNS
    assert [row["image_id"] for row in listed] == [str(number) for number in range(7 * 6)]
    assert {row["path"] for row in listed} == {f"images/{path.name}" for path in (herd / "images").iterdir()}
    assert {np.asarray(cv2.imread(str(herd / row["path"]))).shape for row in listed} == {(64, 96, 3)}
    for name in {row["identity"] for row in listed}:
        own = [row for row in listed if row["identity"] == name]
        assert [row["orientation"] for row in own] == ["left", "right"] * 3
        assert [row["flank"] for row in own] == [f"{name}-{row['orientation']}" for row in own]
        days = [date.fromisoformat(row["date"]) for row in own]
        assert days == sorted(set(days))
        assert {row["split"] for row in own} in ({"train"}, {"query", "gallery"})


@pytest.mark.parametrize(("identity", "persons"), [("identity", 1), ("flank", 2)])
def test_herd_is_read_as_individuals_or_flanks(herd: Path, identity: str, persons: int) -> None:
    photos = read(herd, columns={"person_id": identity}, splits="disjoint")
    found = count(photos)
    assert {name: found[name] for name in ("train", "query", "gallery")} == {"train": 24, "query": 6, "gallery": 12}
    assert (found["train_persons"], found["query_persons"]) == (4 * persons, 3 * persons)
    assert _matches(photos).tolist() == [4 // persons] * 6


def _matches(photos: Index) -> NDArray[np.int64]:
    """Return how many gallery photos each query has."""
    person = photos.person_id
    return np.asarray((person[photos.query][:, None] == person[photos.gallery]).sum(1))


def test_herd_is_read_by_time(herd: Path, tmp_path: Path) -> None:
    listed = rows(herd)
    (tmp_path / "images").symlink_to(herd / "images")
    without = ["path", "identity", "date"]
    text = "\n".join(",".join(row[name] for name in without) for row in listed)
    (tmp_path / "metadata.csv").write_text(f"{','.join(without)}\n{text}\n", encoding="utf-8")
    found = count(read(tmp_path, columns={"person_id": "identity"}, splits="time-aware"))
    assert (found["train"], found["gallery"], found["query"]) == (21, 21, 21)
    with pytest.raises(InputError, match="has a split, but read"):
        read(herd, columns={"person_id": "identity"}, splits="time-aware")


def test_herd_needs_two_photos_of_each_side(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="photos = 3: expected at least 4, two of each side"):
        write_herd(tmp_path, **HERD | {"photos": 3}, workers=1)


def drawn(animal: Animal, side: Side, **pose: Any) -> NDArray[np.int64]:
    """Draw an animal on green, the left side mirrored, so that both face the same way."""
    canvas = np.full((128, 192, 3), (0, 200, 0), np.uint8)
    draw_animal(canvas, animal, Stance(side, **{"phase": 0.5, "head": 0.4, "oblique": 1.0} | pose), 96, 120, 110)
    return (canvas if side == "right" else canvas[:, ::-1]).astype(np.int64)


def animals(number: int) -> list[Animal]:
    return [sample_animal(np.random.default_rng((5, i))) for i in range(number)]


def bare(animal: Animal) -> Animal:
    return replace(animal, flanks={side: Flank((), ()) for side in ("left", "right")})


def test_sides_of_an_animal_differ_in_their_marks_alone() -> None:
    def difference(animal: Animal) -> float:
        return float(np.abs(drawn(animal, "left") - drawn(animal, "right")).mean())

    for animal in animals(8):
        assert difference(animal) > 4 * difference(bare(animal))  # mirrored edges fall between other pixels


def test_marks_cover_a_part_of_the_coat() -> None:
    shares = []
    for animal in animals(20):
        coat = (drawn(animal, "left") != drawn(bare(animal), "left")).any(2).sum()
        body = (drawn(animal, "left") != (0, 200, 0)).any(2).sum()
        shares.append(coat / body)
    assert min(shares) > 0.08 and max(shares) < 0.5


def test_same_flank_is_nearer_than_another_in_any_pose() -> None:
    """On the trunk, which the pose moves little, whatever the colours: the outline of the marks is the identity."""

    def pattern(animal: Animal, side: Side, phase: float, head: float) -> NDArray[np.float64]:
        plain = replace(animal, ground=(255, 255, 255), mark=(0, 0, 0), girth=1.0, leg=1.0)
        return drawn(plain, side, phase=phase, head=head)[45:75, 50:140].mean(2)

    first = [pattern(animal, side, 0.4, 0.1) for animal in animals(8) for side in ("left", "right")]
    second = [pattern(animal, side, 2.5, 0.9) for animal in animals(8) for side in ("left", "right")]
    distances = np.array([[np.abs(one - other).mean() for other in second] for one in first])
    assert (distances.argmin(1) == np.arange(16)).all()
    assert (distances.argmin(0) == np.arange(16)).all()


def test_marks_stay_near_their_panel() -> None:
    """They are clipped by the body; what lies far outside would be an empty coat."""

    def centres(marks: Marks) -> NDArray[np.float64]:
        return np.array([mark.mean(0) for mark in marks])

    for animal in animals(30):
        for flank in animal.flanks.values():
            assert 5 <= len(flank.trunk) < 10 and len(flank.neck) == 2
            assert (np.abs(centres(flank.trunk) - 0.5) < 0.75).all()


def test_photos_differ_more_the_harder_they_are() -> None:
    (animal,) = animals(1)
    spread = {
        hardness: np.std([photograph(animal, "left", waterhole(3, 0, hardness), rng) for rng in chances()], 0).mean()
        for hardness in (0.0, 0.8)
    }
    assert spread[0.8] > 1.2 * spread[0.0]


def chances() -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(12)]


@pytest.mark.parametrize(("name", "mean"), [("herd", (1 + 1 + 3 / 11 + 4 / 12) / 4), ("flanks", 1.0)])
def test_every_photo_of_an_individual_counts(name: str, mean: float, tmp_path: Path) -> None:
    """Of 12 gallery photos, the 2 of a query's flank come first here and the 2 of its other side last; none is junk."""
    jobs = plan(load(ROOT / "experiments/herd/params.yaml"))
    settings = dict(jobs["dataset"][f"{name}-draw2"].parameters)
    settings["source"] = {"render": HERD}
    settings["root"] = str(tmp_path / "images")
    dataset(settings=settings, images=tmp_path / "images", out=tmp_path / "manifest.json")
    listed = jobs["index"][f"{name}-draw2"].parameters
    index(settings=listed, manifest=tmp_path / "manifest.json", out=tmp_path / "index")
    rows = np.setdiff1d(np.arange(42), np.arange(24))
    flank = np.eye(3)[(rows - 24) // 6] * np.where(rows % 2, -1, 1)[:, None]
    write_embeddings(tmp_path / "embedded", Embeddings(rows, flank.astype(np.float32), {}))
    scored = dict(jobs["evaluate"][f"{name}-default-draw2"].parameters)
    scored["k_reciprocal"] = {"k1": 4, "k2": 2, "lambda_value": 0.3}  # for so few photos
    outputs = {"out": tmp_path / "scores.json", "queries": tmp_path / "queries"}
    evaluate(settings=scored, index=tmp_path / "index", embeddings=tmp_path / "embedded", **outputs)
    plain = read_json(tmp_path / "scores.json")["results"][0]
    assert (plain["rerank"], plain["queries"]) == ("none", 6)
    assert plain["mAP_step"] == pytest.approx(mean)
