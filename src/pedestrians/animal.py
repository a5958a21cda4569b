"""Animals: four-legged individuals whose coat tells them apart, drawn from either side in any phase of their walk.

The coat of an individual is of one kind and colour, but the marks of its left and its right flank are drawn apart, as
on real leopards and zebras: no mirror image of one side is the other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pedestrians.drawing import Canvas, Colour, Point, ellipse, limb, line, polygon, shaded, shadow

Side = Literal["left", "right"]
Marks = tuple[NDArray[np.float64], ...]
"""Outlines (n, 2) in a panel: x from its hind end (0) to its front end (1), y from its top (0) to its bottom (1)."""

# (ground, marks): pale marks on a dark ground are as good an identity as dark ones on a pale ground.
_COATS: tuple[tuple[Colour, Colour], ...] = (
    ((214, 178, 122), (58, 38, 28)),
    ((232, 226, 212), (34, 32, 34)),
    ((186, 126, 74), (240, 226, 196)),
    ((110, 82, 62), (236, 218, 186)),
    ((168, 160, 150), (52, 46, 46)),
    ((206, 146, 88), (92, 46, 26)),
)
_TRUNK = np.array(  # corners of a smooth outline; x forwards from the middle, y upwards from the ground
    [
        *[(-0.52, 0.66), (-0.44, 0.78), (-0.2, 0.80), (0.1, 0.77), (0.34, 0.80), (0.5, 0.74), (0.55, 0.6)],
        *[(0.45, 0.42), (0.2, 0.37), (-0.1, 0.38), (-0.32, 0.43), (-0.48, 0.45)],
    ]
)
_FLANK = (-0.52, 0.8, 0.55, 0.37)  # hind end, top, front end, bottom
_NECK = (0.4, 0.66)
_WHITE = (255, 255, 255)
_TURN = np.linspace(0, 2 * math.pi, 12, endpoint=False)


@dataclass(frozen=True, eq=False)
class Flank:
    """The marks of one side."""

    trunk: Marks
    neck: Marks


@dataclass(frozen=True, eq=False)
class Animal:
    """All that stays with an individual. Lengths are shares of the average; horns are 0 if there are none."""

    ground: Colour
    mark: Colour
    leg: float
    girth: float
    horns: float
    flanks: dict[Side, Flank]


@dataclass(frozen=True)
class Stance:
    """How an animal stands: side that is seen, gait phase, head from 0 (grazing) to 1 (alert), oblique view in (0, 1].

    `oblique` is the length that the view leaves of the body: 1 from right beside it.
    """

    side: Side
    phase: float
    head: float
    oblique: float


def sample_animal(rng: np.random.Generator) -> Animal:
    """Draw an individual; of their marks, its sides share kind, colours, number and size, and nothing else."""
    ground, mark = _COATS[rng.integers(len(_COATS))]
    draw = _sample_stripes if rng.random() < 0.5 else _sample_spots
    count, size = int(rng.integers(5, 10)), rng.uniform(0.8, 1.25)
    return Animal(
        ground=_vary(rng, ground, 14),
        mark=_vary(rng, mark, 12),
        leg=rng.uniform(0.92, 1.08),
        girth=rng.uniform(0.92, 1.08),
        horns=rng.uniform(0.6, 1.3) if rng.random() < 0.4 else 0.0,
        flanks={side: Flank(draw(rng, count, size), draw(rng, 2, size)) for side in ("left", "right")},
    )


def _sample_spots(rng: np.random.Generator, count: int, size: float) -> Marks:
    """Draw blobs; each keeps away from those before it as far as 12 tries find a place."""
    spots: list[NDArray[np.float64]] = []
    centres = np.empty((0, 2))
    for _ in range(count):
        tries = rng.uniform((0.04, 0.08), (0.96, 0.85), (12, 2))
        distance = np.hypot(*((tries[:, None] - centres) * (1.0, 0.45)).T).min(0, initial=1.0)
        centre = tries[distance.argmax()]
        centres = np.vstack([centres, centre])
        radius = size * rng.uniform(0.45, 1.0) * np.exp(rng.normal(0, 0.16, len(_TURN)))
        turned, stretch = rng.uniform(0, math.pi), rng.uniform(0.7, 1.4)
        ring = np.stack([stretch * np.cos(_TURN + turned), np.sin(_TURN + turned) / stretch], 1)
        scale = (0.1, 0.24) if count > 2 else (0.34, 0.5)  # on the trunk, which is long, or on the neck
        spots.append(centre + ring * radius[:, None] * scale)
    return tuple(spots)


def _sample_stripes(rng: np.random.Generator, count: int, size: float) -> Marks:
    """Draw bands from the back downwards; some end early, and some lean over to the next."""
    stripes: list[NDArray[np.float64]] = []
    for left in np.linspace(0, 1, count, endpoint=False):
        down = np.linspace(-0.1, rng.choice([0.45, 0.75, 1.1]), 7)
        x = left + (rng.uniform(0.1, 0.9) + rng.normal(0, 0.5) * down + rng.normal(0, 0.1, 7)) / count
        width = size * rng.uniform(0.12, 0.38) / count * np.linspace(1.1, 0.5, 7)
        stripes.append(np.concatenate([np.stack([x - width, down], 1), np.stack([x + width, down], 1)[::-1]]))
    return tuple(stripes)


def _vary(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = np.clip(rng.normal(0, spread) + rng.normal(colour, spread / 2), 8, 247)
    return int(red), int(green), int(blue)


@dataclass(frozen=True, eq=False)
class _Body:
    """A posed animal in pixels: `unit` is its length from rump to chest, (x, ground) where it stands."""

    animal: Animal
    stance: Stance
    unit: float
    x: float
    ground: float

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn body coordinates (n, 2), x forwards and y upwards, into pixels; legs lengthen what is below 0.4."""
        forward = 1 if self.stance.side == "right" else -1
        y = points[:, 1] + 0.4 * (self.animal.leg - 1) * np.minimum(points[:, 1] / 0.4, 1)
        x = self.x + forward * self.stance.oblique * self.unit * points[:, 0]
        return np.stack([x, self.ground - self.unit * y], 1)

    def point(self, x: float, y: float) -> Point:
        """Turn one point of body coordinates into pixels."""
        (found,) = self.at(np.array([(x, y)]))
        return float(found[0]), float(found[1])


