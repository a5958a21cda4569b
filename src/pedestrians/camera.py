"""Cameras: a place (its background) and a sensor (colour cast, blur, noise, resolution, light) that stay the same."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pedestrians.drawing import Canvas, Colour, box, clipped, ellipse, line, shaded, shadow, soft_box

_SCENE_HEIGHT, _SCENE_WIDTH = 420, 640
_WALLS = np.array([(170, 165, 155), (140, 140, 140), (110, 125, 110), (190, 180, 160), (120, 130, 150), (95, 100, 95)])
_GROUNDS = np.array([(130, 128, 124), (160, 155, 145), (100, 104, 100), (96, 118, 80), (150, 132, 112)])


@dataclass(frozen=True, eq=False)
class Camera:
    """What all images of one camera share. `hardness` scales casts, blur, noise and the drift of the exposure."""

    scene: NDArray[np.uint8]  # (420, 640, 3)
    gain: NDArray[np.float64]  # (3,) red, green, blue
    gamma: float
    saturation: float
    contrast: float
    blur: float  # Gaussian sigma in pixels at full resolution
    noise: float  # standard deviation in grey levels
    resolution: float  # share of the pixels of a side that the sensor really resolves
    yaw: float  # the direction most people walk in, and its spread
    yaw_spread: float
    light: float  # brightness change from the middle to the right edge
    vignette: float
    jpeg_quality: int
    hardness: float


@dataclass(frozen=True)
class Exposure:
    """What changes from one image of a camera to the next."""

    gain: NDArray[np.float64]  # (3,)
    resolution: float
    blur: float
    light_x: float
    light_y: float


def sample_camera(seed: tuple[int, ...], hardness: float) -> Camera:
    """Draw a camera and its place; `hardness` 0 is an ideal sensor, 0.45 the benchmark's, 1 hard for people too."""
    rng = np.random.default_rng(seed)
    return Camera(
        gain=np.exp(rng.normal(0, 0.14 * hardness, 3)) * np.exp(rng.normal(0, 0.16 * hardness)),
        gamma=math.exp(rng.normal(0, 0.2 * hardness)),
        saturation=min(1.4, max(0.45, rng.normal(0.9, 0.2 * hardness))),
        contrast=min(1.2, max(0.6, rng.normal(0.9, 0.14 * hardness))),
        blur=rng.uniform(0, 0.9) * hardness,
        noise=rng.uniform(2, 9) * hardness,
        resolution=rng.uniform(0.45, 1.0),
        yaw=rng.uniform(0, 2 * math.pi),
        yaw_spread=rng.uniform(0.5, 1.3),
        light=rng.uniform(-0.35, 0.35),
        vignette=rng.uniform(0, 0.25),
        jpeg_quality=int(rng.integers(60, 92)),
        hardness=hardness,
        scene=_paint_scene(rng),
    )


def sample_exposure(camera: Camera, rng: np.random.Generator) -> Exposure:
    """Draw the sensor's state for one image, or for one tracklet."""
    resolution = max(0.28, min(1.0, camera.resolution * math.exp(rng.normal(0, 0.18))))
    brightness = math.exp(rng.normal(0, 0.16 * camera.hardness))
    return Exposure(
        gain=camera.gain * brightness * np.exp(rng.normal(0, 0.04 * camera.hardness, 3)),
        resolution=resolution,
        blur=camera.blur * resolution * abs(1 + rng.normal(0, 0.3)),
        light_x=camera.light * (0.6 + 0.8 * rng.random()),
        light_y=rng.normal(0, 0.12),
    )


def develop(
    canvas: Canvas, camera: Camera, exposure: Exposure, height: int, width: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn a canvas of any size into the camera's image (height, width, 3): optics, then sensor, then resampling."""
    rows, columns = max(24, int(height * exposure.resolution)), max(12, int(width * exposure.resolution))
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_AREA)
    if exposure.blur > 0.25:
        small = cv2.GaussianBlur(small, (0, 0), exposure.blur)
    sensed = np.asarray(cv2.LUT(small, _response(camera.gamma, exposure.gain)), dtype=np.float32)
    sensed *= _shading(rows, columns, exposure, camera.vignette)[..., None]
    image = np.asarray(cv2.transform(sensed, _colour_matrix(camera.saturation, camera.contrast)), dtype=np.float32)
    image += camera.noise * _grain(rows, columns, rng)
    out: NDArray[np.uint8] = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    if out.shape[:2] == (height, width):
        return out
    return np.asarray(cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _response(gamma: float, gain: NDArray[np.float64]) -> NDArray[np.float32]:
    """Lookup table (1, 256, 3) from stored to sensed values, both 0..255."""
    levels = np.linspace(0, 1, 256) ** gamma
    return (255 * levels[:, None] * gain).astype(np.float32)[None]


def _shading(rows: int, columns: int, exposure: Exposure, vignette: float) -> NDArray[np.float32]:
    """Relative brightness (rows, columns): light from one side, and darker corners."""
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None]
    falloff = 1 - np.float32(vignette / 2) * (x * x + y * y)
    return (1 + np.float32(exposure.light_x) * x + np.float32(exposure.light_y) * y) * falloff


def _colour_matrix(saturation: float, contrast: float) -> NDArray[np.float32]:
    """Affine map (3, 4) towards grey (saturation < 1) and towards mid-grey (contrast < 1), on 0..255."""
    mix = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)
    return np.column_stack([mix, np.full(3, 255 * 0.42 * (1 - contrast))]).astype(np.float32)


