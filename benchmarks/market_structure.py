"""The paper's way at the true structure of Market-1501: its 36,036 files, rendered small, from the archive to the report.

    python benchmarks/market_structure.py --json benchmarks/results/market_structure.json

Renders a picture for every file of the official list (persons, cameras, junk and distractors of queries and gallery from
market1501.csv; training persons made up in the official number), zips them as the release is zipped, and runs
market_structure.yaml through Snakemake: unpack, index with the published counts, a few updates of pretrain and train,
embed, evaluate with both re-rankings. Then runs it again, which must do nothing. Writes seconds, disk and peak memory of
each stage. Everything happens in a new folder; `--keep` leaves it there.
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
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from evaluation import market
from pedestrians.identity import population
from pedestrians.releases import MARKET_ODDS
from pedestrians.takes import Release, Stream, Take, write_takes

ROOT = Path(__file__).parents[1]
PARAMS = Path(__file__).with_suffix(".yaml")
RELEASE = "Market-1501-v15.09.15"
WORLD, HARDNESS = 77, 0.45
HEIGHT, WIDTH = 64, 32
TRAIN_IMAGES, TRAIN_PERSONS, CAMERAS = 12_936, 751, 6


def listed() -> list[tuple[str, int, int]]:
    """Return folder, person and camera of every file; gt_bbox has one drawn box for each query, the release more."""
    query, gallery = market()
    train = np.setdiff1d(np.arange(1, 1502), gallery.person_id)[np.arange(TRAIN_IMAGES) % TRAIN_PERSONS]
    camera = np.arange(TRAIN_IMAGES) // TRAIN_PERSONS % CAMERAS + 1
    parts: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {
        "bounding_box_train": (train, camera),
        "query": (query.person_id, query.camera_id),
        "bounding_box_test": (gallery.person_id, gallery.camera_id),
        "gt_bbox": (query.person_id, query.camera_id),
    }
    return [
        (folder, person, camera)
        for folder, (persons, cameras) in parts.items()
        for person, camera in zip(persons.tolist(), cameras.tolist(), strict=True)
    ]


def render(root: Path, workers: int) -> int:
    """Render all files; return their number. Nobody is twice a distractor or junk."""
    files = listed()
    nobodies = sum(person <= 0 for _, person, _ in files)
    people = population((WORLD, Release.MARKET1501, Stream.PEOPLE), 1502 + nobodies)
    takes, stranger = [], 1502
    for k, (folder, person, camera) in enumerate(files):
        who = person
        if person <= 0:
            who, stranger = stranger, stranger + 1
        label = "-1" if person < 0 else f"{person:04d}"
        box = 0 if folder in ("query", "gt_bbox") else 1
        path = f"{folder}/{label}_c{camera}s1_{k:06d}_{box:02d}.jpg{'.jpg' if person == 1488 else ''}"
        seed = (WORLD, Release.MARKET1501, Stream.SHOT, k)
        takes.append(Take((path,), people[who], camera, MARKET_ODDS, seed, HEIGHT, WIDTH))
    for folder in {path for path, _, _ in files}:
        (root / folder).mkdir(parents=True)
        (root / folder / "Thumbs.db").touch()
    write_takes(root, takes, WORLD, Release.MARKET1501, HARDNESS, workers, tqdm)
    return len(files)


def snakemake(folder: Path, *options: str) -> float:
    """Run the experiment in the folder; return the seconds."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", folder, "--configfile", folder / "params.yaml", "--quiet", "rules", *options]
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, "REID_OFFLINE": "1"})
    return round(time.monotonic() - start, 1)


def stages(folder: Path) -> dict[str, dict[str, float]]:
    """Return seconds and peak memory of each stage, as Snakemake measured them; jobs of a stage together."""
    measured: dict[str, dict[str, float]] = {}
    for file in sorted((folder / "results/market-structure/benchmarks").rglob("*.tsv")):
        with file.open(newline="") as opened:
            (row,) = csv.DictReader(opened, delimiter="\t")
        name = file.stem if file.parent.name == "benchmarks" else file.parent.name
        stage = measured.setdefault(name, {"seconds": 0, "peak_mb": 0})
        stage["seconds"] = round(stage["seconds"] + float(row["s"]), 1)
        stage["peak_mb"] = max(stage["peak_mb"], 0 if row["max_rss"] == "NA" else round(float(row["max_rss"])))
    return measured


def megabytes(folder: Path) -> float:
    """Return the disk that a folder takes, hard links counted once, as `du` counts."""
    printed = subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=True).stdout
    return round(int(printed.split()[0]) / 1024, 1)


def run(folder: Path) -> dict[str, Any]:
    """Make the release and run the experiment on it twice."""
    data = folder / "data"
    start = time.monotonic()
    files = render(data / "made" / RELEASE, workers=2)
    archive = shutil.make_archive(str(data / RELEASE), "zip", data / "made", RELEASE)
    shutil.rmtree(data / "made")
    made = round(time.monotonic() - start, 1)
    shutil.copy(PARAMS, folder / "params.yaml")
    (folder / "reports").mkdir()
    shutil.copy(ROOT / "reports/paper.csv", folder / "reports")

    first = snakemake(folder)
    results = folder / "results/market-structure"
    written = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    again = snakemake(folder)
    assert written == {path: path.stat().st_mtime_ns for path in results.rglob("*")}, "the second run did something"
    scores = json.loads((results / "evaluate/market-default-draw0.json").read_text())["results"]
    assert [score["queries"] for score in scores] == [3_368] * 6 and not any(s["queries_without_match"] for s in scores)
    return {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "files": files,
        "archive_mb": round(Path(archive).stat().st_size / 2**20, 1),
        "render_and_zip_seconds": made,
        "run_seconds": first,
        "second_run_seconds": again,
        "stages": stages(folder),
        "disk_mb": {"data": megabytes(data), "results": megabytes(results), "store": megabytes(folder / ".store")},
        "counts": yaml.safe_load(PARAMS.read_text())["datasets"]["market"]["counts"],
        "mAP": {f"{score['protocol']}, {score['rerank']}": round(score["mAP"], 4) for score in scores},
    }


def main() -> None:
    """Parse the options, run, and print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--keep", type=Path, help="a new folder to work in and to keep")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="market-structure-") as passing:
        text = json.dumps(run(arguments.keep or Path(passing)), indent=1) + "\n"
    print(text)
    if arguments.json:
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
