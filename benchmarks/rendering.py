"""Time and disk of rendering at the real datasets' sizes.

    python benchmarks/rendering.py --json benchmarks/results/rendering.json --distractors 20000

A training set of Market-1501's size (12,936 images of 128 x 64) and a set of distractors (500,000 in the paper; fewer by
option, as time and disk are proportional, which the last two keys assume).
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from reid.data.synthetic.releases import write_distractors, write_market1501


def size(folder: Path) -> tuple[int, int]:
    """Give the number of images and their bytes."""
    files = list(folder.rglob("*.jpg"))
    return len(files), sum(file.stat().st_size for file in files)


def main() -> None:
    """Render, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--distractors", type=int, default=500_000)
    options = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"workers": workers}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_market1501(
            Path(folder) / "market",
            world=1,
            train_ids=1070,
            test_ids=2,
            distractors=0,
            junk=0,
            hardness=0.45,
            workers=workers,
        )
        count, volume = size(Path(folder) / "market/bounding_box_train")
        found["market"] = {"images": count, "seconds": time.perf_counter() - start, "megabytes": volume / 1e6}
        start = time.perf_counter()
        write_distractors(Path(folder) / "crowd", world=2, images=options.distractors, hardness=0.45, workers=workers)
        count, volume = size(Path(folder) / "crowd")
        found["distractors"] = {"images": count, "seconds": time.perf_counter() - start, "megabytes": volume / 1e6}
    scale = 500_000 / count
    found["minutes_for_500k"] = found["distractors"]["seconds"] * scale / 60
    found["gigabytes_for_500k"] = found["distractors"]["megabytes"] * scale / 1e3
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
