"""What an image costs on its way from a JPEG file to a network's input, beside Pillow and torchvision's transforms.

    python benchmarks/data.py --json benchmarks/results/data.json

Images: rendered people of 128 x 64, in JPEG files of Market-1501's format, in the page cache. Gauge: CPU seconds of one
thread, everything in one process and in turn, median of `--repeats`.

Theirs: each image is decoded by Pillow, resized, made a float tensor, normalised and stacked each time it is used, as
the loaders of torchreid and layumi's baseline do; without cut-out, in their favour. Ours: decoded once, which is shared
out over `uses`, what the paper's 4,096 updates of 192 images make of Market-1501's 12,936; then each use is a batch of
`reid_done_right.images.transforms.render`, with cut-out at its half-way limit. Batches of one size on both sides: 96 images, the
embedded experiment's, at 64; 16 at 416.

| key | what | at |
|---|---|---|
| data_speedup | images per core-second of the whole path, ours / theirs | largest side 64, the embedded experiment's |
| data_speedup_416 | the same | 416, the paper's, which nobody would train on a CPU |
| decode_speedup | decoding into `reid_done_right.images.pixels.Pixels`, files read twice, / Pillow's decoding | |
| device_speedup | decoding shared out over `uses`, plus taking the batch: what is left to a CPU where a GPU renders / theirs | 416 |
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision import transforms as v1

from pedestrians.releases import write_market1501
from reid_done_right.artifacts import Index
from reid_done_right.data.readers.market1501 import read
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import MEAN, STD, augmented, render

CPU = torch.device("cpu")
BATCHES = {64: 96, 416: 16}  # by largest side: the embedded experiment's; what fits a CPU's caches
USES = 4096 * 192 / 12_936


def in_turn(repeats: int, work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median CPU seconds of each piece of work, run one after the other `repeats` times after a first time."""
    spent: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, run in work.items():
            start = time.process_time()
            run()
            if repeat:
                spent[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


def theirs(index: Index, rows: np.ndarray, largest_side: int) -> None:
    """Decode, resize, normalise and stack, one by one."""
    chain = v1.Compose([v1.Resize((largest_side, largest_side // 2)), v1.ToTensor(), v1.Normalize(MEAN, STD)])
    for some in np.split(rows, range(BATCHES[largest_side], len(rows), BATCHES[largest_side])):
        paths = [index.root / path for path in index.path[some]]
        torch.stack([chain(Image.open(path).convert("RGB")) for path in paths])


def ours(images: Pixels, largest_side: int) -> None:
    """Render every image once, with cut-out."""
    step = BATCHES[largest_side]
    for places in np.split(np.arange(len(images)), range(step, len(images), step)):
        render(images, places, augmented(images.sizes[places], largest_side, False, 0.0, 0.25, 0.0, 0, 0, places))


def batches(images: Pixels) -> None:
    """Take every image once, as it is."""
    for places in np.split(np.arange(len(images)), range(192, len(images), 192)):
        images.batch(places)


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Time both ways on one rendered release."""
    write_market1501(folder, world=1, train_ids=60, test_ids=2, distractors=0, junk=0, hardness=0.45, workers=1)
    index = read(folder)
    rows = index.train
    images = Pixels.read(index, rows, CPU, folder)
    work: dict[str, Callable[[], object]] = {
        "decode": lambda: Pixels.read(index, rows, CPU, folder),
        "pillow_decode": lambda: [
            np.asarray(Image.open(index.root / path).convert("RGB")) for path in index.path[rows]
        ],
        "batches": lambda: batches(images),
    }
    for side in BATCHES:
        work |= {f"ours_{side}": partial(ours, images, side), f"theirs_{side}": partial(theirs, index, rows, side)}
    seconds = in_turn(repeats, work)
    found = {f"microseconds_{name}": 1e6 * each / len(rows) for name, each in seconds.items()}
    decoded = seconds["decode"] / USES
    found["data_speedup"] = seconds["theirs_64"] / (seconds["ours_64"] + decoded)
    found["data_speedup_416"] = seconds["theirs_416"] / (seconds["ours_416"] + decoded)
    found["decode_speedup"] = seconds["pillow_decode"] / seconds["decode"]
    found["device_speedup"] = seconds["theirs_416"] / (seconds["batches"] + decoded)
    return {"images": len(rows), "uses": USES, **found}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=5, help="of everything, the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = {"torch": torch.__version__, "torchvision": torchvision.__version__, "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder) / "market", options.repeats)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**machine, **found}, indent=1) + "\n")
    print(json.dumps(found, indent=1), file=sys.stdout)


if __name__ == "__main__":
    main()
