"""Takes: the rendering jobs behind every release, and the pool that runs them.

All chance comes from generators seeded by (world, release, stream, ...), so a file's bytes depend on what it shows and
neither on the number of workers nor on what else is rendered.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pedestrians.camera import Camera, sample_camera
from pedestrians.identity import Identity
from pedestrians.shots import Odds, Silhouette, render, sample_tracklet, silhouette

T = TypeVar("T")
R = TypeVar("R")


class Release(IntEnum):
    """What a world is rendered for. Nobody is in two releases; distractors are seen by the cameras of Market-1501."""

    MARKET1501 = 1
    DUKEMTMC = 2
    MARS = 3
    PERSON_SEARCH = 4
    DISTRACTORS = 5
    OBJECTS = 6
    CONTACT_SHEET = 7


class Stream(IntEnum):
    """Independent sources of chance within a release."""

    PEOPLE = 1
    CAMERA = 2
    LAYOUT = 3
    SHOT = 4
    STRANGER = 5  # distractors
    JUNK = 6
    LABEL = 7
    QUERY = 8


class Progress(Protocol):
    """Wraps an iterable to show progress, as `tqdm` does."""

    def __call__(self, iterable: Iterable[T], *, total: int, desc: str) -> Iterable[T]: ...


def silent(iterable: Iterable[T], *, total: int, desc: str) -> Iterable[T]:
    """Show nothing."""
    return iterable


@dataclass(frozen=True)
class Take:
    """One person before one camera: a single image, or the frames of a tracklet, at `paths` below the root."""

    paths: tuple[str, ...]
    person: Identity
    camera: int  # 1-based
    odds: Odds
    seed: tuple[int, ...]
    height: int = 128
    width: int = 64


@lru_cache(maxsize=64)
def release_camera(world: int, release: Release, number: int, hardness: float) -> Camera:
    """Return camera `number` (1-based) of a release."""
    return sample_camera((world, release, Stream.CAMERA, number), hardness)


def person_labels(world: int, release: Release, count: int) -> list[int]:
    """Return the labels 1 .. count in an order that mixes train and test identities."""
    rng = np.random.default_rng((world, release, Stream.LABEL))
    return [int(label) + 1 for label in rng.permutation(count)]


def write_takes(
    root: Path,
    takes: Sequence[Take],
    world: int,
    release: Release,
    hardness: float,
    workers: int,
    progress: Progress,
) -> None:
    """Render all takes into existing folders below root."""
    job = partial(write_take, root, world, release, hardness)
    run_jobs(job, takes, workers=workers, progress=progress, desc=release.name.lower())


def write_take(root: Path, world: int, release: Release, hardness: float, take: Take) -> None:
    """Render one take with a camera of the release."""
    camera = release_camera(world, release, take.camera, hardness)
    rng = np.random.default_rng(take.seed)
    shots = sample_tracklet(take.person, camera, take.odds, len(take.paths), rng)
    for path, shot in zip(take.paths, shots, strict=True):
        write_jpeg(root / path, render(shot, camera, take.height, take.width, rng), camera.jpeg_quality)


def take_silhouette(world: int, release: Release, hardness: float, take: Take) -> Silhouette:
    """Return where the first image that `write_take` renders shows its person."""
    camera = release_camera(world, release, take.camera, hardness)
    shots = sample_tracklet(take.person, camera, take.odds, len(take.paths), np.random.default_rng(take.seed))
    return silhouette(shots[0], take.height, take.width)


def write_jpeg(path: Path, image: NDArray[np.uint8], quality: int) -> None:
    """Encode an RGB image (H, W, 3)."""
    path.write_bytes(simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420"))


def run_jobs(job: Callable[[T], None], items: Sequence[T], *, workers: int, progress: Progress, desc: str) -> None:
    """Call job(item) for all items, in this process (workers = 1) or in that many fresh ones."""
    for _ in map_jobs(job, items, workers=workers, progress=progress, desc=desc):
        pass


def map_jobs(job: Callable[[T], R], items: Sequence[T], *, workers: int, progress: Progress, desc: str) -> Iterator[R]:
    """Yield job(item) for all items in order; the first exception of any worker is raised here."""
    if workers == 1:
        yield from progress(map(job, items), total=len(items), desc=desc)
        return
    chunk = max(1, min(64, len(items) // (4 * workers)))
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        yield from progress(pool.map(job, items, chunksize=chunk), total=len(items), desc=desc)


def empty_folder(root: Path) -> Path:
    """Create the folder a release is written to; raises ValueError if it already holds something."""
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise ValueError(f"{root}: expected an empty folder for a rendered release; remove it or name another")
    return root
