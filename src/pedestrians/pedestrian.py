"""Pedestrians: how an identity is drawn from any side and in any phase of its gait.

Logos, backpacks and bags depend on the side that is seen; limbs away from the camera lie in shade.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pedestrians.drawing import (
    Canvas,
    Colour,
    Point,
    between,
    box,
    cloth,
    dome,
    ellipse,
    limb,
    line,
    polygon,
    shaded,
    shadow,
    soft_box,
)
from pedestrians.identity import Identity


@dataclass(frozen=True)
class Pose:
    """Direction (yaw: 0 faces the camera, pi/2 walks to the right of the image, pi shows the back) and gait phase."""

    yaw: float
    phase: float


@dataclass(frozen=True)
class _Body:
    """A posed identity in pixels. Side +1 is the person's left, -1 the right."""

    person: Identity
    unit: float  # body height
    x: float
    top: float
    across: float  # cos(yaw): how frontal
    along: float  # sin(yaw): how sideways
    phase: float

    @property
    def front(self) -> bool:
        return self.across > 0

    @property
    def facing(self) -> int:
        return 1 if self.along >= 0 else -1

    @property
    def profile(self) -> bool:
        """Seen clearly from the side."""
        return abs(self.along) > 0.45

    @property
    def from_behind(self) -> bool:
        """The back is turned to the camera, more or less."""
        return not self.front and abs(self.along) < 0.8

    @property
    def near(self) -> int:
        return -self.facing

    @property
    def leg(self) -> float:
        return self.person.build.leg * self.unit

    @property
    def hip_y(self) -> float:
        return self.top + self.unit - self.leg

    @property
    def shoulder_y(self) -> float:
        return self.top + 0.165 * self.unit

    @property
    def torso(self) -> float:
        return self.hip_y - self.shoulder_y

    @property
    def hem_y(self) -> float:
        if self.person.top == "coat":
            return self.hip_y + 0.22 * self.leg
        return self.hip_y + (0.02 + self.person.waist.hem) * self.unit

    @property
    def chest(self) -> float:
        """Half the width of the shoulders."""
        return self.person.build.girth * self.unit * (0.118 * abs(self.across) + 0.075 * abs(self.along))

    @property
    def hips(self) -> float:
        """Half the width of the hips."""
        return self.person.build.girth * self.unit * (0.085 * abs(self.across) + 0.068 * abs(self.along))

    @property
    def lean(self) -> float:
        return 0.01 * self.unit * self.along

    def thick(self, share: float) -> float:
        """A limb's radius from its share of the body height."""
        return share * self.person.build.girth * self.unit

    def swing(self, side: int) -> float:
        """Angle of the leg on this side, in radians, positive forwards."""
        return 0.42 * math.sin(self.phase) * side

    def depth(self, side: int) -> float:
        """Brightness of the limbs on this side: the far ones lie in shade."""
        if side == self.near:
            return 1.0
        return 0.82 if self.profile else 0.97


def draw_pedestrian(canvas: Canvas, person: Identity, pose: Pose, x: float, top: float, height: float) -> None:
    """Draw a person with the body's axis at x, the crown at `top` and this body height, all in pixels."""
    across, along = math.cos(pose.yaw), math.sin(pose.yaw)
    body = _Body(person, height, x, top, across, along, pose.phase)
    far, near = -body.near, body.near
    _draw_shadow(canvas, body)
    _draw_arm(canvas, body, far)
    _draw_leg(canvas, body, far)
    if person.bag.kind == "backpack" and body.profile and not body.from_behind:
        _draw_backpack_profile(canvas, body)
    _draw_leg(canvas, body, near)
    if person.bottom.cut in ("skirt", "midi"):
        _draw_skirt(canvas, body)
    _draw_torso(canvas, body)
    _draw_opening(canvas, body)
    _draw_logo(canvas, body)
    if person.waist.belt and person.top != "coat":
        _draw_belt(canvas, body, person.waist.belt)
    if person.bag.kind == "backpack":
        _draw_backpack(canvas, body)
    elif person.bag.kind == "shoulder":
        _draw_shoulder_bag(canvas, body)
    _draw_head(canvas, body)
    _draw_arm(canvas, body, near)


