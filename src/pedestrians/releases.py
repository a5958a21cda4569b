"""Rendered releases in the official folder structures: Market-1501, DukeMTMC-reID, MARS, CUHK-SYSU, Market+500K.

Every writer takes an empty or new folder, draws everything from `world`, and gives the same bytes for any `workers`.
In all of them each test identity is seen by at least two cameras (CUHK-SYSU: in at least three scenes), so every query
has a match. Train and test identities are different people whose labels interleave, as in the originals.
"""

import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from pedestrians.identity import Identity, population, sample_identity
from pedestrians.matlab import save_mat
from pedestrians.person_search import write_person_search
from pedestrians.shots import Odds, Silhouette
from pedestrians.takes import (
    Progress,
    Release,
    Stream,
    Take,
    empty_folder,
    person_labels,
    run_jobs,
    silent,
    take_silhouette,
    write_take,
    write_takes,
)

__all__ = [
    "query_silhouettes",
    "write_distractors",
    "write_dukemtmc",
    "write_market1501",
    "write_mars",
    "write_person_search",
]

MARKET_ODDS = Odds(occluded=0.20, cut_badly=0.18)
DUKE_ODDS = Odds(occluded=0.32, cut_badly=0.12)
_DRAWN_BY_HAND = Odds(occluded=0.20, cut_badly=0.0)
_JUNK_ODDS = Odds(occluded=0.20, cut_badly=0.0, missed=1.0)
_DISTRACTOR_ODDS = Odds(occluded=0.60, cut_badly=0.70)

_DUKE_HEIGHTS = (96, 112, 128, 160)
_DUKE_ASPECTS = (0.375, 0.5, 0.625)  # width / height: few, so that images of the same shape are plentiful
_THUMBS_DB = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)
_MARKET_README = """\
A rendered stand-in for Market-1501 in its folder structure; nobody in it exists.

bounding_box_train  detected boxes of the training identities
bounding_box_test   detected boxes of the test identities, distractors (0000) and junk (-1)
query               one hand-drawn box per test identity and camera
gt_bbox             hand-drawn boxes of the test identities, for multiple queries

0002_c1s1_000451_03.jpg: identity 2, camera 1, sequence 1, frame 451, box 3 (00 is drawn by hand)
"""


def write_market1501(
    root: Path,
    *,
    world: int,
    train_ids: int,
    test_ids: int,
    cameras: int = 6,
    distractors: int,
    junk: int,
    hardness: float,
    workers: int,
    progress: Progress = silent,
) -> None:
    """Render a Market-1501-like release: 128x64 boxes, 1 to 3 per identity and camera, one query each.

    `distractors` boxes of strangers are labelled 0000, `junk` boxes that miss most of a test identity are labelled -1.
    As in the original, a few names end in `.jpg.jpg` and a `Thumbs.db` lies among the images.
    """
    _make_folders(root, "bounding_box_train", "bounding_box_test", "query", "gt_bbox")
    (root / "readme.txt").write_text(_MARKET_README)
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(_THUMBS_DB)
    people = population((world, Release.MARKET1501, Stream.PEOPLE), train_ids + test_ids)
    labels = person_labels(world, Release.MARKET1501, len(people))
    takes: list[Take] = []
    for i, person in enumerate(people):
        takes += _market_person(world, i, person, labels[i], cameras, test=i >= train_ids)
    for i in range(distractors):
        takes.append(_market_distractor(world, Release.MARKET1501, i, cameras, "bounding_box_test"))
    takes += [_market_junk(world, i, cameras, people[train_ids:]) for i in range(junk)]
    write_takes(root, takes, world, Release.MARKET1501, hardness, workers, progress)
    for query in sorted((root / "query").iterdir()):
        shutil.copyfile(query, root / "gt_bbox" / query.name)
    for folder in ("query", "bounding_box_test"):
        for image in sorted((root / folder).glob("*.jpg"))[5::200]:
            image.rename(image.with_name(image.name + ".jpg"))


