"""A herd: a rendered release of individually marked animals, in the form of a `metadata.csv` of wildlife-datasets.

There are no cameras: every photo is of another day, at one of a few waterholes, and shows one side of one animal.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pedestrians.animal import Animal, Side, Stance, draw_animal, sample_animal
from pedestrians.camera import Camera, develop, sample_camera, sample_exposure
from pedestrians.drawing import Canvas, clipped, ellipse, polygon
from pedestrians.shots import crop_scene
from pedestrians.takes import Progress, Stream, empty_folder, run_jobs, silent, write_jpeg

_RELEASE = 8  # seeds of `takes.Release` are below; a member there would re-key all that is rendered
_SUPERSAMPLING = 2
_HEIGHT, _WIDTH = 64, 96
_PLACES = 12
_SCENE = (300, 480)
_FIRST_DAY = date(2020, 1, 1)
_SKIES = np.array([(168, 196, 224), (206, 210, 212), (214, 204, 186), (190, 204, 196)])
_GROUNDS = np.array([(176, 160, 112), (150, 152, 96), (178, 154, 122), (126, 138, 88)])
COLUMNS = ("image_id", "path", "identity", "flank", "date", "orientation", "split")


@dataclass(frozen=True)
class Photo:
    """A row of the table; all else that chance decides in its image follows from the seed."""

    path: str
    individual: int
    day: date
    side: Side
    split: str
    seed: tuple[int, ...]


def write_herd(
    root: Path,
    *,
    world: int,
    train_ids: int,
    test_ids: int,
    photos: int,
    hardness: float,
    workers: int,
    progress: Progress = silent,
) -> None:
    """Render `photos` 96 x 64 images of each individual, left and right by turns, and their `metadata.csv`.

    Of a test individual, the first photo of each side is a query and the others are gallery; the individuals of train
    and test are different ones. Raises ValueError for fewer than four photos, which leave a side nothing to find.
    """
    if photos < 4:
        raise ValueError(f"photos = {photos}: expected at least 4, two of each side")
    empty_folder(root)
    (root / "images").mkdir()
    rows = [row for i in range(train_ids + test_ids) for row in _photos(world, i, photos, test=i >= train_ids)]
    job = partial(_write_photo, root, world, hardness)
    run_jobs(job, rows, workers=workers, progress=progress, desc="herd")
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for number, row in enumerate(rows):
            name = f"animal-{row.individual + 1:04d}"
            table.writerow([number, row.path, name, f"{name}-{row.side}", row.day, row.side, row.split])


def _photos(world: int, individual: int, photos: int, *, test: bool) -> Iterator[Photo]:
    rng = np.random.default_rng((world, _RELEASE, Stream.LAYOUT, individual))
    days = np.sort(rng.choice(1500, photos, replace=False)).tolist()
    sides: tuple[Side, Side] = ("left", "right")
    for k, day in enumerate(days):
        split = ("query" if k < 2 else "gallery") if test else "train"
        path = f"images/{individual + 1:04d}-{k + 1:02d}.jpg"
        seed = (world, _RELEASE, Stream.SHOT, individual, k)
        yield Photo(path, individual, _FIRST_DAY + timedelta(day), sides[k % 2], split, seed)


def _write_photo(root: Path, world: int, hardness: float, photo: Photo) -> None:
    rng = np.random.default_rng(photo.seed)
    place = waterhole(world, int(rng.integers(_PLACES)), hardness)
    image = photograph(member(world, photo.individual), photo.side, place, rng)
    write_jpeg(root / photo.path, image, place.jpeg_quality)


@lru_cache(maxsize=256)
def member(world: int, number: int) -> Animal:
    """Return an animal of the herd, counted from 0."""
    return sample_animal(np.random.default_rng((world, _RELEASE, Stream.PEOPLE, number)))


@lru_cache(maxsize=_PLACES)
def waterhole(world: int, number: int, hardness: float) -> Camera:
    """Return a place and the light and sensor of the photos taken there, counted from 0."""
    seed = (world, _RELEASE, Stream.CAMERA, number)
    scene = _paint_scene(np.random.default_rng((*seed, 1)))
    return replace(sample_camera(seed, hardness), scene=scene, resolution=1.0, jpeg_quality=88)


def photograph(animal: Animal, side: Side, place: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take a photo (64, 96, 3) of an animal from this side; chance decides pose, cut, grass and exposure."""
    rows, columns, hardness = _SUPERSAMPLING * _HEIGHT, _SUPERSAMPLING * _WIDTH, place.hardness
    zoom, left, top = rng.uniform(0.8, 1.4), rng.random(), rng.uniform(0.5, 1)
    canvas = crop_scene(place.scene, rows, columns, zoom=zoom, left=left, top=top)
    oblique = 1 - rng.uniform(0, 0.5) * hardness
    stance = Stance(side, phase=rng.uniform(0, 2 * math.pi), head=rng.random() ** 2, oblique=oblique)
    length = columns * 0.58 * math.exp(rng.normal(0, 0.12 * hardness))
    forward = 1 if side == "right" else -1
    x = columns * (0.5 + rng.normal(0, 0.06 * hardness)) - 0.12 * forward * length
    ground = rows * (0.93 + rng.normal(0, 0.05 * hardness))
    draw_animal(canvas, animal, stance, x, ground, length)
    _grow_grass(canvas, ground, hardness, rng)
    return develop(canvas, place, sample_exposure(place, rng), _HEIGHT, _WIDTH, rng)


