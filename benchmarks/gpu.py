"""How long the paper's ranking schedule takes on the GPU at hand, projected from measured updates, and how near that
is to what the chip can do.

    python benchmarks/gpu.py --json benchmarks/results/gpu-NAME.json

A Market-size training set (12,936 rendered images of 128 x 64), ResNet-101 at 416 pixels, 64 triplets an update, N = 5000,
k = 16, 4,096 updates. The real loop (`reid.training.rank`) runs for `--updates` updates after one warm-up round of k;
mining, rendering, augmentation and logging included. One call, under ten minutes on an H100.

| key | meaning |
|---|---|
| projected_minutes | all updates at the measured pace |
| updates_measured, seconds_per_update | of which a mining round every k |
| percent_of_peak | arithmetic of the updates (counted, three forward passes a training image, one a mined one) / the chip's peak |
| embedding_images_per_second | clean images at the same size, decoded beforehand |
| gradient_agreement | relative L2 distance and cosine between bfloat16's gradient of one batch and float32's |
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reid.data.pixels import Pixels
from reid.data.readers.market1501 import read
from reid.data.synthetic.releases import write_market1501
from reid.functional.transforms import Views, augmented
from reid.models.backbone import build, freeze_statistics, set_up
from reid.models.embedder import Embedder, embed
from reid.params import Ranking, load
from reid.training.gradients import add_gradient
from reid.training.rank import precise, rank

LAYERS: dict[str, dict[str, Any]] = {
    "resnet18": {"block": "basic", "blocks": [2, 2, 2, 2]},
    "resnet50": {"block": "bottleneck", "blocks": [3, 4, 6, 3]},
    "resnet101": {"block": "bottleneck", "blocks": [3, 4, 23, 3]},
    "resnet152": {"block": "bottleneck", "blocks": [3, 8, 36, 3]},
}
PEAK = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}
"""Dense bfloat16 operations a second, from the makers' data sheets, by a word in the device's name."""


def people(options: argparse.Namespace, folder: Path, device: torch.device) -> tuple[Pixels, NDArray[np.int64]]:
    """Render a training set of Market-1501's size and decode it."""
    ids = max(4, round(options.images / 8.4))  # about so many images each
    write_market1501(
        folder, world=1, train_ids=ids, test_ids=2, distractors=0, junk=0, hardness=0.45, workers=options.workers
    )
    index = read(folder)
    rows = index.train[: options.images]
    return Pixels.read(index, rows, device, folder, options.workers), index.person_id[rows]


def network(options: argparse.Namespace, device: torch.device) -> Embedder:
    """Make the embedder, with random weights: time does not depend on them."""
    torch.manual_seed(0)
    made = Embedder(build(LAYERS[options.backbone]), 2048, "max").to(device)
    made.to(memory_format=torch.channels_last)
    freeze_statistics(made)
    if options.compile:
        made.backbone.compile()
    return made


def forward_operations(options: argparse.Namespace) -> float:
    """Count what one image costs forward, a multiplication and an addition as two."""
    with torch.device("meta"):
        made = Embedder(build(LAYERS[options.backbone]), 2048, "max").eval()
        image = torch.empty(1, 3, options.largest_side, options.largest_side // 2)
    with FlopCounterMode(display=False) as counter:
        made(image)
    return float(counter.get_total_flops())


def gradient(made: Embedder, images: Pixels, options: argparse.Namespace, precision: str) -> Tensor:
    """Give the gradient of one batch at the largest cut-out, as one vector."""

    def show(places: NDArray[np.int64]) -> Views:
        return augmented(images.sizes[places], options.largest_side, False, 0.0, 0.5, 0, 0, places)

    triplets = np.random.default_rng(0).permutation(len(images))[: 3 * options.batch].reshape(-1, 3)
    made.zero_grad()
    with precise(precision, images.device):
        add_gradient(made, images, triplets, show, 2.5, 1 / options.batch, options.at_once)
    return torch.cat([parameter.grad.flatten() for parameter in made.parameters() if parameter.grad is not None])


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the loop and count."""
    device = set_up(options.workers, tf32=options.precision == "tf32")
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    start = time.perf_counter()
    images, person = people(options, folder, device)
    print(f"{len(images)} images rendered and decoded in {time.perf_counter() - start:.0f} s", flush=True)

    full, half = (gradient(network(options, device), images, options, name) for name in ("float32", "bfloat16"))
    agreement = {
        "relative_l2": float((half - full).norm() / full.norm()),
        "cosine": float(torch.nn.functional.cosine_similarity(half, full, dim=0)),
    }
    print(f"bfloat16 gradient against float32: {agreement}", flush=True)

    made = network(options, device)
    chosen = load(Path(__file__).parents[1] / "experiments/paper/params.yaml").variant("default")
    changes = {
        name: getattr(options, name) for name in ("largest_side", "batch", "at_once", "precision", "pool", "refresh")
    }
    changes["updates"] = options.refresh + options.updates
    settings = Ranking.model_validate(chosen.model_dump(exclude={"backbone", "pretrain"}) | changes)
    ends: list[float] = []

    def watch(row: Mapping[str, float], count: int) -> None:
        synchronise()
        ends.append(time.perf_counter())
        if len(ends) % 16 == 0:
            print(
                f"update {len(ends)}: loss {row['loss']:.4f}, {ends[-1] - ends[max(0, len(ends) - 17)]:.2f} s",
                flush=True,
            )

    rank(made, images, person, settings, 0, watch)
    seconds = (ends[-1] - ends[options.refresh - 1]) / options.updates
    places = np.arange(min(len(images), options.pool))
    synchronise()
    start = time.perf_counter()
    with precise(options.precision, device):
        embed(made, images, places, options.largest_side)
    synchronise()
    speed = len(places) / (time.perf_counter() - start)
    forward = forward_operations(options)
    per_update = forward * (3 * 3 * options.batch + min(options.pool, len(images)) / options.refresh)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    peak = next((value for word, value in PEAK.items() if word in name), None)
    return {
        "device": name,
        "projected_minutes": seconds * 4096 / 60,
        "updates_measured": options.updates,
        "seconds_per_update": seconds,
        "forward_operations_per_image": forward,
        "operations_per_second": per_update / seconds,
        "percent_of_peak": None if peak is None else 100 * per_update / seconds / peak,
        "embedding_images_per_second": speed,
        "gradient_agreement": agreement,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    }


def main() -> None:
    """Measure, print a table and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--backbone", choices=LAYERS, default="resnet101")
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"], default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the backbone")
    parser.add_argument("--images", type=int, default=12_936)
    parser.add_argument("--largest-side", type=int, default=416)
    parser.add_argument("--batch", type=int, default=64, help="triplets")
    parser.add_argument("--at-once", type=int, default=192, help="images whose activations are in memory together")
    parser.add_argument("--pool", type=int, default=5000, help="N")
    parser.add_argument("--refresh", type=int, default=16, help="k")
    parser.add_argument("--updates", type=int, default=208, help="measured, after one round of k")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder) / "market")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    about = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit.strip() or None,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "settings": {key: value for key, value in vars(options).items() if key != "json"},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**found, **about}, indent=1) + "\n")
    for key, value in found.items():
        print(f"{key:32}{value}")


if __name__ == "__main__":
    main()
