"""Time and disk of rendering at the real datasets' sizes.

    python benchmarks/rendering.py --json benchmarks/results/rendering.json --distractors 20000

A training set of Market-1501's size (12,936 images of 128 x 64, nearly) and a set of distractors: 500,000 in the paper, fewer by
option. `images_rendered` says how many there really were; `projected_500k` is what 500,000 would take if time and disk
are proportional, as they are of images that know nothing of each other. CPU seconds are of all processes.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pedestrians.releases import write_distractors, write_market1501


def size(folder: Path) -> tuple[int, int]:
    """Return the number of images and their bytes."""
    files = list(folder.rglob("*.jpg"))
    return len(files), sum(file.stat().st_size for file in files)


def timed(write: Callable[[], None], folder: Path) -> dict[str, float]:
    """Render a release; return what it took, and the images in a folder of it."""
    start, before = time.perf_counter(), os.times()
    write()
    seconds, after = time.perf_counter() - start, os.times()
    count, volume = size(folder)
    cpu = sum(after[:4]) - sum(before[:4])
    return {"images_rendered": count, "seconds": seconds, "cpu_seconds": cpu, "megabytes": volume / 1e6}


def main() -> None:
    """Render, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--distractors", type=int, default=500_000)
    options = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"workers": workers}
    with tempfile.TemporaryDirectory() as folder:
        market, crowd = Path(folder) / "market", Path(folder) / "crowd"
        people = {"world": 1, "train_ids": 1592, "test_ids": 2, "distractors": 0, "junk": 0}
        found["market"] = timed(
            lambda: write_market1501(market, **people, hardness=0.45, workers=workers), market / "bounding_box_train"
        )
        found["distractors"] = timed(
            lambda: write_distractors(crowd, world=2, images=options.distractors, hardness=0.45, workers=workers), crowd
        )
    scale = 500_000 / found["distractors"]["images_rendered"]
    found["projected_500k"] = {
        "minutes": found["distractors"]["seconds"] * scale / 60,
        "cpu_minutes": found["distractors"]["cpu_seconds"] * scale / 60,
        "gigabytes": found["distractors"]["megabytes"] * scale / 1e3,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