def _draw_shadow(canvas: Canvas, body: _Body) -> None:
    shadow(canvas, body.x, body.top + 1.005 * body.unit, 0.15 * body.unit, 0.028 * body.unit, 0.7)


def _leg_joints(body: _Body, side: int) -> tuple[Point, Point, Point]:
    """Hip, knee and ankle."""
    thigh = body.swing(side)
    shin = thigh - 0.55 * max(0.0, -math.sin(body.phase) * side)
    hip = body.x + side * 0.48 * body.hips * body.across, body.hip_y
    knee = (
        hip[0] + math.sin(thigh) * 0.5 * body.leg * body.along,
        hip[1] + 0.5 * body.leg * (1 - 0.06 * abs(math.sin(thigh))),
    )
    lift = 0.05 * body.leg * max(0.0, -math.sin(thigh)) + 0.03 * body.unit * max(0.0, thigh) * abs(body.across)
    ankle = knee[0] + math.sin(shin) * 0.5 * body.leg * body.along, knee[1] + 0.47 * body.leg - lift
    return hip, knee, ankle


def _draw_leg(canvas: Canvas, body: _Body, side: int) -> None:
    person, light = body.person, body.depth(side)
    joints = _leg_joints(body, side)
    if person.bottom.cut in ("trousers", "leggings"):
        _draw_trouser(canvas, body, side, joints, light)
    else:
        _draw_bare_leg(canvas, body, joints, light)
    if person.bottom.cut == "shorts":
        _draw_shorts(canvas, body, side, joints, light)
    _draw_shoe(canvas, body, joints[2], shaded(person.shoes.colour, light))


def _draw_trouser(canvas: Canvas, body: _Body, side: int, joints: tuple[Point, Point, Point], light: float) -> None:
    hip, knee, ankle = joints
    loose = body.person.bottom.cut == "trousers"
    thigh = body.thick(0.0477 if loose else 0.0405)
    calf = body.thick(0.038 if loose else 0.034)
    hem = body.thick(0.035 if loose else 0.026)
    colour = shaded(body.person.bottom_colour, light)
    _tube(canvas, hip, knee, thigh, calf, colour)
    _tube(canvas, knee, ankle, calf, hem, colour)
    second, weave = shaded(body.person.bottom_print.colour, light), body.person.bottom_print.weave
    if weave == "side":
        out = side * 0.7 * thigh * math.copysign(1, body.across) if abs(body.across) > 0.5 else 0.0
        seam = [(hip[0] + out, hip[1]), (knee[0] + 0.8 * out, knee[1]), (ankle[0] + 0.6 * out, ankle[1])]
        line(canvas, seam, second, 0.018 * body.unit)
    elif weave != "plain":
        for fraction in (0.2, 0.4, 0.6, 0.8):
            _ring(canvas, between(hip, knee, fraction), calf, second, 0.01 * body.unit)
        for fraction in (0.2, 0.5, 0.8):
            _ring(canvas, between(knee, ankle, fraction), hem, second, 0.01 * body.unit)


def _draw_bare_leg(canvas: Canvas, body: _Body, joints: tuple[Point, Point, Point], light: float) -> None:
    hip, knee, ankle = joints
    skin, shoes = shaded(body.person.skin, light), body.person.shoes
    _tube(canvas, hip, knee, body.thick(0.038), body.thick(0.034), skin)
    _tube(canvas, knee, ankle, body.thick(0.034), body.thick(0.0235), skin)
    if shoes.sock_height > 0:
        cuff = between(knee, ankle, 1 - 2 * shoes.sock_height)
        _tube(canvas, cuff, ankle, body.thick(0.030), body.thick(0.027), shaded(shoes.sock_colour, light))


def _draw_shorts(canvas: Canvas, body: _Body, side: int, joints: tuple[Point, Point, Point], light: float) -> None:
    hip, knee, _ = joints
    end = between(hip, knee, min(1.0, 2.1 * body.person.bottom.length))
    _tube(canvas, hip, end, body.thick(0.0525), body.thick(0.0476), shaded(body.person.bottom_colour, light))
    if body.person.bottom_print.weave == "side":
        out = side * body.thick(0.038) * math.copysign(1, body.across) if abs(body.across) > 0.5 else 0.0
        seam = [(hip[0] + out, hip[1]), (end[0] + out, end[1])]
        line(canvas, seam, shaded(body.person.bottom_print.colour, light), 0.018 * body.unit)


