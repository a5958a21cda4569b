"""The paper's way at the true structure of a dataset: a file for each of its files, rendered small, to the report.

    python benchmarks/structure.py --dataset market --json benchmarks/results/structure_market.json
    python benchmarks/structure.py --dataset duke --json benchmarks/results/structure_duke.json
    python benchmarks/structure.py --dataset mars --every 20 --json benchmarks/results/structure_mars.json

Renders a picture for every file of the official list, and runs structure.yaml through Snakemake: the release, indexed with
its counts, a few updates of pretrain and train, embed, evaluate with both re-rankings. Then runs it again, which must
do nothing. Writes seconds, disk and peak memory of each stage. Everything happens in a new folder; `--keep` leaves it.

market  persons and cameras of queries and gallery, junk and distractors too, from market1501.csv; zipped as the release is
duke    the same from tests/structure/dukemtmc.csv
mars    person, camera and number of frames of each test tracklet, and the queries, from tests/structure/mars.npz; 1,191,003
        frames, of which `--every 20` takes the 1st, 21st, 41st, ... of each tracklet, so that every tracklet is there

Training persons, whose lists are not published with the protocols, are made up in the official numbers.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from evaluation import listed, market
from pedestrians.identity import population
from pedestrians.matlab import save_mat
from pedestrians.releases import DUKE_ODDS, MARKET_ODDS
from pedestrians.shots import Odds
from pedestrians.takes import Release, Stream, Take, write_takes
from reid_done_right import numerics
from reid_done_right.data.readers import COUNTS
from reid_done_right.evaluation.embedded import Labels

ROOT = Path(__file__).parents[1]
PARAMS = Path(__file__).with_suffix(".yaml")
WORLD, HARDNESS = 77, 0.45
HEIGHT, WIDTH = 64, 32
FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile")
"""Flags of a processor that the costs of arithmetic depend on."""


class Shown(NamedTuple):
    """An image, or the frames of a tracklet: paths, person (-1 junk, 0 distractor), camera."""

    paths: tuple[str, ...]
    person: int
    camera: int


def made_up(rows: int, persons: NDArray[np.int64], cameras: int) -> Labels:
    """Return labels of training images or tracklets, everybody in every camera in turn."""
    row = np.arange(rows)
    return Labels(persons[row % len(persons)], row // len(persons) % cameras + 1)


def market_files(every: int) -> Iterator[Shown]:
    """Yield the files of Market-1501; gt_bbox has one drawn box for each query, the release more."""
    query, gallery = market()
    train = made_up(COUNTS["market1501"]["train"], np.setdiff1d(np.arange(1, 1502), gallery.person_id), 6)
    k = 0
    for folder, labels in (
        ("bounding_box_train", train),
        ("query", query),
        ("bounding_box_test", gallery),
        ("gt_bbox", query),
    ):
        for person, camera in zip(labels.person_id.tolist(), labels.camera_id.tolist(), strict=True):
            label = "-1" if person < 0 else f"{person:04d}"
            box = 0 if folder in ("query", "gt_bbox") else 1
            doubled = ".jpg" if person == 1488 else ""  # as the files of 1488 really end
            yield Shown((f"{folder}/{label}_c{camera}s1_{k:06d}_{box:02d}.jpg{doubled}",), person, camera)
            k += 1


def duke_files(every: int) -> Iterator[Shown]:
    """Yield the files of DukeMTMC-reID."""
    query, gallery = listed(ROOT / "tests/structure/dukemtmc.csv", 8)
    persons = np.setdiff1d(np.arange(1, 7141), gallery.person_id)[: COUNTS["dukemtmc"]["train_persons"]]
    train = made_up(COUNTS["dukemtmc"]["train"], persons, 8)
    for folder, labels in (("bounding_box_train", train), ("query", query), ("bounding_box_test", gallery)):
        for k, (person, camera) in enumerate(zip(labels.person_id.tolist(), labels.camera_id.tolist(), strict=True)):
            yield Shown((f"{folder}/{person:04d}_c{camera}_f{k:07d}.jpg",), person, camera)


def mars_tracklets(every: int) -> Iterator[Shown]:
    """Yield the tracklets of MARS, those of the test in the order of the official index."""
    counts, test = COUNTS["mars"], np.load(ROOT / "tests/structure/mars.npz")
    persons = np.setdiff1d(np.arange(1, 1502), test["person"])[: counts["train_persons"]]
    train = made_up(counts["train_tracklets"], persons, 6)
    frames = np.full(len(train), counts["train"] // len(train))
    frames[: counts["train"] % len(train)] += 1
    for part, *columns in (
        ("train", frames, train.person_id, train.camera_id),
        ("test", test["frames"], test["person"], test["camera"]),
    ):
        number: Counter[tuple[int, int]] = Counter()
        for length, person, camera in np.stack([column.astype(int) for column in columns], axis=1).tolist():
            number[person, camera] += 1
            label = "00-1" if person < 0 else f"{person:04d}"
            stem = f"bbox_{part}/{label}/{label}C{camera}T{number[person, camera]:04d}F"
            yield Shown(tuple(f"{stem}{frame:03d}.jpg" for frame in range(1, length + 1, every)), person, camera)


def write_mars_index(root: Path, shown: list[Shown]) -> None:
    """Write `info/`: the lists of frames, the tracklets' first and last of these, and the queries."""
    (root / "info").mkdir()
    for part in ("train", "test"):
        tracklets = [each for each in shown if each.paths[0].startswith(f"bbox_{part}/")]
        names = [Path(path).name for each in tracklets for path in each.paths]
        (root / f"info/{part}_name.txt").write_bytes("".join(f"{name}\r\n" for name in names).encode())
        lengths = np.array([len(each.paths) for each in tracklets])
        last = np.cumsum(lengths)
        labels = np.array([(each.person, each.camera) for each in tracklets])
        info = np.column_stack([last - lengths + 1, last, labels]).astype(np.int32)
        save_mat(root / f"info/tracks_{part}_info.mat", **{f"track_{part}_info": info})
    save_mat(root / "info/query_IDX.mat", query_IDX=np.load(ROOT / "tests/structure/mars.npz")["query"][None])