def draw_animal(canvas: Canvas, animal: Animal, stance: Stance, x: float, ground: float, length: float) -> None:
    """Draw an animal with the middle of its body at x, its feet at `ground` and this length of its trunk, in pixels."""
    body = _Body(animal, stance, length, x, ground)
    shadow(canvas, x, ground, 0.62 * stance.oblique * length, 0.06 * length, 0.7)
    for far in (True, False):
        _draw_leg(canvas, body, -0.38, 1 if far else -1, far)
        _draw_leg(canvas, body, 0.38, -1 if far else 1, far)
        if far:
            _draw_tail(canvas, body)
    _draw_coat(canvas, body)
    _draw_head(canvas, body)


def _draw_leg(canvas: Canvas, body: _Body, hip: float, swing: int, far: bool) -> None:
    stride = 0.3 * math.sin(body.stance.phase) * swing
    colour = shaded(body.animal.ground, 0.66 if far else 0.9)
    bend = 0.06 * max(0.0, -math.cos(body.stance.phase) * swing) * (1 if hip > 0 else -1)
    joints = [(hip, 0.5), (hip + 0.45 * stride + bend, 0.24), (hip + 0.8 * stride, 0.03)]
    top, knee, foot = (body.point(*joint) for joint in joints)
    limb(canvas, top, knee, 0.09 * body.unit, 0.05 * body.unit, colour)
    limb(canvas, knee, foot, 0.045 * body.unit, 0.032 * body.unit, colour)
    limb(canvas, foot, foot, 0.036 * body.unit, 0.036 * body.unit, shaded(body.animal.ground, 0.3))


def _draw_tail(canvas: Canvas, body: _Body) -> None:
    root, swish = body.point(-0.5, 0.7), 0.05 * math.cos(body.stance.phase)
    tip = body.point(-0.58 + swish, 0.36)
    limb(canvas, root, tip, 0.03 * body.unit, 0.02 * body.unit, shaded(body.animal.ground, 0.85))
    ellipse(canvas, *tip, 0.035 * body.unit, 0.07 * body.unit, shaded(body.animal.mark, 0.9))


