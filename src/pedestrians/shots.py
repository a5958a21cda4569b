"""Shots: all that is chance in one image of a person (place, pose, cut of the box, obstacles, exposure), and rendering.

Sampling and drawing are apart, so that a tracklet is one sampled shot whose values move smoothly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pedestrians.camera import Camera, Exposure, develop, sample_exposure
from pedestrians.drawing import Canvas, Colour, box, clipped, shaded, soft_box
from pedestrians.identity import Identity, sample_identity
from pedestrians.pedestrian import Pose, draw_pedestrian

_SUPERSAMPLING = 2
_BYSTANDER = 0.15  # probability that somebody else walks behind the person


@dataclass(frozen=True)
class Odds:
    """Probabilities that a box is occluded, cut badly by the detector, or misses most of the person (junk)."""

    occluded: float
    cut_badly: float
    missed: float = 0.0


class Framing(NamedTuple):
    """Where the person stands in the box: axis as a fraction of the width, crown and body height of the box height."""

    x: float
    top: float
    height: float


@dataclass(frozen=True)
class Figure:
    """A person placed in the box."""

    person: Identity
    pose: Pose
    framing: Framing


@dataclass(frozen=True)
class Pole:
    """An upright obstacle over the whole height; x and width as fractions of the box width."""

    x: float
    width: float
    colour: Colour


@dataclass(frozen=True)
class Barrier:
    """A low obstacle from y downwards; fractions of the box sides."""

    x: float
    y: float
    width: float
    colour: Colour


Obstacle = Pole | Barrier | Figure


@dataclass(frozen=True)
class Shot:
    """One image before it is drawn. The crop of the scene is (left, top) as fractions of the room left, and zoom."""

    subject: Figure
    bystander: Figure | None
    obstacle: Obstacle | None
    crop_left: float
    crop_top: float
    zoom: float
    exposure: Exposure


@dataclass(frozen=True, eq=False)
class Silhouette:
    """Where an image shows its subject: the body, clothes and bags.

    visible   (H, W) float32, the share of each pixel
    occluded  the share of what lies inside the image that an obstacle covers; 1 if nothing does lie there
    """

    visible: NDArray[np.float32]
    occluded: float


def sample_shot(person: Identity, camera: Camera, odds: Odds, rng: np.random.Generator) -> Shot:
    """Draw how this person is caught by this camera."""
    return Shot(
        subject=Figure(person, _sample_pose(camera, rng), _sample_framing(person, odds, rng)),
        bystander=_sample_bystander(rng) if rng.random() < _BYSTANDER else None,
        obstacle=_sample_obstacle(rng) if rng.random() < odds.occluded else None,
        crop_left=rng.random(),
        crop_top=rng.uniform(0.2, 1),
        zoom=rng.uniform(0.5, 0.9),
        exposure=sample_exposure(camera, rng),
    )


def sample_tracklet(person: Identity, camera: Camera, odds: Odds, frames: int, rng: np.random.Generator) -> list[Shot]:
    """Draw consecutive shots of one walk past the camera: pose, background and cut change a little at a time."""
    shots = [sample_shot(person, camera, odds, rng)]
    turn, step, pan = rng.normal(0, 0.05), rng.uniform(0.4, 0.7), rng.normal(0, 0.015)
    while len(shots) < frames:
        shots.append(_next_shot(shots[-1], turn + rng.normal(0, 0.03), step, pan, rng))
    return shots


def render(shot: Shot, camera: Camera, height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a shot as the camera's image (height, width, 3); `rng` is the sensor's noise."""
    rows, columns = _SUPERSAMPLING * height, _SUPERSAMPLING * width
    canvas = crop_scene(camera.scene, rows, columns, zoom=shot.zoom, left=shot.crop_left, top=shot.crop_top)
    if shot.bystander:
        _draw_figure(canvas, shot.bystander)
    _draw_figure(canvas, shot.subject)
    if shot.obstacle:
        _draw_obstacle(canvas, shot.obstacle)
    return develop(canvas, camera, shot.exposure, height, width, rng)


def silhouette(shot: Shot, height: int, width: int) -> Silhouette:
    """Return where `render` draws the subject in an image (height, width), before the sensor blurs it."""
    rows, columns = _SUPERSAMPLING * height, _SUPERSAMPLING * width
    body = _painted(lambda canvas: _draw_figure(canvas, shot.subject), rows, columns)
    visible = body
    if (obstacle := shot.obstacle) is not None:
        visible = body & ~_painted(lambda canvas: _draw_obstacle(canvas, obstacle), rows, columns)
    pixels = visible.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING).mean((1, 3), dtype=np.float32)
    return Silhouette(pixels, float(1 - visible.sum() / max(1, body.sum())))


def _painted(draw: Callable[[Canvas], None], rows: int, columns: int) -> NDArray[np.bool_]:
    """Return the pixels (rows, columns) that a drawing covers.

    They look the same on black and on white. Shadows only darken, so they do not count.
    """
    black, white = (np.full((rows, columns, 3), level, np.uint8) for level in (0, 255))
    draw(black)
    draw(white)
    return np.asarray((black == white).all(2))


