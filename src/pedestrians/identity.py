"""Identities: what tells one person from another.

An identity is a handful of attribute groups (clothes, their colours and prints, hair, bag ...). Half of a population
are look-alikes: copies of an earlier identity with 2 to 4 groups resampled, so no single attribute identifies a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from pedestrians.drawing import Colour, pick

# (colour, weight above the waist, weight below): blacks, whites and greys dominate, as in the street.
_DYES: tuple[tuple[Colour, float, float], ...] = (
    ((28, 28, 32), 3.2, 3.5),
    ((30, 32, 36), 2.2, 2.5),
    ((232, 232, 230), 3.0, 0.8),
    ((225, 222, 215), 1.5, 0.6),
    ((120, 122, 126), 1.8, 1.6),
    ((70, 74, 82), 1.5, 1.8),
    ((34, 46, 92), 1.8, 3.0),
    ((50, 92, 160), 1.6, 2.2),
    ((150, 186, 220), 1.2, 1.0),
    ((168, 32, 40), 1.5, 0.4),
    ((214, 84, 120), 1.0, 0.3),
    ((40, 110, 62), 1.0, 0.3),
    ((112, 118, 62), 0.8, 0.9),
    ((226, 190, 60), 0.8, 0.2),
    ((222, 122, 40), 0.7, 0.2),
    ((110, 62, 140), 0.7, 0.2),
    ((112, 74, 46), 0.9, 1.2),
    ((196, 170, 130), 1.1, 1.4),
)
_PALETTE = [colour for colour, _, _ in _DYES]
_UPPER = {colour: weight for colour, weight, _ in _DYES}
_LOWER = {colour: weight for colour, _, weight in _DYES}
_SKIN = [(236, 196, 168), (222, 172, 138), (190, 140, 104), (140, 96, 68), (92, 62, 46)]
_HAIR = [(24, 20, 18), (50, 34, 24), (96, 62, 36), (176, 136, 80), (120, 120, 122), (136, 60, 30)]

_TOPS = {"tee": 0.32, "long": 0.24, "jacket": 0.16, "tank": 0.07, "hoodie": 0.12, "coat": 0.09}
_TOP_WEAVES = {"plain": 0.48, "rings": 0.14, "bars": 0.06, "check": 0.09, "block": 0.09, "raglan": 0.08, "dots": 0.06}
_LOGOS = {"none": 0.42, "disc": 0.11, "square": 0.1, "triangle": 0.08, "text": 0.14, "band": 0.07, "ring": 0.08}
_BOTTOMS = {"trousers": 0.5, "shorts": 0.22, "skirt": 0.1, "leggings": 0.1, "midi": 0.08}
_BOTTOM_WEAVES = {"plain": 0.72, "side": 0.14, "check": 0.08, "rings": 0.06}
_HAIRCUTS = {"short": 0.42, "long": 0.26, "bun": 0.1, "bald": 0.05, "medium": 0.17}
_HATS = {"none": 0.8, "cap": 0.12, "beanie": 0.08}
_BAGS = {"none": 0.4, "backpack": 0.28, "shoulder": 0.2, "hand": 0.12}
_SOCKS = {0.0: 0.5, 0.08: 0.35, 0.2: 0.15}


@dataclass(frozen=True)
class Build:
    """Stature relative to the average person; `leg` is the leg's share of the height."""

    height: float
    girth: float
    leg: float


@dataclass(frozen=True)
class Print:
    """A pattern in a second colour, `repeats` times over the garment."""

    weave: str
    colour: Colour
    repeats: int


@dataclass(frozen=True)
class Logo:
    """A motif on the chest, on some tops on the back as well; size in chest half-widths, height in torsos."""

    kind: str
    colour: Colour
    size: float
    height: float
    on_back: bool


@dataclass(frozen=True)
class Bottom:
    """Trousers, shorts or skirt; `length` in leg lengths where the cut has a choice."""

    cut: str
    length: float


@dataclass(frozen=True)
class Shoes:
    """Shoes and socks; sock height in leg lengths, 0 for none."""

    colour: Colour
    sock_colour: Colour
    sock_height: float