def _draw_shoe(canvas: Canvas, body: _Body, ankle: Point, colour: Colour) -> None:
    """A foot pointing where the person walks: long in profile, short from the front."""
    x, y = ankle
    length = 0.05 * body.unit * (0.5 + 0.5 * abs(body.along))
    ahead = 0.5 * length * body.along
    dome(canvas, x + ahead, y + 0.03 * body.unit, 0.85 * length, 0.048 * body.unit, colour)


def _draw_skirt(canvas: Canvas, body: _Body) -> None:
    bottom = body.person.bottom
    length = body.leg * (0.8 * bottom.length if bottom.cut == "skirt" else 0.78)
    stride = abs(math.sin(body.swing(1)) * body.along) * length
    flare = max(body.hips * (1.35 if bottom.cut == "skirt" else 1.5), stride + body.thick(0.03))
    y, waist = body.hip_y, 0.95 * body.hips
    outline = np.array(
        [
            (body.x - waist, y - 0.05 * body.unit),
            (body.x + waist, y - 0.05 * body.unit),
            (body.x + 0.9 * flare, y + 0.5 * length),
            (body.x + flare, y + length),
            (body.x, y + 1.04 * length),
            (body.x - flare, y + length),
            (body.x - 0.9 * flare, y + 0.5 * length),
        ]
    )
    cloth(canvas, outline, body.person.bottom_colour, light=body.along)
    if body.person.bottom_print.weave != "plain":
        trim = 0.96 * flare
        box(
            canvas,
            body.x - trim,
            y + 0.82 * length,
            body.x + trim,
            y + 0.95 * length,
            body.person.bottom_print.colour,
        )


# The torso's half width from the neck (row 0) to the hem (last row) is chest * _CHEST + hips * _HIPS.
_DOWN = np.linspace(0, 1, 17)
_BLEND = _DOWN**2 * (3 - 2 * _DOWN)
_SLOPE = np.interp(_DOWN, [0, 0.03, 0.07, 0.13, 0.22, 1], [0.42, 0.62, 0.86, 0.97, 1.0, 1.0])
_WAISTED = 1 - 0.07 * np.sin(math.pi * _DOWN) ** 2
_CHEST = _SLOPE * _WAISTED * (1 - _BLEND)
_HIPS = _SLOPE * _WAISTED * _BLEND
_STRAIGHT = 1 - _DOWN


def _torso_outline(body: _Body) -> NDArray[np.float64]:
    flare = 1.21 if body.person.top == "coat" else 1.08
    half = body.chest * _CHEST + flare * body.hips * _HIPS
    top = body.shoulder_y - 0.028 * body.unit
    y = top + _DOWN * (body.hem_y - top)
    axis = body.x + body.lean * _STRAIGHT
    hem = [(body.x, body.hem_y + 0.012 * body.unit)]
    return np.concatenate([np.stack([axis + half, y], 1), hem, np.stack([axis - half, y], 1)[::-1]])


def _draw_torso(canvas: Canvas, body: _Body) -> None:
    pattern = body.person.top_print
    outline = _torso_outline(body)
    cloth(
        canvas,
        outline,
        body.person.top_colour,
        weave="plain" if pattern.weave == "raglan" else pattern.weave,
        thread=pattern.colour,
        step=max(4.0, (body.hem_y - body.shoulder_y) / pattern.repeats),
        squeeze=0.5 + 0.5 * abs(body.across),
        light=body.along,
    )


