"""A contact sheet of the benchmark: one row per identity, two images per camera, look-alikes below."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pedestrians.camera import Camera
from pedestrians.identity import Identity, look_alike, sample_identity
from pedestrians.releases import MARKET_ODDS
from pedestrians.shots import render, sample_shot
from pedestrians.takes import Release, Stream, release_camera

_HEIGHT, _WIDTH, _GAP = 128, 64, 2
_LEFT, _TOP = 112, 24  # room for the labels
_PAIR = 2 * (_WIDTH + _GAP) + 3 * _GAP


def market_contact_sheet(*, world: int, cameras: int, identities: int, lookalikes: int, hardness: float) -> Image.Image:
    """Draw people as the cameras of the Market-like set of this world see them, then look-alikes of the last one.

    Look-alikes share most of their clothes: telling those rows apart is what the benchmark asks for.
    """
    seed = (world, Release.CONTACT_SHEET)
    people = [sample_identity(np.random.default_rng((*seed, Stream.PEOPLE, i))) for i in range(identities)]
    people += [look_alike(people[-1], np.random.default_rng((*seed, Stream.STRANGER, i))) for i in range(lookalikes)]
    names = [f"person {i + 1}" for i in range(identities)] + [f"like person {identities}"] * lookalikes
    places = [release_camera(world, Release.MARKET1501, number + 1, hardness) for number in range(cameras)]
    sheet = Image.new("RGB", (_LEFT + cameras * _PAIR, _TOP + len(people) * (_HEIGHT + _GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for c in range(cameras):
        pen.text((_LEFT + c * _PAIR + _WIDTH, _TOP / 2), f"camera {c + 1}", fill="black", font=font, anchor="mm")
    for i, (person, name) in enumerate(zip(people, names, strict=True)):
        y = _TOP + i * (_HEIGHT + _GAP)
        pen.text((_LEFT - 8, y + _HEIGHT / 2), name, fill="black", font=font, anchor="rm")
        for c, place in enumerate(places):
            for k in range(2):
                image = _photograph(person, place, (*seed, Stream.SHOT, i, c, k))
                sheet.paste(Image.fromarray(image), (_LEFT + c * _PAIR + k * (_WIDTH + _GAP), y))
    return sheet


def _photograph(person: Identity, camera: Camera, seed: tuple[int, ...]) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return render(sample_shot(person, camera, MARKET_ODDS, rng), camera, _HEIGHT, _WIDTH, rng)