def write_dukemtmc(
    root: Path,
    *,
    world: int,
    train_ids: int,
    test_ids: int,
    cameras: int = 8,
    distractor_ids: int,
    hardness: float,
    workers: int,
    progress: Progress = silent,
) -> None:
    """Render a DukeMTMC-reID-like release: boxes of 12 sizes, 1 to 3 per identity and camera, one query each.

    Distractor identities are ordinary labels that one camera alone sees and that are never queried.
    """
    _make_folders(root, "bounding_box_train", "bounding_box_test", "query")
    people = population((world, Release.DUKEMTMC, Stream.PEOPLE), train_ids + test_ids + distractor_ids)
    labels = person_labels(world, Release.DUKEMTMC, len(people))
    takes: list[Take] = []
    for i, person in enumerate(people):
        seen = _visited(np.random.default_rng((world, Release.DUKEMTMC, Stream.LAYOUT, i)), cameras)
        folders = ["bounding_box_train"] if i < train_ids else ["query", "bounding_box_test"]
        if i >= train_ids + test_ids:
            seen, folders = [seen[i % len(seen)]], ["bounding_box_test"]
        takes += _duke_person(world, i, person, labels[i], seen, folders)
    write_takes(root, takes, world, Release.DUKEMTMC, hardness, workers, progress)


def write_mars(
    root: Path,
    *,
    world: int,
    train_ids: int,
    test_ids: int,
    cameras: int = 6,
    frames: int,
    distractor_tracklets: int,
    junk_tracklets: int,
    hardness: float,
    workers: int,
    progress: Progress = silent,
) -> None:
    """Render a MARS-like release: 1 or 2 tracklets per identity and camera of about `frames` 128x64 frames each.

    `info/` holds the official index: frame ranges of all tracklets and the queries, which stay in the gallery.
    """
    _make_folders(root, "bbox_train", "bbox_test", "info")
    people = population((world, Release.MARS, Stream.PEOPLE), train_ids + test_ids)
    labels = person_labels(world, Release.MARS, len(people))
    takes: list[Take] = []
    for i, person in enumerate(people):
        folder = "bbox_train" if i < train_ids else "bbox_test"
        takes += _mars_person(world, i, person, f"{folder}/{labels[i]:04d}", cameras, frames)
    takes += [_mars_distractor(world, i, cameras, frames) for i in range(distractor_tracklets)]
    takes += [_mars_junk(world, i, cameras, frames, people[train_ids:]) for i in range(junk_tracklets)]
    takes.sort(key=lambda take: take.paths)
    for path in {take.paths[0] for take in takes}:
        (root / path).parent.mkdir(exist_ok=True)
    write_takes(root, takes, world, Release.MARS, hardness, workers, progress)
    for split in ("train", "test"):
        _write_mars_index(root / "info", split, [take for take in takes if take.paths[0].startswith(f"bbox_{split}")])
    _write_mars_queries(root / "info", world, [take for take in takes if take.paths[0].startswith("bbox_test")])


def write_distractors(
    root: Path,
    *,
    world: int,
    images: int,
    first: int = 0,
    cameras: int = 6,
    hardness: float,
    workers: int,
    progress: Progress = silent,
) -> None:
    """Render images first .. first + images - 1 of an endless Market+500K-like set into a flat `images/` folder.

    Image i shows a stranger, mostly in a badly cut box, before one of the Market-like cameras of this world; it depends
    on (world, i, cameras, hardness) alone, so shards rendered apart equal one rendered whole.
    """
    _make_folders(root, "images")
    job = partial(_write_distractor, root, world, cameras, hardness)
    run_jobs(job, range(first, first + images), workers=workers, progress=progress, desc="distractors")


def query_silhouettes(
    release: Release, paths: Iterable[str], *, world: int, hardness: float, **people: int
) -> Iterator[Silhouette]:
    """Yield where rendered queries show their person, one by one: their shots are drawn from the same seeds again.

    release   Market-1501 or DukeMTMC
    paths     of the queries, below the root
    people    the other arguments of the release's writer that are numbers
    Raises ValueError naming a path that this release does not have.
    """
    queries = {Release.MARKET1501: _market_queries, Release.DUKEMTMC: _duke_queries}[release]
    takes = {take.paths[0]: take for take in queries(world, **people)}
    for path in paths:
        name = path.partition(".")[0] + ".jpg"  # some of Market-1501 end in .jpg.jpg
        if name not in takes:
            raise ValueError(f"{path}: not a query of world {world} with {people}")
        yield take_silhouette(world, release, hardness, takes[name])


def _make_folders(root: Path, *names: str) -> None:
    empty_folder(root)
    for name in names:
        (root / name).mkdir()