def crop_scene(scene: NDArray[np.uint8], rows: int, columns: int, *, zoom: float, left: float, top: float) -> Canvas:
    """Return a canvas (rows, columns, 3) of the scene; left and top are fractions of the room the crop leaves."""
    height, width = min(scene.shape[0], int(rows * zoom)), min(scene.shape[1], int(columns * zoom))
    y, x = int(top * (scene.shape[0] - height)), int(left * (scene.shape[1] - width))
    crop = scene[y : y + height, x : x + width]
    return np.asarray(cv2.resize(crop, (columns, rows), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw any direction and gait phase."""
    return Pose(rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi))


def _sample_pose(camera: Camera, rng: np.random.Generator) -> Pose:
    return Pose(camera.yaw + rng.normal(0, camera.yaw_spread), rng.uniform(0, 2 * math.pi))


def _sample_framing(person: Identity, odds: Odds, rng: np.random.Generator) -> Framing:
    height = min(1.02, max(0.7, rng.normal(0.90, 0.05))) * person.build.height
    framing = Framing(x=0.5 + rng.normal(0, 0.045), top=rng.normal(0.045, 0.02), height=height)
    chance = rng.random()
    if chance < odds.missed:
        return _miss(framing, rng)
    if chance < odds.missed + odds.cut_badly:
        return _cut_badly(framing, rng)
    return framing


def _cut_badly(framing: Framing, rng: np.random.Generator) -> Framing:
    """A detector's mistake: too tight, too wide, or beside the person."""
    x, top, height = framing
    kind = rng.random()
    if kind < 0.4:
        return Framing(x, top - rng.uniform(0, 0.05), height * rng.uniform(1.15, 1.5))
    if kind < 0.7:
        return Framing(x, top + rng.uniform(0, 0.2), height * rng.uniform(0.65, 0.85))
    return Framing(x + _sign(rng) * rng.uniform(0.12, 0.28), top + rng.uniform(-0.15, 0.05), height)


def _miss(framing: Framing, rng: np.random.Generator) -> Framing:
    """A box that overlaps the person's own box by 20 % to 50 % only: a part of the body, or a person in the corner."""
    x, top, height = framing
    kind = rng.random()
    if kind < 0.4:
        return Framing(x + rng.uniform(-0.2, 0.2), top - rng.uniform(0, 0.9), height * rng.uniform(1.5, 2.0))
    if kind < 0.7:
        return Framing(x + _sign(rng) * rng.uniform(0.35, 0.55), top + rng.uniform(-0.2, 0.2), height)
    return Framing(x + _sign(rng) * rng.uniform(0.1, 0.2), top + rng.uniform(0, 0.35), height * rng.uniform(0.45, 0.6))


def _sample_bystander(rng: np.random.Generator) -> Figure:
    framing = Framing(0.5 + _sign(rng) * rng.uniform(0.3, 0.55), rng.uniform(0.05, 0.3), rng.uniform(0.5, 0.8))
    return Figure(sample_identity(rng), sample_pose(rng), framing)


def _sample_obstacle(rng: np.random.Generator) -> Obstacle:
    kind, colour = rng.random(), clipped(np.clip(rng.normal(110, 50) + rng.normal(0, 25, 3), 10, 240))
    if kind < 0.3:
        return Pole(rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.12), colour)
    if kind < 0.65:
        return Barrier(rng.uniform(-0.4, 0.5), rng.uniform(0.55, 0.85), rng.uniform(0.5, 1.1), colour)
    framing = Framing(0.5 + _sign(rng) * rng.uniform(0.35, 0.6), rng.uniform(0, 0.2), rng.uniform(0.85, 1.1))
    return Figure(sample_identity(rng), sample_pose(rng), framing)


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _next_shot(shot: Shot, turn: float, step: float, pan: float, rng: np.random.Generator) -> Shot:
    x, top, height = shot.subject.framing
    framing = Framing(x + rng.normal(0, 0.01), top + rng.normal(0, 0.006), height * math.exp(rng.normal(0, 0.01)))
    return replace(
        shot,
        subject=_walk(shot.subject, framing, turn, step),
        bystander=shot.bystander and _pass_by(shot.bystander, 2 * pan, step),
        obstacle=shot.obstacle and _shift(shot.obstacle, 3 * pan, step),
        crop_left=min(1.0, max(0.0, shot.crop_left + pan)),
    )


def _walk(figure: Figure, framing: Framing, turn: float, step: float) -> Figure:
    return replace(figure, pose=Pose(figure.pose.yaw + turn, figure.pose.phase + step), framing=framing)


def _pass_by(figure: Figure, shift: float, step: float) -> Figure:
    return _walk(figure, figure.framing._replace(x=figure.framing.x - shift), 0.0, step)


def _shift(obstacle: Obstacle, shift: float, step: float) -> Obstacle:
    if isinstance(obstacle, Figure):
        return _pass_by(obstacle, shift, step)
    return replace(obstacle, x=obstacle.x - shift)


def _draw_figure(canvas: Canvas, figure: Figure) -> None:
    rows, columns = canvas.shape[:2]
    x, top, height = figure.framing
    draw_pedestrian(canvas, figure.person, figure.pose, x * columns, top * rows, height * rows)


def _draw_obstacle(canvas: Canvas, obstacle: Obstacle) -> None:
    rows, columns = canvas.shape[:2]
    match obstacle:
        case Figure():
            _draw_figure(canvas, obstacle)
        case Pole(x, width, colour):
            box(canvas, (x - width) * columns, 0, (x + width) * columns, rows, colour)
        case Barrier(x, y, width, colour):
            left, right = x * columns, (x + width) * columns
            soft_box(canvas, left, y * rows, right, 1.3 * rows, colour)
            box(canvas, left, (y + 0.06) * rows, right, (y + 0.09) * rows, shaded(colour, 0.7))