def _head_of(stance: Stance) -> tuple[float, float]:
    """Return where the neck ends, in body coordinates."""
    angle = math.radians(-42 + 92 * stance.head)
    return _NECK[0] + 0.36 * math.cos(angle), _NECK[1] + 0.36 * math.sin(angle)


def _draw_coat(canvas: Canvas, body: _Body) -> None:
    """Paint trunk and neck with their marks, darker towards the belly."""
    animal, flank = body.animal, body.animal.flanks[body.stance.side]
    (x, y), head = _NECK, np.array(_head_of(body.stance))
    along = head - (x, y)
    across = np.array((along[1], -along[0])) * 0.85
    necks = [mark @ np.stack([along, across]) + (x, y) - 0.5 * across for mark in flank.neck]
    ends = body.point(x, y), body.point(*head)
    _clip(canvas, body, necks, lambda on: limb(on, *ends, 0.17 * body.unit, 0.095 * body.unit, _WHITE))
    hind, top, front, bottom = _FLANK
    trunks = [mark * (front - hind, bottom - top) + (hind, top) for mark in flank.trunk]
    outline = _smooth((_TRUNK - (0, 0.6)) * (1, animal.girth) + (0, 0.6))
    _clip(canvas, body, trunks, lambda on: polygon(on, body.at(outline), _WHITE))


def _clip(canvas: Canvas, body: _Body, marks: list[NDArray[np.float64]], draw: Callable[[Canvas], None]) -> None:
    """Fill what `draw` paints white by the coat: its ground, the marks, in body coordinates, and shade."""
    mask, fill = np.zeros_like(canvas), np.empty_like(canvas)
    draw(mask)
    fill[:] = body.animal.ground
    for mark in marks:
        polygon(fill, body.at(mark), body.animal.mark)
    height = (body.ground - np.arange(len(canvas))) / body.unit  # of each row, in body coordinates
    shade = np.interp(height, (0.36, 0.5, 0.7, 0.8), (0.62, 0.9, 1.04, 1.1))
    np.copyto(canvas, np.minimum(fill * shade[:, None, None], 255).astype(np.uint8), where=mask > 0)


def _draw_head(canvas: Canvas, body: _Body) -> None:
    """Draw head, ears, horns and an eye; the face is plain, so that it tells nobody apart."""
    animal, unit = body.animal, body.unit
    x, y = _head_of(body.stance)
    tilt = math.radians(-50 + 30 * body.stance.head)

    def on_head(forward: float, up: float) -> Point:
        cos, sin = math.cos(tilt), math.sin(tilt)
        return body.point(x + forward * cos - up * sin, y + forward * sin + up * cos)

    nape, muzzle = on_head(0.03, 0.0), on_head(0.24, -0.02)
    line(canvas, [on_head(0.02, 0.06), on_head(-0.07, 0.19)], shaded(animal.ground, 0.6), 0.055 * unit)
    limb(canvas, nape, muzzle, 0.1 * unit, 0.055 * unit, shaded(animal.ground, 0.98))
    limb(canvas, muzzle, on_head(0.26, -0.02), 0.052 * unit, 0.045 * unit, shaded(animal.ground, 0.45))
    line(canvas, [on_head(0.05, 0.06), on_head(0.0, 0.2)], shaded(animal.ground, 0.85), 0.06 * unit)
    if animal.horns:
        curve = [
            on_head(0.08, 0.07),
            on_head(0.06, 0.07 + 0.1 * animal.horns),
            on_head(-0.02, 0.07 + 0.2 * animal.horns),
        ]
        line(canvas, curve, (48, 42, 38), 0.035 * unit)
    ellipse(canvas, *on_head(0.1, 0.03), 0.02 * unit, 0.02 * unit, (20, 16, 16))


def _smooth(corners: NDArray[np.float64], steps: int = 6) -> NDArray[np.float64]:
    """Return a closed Catmull-Rom curve through corners (n, 2), `steps` points from each to the next."""
    t = (np.arange(steps) / steps)[:, None, None]
    before, after, beyond = (np.roll(corners, shift, 0) for shift in (1, -1, -2))
    straight = 2 * corners + (after - before) * t
    bend = (2 * before - 5 * corners + 4 * after - beyond) * t**2 + (3 * corners - before - 3 * after + beyond) * t**3
    return np.asarray((straight + bend).transpose(1, 0, 2).reshape(-1, 2) / 2)