def _visited(rng: np.random.Generator, cameras: int) -> list[int]:
    """Draw the cameras (1-based) that see an identity: at least two, and at least half of them less one."""
    if cameras < 2:
        raise ValueError(f"cameras = {cameras}: expected at least 2, as queries are matched across cameras")
    count = int(rng.integers(max(2, cameras // 2 - 1), cameras + 1))
    return sorted(int(camera) + 1 for camera in rng.choice(cameras, count, replace=False))


def _frame_numbers(rng: np.random.Generator, latest: int) -> Iterator[int]:
    """Yield rising frame numbers of somebody walking by."""
    frame = int(rng.integers(1, latest))
    while True:
        yield frame
        frame += int(rng.integers(5, 60))


def _market_name(label: str, camera: int, sequence: int, frame: int, box: int) -> str:
    return f"{label}_c{camera}s{sequence}_{frame:06d}_{box:02d}.jpg"


def _market_person(world: int, i: int, person: Identity, label: int, cameras: int, *, test: bool) -> Iterator[Take]:
    rng = np.random.default_rng((world, Release.MARKET1501, Stream.LAYOUT, i))
    for camera in _visited(rng, cameras):
        sequence, frames = int(rng.integers(1, 7)), _frame_numbers(rng, 90_000)
        folders = ["bounding_box_test" if test else "bounding_box_train"] * int(rng.integers(1, 4))
        if test:
            folders += ["query"] + ["gt_bbox"] * int(rng.integers(1, 4))
        for k, folder in enumerate(folders):
            drawn = folder in ("query", "gt_bbox")
            box, odds = (0, _DRAWN_BY_HAND) if drawn else (int(rng.integers(1, 5)), MARKET_ODDS)
            path = f"{folder}/{_market_name(f'{label:04d}', camera, sequence, next(frames), box)}"
            yield Take((path,), person, camera, odds, (world, Release.MARKET1501, Stream.SHOT, i, camera, k))


def _market_queries(world: int, *, train_ids: int, test_ids: int, cameras: int = 6, **_others: int) -> Iterator[Take]:
    people = population((world, Release.MARKET1501, Stream.PEOPLE), train_ids + test_ids)
    labels = person_labels(world, Release.MARKET1501, len(people))
    for i in range(train_ids, len(people)):
        takes = _market_person(world, i, people[i], labels[i], cameras, test=True)
        yield from (take for take in takes if take.paths[0].startswith("query/"))


def _market_distractor(world: int, release: Release, i: int, cameras: int, folder: str) -> Take:
    seed = (world, release, Stream.STRANGER, i)
    rng = np.random.default_rng(seed)
    camera = int(rng.integers(1, cameras + 1))
    path = f"{folder}/{_market_name('0000', camera, 1, i + 1, int(rng.integers(1, 5)))}"
    return Take((path,), sample_identity(rng), camera, _DISTRACTOR_ODDS, (*seed, Stream.SHOT))


def _write_distractor(root: Path, world: int, cameras: int, hardness: float, i: int) -> None:
    take = _market_distractor(world, Release.DISTRACTORS, i, cameras, "images")
    write_take(root, world, Release.MARKET1501, hardness, take)


def _market_junk(world: int, i: int, cameras: int, people: list[Identity]) -> Take:
    seed = (world, Release.MARKET1501, Stream.JUNK, i)
    rng = np.random.default_rng(seed)
    camera = int(rng.integers(1, cameras + 1))
    path = f"bounding_box_test/{_market_name('-1', camera, 1, i + 1, int(rng.integers(1, 5)))}"
    return Take((path,), people[rng.integers(len(people))], camera, _JUNK_ODDS, (*seed, Stream.SHOT))


def _duke_person(
    world: int, i: int, person: Identity, label: int, cameras: list[int], folders: list[str]
) -> Iterator[Take]:
    rng = np.random.default_rng((world, Release.DUKEMTMC, Stream.LAYOUT, i, 1))
    for camera in cameras:
        frames = _frame_numbers(rng, 300_000)
        for k, folder in enumerate([*folders, *folders[-1:] * int(rng.integers(0, 3))]):
            height = int(rng.choice(_DUKE_HEIGHTS))
            width = round(height * float(rng.choice(_DUKE_ASPECTS)))
            path = f"{folder}/{label:04d}_c{camera}_f{next(frames):07d}.jpg"
            seed = (world, Release.DUKEMTMC, Stream.SHOT, i, camera, k)
            yield Take((path,), person, camera, DUKE_ODDS, seed, height, width)


def _duke_queries(
    world: int, *, train_ids: int, test_ids: int, cameras: int = 8, distractor_ids: int
) -> Iterator[Take]:
    people = population((world, Release.DUKEMTMC, Stream.PEOPLE), train_ids + test_ids + distractor_ids)
    labels = person_labels(world, Release.DUKEMTMC, len(people))
    for i in range(train_ids, train_ids + test_ids):
        seen = _visited(np.random.default_rng((world, Release.DUKEMTMC, Stream.LAYOUT, i)), cameras)
        takes = _duke_person(world, i, people[i], labels[i], seen, ["query", "bounding_box_test"])
        yield from (take for take in takes if take.paths[0].startswith("query/"))


def _mars_person(world: int, i: int, person: Identity, folder: str, cameras: int, frames: int) -> Iterator[Take]:
    rng = np.random.default_rng((world, Release.MARS, Stream.LAYOUT, i))
    for camera in _visited(rng, cameras):
        for tracklet in range(1, 2 + (rng.random() < 0.3)):
            paths = _mars_paths(rng, folder, camera, tracklet, frames)
            yield Take(paths, person, camera, MARKET_ODDS, (world, Release.MARS, Stream.SHOT, i, camera, tracklet))


def _mars_distractor(world: int, i: int, cameras: int, frames: int) -> Take:
    seed = (world, Release.MARS, Stream.STRANGER, i)
    rng = np.random.default_rng(seed)
    camera = int(rng.integers(1, cameras + 1))
    paths = _mars_paths(rng, "bbox_test/0000", camera, i + 1, frames)
    return Take(paths, sample_identity(rng), camera, _DISTRACTOR_ODDS, (*seed, Stream.SHOT))


def _mars_junk(world: int, i: int, cameras: int, frames: int, people: list[Identity]) -> Take:
    seed = (world, Release.MARS, Stream.JUNK, i)
    rng = np.random.default_rng(seed)
    camera = int(rng.integers(1, cameras + 1))
    paths = _mars_paths(rng, "bbox_test/00-1", camera, i + 1, frames)
    return Take(paths, people[rng.integers(len(people))], camera, _JUNK_ODDS, (*seed, Stream.SHOT))


def _mars_paths(rng: np.random.Generator, folder: str, camera: int, tracklet: int, frames: int) -> tuple[str, ...]:
    """Name the frames of a tracklet; their number is within half of `frames` and at least 2."""
    count = int(rng.integers(max(2, frames // 2), max(2, frames + frames // 2) + 1))
    stem = f"{folder}/{folder[-4:]}C{camera}T{tracklet:04d}"
    return tuple(f"{stem}F{frame:03d}.jpg" for frame in range(1, count + 1))


def _write_mars_index(info: Path, split: str, takes: list[Take]) -> None:
    """Write the file names (CRLF) and the rows first frame, last frame (1-based, inclusive), identity, camera."""
    names = [path.rsplit("/", 1)[1] for take in takes for path in take.paths]
    (info / f"{split}_name.txt").write_bytes("".join(f"{name}\r\n" for name in names).encode())
    last = np.cumsum([len(take.paths) for take in takes])
    first = last - [len(take.paths) for take in takes] + 1
    people = [_mars_id(take) for take in takes]
    rows = np.stack([first, last, people, [take.camera for take in takes]], axis=1).astype(np.int32)
    save_mat(info / f"tracks_{split}_info.mat", **{f"track_{split}_info": rows})


def _write_mars_queries(info: Path, world: int, takes: list[Take]) -> None:
    """Choose one tracklet per test identity and camera; query_IDX (1, Q) counts the rows of track_test_info from 1."""
    rng = np.random.default_rng((world, Release.MARS, Stream.QUERY))
    choices: dict[tuple[int, int], list[int]] = {}
    for row, take in enumerate(takes, start=1):
        if _mars_id(take) > 0:
            choices.setdefault((_mars_id(take), take.camera), []).append(row)
    queries = [rows[rng.integers(len(rows))] for rows in choices.values()]
    save_mat(info / "query_IDX.mat", query_IDX=np.array([queries], dtype=np.uint16))


def _mars_id(take: Take) -> int:
    return int(take.paths[0].split("/")[1].lstrip("0") or 0)