class Dataset(NamedTuple):
    """Where a dataset's structure comes from, and how its people are shown."""

    folder: str
    release: Release
    odds: Odds
    shown: Callable[[int], Iterator[Shown]]
    format: str


DATASETS = {
    "market": Dataset("Market-1501-v15.09.15", Release.MARKET1501, MARKET_ODDS, market_files, "market1501"),
    "duke": Dataset("DukeMTMC-reID", Release.DUKEMTMC, DUKE_ODDS, duke_files, "dukemtmc"),
    "mars": Dataset("MARS", Release.MARS, MARKET_ODDS, mars_tracklets, "mars"),
}


def render(root: Path, dataset: Dataset, shown: list[Shown], workers: int) -> None:
    """Render all files; nobody is twice a distractor or junk."""
    stranger = max(each.person for each in shown) + 1
    people = population((WORLD, dataset.release, Stream.PEOPLE), stranger + sum(each.person <= 0 for each in shown))
    takes = []
    for k, (paths, person, camera) in enumerate(shown):
        who = person
        if person <= 0:
            who, stranger = stranger, stranger + 1
        seed = (WORLD, dataset.release, Stream.SHOT, k)
        takes.append(Take(paths, people[who], camera, dataset.odds, seed, HEIGHT, WIDTH))
    for folder in {Path(paths[0]).parent for paths, _, _ in shown}:
        (root / folder).mkdir(parents=True)
        if dataset.release is Release.MARKET1501:
            (root / folder / "Thumbs.db").touch()  # as in the release
    write_takes(root, takes, WORLD, dataset.release, HARDNESS, workers, tqdm)


def counted(dataset: Dataset, shown: list[Shown]) -> dict[str, int]:
    """Return the published counts, of the frames those that are shown."""
    counts = dict(COUNTS[dataset.format])
    if dataset.format == "mars":
        test = [each for each in shown if each.paths[0].startswith("bbox_test/")]
        counts["gallery"] = sum(len(each.paths) for each in test)
        counts["train"] = sum(len(each.paths) for each in shown) - counts["gallery"]
        counts["junk"], counts["distractors"] = (
            sum(len(each.paths) for each in test if each.person == person) for person in (-1, 0)
        )
    return counts


def write_params(folder: Path, name: str, counts: dict[str, int]) -> None:
    """Write the parameters with one of the datasets and the counts that its index must have."""
    params = yaml.safe_load(PARAMS.read_text())
    keep = {name, "market-500k"} if name == "market" else {name}
    params["datasets"] = {key: value for key, value in params["datasets"].items() if key in keep}
    params["datasets"][name]["counts"] = counts
    params["report"]["shown"]["datasets"] = [name]
    if name == "mars":
        del params["report"]["shown"]  # its gallery is tracklets, which no one image shows
    if name != "market":
        del params["distract"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def snakemake(folder: Path, cores: int) -> float:
    """Run the experiment in the folder; return the seconds."""
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", folder, "--configfile", folder / "params.yaml", "--quiet", "rules"]
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, "REID_OFFLINE": "1"})
    return round(time.monotonic() - start, 1)


