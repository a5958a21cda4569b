"""A rendered person search release (CUHK-SYSU): whole scenes with several people, and its nested MATLAB annotation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pedestrians.camera import develop, sample_camera, sample_exposure
from pedestrians.identity import Identity, population, sample_identity
from pedestrians.matlab import cell_array, save_mat, struct_array
from pedestrians.pedestrian import draw_pedestrian
from pedestrians.shots import crop_scene, sample_pose
from pedestrians.takes import (
    Progress,
    Release,
    Stream,
    empty_folder,
    person_labels,
    run_jobs,
    silent,
    write_jpeg,
)

_SCENE_HEIGHT = 240
_SLOT_WIDTH = 72  # pixels of scene width per person
_SUPERSAMPLING = 2
_BOX = ("idlocate", "ishard")
_SIGHTING = ("imname", *_BOX)
Box = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass(frozen=True)
class Standing:
    """A person in a scene: feet at (x, ground) and body height in pixels; label 0 for somebody without a label."""

    label: int
    person: Identity
    x: float
    ground: float
    height: float
    box: Box


@dataclass(frozen=True)
class Scene:
    """A photograph with its own camera; people from far to near."""

    number: int
    width: int
    people: tuple[Standing, ...]
    seed: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"s{self.number}.jpg"


def write_person_search(
    root: Path,
    *,
    world: int,
    train_ids: int,
    test_ids: int,
    train_scenes: int,
    test_scenes: int,
    gallery_sizes: Sequence[int] = (50, 100),
    hardness: float,
    workers: int,
    progress: Progress = silent,
) -> None:
    """Render a CUHK-SYSU-like release: every identity in 3 or 4 scenes, among people without a label.

    Each scene has its own camera. The first scene of a test identity holds the query; a gallery of size k lists the
    identity's other scenes, then scenes without it. Raises ValueError if there are too few scenes for that.
    """
    if train_scenes < 4:
        raise ValueError(f"train_scenes = {train_scenes}: expected at least 4, as a person appears in up to 4 scenes")
    if test_scenes <= max([4, *gallery_sizes]):
        raise ValueError(
            f"test_scenes = {test_scenes}: expected more than the largest of the galleries {gallery_sizes}"
        )
    empty_folder(root)
    (root / "Image" / "SSM").mkdir(parents=True)
    (root / "annotation" / "test" / "train_test").mkdir(parents=True)
    people = population((world, Release.PERSON_SEARCH, Stream.PEOPLE), train_ids + test_ids)
    labels = person_labels(world, Release.PERSON_SEARCH, len(people))
    labelled = list(zip(labels, people, strict=True))
    numbers = np.random.default_rng((world, Release.PERSON_SEARCH, Stream.SHOT)).permutation(train_scenes + test_scenes)
    train = _plan_scenes(world, numbers[:train_scenes] + 1, labelled[:train_ids])
    test = _plan_scenes(world, numbers[train_scenes:] + 1, labelled[train_ids:])
    job = partial(_write_scene, root / "Image" / "SSM", hardness)
    run_jobs(job, train + test, workers=workers, progress=progress, desc="person_search")
    _write_annotation(root / "annotation", world, train, test, gallery_sizes)


def _plan_scenes(world: int, numbers: NDArray[np.int64], labelled: list[tuple[int, Identity]]) -> list[Scene]:
    present: list[list[tuple[int, Identity]]] = [[] for _ in numbers]
    for label, person in labelled:
        rng = np.random.default_rng((world, Release.PERSON_SEARCH, Stream.LAYOUT, label))
        for scene in rng.choice(len(numbers), int(rng.integers(3, 5)), replace=False):
            present[scene].append((label, person))
    return [_plan_scene(world, int(number), here) for number, here in zip(numbers, present, strict=True)]


def _plan_scene(world: int, number: int, labelled: list[tuple[int, Identity]]) -> Scene:
    """Add people without a label and give everybody a place; who stands nearer is larger, lower and drawn later."""
    seed = (world, Release.PERSON_SEARCH, Stream.SHOT, number)
    rng = np.random.default_rng(seed)
    people = labelled + [(0, sample_identity(rng)) for _ in range(rng.integers(1, 4))]
    slots = max(4, len(people) + 1)
    width = slots * _SLOT_WIDTH
    places = rng.permutation(slots)[: len(people)]
    standing = [_stand(rng, label, person, slot, width) for (label, person), slot in zip(people, places, strict=True)]
    return Scene(number, width, tuple(sorted(standing, key=lambda one: one.ground)), (*seed, 1))


def _stand(rng: np.random.Generator, label: int, person: Identity, slot: int, width: int) -> Standing:
    stature = rng.uniform(90, 150)
    height = max(80.0, stature * person.build.height)
    x, ground = (slot + rng.uniform(0.25, 0.75)) * _SLOT_WIDTH, 232 - 0.8 * (150 - stature)
    left, right = x - rng.uniform(0.21, 0.25) * height, x + rng.uniform(0.21, 0.25) * height
    top, bottom = ground - rng.uniform(1.01, 1.05) * height, ground + rng.uniform(0.03, 0.06) * height
    x0, y0 = max(0, int(left)), max(0, int(top))
    x1, y1 = min(width, int(right)), min(_SCENE_HEIGHT, int(bottom))
    return Standing(label, person, x, ground, height, (x0, y0, x1 - x0, y1 - y0))


def _write_scene(folder: Path, hardness: float, scene: Scene) -> None:
    rng = np.random.default_rng(scene.seed)
    camera = sample_camera((*scene.seed, Stream.CAMERA), hardness)
    rows, columns = _SUPERSAMPLING * _SCENE_HEIGHT, _SUPERSAMPLING * scene.width
    canvas = crop_scene(camera.scene, rows, columns, zoom=0.85, left=rng.random(), top=1.0)
    for one in scene.people:
        x, top = _SUPERSAMPLING * one.x, _SUPERSAMPLING * (one.ground - one.height)
        draw_pedestrian(canvas, one.person, sample_pose(rng), x, top, _SUPERSAMPLING * one.height)
    image = develop(canvas, camera, sample_exposure(camera, rng), _SCENE_HEIGHT, scene.width, rng)
    write_jpeg(folder / scene.name, image, camera.jpeg_quality)


def _write_annotation(
    annotation: Path, world: int, train: list[Scene], test: list[Scene], gallery_sizes: Sequence[int]
) -> None:
    """Write the .mat files so that `scipy.io.loadmat` gives the nesting of the original."""
    scenes = sorted(train + test, key=lambda scene: scene.number)
    images = [
        (scene.name, len(scene.people), struct_array(_BOX, [_box(one) for one in scene.people])) for scene in scenes
    ]
    save_mat(annotation / "Images.mat", Img=struct_array(("imname", "nAppear", "box"), images))
    save_mat(annotation / "pool.mat", pool=cell_array([scene.name for scene in test]))
    lists = annotation / "test" / "train_test"
    rows = []
    for label, places in sorted(_appearances(train).items()):
        sightings = [(scene.name, *_box(one)) for scene, one in places]
        row = (_person_name(label), len(places), struct_array(_SIGHTING, sightings))
        rows.append(struct_array(("idname", "nAppear", "scene"), [row]))
    save_mat(lists / "Train.mat", Train=cell_array(rows))
    for size in gallery_sizes:
        save_mat(lists / f"TestG{size}.mat", **{f"TestG{size}": _protocol(world, test, size)})


def _protocol(world: int, test: list[Scene], size: int) -> NDArray[Any]:
    """Return one struct {Query, Gallery} per test identity; smaller galleries are prefixes of larger ones."""
    rows = []
    for label, ((query_scene, query), *others) in sorted(_appearances(test).items()):
        rng = np.random.default_rng((world, Release.PERSON_SEARCH, Stream.QUERY, label))
        here = {query_scene.name, *(scene.name for scene, _ in others)}
        elsewhere = [test[i].name for i in rng.permutation(len(test)) if test[i].name not in here]
        nowhere = (np.zeros((1, 0), np.int32), np.zeros((1, 0), np.uint8))
        gallery: list[tuple[Any, ...]] = [(scene.name, *_box(one)) for scene, one in others]
        gallery += [(name, *nowhere) for name in elsewhere]
        probe = (query_scene.name, *_box(query), _person_name(label))
        rows.append((struct_array((*_SIGHTING, "idname"), [probe]), struct_array(_SIGHTING, gallery[:size])))
    return struct_array(("Query", "Gallery"), rows)


def _appearances(scenes: list[Scene]) -> dict[int, list[tuple[Scene, Standing]]]:
    """Return where each labelled person stands."""
    places: dict[int, list[tuple[Scene, Standing]]] = {}
    for scene in scenes:
        for one in scene.people:
            if one.label:
                places.setdefault(one.label, []).append((scene, one))
    return places


def _person_name(label: int) -> str:
    return f"p{label}"


def _box(one: Standing) -> tuple[NDArray[np.int32], int]:
    """idlocate (1, 4) and ishard: people far away count as hard."""
    return np.array([one.box], dtype=np.int32), int(one.height < 100)