def _draw_opening(canvas: Canvas, body: _Body) -> None:
    """The shirt under an open jacket or coat, or the zip of a hoodie."""
    person = body.person
    if body.across <= 0.25 or person.top not in ("jacket", "coat", "hoodie"):
        return
    x, neck, hem = body.x + 0.45 * body.chest * body.along, body.shoulder_y - 0.015 * body.unit, body.hem_y
    if person.top == "hoodie":
        line(canvas, [(x, neck), (x, hem)], shaded(person.top_colour, 0.6), 0.008 * body.unit)
    else:
        half = 0.36 * body.chest * body.across
        outline = [(x - half, neck), (x + half, neck), (x + 0.7 * half, hem), (x - 0.7 * half, hem)]
        polygon(canvas, outline, person.top_print.colour)


def _draw_logo(canvas: Canvas, body: _Body) -> None:
    logo = body.person.logo
    turned = body.across if body.front else -body.across * logo.on_back
    if body.person.top in ("jacket", "coat") or turned <= 0.3:
        return
    x = body.x + 0.5 * body.chest * body.along * math.copysign(1, body.across)
    y = body.shoulder_y + body.torso * logo.height
    tall = body.chest * logo.size
    wide = tall * turned
    match logo.kind:
        case "disc":
            ellipse(canvas, x, y, wide, tall, logo.colour)
        case "ring":
            ellipse(canvas, x, y, wide, tall, logo.colour)
            ellipse(canvas, x, y, 0.6 * wide, 0.6 * tall, body.person.top_colour)
        case "square":
            box(canvas, x - wide, y - tall, x + wide, y + tall, logo.colour)
        case "triangle":
            polygon(canvas, [(x, y - tall), (x + wide, y + tall), (x - wide, y + tall)], logo.colour)
        case "text":
            for row, end in ((-0.6, 1.2), (0.0, 1.2), (0.6, 0.7)):
                middle = y + row * tall
                box(canvas, x - 1.2 * wide, middle - 0.16 * tall, x + end * wide, middle + 0.12 * tall, logo.colour)
        case "band":
            half = 0.94 * body.chest
            box(canvas, body.x - half, y - 0.35 * tall, body.x + half, y + 0.35 * tall, logo.colour)


def _draw_belt(canvas: Canvas, body: _Body, colour: Colour) -> None:
    half, y = 1.05 * body.hips, body.hem_y
    box(canvas, body.x - half, y - 0.012 * body.unit, body.x + half, y + 0.01 * body.unit, colour)


def _draw_backpack_profile(canvas: Canvas, body: _Body) -> None:
    bag, y = body.person.bag, body.shoulder_y
    size = 0.075 * body.unit * bag.size
    x = body.x - body.facing * (0.85 * body.chest + 0.35 * size)
    soft_box(
        canvas, x - 0.75 * size, y + 0.02 * body.unit, x + 0.75 * size, y + 0.24 * body.unit * bag.size, bag.colour
    )
    box(canvas, x - 0.6 * size, y + 0.13 * body.unit, x + 0.6 * size, y + 0.155 * body.unit, bag.trim)


def _draw_backpack(canvas: Canvas, body: _Body) -> None:
    """The pack itself from behind, its straps from the front."""
    bag, x, y = body.person.bag, body.x, body.shoulder_y
    if body.from_behind:
        x -= 0.5 * body.chest * body.along
        half = 0.78 * body.chest * bag.size
        soft_box(canvas, x - half, y + 0.015 * body.unit, x + half, y + 0.72 * body.torso * bag.size, bag.colour)
        pocket = 0.7 * half
        soft_box(canvas, x - pocket, y + 0.4 * body.torso, x + pocket, y + 0.66 * body.torso * bag.size, bag.trim)
    elif body.across > 0.3:
        for side in (-1, 1):
            strap = [
                (x + side * 0.55 * body.chest, y - 0.01 * body.unit),
                (x + side * 0.6 * body.chest, y + 0.55 * body.torso),
            ]
            line(canvas, strap, bag.colour, 0.022 * body.unit)