@dataclass(frozen=True)
class Bag:
    """A bag with a trim in a second colour; `side` is +1 for the person's left, -1 for the right."""

    kind: str
    colour: Colour
    trim: Colour
    side: int
    size: float


@dataclass(frozen=True)
class Head:
    """Hair and hat."""

    haircut: str
    hair: Colour
    hat: str
    hat_colour: Colour


@dataclass(frozen=True)
class Waist:
    """How far the top hangs over the hips (in body heights), and the belt's colour where there is a belt."""

    hem: float
    belt: Colour | None


@dataclass(frozen=True)
class Identity:
    """Everything that stays with a person from camera to camera; each field is one attribute group."""

    build: Build
    waist: Waist
    skin: Colour
    head: Head
    top: str
    top_colour: Colour
    top_print: Print
    logo: Logo
    bottom: Bottom
    bottom_colour: Colour
    bottom_print: Print
    shoes: Shoes
    bag: Bag


GROUPS = tuple(field.name for field in fields(Identity) if field.name not in ("build", "waist"))


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a person, every attribute independently."""
    return Identity(
        build=Build(
            height=rng.normal(1.0, 0.05),
            girth=min(1.35, max(0.75, rng.normal(1.0, 0.13))),
            leg=rng.uniform(0.45, 0.50),
        ),
        waist=Waist(hem=rng.uniform(0, 0.05), belt=_dye(rng, _UPPER) if rng.random() < 0.25 else None),
        skin=_tint(rng, _SKIN, 8),
        head=Head(pick(rng, _HAIRCUTS), _tint(rng, _HAIR, 8), pick(rng, _HATS), _dye(rng, _UPPER)),
        top=pick(rng, _TOPS),
        top_colour=_dye(rng, _UPPER),
        top_print=Print(pick(rng, _TOP_WEAVES), _dye(rng, _UPPER), int(rng.integers(4, 10))),
        logo=Logo(
            kind=pick(rng, _LOGOS),
            colour=_tint(rng, _PALETTE, 12),
            size=rng.uniform(0.3, 0.6),
            height=rng.uniform(0.2, 0.42),
            on_back=rng.random() < 0.35,
        ),
        bottom=Bottom(pick(rng, _BOTTOMS), rng.uniform(0.38, 0.55)),
        bottom_colour=_dye(rng, _LOWER),
        bottom_print=Print(pick(rng, _BOTTOM_WEAVES), _dye(rng, _UPPER), int(rng.integers(4, 8))),
        shoes=Shoes(_dye(rng, _UPPER), _dye(rng, _UPPER), pick(rng, _SOCKS)),
        bag=Bag(
            kind=pick(rng, _BAGS),
            colour=_dye(rng, _UPPER),
            trim=_dye(rng, _UPPER),
            side=1 if rng.random() < 0.5 else -1,
            size=rng.uniform(0.75, 1.25),
        ),
    )


def look_alike(base: Identity, rng: np.random.Generator) -> Identity:
    """Return another person in nearly the same outfit: a new build and 2 to 4 attribute groups resampled."""
    fresh = sample_identity(rng)
    changed = rng.choice(len(GROUPS), int(rng.integers(2, 5)), replace=False)
    return replace(base, build=fresh.build, **{GROUPS[i]: getattr(fresh, GROUPS[i]) for i in changed})


def population(seed: tuple[int, ...], count: int) -> list[Identity]:
    """Draw `count` identities, half of them look-alikes of one of the 200 before; a prefix of any larger population."""
    people: list[Identity] = []
    for i in range(count):
        rng = np.random.default_rng((*seed, i))
        if people and rng.random() < 0.5:
            people.append(look_alike(people[rng.integers(max(0, i - 200), i)], rng))
        else:
            people.append(sample_identity(rng))
    return people


def _dye(rng: np.random.Generator, weights: Mapping[Colour, float]) -> Colour:
    return _vary(rng, pick(rng, weights), 12)


def _tint(rng: np.random.Generator, colours: Sequence[Colour], spread: float) -> Colour:
    return _vary(rng, colours[int(rng.integers(len(colours)))], spread)


def _vary(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = [min(248.0, max(6.0, level + rng.normal(0, spread))) for level in colour]
    return int(red), int(green), int(blue)