def stages(results: Path) -> dict[str, dict[str, float]]:
    """Return seconds, those of a core and peak memory of each stage, as Snakemake measured; jobs of a stage together."""
    measured: dict[str, dict[str, float]] = {}
    for file in sorted((results / "benchmarks").rglob("*.tsv")):
        with file.open(newline="") as opened:
            (row,) = csv.DictReader(opened, delimiter="\t")
        name = file.stem if file.parent.name == "benchmarks" else file.parent.name
        stage = measured.setdefault(name, {"seconds": 0, "cpu_seconds": 0, "peak_mb": 0})
        taken = {key: 0.0 if row[key] == "NA" else float(row[key]) for key in ("s", "cpu_time", "max_rss")}
        stage["seconds"] = round(stage["seconds"] + taken["s"], 1)
        stage["cpu_seconds"] = round(stage["cpu_seconds"] + taken["cpu_time"], 1)
        stage["peak_mb"] = max(stage["peak_mb"], round(taken["max_rss"]))
    return measured


def megabytes(folder: Path) -> float:
    """Return the disk that a folder takes, hard links counted once, as `du` counts."""
    printed = subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=True).stdout
    return round(int(printed.split()[0]) / 1024, 1)


def run(folder: Path, name: str, every: int, cores: int) -> dict[str, Any]:
    """Make the release and run the experiment on it twice."""
    dataset, data = DATASETS[name], folder / "data"
    start = time.monotonic()
    shown = list(dataset.shown(every))
    render(data / dataset.folder, dataset, shown, cores)
    figures: dict[str, Any] = {"files": sum(len(each.paths) for each in shown)}
    if name == "market":
        archive = shutil.make_archive(str(data / dataset.folder), "zip", data, dataset.folder)
        shutil.rmtree(data / dataset.folder)
        figures["archive_mb"] = round(Path(archive).stat().st_size / 2**20, 1)
    if name == "mars":
        write_mars_index(data / dataset.folder, shown)
        figures |= {"every": every, "tracklets": len(shown), "frames_of_the_release": 1_191_003}
    figures["render_seconds"] = round(time.monotonic() - start, 1)
    counts = counted(dataset, shown)
    write_params(folder, name, counts)
    (folder / "reports").mkdir()
    shutil.copy(ROOT / "reports/paper.csv", folder / "reports")

    results = folder / "results/structure"
    figures["run_seconds"] = snakemake(folder, cores)
    written = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    figures["second_run_seconds"] = snakemake(folder, cores)
    assert written == {path: path.stat().st_mtime_ns for path in results.rglob("*")}, "the second run did something"
    (evaluated,) = (results / "evaluate").glob("*.json")
    scores = json.loads(evaluated.read_text())["results"]
    queries = counts["query_tracklets" if name == "mars" else "query"]
    assert {score["queries"] for score in scores} == {queries} and not any(s["queries_without_match"] for s in scores)
    flags = numerics.processor().get("flags", "").split()
    return {
        "dataset": name,
        "machine": {
            "processor": numerics.processor().get("model name", ""),
            "flags": [flag for flag in FLAGS if flag in flags],
            "cores_used": cores,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        **figures,
        "stages": stages(results),
        "disk_mb": {"data": megabytes(data), "results": megabytes(results), "store": megabytes(folder / ".store")},
        "counts": counts,
        "mAP": {f"{score['protocol']}, {score['rerank']}": round(score["mAP"], 4) for score in scores},
    }


def main() -> None:
    """Parse the options, run, and print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=DATASETS, required=True, help="whose structure")
    parser.add_argument("--every", type=int, default=1, help="mars: take every n-th frame of a tracklet")
    parser.add_argument("--cores", type=int, default=2, help="for rendering and for Snakemake")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--keep", type=Path, help="a new folder to work in and to keep")
    options = parser.parse_args()
    if options.every != 1 and options.dataset != "mars":
        parser.error(f"--every {options.every}: {options.dataset} has no tracklets; leave the option out")
    with tempfile.TemporaryDirectory(prefix="structure-") as passing:
        figures = run(options.keep or Path(passing), options.dataset, options.every, options.cores)
    text = json.dumps(figures, indent=1) + "\n"
    print(text)
    if options.json:
        options.json.write_text(text)


if __name__ == "__main__":
    main()