def _draw_shoulder_bag(canvas: Canvas, body: _Body) -> None:
    """A strap across the torso, and the bag on the hip unless the body hides it."""
    bag = body.person.bag
    side = bag.side if body.front else -bag.side
    x, y = body.x + side * body.chest * (0.9 * abs(body.across) + 0.15), body.hip_y - 0.01 * body.unit
    strap = [(body.x - side * 0.6 * body.chest * abs(body.across), body.shoulder_y - 0.01 * body.unit), (x, y)]
    line(canvas, strap, bag.colour, 0.018 * body.unit)
    if abs(body.along) < 0.6 or bag.side == body.near:
        size = 0.058 * body.unit * bag.size
        soft_box(canvas, x - size, y - 0.3 * size, x + size, y + 1.3 * size, bag.colour)
        box(canvas, x - 0.9 * size, y + 0.1 * size, x + 0.9 * size, y + 0.4 * size, bag.trim)


def _draw_arm(canvas: Canvas, body: _Body, side: int) -> None:
    person, light = body.person, body.depth(side)
    swing = -0.85 * body.swing(side)
    shoulder = body.x + side * 0.88 * body.chest * body.across + body.lean, body.shoulder_y + 0.022 * body.unit
    elbow = (
        shoulder[0] + math.sin(swing) * 0.16 * body.unit * body.along + side * 0.018 * body.unit * body.across,
        shoulder[1] + 0.165 * body.unit,
    )
    hand = (
        elbow[0] + math.sin(swing + 0.25) * 0.15 * body.unit * body.along,
        elbow[1] + 0.145 * body.unit - 0.03 * body.unit * max(0.0, swing) * abs(body.across),
    )
    skin = shaded(person.skin, 0.94 * light)
    if person.top in ("tee", "tank"):
        _tube(canvas, shoulder, elbow, body.thick(0.0255), body.thick(0.022), skin)
        _tube(canvas, elbow, hand, body.thick(0.022), body.thick(0.018), skin)
        if person.top == "tee":
            cuff = between(shoulder, elbow, 0.65)
            _tube(canvas, shoulder, cuff, body.thick(0.035), body.thick(0.0295), _sleeve_colour(person, light))
    else:
        _draw_long_sleeve(canvas, body, shoulder, elbow, hand, light)
    if person.bag.kind == "hand" and person.bag.side == side:
        _draw_hand_bag(canvas, body, hand, light)


def _draw_long_sleeve(canvas: Canvas, body: _Body, shoulder: Point, elbow: Point, hand: Point, light: float) -> None:
    person = body.person
    loose = 1.0 if person.top == "long" else 1.22
    wrist, radius = body.thick(0.022 * loose), body.thick(0.0253 * loose)
    ellipse(
        canvas, hand[0], hand[1] + 0.02 * body.unit, body.thick(0.019), body.thick(0.024), shaded(person.skin, light)
    )
    colour = _sleeve_colour(person, light)
    _tube(canvas, shoulder, elbow, body.thick(0.031 * loose), radius, colour)
    _tube(canvas, elbow, hand, radius, wrist, colour)
    if person.top_print.weave == "rings":
        for fraction in (0.3, 0.6, 0.9):
            second = shaded(person.top_print.colour, light)
            _ring(canvas, between(shoulder, elbow, fraction), body.thick(0.022), second, 0.012 * body.unit)


def _draw_hand_bag(canvas: Canvas, body: _Body, hand: Point, light: float) -> None:
    bag, (x, y) = body.person.bag, hand
    size, y = 0.055 * body.unit * bag.size, y + 0.03 * body.unit
    line(canvas, [(x - 0.5 * size, y), (x, y - 0.025 * body.unit), (x + 0.5 * size, y)], bag.colour, 0.01 * body.unit)
    soft_box(canvas, x - 0.85 * size, y, x + 0.85 * size, y + 1.3 * size, shaded(bag.colour, light))
    box(canvas, x - 0.8 * size, y + 0.5 * size, x + 0.8 * size, y + 0.75 * size, shaded(bag.trim, light))


def _sleeve_colour(person: Identity, light: float) -> Colour:
    dyed = person.top_print.colour if person.top_print.weave == "raglan" else person.top_colour
    return shaded(dyed, 0.94 * light)