def _grow_grass(canvas: Canvas, ground: float, hardness: float, rng: np.random.Generator) -> None:
    """Grow blades before the feet and, in places, higher tufts that hide a part of the flank."""
    rows, columns = canvas.shape[:2]
    colour = _GROUNDS[rng.integers(len(_GROUNDS))] * rng.uniform(0.6, 0.95)
    tufts = [(x, rows * 0.16) for x in rng.uniform(0, columns, 14)]
    tufts += [(x, rows * rng.uniform(0.3, 0.7)) for x in rng.uniform(0, columns, rng.poisson(3 * hardness))]
    for x, height in tufts:
        for _ in range(6):
            foot, lean = x + rng.normal(0, 0.02) * columns, rng.normal(0, 0.25) * height
            tip = (foot + lean, ground - height * rng.uniform(0.5, 1))
            blade = [(foot - 1.5, rows), tip, (foot + 1.5, rows)]
            polygon(canvas, blade, clipped(colour * rng.uniform(0.7, 1.2)))


def _paint_scene(rng: np.random.Generator) -> Canvas:
    """Paint a plain under the sky, with bushes: the background of the photos of one place."""
    height, width = _SCENE
    horizon = int(height * rng.uniform(0.2, 0.4))
    sky, ground = (palette[rng.integers(len(palette))] + rng.normal(0, 8, 3) for palette in (_SKIES, _GROUNDS))
    above = sky * np.linspace(0.9, 1.1, horizon)[:, None]
    below = ground * np.linspace(0.85, 1.1, height - horizon)[:, None]
    uneven = cv2.resize(
        rng.normal(1, 0.04, (10, 16)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    scene = np.clip(np.concatenate([above, below])[:, None] * uneven[..., None], 0, 255).astype(np.uint8)
    for bottom in np.sort(rng.uniform(horizon, height, rng.integers(8, 20))):
        x, size = rng.uniform(0, width), (0.03 + 0.1 * (bottom - horizon) / height) * height
        leaf = np.array((84, 98, 56)) * rng.uniform(0.7, 1.2)
        for _ in range(10):
            at = x + rng.normal(0, size), bottom - abs(rng.normal(0, 0.6 * size))
            rx, ry = rng.uniform(0.2, 0.6, 2) * size
            ellipse(scene, *at, rx, ry, clipped(leaf * rng.uniform(0.8, 1.2)))
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 1.5), dtype=np.uint8)
