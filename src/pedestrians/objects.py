"""Procedural object classes without people: the classification task that stands in for ImageNet before re-ID training.

A class is 2 to 4 coloured or patterned shapes in a fixed arrangement; its images differ in place, size, proportion,
rotation, background, occlusion and colour cast. Neither the backgrounds nor the random streams are shared with re-ID.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from pedestrians.camera import Camera, Exposure, develop, sample_camera
from pedestrians.drawing import Canvas, Colour, box, clipped, cloth, pick, polygon
from pedestrians.shots import crop_scene
from pedestrians.takes import Progress, Release, Stream, map_jobs, silent

_PLACES = 12
_SUPERSAMPLING = 2
_WEAVES = {"plain": 0.4, "rings": 0.2, "bars": 0.15, "check": 0.15, "dots": 0.1}
_CIRCLE = np.linspace(0, 2 * math.pi, 20, endpoint=False)
_STAR = np.arange(10) * math.pi / 5
_SHAPES: dict[str, NDArray[np.float64]] = {  # corners (n, 2) within about -1 .. 1
    "ellipse": np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], 1),
    "ring": np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], 1),
    "rectangle": np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),
    "bar": np.array([(-1.4, -0.3), (1.4, -0.3), (1.4, 0.3), (-1.4, 0.3)]),
    "triangle": np.array([(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),
    "star": np.stack([np.cos(_STAR), np.sin(_STAR)], 1) * np.where(np.arange(10) % 2, 1.0, 0.45)[:, None],
}


@dataclass(frozen=True, eq=False)
class Part:
    """A shape of an object; place and size in object sizes."""

    corners: NDArray[np.float64]  # (n, 2)
    hollow: bool
    x: float
    y: float
    width: float
    height: float
    angle: float
    colour: Colour
    second: Colour
    weave: str
    repeats: int


def object_images(
    *,
    world: int,
    classes: int,
    per_class: int,
    height: int,
    width: int,
    workers: int,
    progress: Progress = silent,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Render the images (N, height, width, 3) and labels (N,) of `classes` object classes, N = classes * per_class.

    Image k of class c depends on (world, c, k, height, width) alone.
    """
    job = partial(_render_class, world, per_class, height, width)
    groups = list(map_jobs(job, range(classes), workers=workers, progress=progress, desc="objects"))
    images = np.concatenate(groups) if groups else np.zeros((0, height, width, 3), np.uint8)
    return images, np.repeat(np.arange(classes, dtype=np.int64), per_class)


def _render_class(world: int, per_class: int, height: int, width: int, label: int) -> NDArray[np.uint8]:
    parts = _sample_object(np.random.default_rng((world, Release.OBJECTS, Stream.LABEL, label)))
    images = np.empty((per_class, height, width, 3), np.uint8)
    for k in range(per_class):
        rng = np.random.default_rng((world, Release.OBJECTS, Stream.SHOT, label, k))
        images[k] = _render_object(parts, world, height, width, rng)
    return images


def _sample_object(rng: np.random.Generator) -> list[Part]:
    return [_sample_part(rng) for _ in range(rng.integers(2, 5))]


def _sample_part(rng: np.random.Generator) -> Part:
    kind = str(rng.choice([*_SHAPES, "blob"]))
    return Part(
        corners=_sample_blob(rng) if kind == "blob" else _SHAPES[kind],
        hollow=kind == "ring",
        x=rng.uniform(-0.28, 0.28),
        y=rng.uniform(-0.33, 0.33),
        width=rng.uniform(0.12, 0.4),
        height=rng.uniform(0.12, 0.4),
        angle=rng.uniform(0, math.pi),
        colour=clipped(rng.integers(10, 246, 3).astype(np.float64)),
        second=clipped(rng.integers(10, 246, 3).astype(np.float64)),
        weave=pick(rng, _WEAVES),
        repeats=int(rng.integers(3, 8)),
    )


def _sample_blob(rng: np.random.Generator) -> NDArray[np.float64]:
    angles, radii = np.sort(rng.uniform(0, 2 * math.pi, 6)), rng.uniform(0.4, 1, 6)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _render_object(
    parts: list[Part], world: int, height: int, width: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    rows, columns = _SUPERSAMPLING * height, _SUPERSAMPLING * width
    place = _place(world, int(rng.integers(_PLACES)))
    canvas = crop_scene(place.scene, rows, columns, zoom=rng.uniform(0.5, 1), left=rng.random(), top=rng.random())
    _draw_object(canvas, parts, rng)
    if rng.random() < 0.25:
        x, y = rng.uniform(-0.2, 0.8) * columns, rng.uniform(-0.2, 0.8) * rows
        colour = clipped(rng.integers(20, 230, 3).astype(np.float64))
        box(canvas, x, y, x + rng.uniform(0.15, 0.4) * columns, y + rng.uniform(0.15, 0.4) * rows, colour)
    sensor = replace(
        place, gamma=math.exp(rng.normal(0, 0.15)), saturation=rng.uniform(0.6, 1.1), noise=rng.uniform(0, 9)
    )
    gain = np.exp(rng.normal(0, 0.07, 3)) * math.exp(rng.normal(0, 0.15))
    exposure = Exposure(gain=gain, resolution=1.0, blur=0.0, light_x=0.0, light_y=0.0)
    return develop(canvas, sensor, exposure, height, width, rng)


@lru_cache(maxsize=_PLACES)
def _place(world: int, number: int) -> Camera:
    """A background, with a sensor that adds nothing of its own."""
    camera = sample_camera((world, Release.OBJECTS, Stream.CAMERA, number), 0.0)
    return replace(camera, contrast=1.0, vignette=0.0)


def _draw_object(canvas: Canvas, parts: list[Part], rng: np.random.Generator) -> None:
    rows, columns = canvas.shape[:2]
    size, stretch, turn = rows * rng.uniform(0.7, 1.15), rng.uniform(0.7, 1.3), rng.normal(0, 0.15)
    middle = columns * (0.5 + rng.normal(0, 0.06)), rows * (0.5 + rng.normal(0, 0.06))
    for part in parts:
        cos, sin = math.cos(part.angle + turn), math.sin(part.angle + turn)
        sized = part.corners * (part.width * size * stretch, part.height * size)
        centre = np.array((middle[0] + part.x * size * stretch, middle[1] + part.y * size))
        outline = sized @ np.array([(cos, sin), (-sin, cos)]) + centre
        step = max(5.0, 0.36 * size / part.repeats)
        cloth(canvas, outline, part.colour, weave=part.weave, thread=part.second, step=step)
        if part.hollow:
            polygon(canvas, centre + 0.5 * (outline - centre), part.second)