def _draw_head(canvas: Canvas, body: _Body) -> None:
    size = 0.068 * body.unit
    x, y = body.x + 2 * body.lean + 0.012 * body.unit * body.along, body.top + 1.05 * size
    head = body.person.head
    _draw_neck(canvas, body, x, y, size)
    if body.front:
        _draw_hair_behind(canvas, body, x, y, size)
    if head.haircut == "bun":
        ellipse(canvas, x - 0.6 * size * body.along, y - 1.02 * size, 0.5 * size, 0.48 * size, head.hair)
    ellipse(canvas, x, y, 0.86 * size, 1.05 * size, body.person.skin)
    if head.haircut != "bald":
        (_draw_fringe if body.front else _draw_hair_from_behind)(canvas, body, x, y, size)
    if body.across > 0.3:
        _draw_eyes(canvas, body, x, y, size)
    if head.hat != "none":
        _draw_hat(canvas, body, x, y, size)


def _draw_neck(canvas: Canvas, body: _Body, x: float, y: float, size: float) -> None:
    base, half = body.shoulder_y + 0.005 * body.unit, 0.38 * size
    outline = [
        (x - half, y + 0.6 * size),
        (x + half, y + 0.6 * size),
        (body.x + 1.3 * half, base),
        (body.x - 1.3 * half, base),
    ]
    polygon(canvas, outline, shaded(body.person.skin, 0.86))


def _draw_hair_behind(canvas: Canvas, body: _Body, x: float, y: float, size: float) -> None:
    """Long hair seen from the front falls behind the face."""
    fall = {"long": 2.0, "medium": 1.0}.get(body.person.head.haircut)
    if fall:
        soft_box(canvas, x - 0.95 * size, y - 0.6 * size, x + 0.95 * size, y + fall * size, body.person.head.hair)


def _draw_hair_from_behind(canvas: Canvas, body: _Body, x: float, y: float, size: float) -> None:
    head = body.person.head
    down = 0.92 if head.haircut == "short" else 1.04
    ellipse(canvas, x, y + (down - 1.08) * size, 0.9 * size, down * size, head.hair)
    fall = {"long": 2.6, "medium": 1.5}.get(head.haircut)
    if fall:
        soft_box(canvas, x - 0.85 * size, y - 0.3 * size, x + 0.85 * size, y + fall * size, head.hair)


def _draw_fringe(canvas: Canvas, body: _Body, x: float, y: float, size: float) -> None:
    head, facing = body.person.head, body.facing
    back = -0.3 * size * body.along
    dome(canvas, x + back, y - 0.22 * size, 0.93 * size, 0.9 * size, head.hair)
    if abs(body.along) > 0.5:
        edges = sorted((x - facing * 0.88 * size, x - facing * 0.17 * size))
        soft_box(
            canvas,
            edges[0],
            y - 0.5 * size,
            edges[1],
            y + (0.45 if head.haircut == "short" else 1.6) * size,
            head.hair,
        )


def _draw_eyes(canvas: Canvas, body: _Body, x: float, y: float, size: float) -> None:
    for side in (-1, 1):
        eye = x + 0.34 * size * (side * body.across + body.along)
        ellipse(canvas, eye, y + 0.12 * size, 0.1 * size, 0.1 * size, (40, 30, 30))


def _draw_hat(canvas: Canvas, body: _Body, x: float, y: float, size: float) -> None:
    head = body.person.head
    dome(canvas, x, y - 0.27 * size, size, 1.02 * size, head.hat_colour)
    if head.hat == "beanie":
        soft_box(
            canvas, x - 0.99 * size, y - 0.47 * size, x + 0.99 * size, y - 0.18 * size, shaded(head.hat_colour, 0.75)
        )
    elif body.front:
        ellipse(
            canvas,
            x + 0.86 * size * body.along,
            y - 0.28 * size,
            0.77 * size,
            0.18 * size,
            shaded(head.hat_colour, 0.8),
        )


def _tube(canvas: Canvas, start: Point, end: Point, r0: float, r1: float, colour: Colour) -> None:
    """A limb with a lighter core, so that it reads as round."""
    limb(canvas, start, end, r0, r1, shaded(colour, 0.92))
    limb(canvas, start, end, 0.6 * r0, 0.6 * r1, shaded(colour, 1.03))


def _ring(canvas: Canvas, centre: Point, half: float, colour: Colour, width: float) -> None:
    x, y = centre
    line(canvas, [(x - half, y), (x + half, y)], colour, width)