def _grain(rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise (rows, columns, 3) of unit scale: 0.8 shared by the channels, 0.5 of their own; uniform, as it is cheap."""
    grain = np.float32(math.sqrt(12)) * (rng.random((rows, columns, 4), dtype=np.float32) - np.float32(0.5))
    return np.float32(0.5) * grain[..., :3] + np.float32(0.8) * grain[..., 3:]


def _paint_scene(rng: np.random.Generator) -> Canvas:
    """Paint the wide background of one camera; crops of it lie behind the people."""
    horizon = int(_SCENE_HEIGHT * rng.uniform(0.35, 0.6))
    wall, ground = _material(rng, _WALLS), _material(rng, _GROUNDS)
    above = wall * np.linspace(0.85, 1.15, horizon)[:, None]
    below = ground * np.linspace(0.8, 1.15, _SCENE_HEIGHT - horizon)[:, None]
    column = np.concatenate([above, below])[:, None]
    scene = np.clip(column * _stains(rng), 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        _pave(scene, horizon, int(rng.integers(18, 50)), clipped(0.85 * ground))
    if rng.random() < 0.6:
        for y in range(0, horizon, int(rng.integers(14, 40))):
            line(scene, [(0, y), (_SCENE_WIDTH, y)], clipped(0.9 * wall), 1)
    if rng.random() < 0.6:
        _glaze(scene, horizon, rng)
    for bottom in np.sort(horizon + rng.uniform(4, 0.85 * (_SCENE_HEIGHT - horizon), int(rng.integers(14, 30)))):
        _place_clutter(scene, float(bottom), rng)
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.4, 1.4)), dtype=np.uint8)


def _material(rng: np.random.Generator, palette: NDArray[np.float64]) -> NDArray[np.float64]:
    """A wall or ground colour (3,), varied in brightness more than in hue."""
    material: NDArray[np.float64] = palette[rng.integers(len(palette))] + rng.normal(0, 12) + rng.normal(0, 9, 3)
    return material


def _stains(rng: np.random.Generator) -> NDArray[np.float32]:
    """Uneven surfaces: smooth relative brightness (420, 640, 1) around 1."""
    coarse = rng.normal(1, 0.035, (14, 20)).astype(np.float32)
    smooth = cv2.resize(coarse, (_SCENE_WIDTH, _SCENE_HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.float32)[..., None]


def _pave(scene: Canvas, horizon: int, step: int, colour: Colour) -> None:
    """Tiles in perspective."""
    middle = _SCENE_WIDTH // 2
    for x in range(-_SCENE_WIDTH, 2 * _SCENE_WIDTH, step):
        line(scene, [(middle + 0.45 * (x - middle), horizon), (x, _SCENE_HEIGHT)], colour, 1)
    y, gap = float(horizon), 6.0
    while y < _SCENE_HEIGHT:
        line(scene, [(0, y), (_SCENE_WIDTH, y)], colour, 1)
        y, gap = y + gap, gap * 1.35


def _glaze(scene: Canvas, horizon: int, rng: np.random.Generator) -> None:
    """Rows of windows along the wall."""
    width, height = rng.uniform(20, 50), rng.uniform(25, 60)
    glass = clipped(np.array((70, 84, 100)) * rng.uniform(0.5, 1.7) + rng.normal(0, 8, 3))
    frame = clipped(np.full(3, rng.uniform(60, 220)))
    for y in np.arange(horizon - 1.35 * height, -height, -1.6 * height):
        for x in np.arange(rng.uniform(0, width), _SCENE_WIDTH, width * 1.7):
            box(scene, x - 2, y - 2, x + width + 2, y + height + 2, frame)
            box(scene, x, y, x + width, y + height, glass)


def _paint_colour(rng: np.random.Generator) -> Colour:
    return clipped(np.clip(rng.normal(112, 35) + rng.normal(0, 18, 3), 10, 245))


def _place_clutter(scene: Canvas, bottom: float, rng: np.random.Generator) -> None:
    """One crate, post, bush or parked car standing on the ground at this height of the image."""
    kind, x, colour = rng.random(), rng.uniform(0, _SCENE_WIDTH), _paint_colour(rng)
    if kind < 0.35:
        width, height = rng.uniform(10, 70), rng.uniform(20, 120)
        shadow(scene, x + width / 2, bottom, 0.6 * width, 5, 0.75)
        box(scene, x, bottom - height, x + width, bottom, colour)
        box(scene, x + 0.8 * width, bottom - height, x + width, bottom, shaded(colour, 0.8))
    elif kind < 0.55:
        width = rng.uniform(3, 9)
        box(scene, x, 0, x + width, bottom, colour)
        box(scene, x + 0.65 * width, 0, x + width, bottom, shaded(colour, 0.75))
    elif kind < 0.75:
        for _ in range(25):
            radius, leaf = rng.uniform(3, 10), clipped(np.array((60, 100, 50)) + rng.normal(0, 18, 3))
            ellipse(scene, x + rng.normal(0, 22), bottom - abs(rng.normal(12, 18)), radius, radius, leaf)
    else:
        _park_car(scene, x, bottom, rng.uniform(80, 160), colour)


def _park_car(scene: Canvas, x: float, bottom: float, length: float, colour: Colour) -> None:
    height = 0.2 * length
    shadow(scene, x + length / 2, bottom, 0.55 * length, 5, 0.7)
    soft_box(
        scene, x + 0.18 * length, bottom - 2.2 * height, x + 0.8 * length, bottom - 0.5 * height, shaded(colour, 0.6)
    )
    soft_box(scene, x, bottom - 1.4 * height, x + length, bottom - 0.2 * height, colour)
    for wheel in (x + 0.22 * length, x + 0.78 * length):
        ellipse(scene, wheel, bottom - 0.3 * height, 0.4 * height, 0.4 * height, (25, 25, 25))
