"""The rendered benchmark: official names and index files, and equal bytes for any number of workers."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import loadmat

from conftest import contents
from pedestrians.camera import Exposure, sample_camera
from pedestrians.contact_sheet import market_contact_sheet
from pedestrians.drawing import cloth, pick
from pedestrians.identity import GROUPS, look_alike, population, sample_identity
from pedestrians.objects import object_images
from pedestrians.pedestrian import Pose, draw_pedestrian
from pedestrians.releases import (
    _duke_queries,
    _market_queries,
    query_silhouettes,
    write_distractors,
    write_dukemtmc,
    write_market1501,
    write_mars,
    write_person_search,
)
from pedestrians.shots import Framing, Odds, Pole, Shot, render, sample_shot, sample_tracklet, silhouette
from pedestrians.takes import Release, write_take

MARKET = {"world": 3, "train_ids": 5, "test_ids": 4, "cameras": 6, "distractors": 7, "junk": 6, "hardness": 0.45}
DUKE = {"world": 3, "train_ids": 4, "test_ids": 4, "cameras": 8, "distractor_ids": 5, "hardness": 0.45}
MARS = {
    "world": 3,
    "train_ids": 3,
    "test_ids": 3,
    "cameras": 4,
    "frames": 4,
    "distractor_tracklets": 3,
    "junk_tracklets": 2,
    "hardness": 0.45,
}
SEARCH = {
    "world": 3,
    "train_ids": 6,
    "test_ids": 5,
    "train_scenes": 8,
    "test_scenes": 12,
    "gallery_sizes": (6, 11),
    "hardness": 0.45,
}
MARKET_NAME = re.compile(r"(-1|\d{4})_c([1-6])s([1-6])_(\d{6})_(\d{2})\.jpg(\.jpg)?")
DUKE_NAME = re.compile(r"(\d{4})_c([1-8])_f(\d{7})\.jpg")
MARS_NAME = re.compile(r"(00-1|\d{4})C([1-6])T(\d{4})F(\d{3})\.jpg")


def release(write: Callable[..., object], **parameters: object) -> Any:
    """Return a fixture that writes a release once for the module, and gives its folder."""

    @pytest.fixture(scope="module")
    def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("synthetic") / "release"
        write(root, **parameters, workers=1)
        return root

    return written


market = release(write_market1501, **MARKET)
duke = release(write_dukemtmc, **DUKE)
mars = release(write_mars, **MARS)
search = release(write_person_search, **SEARCH)


def images(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".jpg")


def read_jpeg(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path)), dtype=np.uint8)


# Market-1501


def test_market_names_sizes_and_folders(market: Path) -> None:
    assert sorted(path.name for path in market.iterdir()) == [
        "bounding_box_test", "bounding_box_train", "gt_bbox", "query", "readme.txt",
    ]  # fmt: skip
    for folder in ("bounding_box_train", "bounding_box_test", "query", "gt_bbox"):
        assert all(MARKET_NAME.fullmatch(name) for name in images(market / folder))
        assert {read_jpeg(path).shape for path in (market / folder).glob("*.jpg")} == {(128, 64, 3)}
    assert (market / "bounding_box_test" / "Thumbs.db").is_file()
    assert any(name.endswith(".jpg.jpg") for name in images(market / "query"))
    assert any(name.endswith(".jpg.jpg") for name in images(market / "bounding_box_test"))


def test_market_counts(market: Path) -> None:
    train, test = images(market / "bounding_box_train"), images(market / "bounding_box_test")
    labels = Counter(name.split("_")[0] for name in test)
    assert labels["0000"] == 7
    assert labels["-1"] == 6
    train_ids, test_ids = {name[:4] for name in train}, set(labels) - {"0000", "-1"}
    assert len(train_ids) == 5
    assert len(test_ids) == 4
    assert not train_ids & test_ids
    assert train_ids | test_ids == {f"{label:04d}" for label in range(1, 10)}
    for names in (train, [name for name in test if name[:4] in test_ids]):
        per_camera = Counter(name[:7] for name in names)
        assert set(per_camera.values()) <= {1, 2, 3}
        assert min(Counter(key[:4] for key in per_camera).values()) >= 2


def test_market_has_one_hand_drawn_query_per_identity_and_camera(market: Path) -> None:
    gallery = {name[:7] for name in images(market / "bounding_box_test")}
    queries = images(market / "query")
    assert len({name[:7] for name in queries}) == len(queries)
    assert {name[:7] for name in queries} == {key for key in gallery if key[:4] not in ("0000", "-1_c")}
    assert all("_00.jpg" in name for name in queries)


def test_market_query_is_in_gt_bbox_but_not_in_the_gallery(market: Path) -> None:
    drawn = contents(market / "gt_bbox")
    gallery = set(contents(market / "bounding_box_test").values())
    for name, data in contents(market / "query").items():
        assert drawn[name.removesuffix(".jpg") if name.endswith(".jpg.jpg") else name] == data
        assert data not in gallery
    pooled = Counter(name[:7] for name in drawn)
    assert set(pooled) == {name[:7] for name in images(market / "query")}
    assert set(pooled.values()) <= {2, 3, 4}


def test_market_bytes_do_not_depend_on_the_workers(market: Path, tmp_path: Path) -> None:
    write_market1501(tmp_path / "two", **MARKET, workers=2)
    assert contents(tmp_path / "two") == contents(market)


def test_another_world_shows_other_people(market: Path, tmp_path: Path) -> None:
    write_market1501(tmp_path / "other", **MARKET | {"world": 4, "train_ids": 0, "distractors": 0}, workers=1)
    other = set(contents(tmp_path / "other" / "query").values())
    assert not other & set(contents(market / "query").values())


# DukeMTMC-reID


def test_duke_names_and_sizes(duke: Path) -> None:
    shapes = set()
    for folder in ("bounding_box_train", "bounding_box_test", "query"):
        assert all(DUKE_NAME.fullmatch(name) for name in images(duke / folder))
        shapes |= {read_jpeg(path).shape[:2] for path in (duke / folder).iterdir()}
    assert {width / height for height, width in shapes} == {0.375, 0.5, 0.625}
    assert {height for height, _ in shapes} == {96, 112, 128, 160}


def test_duke_distractors_are_ordinary_identities_in_one_camera(duke: Path) -> None:
    train, gallery, query = (images(duke / folder) for folder in ("bounding_box_train", "bounding_box_test", "query"))
    queried = {name[:4] for name in query}
    distractors = {name[:4] for name in gallery} - queried
    assert len({name[:4] for name in train}) == len(queried) == 4
    assert len(distractors) == 5
    assert not {name[:4] for name in train} & (queried | distractors)
    for label in distractors:
        assert len({name[5:7] for name in gallery if name[:4] == label}) == 1
    assert not set(query) & set(gallery)
    assert sorted(name[:7] for name in query) == sorted({name[:7] for name in gallery if name[:4] in queried})


def test_duke_is_reproducible(duke: Path, tmp_path: Path) -> None:
    write_dukemtmc(tmp_path / "again", **DUKE, workers=1)
    assert contents(tmp_path / "again") == contents(duke)


# MARS


def mars_info(root: Path, split: str) -> tuple[list[str], NDArray[np.int32]]:
    names = (root / "info" / f"{split}_name.txt").read_bytes().decode().split("\r\n")
    assert names.pop() == ""
    return names, loadmat(root / "info" / f"tracks_{split}_info.mat")[f"track_{split}_info"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_mars_tracklets_cover_the_names(mars: Path, split: str) -> None:
    names, rows = mars_info(mars, split)
    assert rows.dtype == np.int32
    assert rows[0, 0] == 1
    assert (rows[1:, 0] == rows[:-1, 1] + 1).all()
    assert rows[-1, 1] == len(names)
    for first, last, person, camera in rows.tolist():
        frames = [MARS_NAME.fullmatch(name) for name in names[first - 1 : last]]
        label = "00-1" if person == -1 else f"{person:04d}"
        assert len(frames) >= 2
        assert {(f[1], int(f[2])) for f in frames if f} == {(label, camera)}
        assert [int(f[4]) for f in frames if f] == list(range(1, len(frames) + 1))
        assert len({f[3] for f in frames if f}) == 1
    files = sorted(path.name for path in (mars / f"bbox_{split}").rglob("*.jpg"))
    assert files == sorted(names)
    assert all((mars / f"bbox_{split}" / name[:4] / name).is_file() for name in names)


def test_mars_identities(mars: Path) -> None:
    train, test = mars_info(mars, "train")[1][:, 2], mars_info(mars, "test")[1][:, 2]
    assert len(set(train)) == 3
    assert len(set(test[test > 0])) == 3
    assert not set(train) & set(test)
    assert (test == 0).sum() == 3
    assert (test == -1).sum() == 2


def test_mars_queries_are_one_tracklet_per_identity_and_camera(mars: Path) -> None:
    queries = loadmat(mars / "info" / "query_IDX.mat")["query_IDX"]
    rows = mars_info(mars, "test")[1]
    assert queries.dtype == np.uint16
    assert queries.shape == (1, queries.size)
    chosen = rows[queries[0].astype(int) - 1, 2:]
    assert sorted(map(tuple, chosen)) == sorted(set(map(tuple, rows[rows[:, 2] > 0, 2:])))


def test_mars_frames_change_little_at_a_time(mars: Path) -> None:
    names, rows = mars_info(mars, "train")
    starts = set((rows[:, 0] - 1).tolist())
    frames = [read_jpeg(mars / "bbox_train" / name[:4] / name).astype(float) for name in names]
    change = [np.abs(frames[i] - frames[i - 1]).mean() for i in range(1, len(frames))]
    within = [value for i, value in enumerate(change, start=1) if i not in starts]
    between = [value for i, value in enumerate(change, start=1) if i in starts]
    assert np.mean(within) < 0.5 * np.mean(between)


def test_mars_is_reproducible(mars: Path, tmp_path: Path) -> None:
    write_mars(tmp_path / "again", **MARS, workers=1)
    assert contents(tmp_path / "again") == contents(mars)


# CUHK-SYSU: read as the official evaluation code does, by the position of the fields


def scene_boxes(root: Path) -> dict[str, NDArray[np.int32]]:
    boxes = {}
    for name, appear, box in loadmat(root / "annotation" / "Images.mat")["Img"].squeeze():
        boxes[str(name[0])] = np.asarray([b[0] for b in box[0]]).reshape(-1, 4).astype(np.int32)
        assert appear.item() == len(boxes[str(name[0])])
    return boxes


def pool_names(root: Path) -> set[str]:
    return {str(cell[0]) for cell in loadmat(root / "annotation" / "pool.mat")["pool"].squeeze()}


def test_person_search_scenes_and_boxes(search: Path) -> None:
    boxes, pool = scene_boxes(search), pool_names(search)
    assert len(boxes) == 20
    assert len(pool) == 12
    assert pool <= set(boxes)
    for name, here in boxes.items():
        assert re.fullmatch(r"s\d+\.jpg", name)
        height, width = read_jpeg(search / "Image" / "SSM" / name).shape[:2]
        assert (here[:, :2] >= 0).all()
        assert (here[:, 0] + here[:, 2] <= width).all()
        assert (here[:, 1] + here[:, 3] <= height).all()
        assert (here[:, 3] >= 80).all()


def test_person_search_training_identities(search: Path) -> None:
    boxes, pool = scene_boxes(search), pool_names(search)
    train = loadmat(search / "annotation" / "test" / "train_test" / "Train.mat")["Train"]
    assert train.shape == (6, 1)
    labelled = 0
    for item in train.squeeze():
        assert re.fullmatch(r"p\d+", str(item[0, 0][0][0]))
        scenes = item[0, 0][2].squeeze()
        assert 3 <= len(scenes) <= 4
        assert item[0, 0][1].item() == len(scenes)
        assert len({str(name[0]) for name, _, _ in scenes}) == len(scenes)
        for name, box, _ in scenes:
            assert str(name[0]) not in pool
            assert (boxes[str(name[0])] == box.squeeze()).all(axis=1).sum() == 1
            labelled += 1
    assert labelled < sum(len(here) for name, here in boxes.items() if name not in pool)


@pytest.mark.parametrize("size", [6, 11])
def test_person_search_galleries(search: Path, size: int) -> None:
    boxes, pool = scene_boxes(search), pool_names(search)
    name = f"TestG{size}"
    protocol = loadmat(search / "annotation" / "test" / "train_test" / f"{name}.mat")[name].squeeze()
    assert protocol.shape == (5,)
    for i in range(5):
        probe = str(protocol["Query"][i]["imname"][0, 0][0])
        box = protocol["Query"][i][0, 0][1].squeeze()
        gallery = protocol["Gallery"][i].squeeze()
        listed = [str(item[0][0]) for item in gallery]
        present = [item[1][0].size > 0 for item in gallery]
        assert len(set(listed)) == size
        assert set(listed) | {probe} <= pool
        assert probe not in listed
        assert (boxes[probe] == box).all(axis=1).sum() == 1
        assert present == sorted(present, reverse=True)
        assert 2 <= sum(present) <= 3
        for item in gallery[: sum(present)]:
            assert (boxes[str(item[0][0])] == item[1][0]).all(axis=1).sum() == 1


def test_person_search_is_reproducible(search: Path, tmp_path: Path) -> None:
    write_person_search(tmp_path / "again", **SEARCH, workers=1)
    assert contents(tmp_path / "again") == contents(search)


def test_person_search_needs_enough_scenes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test_scenes = 11"):
        write_person_search(tmp_path, **SEARCH | {"test_scenes": 11}, workers=1)


# Market+500K


def test_distractor_does_not_depend_on_its_shard(tmp_path: Path) -> None:
    common = {"world": 3, "hardness": 0.45, "workers": 1}
    write_distractors(tmp_path / "whole", images=6, **common)
    write_distractors(tmp_path / "shard", images=3, first=3, **common)
    whole, shard = contents(tmp_path / "whole"), contents(tmp_path / "shard")
    assert len(whole) == 6
    assert len(set(whole.values())) == 6
    assert sorted(int(name.split("_")[2]) for name in whole) == [1, 2, 3, 4, 5, 6]
    assert shard == {name: data for name, data in whole.items() if int(name.split("_")[2]) > 3}
    assert all(re.fullmatch(r"images/0000_c[1-6]s1_\d{6}_0\d\.jpg", name) for name in whole)


def test_release_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected an empty folder"):
        write_distractors(tmp_path, world=0, images=1, hardness=0.45, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


# Objects, people, drawing


def test_object_images() -> None:
    common = {"world": 2, "per_class": 3, "height": 40, "width": 24, "workers": 1}
    images, labels = object_images(classes=4, **common)
    assert images.shape == (12, 40, 24, 3)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len({image.tobytes() for image in images}) == 12
    np.testing.assert_array_equal(object_images(classes=2, **common)[0], images[:6])


def test_object_images_do_not_depend_on_the_workers() -> None:
    common = {"world": 2, "classes": 3, "per_class": 2, "height": 24, "width": 24}
    np.testing.assert_array_equal(object_images(**common, workers=1)[0], object_images(**common, workers=2)[0])


def test_look_alike_changes_two_to_four_groups() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        base = sample_identity(rng)
        other = look_alike(base, rng)
        assert other.build != base.build
        assert sum(getattr(base, group) != getattr(other, group) for group in GROUPS) <= 4
        assert any(getattr(base, group) != getattr(other, group) for group in GROUPS)


def test_half_of_a_population_are_look_alikes() -> None:
    people = population((1, 2), 200)
    assert people[:50] == population((1, 2), 50)
    twins = 0
    for i, person in enumerate(people):
        shared = [sum(getattr(person, group) == getattr(other, group) for group in GROUPS) for other in people[:i]]
        twins += max(shared, default=0) >= 7
    assert 80 <= twins <= 120


def test_front_and_back_differ() -> None:
    person = sample_identity(np.random.default_rng(1))
    views = np.zeros((2, 100, 60, 3), np.uint8)
    for view, yaw in zip(views, (0.0, np.pi), strict=True):
        draw_pedestrian(view, person, Pose(yaw, 0.0), 30, 5, 90)
    assert (views[0] != views[1]).any(axis=2).sum() > 100


def test_drawing_outside_the_canvas_changes_nothing() -> None:
    canvas = np.full((20, 10, 3), 7, np.uint8)
    draw_pedestrian(canvas, sample_identity(np.random.default_rng(1)), Pose(0.3, 1.0), 500, 500, 90)
    draw_pedestrian(canvas, sample_identity(np.random.default_rng(1)), Pose(0.3, 1.0), -500, -500, 90)
    assert (canvas == 7).all()


def test_cloth_pattern_is_anchored_to_the_garment() -> None:
    square = np.array([(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)])
    whole, cut = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    cloth(whole, square, (200, 0, 0), weave="check", thread=(0, 0, 200), step=6)
    cloth(cut, square - (15, 15), (200, 0, 0), weave="check", thread=(0, 0, 200), step=6)
    np.testing.assert_array_equal(cut[:15, :15], whole[15:30, 15:30])
    with pytest.raises(ValueError, match="tartan"):
        cloth(whole, square, (200, 0, 0), weave="tartan")


def test_pick_follows_the_weights() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(pick(rng, {"a": 3.0, "b": 0.0, "c": 1.0}) for _ in range(4000))
    assert drawn["b"] == 0
    assert 0.7 < drawn["a"] / 4000 < 0.8


def overlap(framing: Framing) -> float:
    """Intersection over union of the box and the one that the person should have had: crown at 5 %, height 90 %."""
    height = framing.height / 0.9
    left, top = framing.x - height / 2, framing.top - 0.05 * height
    across = min(1.0, left + height) - max(0.0, left)
    down = min(1.0, top + height) - max(0.0, top)
    shared = max(0.0, across) * max(0.0, down)
    return shared / (1 + height**2 - shared)


def test_overlap_of_the_box_with_the_person() -> None:
    assert overlap(Framing(0.5, 0.05, 0.9)) == pytest.approx(1.0)
    assert overlap(Framing(1.0, 0.05, 0.9)) == pytest.approx(1 / 3)
    camera, rng = sample_camera((0, 1), 0.45), np.random.default_rng(0)
    person = sample_identity(rng)
    good, junk = (
        [overlap(sample_shot(person, camera, odds, rng).subject.framing) for _ in range(300)]
        for odds in (Odds(0.0, 0.0), Odds(0.0, 0.0, missed=1.0))
    )
    assert np.min(good) > 0.6
    assert np.quantile(junk, 0.05) > 0.15
    assert np.max(junk) < 0.55


def test_tracklet_frames_share_the_exposure() -> None:
    camera = sample_camera((0, 1), 0.45)
    rng = np.random.default_rng(0)
    shots = sample_tracklet(sample_identity(rng), camera, Odds(0.2, 0.18), 5, rng)
    assert len({id(shot.exposure) for shot in shots}) == 1
    assert len({shot.subject.pose for shot in shots}) == 5
    assert np.ptp([shot.crop_left for shot in shots]) < 0.3


# silhouettes

STILL = Exposure(gain=np.ones(3), resolution=1.0, blur=0.0, light_x=0.0, light_y=0.0)
"""Of a sensor that keeps pixels apart."""


def shots(count: int, occluded: float) -> list[tuple[Shot, Shot]]:
    """Return shots by an ideal sensor, and the same without their subjects, who stand far outside."""
    camera, rng = sample_camera((0, 1), 0.0), np.random.default_rng(1)
    found = []
    for _ in range(count):
        shot = replace(sample_shot(sample_identity(rng), camera, Odds(occluded, 0.1), rng), exposure=STILL)
        subject = replace(shot.subject, framing=Framing(9.0, 0.05, 0.9))
        found.append((shot, replace(shot, subject=subject)))
    return found


@pytest.mark.parametrize("occluded", [0.0, 1.0])
def test_silhouette_is_what_changes_without_the_person(occluded: float) -> None:
    camera, height, width = sample_camera((0, 1), 0.0), 128, 64
    for shot, without in shots(12, occluded):
        drawn, empty = (render(each, camera, height, width, np.random.default_rng(0)) for each in (shot, without))
        feet = int((shot.subject.framing.top + 0.96 * shot.subject.framing.height) * height)  # the shadow begins here
        changed = (drawn != empty).any(2)[:feet]
        inside = silhouette(shot, height, width).visible[:feet] > 0
        assert not changed[~inside].any()
        assert changed[inside].mean() > 0.97  # some are dressed in the colour of what is behind


def test_occluded_share_is_that_of_the_body_behind_the_obstacle() -> None:
    for shot, without in shots(4, occluded=0.0):
        alone = silhouette(shot, 128, 64)
        assert alone.occluded == 0
        half = silhouette(replace(shot, obstacle=Pole(0.0, 0.5, (9, 9, 9))), 128, 64)
        assert (half.visible[:, :32] == 0).all() and (half.visible[:, 34:] == alone.visible[:, 34:]).all()
        assert half.occluded == pytest.approx(1 - half.visible.sum() / alone.visible.sum())
        whole = silhouette(replace(shot, obstacle=Pole(0.5, 1.0, (9, 9, 9))), 128, 64)
        assert whole.occluded == 1 and not whole.visible.any()
        nobody = silhouette(without, 128, 64)
        assert nobody.occluded == 1 and not nobody.visible.any()


@pytest.mark.parametrize(
    ("name", "release", "queries", "parameters"),
    [("market", Release.MARKET1501, _market_queries, MARKET), ("duke", Release.DUKEMTMC, _duke_queries, DUKE)],
)
def test_silhouettes_are_of_the_shots_that_were_written(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    name: str,
    release: Release,
    queries: Callable[..., Any],
    parameters: dict[str, Any],
) -> None:
    written = request.getfixturevalue(name) / "query"
    (tmp_path / "query").mkdir()
    takes = list(queries(**{key: value for key, value in parameters.items() if key != "hardness"}))
    for take in takes:
        write_take(tmp_path, 3, release, 0.45, take)
    renamed = {path.replace(".jpg.jpg", ".jpg"): content for path, content in contents(written).items()}
    assert contents(tmp_path / "query") == renamed

    paths = [f"query/{file}" for file in sorted(contents(written))]
    found = list(query_silhouettes(release, paths, **parameters))
    assert [each.visible.shape for each in found] == [read_jpeg(written.parent / path).shape[:2] for path in paths]
    assert all(0.02 < each.visible.mean() < 0.6 for each in found) and len(found) == len(takes)
    with pytest.raises(ValueError, match=r"query/0000_c1\.jpg: not a query of world 3"):
        next(query_silhouettes(release, ["query/0000_c1.jpg"], **parameters))


def test_contact_sheet() -> None:
    sheet = market_contact_sheet(world=1, cameras=2, identities=2, lookalikes=1, hardness=0.45)
    assert sheet.mode == "RGB"
    assert sheet.height > 3 * 128
    again = market_contact_sheet(world=1, cameras=2, identities=2, lookalikes=1, hardness=0.45)
    assert sheet.tobytes() == again.tobytes()
