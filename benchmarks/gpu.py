"""How long the paper's ranking schedule takes on the GPU at hand, projected from measured updates, and how near that
is to what the chip can do.

    python benchmarks/gpu.py --json benchmarks/results/gpu-NAME.json

A Market-size training set (12,936 rendered images of 128 x 64), ResNet-101 at 416 pixels, 64 triplets an update, N = 5000,
k = 16, 4,096 updates. One call, of at most `--minutes`. Each part runs in a process of its own, so that none can spoil
another by a crash, by memory or by time; FILE is written after each, and says what failed and why.

1. Each way to run is timed on one batch and one pool, eager and compiled, with and without the order of sums fixed, in
   bfloat16, beside eager float32 and TF32; and its gradient is compared with eager float32's.
2. The real loop (`reid_done_right.training.ranking`) runs the fastest whose gradient agrees, for `--updates` updates after one round
   of k: mining, rendering, augmentation and logging included. If time runs out, what was measured by then counts.
3. What else there is: classification, images of mixed sizes, ranking and k-reciprocal re-ranking of 500,000 distractors.
   `--only` runs some parts alone.

The weights are random, with batch norm's statistics of some images, as after a training.

| key | meaning |
|---|---|
| projected_minutes | all 4,096 updates at the measured pace, with decoding and checkpoints, without the first compilation |
| decode_seconds, checkpoint_seconds | of the training set, and of one checkpoint, of which there are so many that they take 2 % at most |
| mining_seconds, update_seconds | of a round of mining, and of an update without its share of that |
| updates_measured, seconds_per_update | in whole rounds, of which each mines once |
| percent_of_peak | arithmetic of the updates (images counted: one forward pass, two more for those with a gradient) / the chip's peak in bfloat16 |
| embedding_images_per_second | clean images at the same size, decoded beforehand |
| gradient_agreement | relative L2 distance and cosine between bfloat16's gradient of one batch and float32's |
| ways | of each way: seconds of its first gradient, which compiles, and of the next ones; images per second; agreement |
| classification, mixed | seconds of an update of 128 crops; of a gradient and of embedding with images of 90 to 400 pixels, and their padding |
| ranking | seconds to rank 16K and 500K items for 3,368 queries, and to re-rank all of them |
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pedestrians.releases import write_market1501
from reid_done_right.artifacts import write_json
from reid_done_right.data.readers.market1501 import read
from reid_done_right.evaluation.embedded import Labels
from reid_done_right.evaluation.ranking import score
from reid_done_right.evaluation.rules import RULES
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import Views, augmented, render, whole
from reid_done_right.models.backbone import set_batch_norm
from reid_done_right.models.build import build
from reid_done_right.models.device import out_of_memory, precise, set_up
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.models.padding import batches
from reid_done_right.params import load
from reid_done_right.params.training import RankingStage
from reid_done_right.training.checkpoints import EVERY, SHARE, Checkpoints
from reid_done_right.training.classification import train_classifier
from reid_done_right.training.gradients import add_gradient
from reid_done_right.training.ranking import train_ranking

UPDATES = 4096
LAYERS: dict[str, dict[str, Any]] = {
    "resnet18": {"block": "basic", "blocks": [2, 2, 2, 2]},
    "resnet50": {"block": "bottleneck", "blocks": [3, 4, 6, 3]},
    "resnet101": {"block": "bottleneck", "blocks": [3, 4, 23, 3]},
    "resnet152": {"block": "bottleneck", "blocks": [3, 8, 36, 3]},
}
PEAK = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}
"""Dense bfloat16 operations a second, from the makers' data sheets, by a word in the device's name."""
WAYS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32", "execution": "eager", "deterministic": True},
    "eager": {"precision": "bfloat16", "execution": "eager", "deterministic": True},
    "compiled": {"precision": "bfloat16", "execution": "compiled", "deterministic": True},
    "tf32": {"precision": "tf32", "execution": "eager", "deterministic": True},
    "cuda-graphs": {"precision": "bfloat16", "execution": "cuda-graphs", "deterministic": True},
    "compiled-any-order": {"precision": "bfloat16", "execution": "compiled", "deterministic": False},
    "eager-any-order": {"precision": "bfloat16", "execution": "eager", "deterministic": False},
}
BELOW = 0.02
"""How much lower the cosine of a gradient with eager float32's may be than the best in bfloat16 for a way to be chosen."""


# --- in a process of its own


def people(options: argparse.Namespace, device: torch.device) -> tuple[Pixels, NDArray[np.int64]]:
    """Decode the training set."""
    index = read(options.folder / "market")
    rows = index.train[: options.images]
    return Pixels.read(index, rows, device, options.folder, options.workers), index.person_id[rows]


def network(options: argparse.Namespace, images: Pixels) -> Embedder:
    """Make the embedder, its weights random, its batch norm with the statistics of some images."""
    torch.manual_seed(0)
    made = Embedder(build(LAYERS[options.backbone]), 2048, "max").to(images.device)
    made.to(memory_format=torch.channels_last)
    places = np.arange(min(len(images), 32))
    pixels, _ = render(images, places, whole(images.sizes[places], options.largest_side))
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the mean over all batches, of which there is one
    with torch.no_grad():
        made.train()(pixels)
    set_batch_norm(made)
    return made


def forward_operations(options: argparse.Namespace) -> float:
    """Count what one image costs forward, a multiplication and an addition as two."""
    with torch.device("meta"):
        made = Embedder(build(LAYERS[options.backbone]), 2048, "max").eval()
        image = torch.empty(1, 3, options.largest_side, options.largest_side // 2)
    with FlopCounterMode(display=False) as counter:
        made(image)
    return float(counter.get_total_flops())


def gradient(made: Embedder, images: Pixels, options: argparse.Namespace, precision: str, at_once: int) -> Tensor:
    """Return the gradient of one batch, all of it with a loss, at the largest cut-out, as one vector."""

    def show(places: NDArray[np.int64]) -> Views:
        return augmented(images.sizes[places], options.largest_side, False, 0.0, 0.5, 0.5, 0, 0, places)

    triplets = np.random.default_rng(0).permutation(len(images))[: 3 * options.batch].reshape(-1, 3)
    made.zero_grad()
    with precise(precision, images.device):
        add_gradient(made, images, triplets, show, 2.5, 1 / options.batch, at_once)
    return torch.cat([parameter.grad.flatten() for parameter in made.parameters() if parameter.grad is not None])


def that_fits(work: Callable[[int], Tensor], at_once: int) -> tuple[Tensor, int]:
    """Do work with so many images at once, or with half as many, until they fit; return its result and their number."""
    while True:
        try:
            return work(at_once), at_once
        except RuntimeError as error:
            if not out_of_memory(error) or at_once == 1:
                raise
            at_once //= 2
        torch.cuda.empty_cache()  # out here, where the error no longer holds its activations


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the seconds of the fastest of some calls."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def agreement(found: Tensor, oracle: Tensor) -> dict[str, float]:
    """Compare two gradients, of millions of numbers: in float64."""
    found, oracle = found.double(), oracle.double()
    return {
        "relative_l2": float((found - oracle).norm() / oracle.norm()),
        "cosine": float(found @ oracle / (found.norm() * oracle.norm())),
    }


def time_way(options: argparse.Namespace, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Time gradients and embeddings in one way; compare with eager float32's gradient, which the first way keeps."""
    way = WAYS[options.part]
    device = set_up(options.workers, way["precision"], way["deterministic"])
    images, _ = people(options, device)
    made = network(options, images)
    made.execute(way["execution"])
    start = time.perf_counter()
    found, at_once = that_fits(lambda many: gradient(made, images, options, way["precision"], many), options.at_once)
    told: dict[str, Any] = {
        **way,
        "images": len(images),
        "first_gradient_seconds": time.perf_counter() - start,
        "at_once": at_once,
    }
    kept = options.folder / "gradient.npy"
    if options.part == "float32":
        np.save(kept, found.cpu().numpy())
    if kept.exists():
        told["gradient_agreement"] = agreement(found.cpu(), torch.from_numpy(np.load(kept)))
    told["gradient_seconds"] = seconds_of(
        lambda: gradient(made, images, options, way["precision"], at_once), device, options.repeats
    )
    tell(told)
    places = np.arange(min(len(images), options.pool))

    def pool() -> None:
        with precise(way["precision"], device):
            embed(made, images, places, options.largest_side)

    seconds = min(seconds_of(pool, device, 1), seconds_of(pool, device, 1))  # the first may compile
    told["embedding_images_per_second"] = len(places) / seconds
    told["estimated_seconds_per_update"] = told["gradient_seconds"] + seconds / options.refresh
    if device.type == "cuda":
        told["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    tell(told)


class Enough(Exception):
    """The time for updates is over."""


def time_schedule(options: argparse.Namespace, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Run the loop in the way chosen, and count."""
    way = WAYS[options.way]
    device = set_up(options.workers, way["precision"], way["deterministic"])
    start = time.perf_counter()
    images, person = people(options, device)
    decode = time.perf_counter() - start
    made = network(options, images)
    saving = 2 * seconds_of(lambda: save(made, options.folder), device, 1)  # momentum is as large as the weights
    chosen = load(Path(__file__).parents[1] / "experiments/paper/params.yaml").variant("default")
    sizes = {name: getattr(options, name) for name in ("largest_side", "batch", "at_once", "pool", "refresh")}
    changes = {**sizes, **way, "updates": UPDATES}  # of which the first are run
    settings = RankingStage.model_validate(chosen.model_dump(exclude={"backbone", "initial", "pretrain"}) | changes)
    forward = forward_operations(options)
    passes = 0  # forward passes of one image, or as much arithmetic
    ends: list[float] = []
    done: list[int] = []  # passes at the ends

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal passes
        passes += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)

    def watch(row: Mapping[str, float], images: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        done.append(passes)
        rounds = len(ends) // options.refresh - 1  # whole ones after the first
        if rounds > 0 and len(ends) % options.refresh == 0:
            first = options.refresh - 1
            seconds = (ends[-1] - ends[first]) / (len(ends) - 1 - first)
            steps = np.diff(ends[first:])
            plain = np.median(np.delete(steps, np.s_[:: options.refresh])) if options.refresh > 1 else seconds
            saved = min(SHARE, saving / EVERY)  # of the time
            speed = forward * (done[-1] - done[first]) / (ends[-1] - ends[first])
            name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
            peak = next((value for word, value in PEAK.items() if word in name), None)
            print(f"update {len(ends)}: loss {row['loss']:.4f}, {seconds:.3f} s an update", flush=True)
            tell(
                {
                    "projected_minutes": (seconds * UPDATES * (1 + saved) + decode) / 60,
                    "decode_seconds": decode,
                    "checkpoint_seconds": saving,
                    "update_seconds": float(plain),
                    "mining_seconds": float((seconds - plain) * options.refresh),
                    "updates_measured": len(ends) - 1 - first,
                    "seconds_per_update": seconds,
                    "loss": row["loss"],
                    "forward_operations_per_image": forward,
                    "images_per_update": (done[-1] - done[first]) / (len(ends) - 1 - first),
                    "operations_per_second": speed,
                    "percent_of_peak": None if peak is None else 100 * speed / peak,
                    "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
                    "warnings": sorted({str(each.message).splitlines()[0] for each in warned}),
                }
            )
        if len(ends) >= options.refresh + options.updates or (rounds > 0 and time.time() > options.until):
            raise Enough

    made.register_forward_pre_hook(count)
    with warnings.catch_warnings(record=True) as warned, suppress(Enough):
        train_ranking(made, images, person, settings, 0, watch)


def save(made: nn.Module, folder: Path) -> None:
    """Save weights as a checkpoint does."""
    Checkpoints(folder / "checkpoint.safetensors").save(0, made.state_dict(), {})


def time_classification(options: argparse.Namespace, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Time updates of the classification stage, in bfloat16 and in float32."""
    device = set_up(options.workers)
    images, person = people(options, device)
    settings = load(Path(__file__).parents[1] / "experiments/paper/params.yaml").pretrain
    found = {}
    for precision in ("bfloat16", "float32"):
        size = {"batch": 2 * options.batch, "updates": options.repeats + 2, "precision": precision}
        ends: list[float] = []
        own = settings.model_copy(update=size)
        backbone = build(LAYERS[options.backbone])
        train_classifier(backbone, images, person, own, 0, lambda *_, ends=ends: ends.append(time.perf_counter()))
        found[precision] = {"update_seconds": float(np.diff(ends).min()), "batch": own.batch}
        tell(found)


def time_mixed(options: argparse.Namespace, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Time a gradient and embedding of images of mixed sizes, as Duke's, in bfloat16."""
    device = set_up(options.workers, "bfloat16")
    rng = np.random.default_rng(0)
    height = rng.integers(90, 400, min(options.images, 2000))
    sizes = np.stack([height, (height * rng.uniform(0.35, 0.6, len(height))).astype(np.int64)], 1)
    images = Pixels.of([rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes.tolist()], device)
    made = network(options, images)
    shown = whole(images.sizes, options.largest_side).size[: 3 * options.batch]
    inputs = sum(int(shown[some].max(0).prod()) * len(some) for some in batches(shown, options.at_once, True))
    found = {"padding": inputs / int(shown.prod(1).sum()) - 1}

    def work() -> None:
        that_fits(lambda many: gradient(made, images, options, "bfloat16", many), options.at_once)

    found["gradient_seconds"] = seconds_of(work, device, options.repeats)
    tell(found)
    places = np.arange(len(images))

    def pool() -> None:
        with precise("bfloat16", device):
            embed(made, images, places, options.largest_side)

    tell({**found, "embedding_images_per_second": len(places) / seconds_of(pool, device, 2)})


def time_ranking(options: argparse.Namespace, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Time ranking with and without distractors, and re-ranking of all of them."""
    device = str(set_up(options.workers))
    queries, items = (3368, 15_913) if options.distractors > 10_000 else (50, 300)
    rng, found = np.random.default_rng(0), {}

    def unit(count: int) -> NDArray[np.float32]:
        rows = rng.standard_normal((count, 2048), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    query, gallery = unit(queries), unit(items + options.distractors)
    asked = Labels(np.arange(queries) % 750 + 1, rng.integers(1, 7, queries))
    person = np.concatenate([np.arange(items) % 900 + 1, np.zeros(options.distractors, np.int64)])
    there = Labels(person, rng.integers(1, 7, len(person)))
    for name, count, rerank in (
        ("16K", items, "none"),
        ("516K", len(gallery), "none"),
        ("516K, k-reciprocal", len(gallery), "k-reciprocal"),
        ("516K, qe-dba", len(gallery), "qe-dba"),
    ):
        pair = query, asked, gallery[:count], Labels(there.person_id[:count], there.camera_id[:count])
        start = time.perf_counter()
        score(*pair, RULES["market1501"], rerank=rerank, device=device, threads=options.workers)  # type: ignore[arg-type]
        found[name] = time.perf_counter() - start
        tell({"items": len(gallery), "seconds": found})


MORE = {"classification": time_classification, "mixed": time_mixed, "ranking": time_ranking}


# --- around them


def run(options: argparse.Namespace, part: str, seconds: float, *more: str) -> dict[str, Any]:
    """Do one part in a process of its own, killed after so many seconds; return what it told, and `error` if it failed."""
    told = options.folder / f"{part}.json"
    given = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in PASSED]
    command = [sys.executable, __file__, "--json", str(told), "--part", part, "--folder", str(options.folder)]
    error = None
    try:
        made = subprocess.run(
            [*command, *given, *more], stderr=subprocess.PIPE, text=True, timeout=seconds, check=False
        )
        if made.returncode:
            lines = made.stderr.strip().splitlines() or [f"status {made.returncode}"]
            print(made.stderr[-4000:], file=sys.stderr)
            error = lines[-1]
    except subprocess.TimeoutExpired:
        error = f"took more than {seconds:.0f} s"
    found = json.loads(told.read_text()) if told.exists() else {}
    return found if error is None else {**found, "error": error}


def fastest(ways: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the fastest way in bfloat16 that went through and whose gradient agrees as well as others'; None if none."""
    through = {
        name: (way["estimated_seconds_per_update"], way.get("gradient_agreement", {"cosine": 1})["cosine"])
        for name, way in ways.items()
        if "error" not in way and way["precision"] == "bfloat16"
    }
    best = max((cosine for _, cosine in through.values()), default=0)
    fit = {name: seconds for name, (seconds, cosine) in through.items() if cosine >= best - BELOW}
    return min(fit, key=lambda name: fit[name]) if fit else None


def table(found: Mapping[str, Any]) -> str:
    """Return the figures in words."""
    lines = [f"{'way':20}{'gradient s':>12}{'images/s':>10}{'update s':>10}{'first s':>9}{'cosine':>9}"]
    for name, way in found["ways"].items():
        keys = ("gradient_seconds", "embedding_images_per_second", "estimated_seconds_per_update")
        cells = [way.get(key) for key in (*keys, "first_gradient_seconds")]
        cells.append(way.get("gradient_agreement", {}).get("cosine"))
        widths = (12, 10, 10, 9, 9)
        shown = ["-" if cell is None else f"{cell:.4g}" for cell in cells]
        lines.append(f"{name:20}" + "".join(f"{cell:>{width}}" for cell, width in zip(shown, widths, strict=True)))
        if "error" in way:
            lines.append(f"  {way['error']}")
    return "\n".join([*lines, *(f"{key:32}{value}" for key, value in found.items() if key != "ways")])


PASSED = (
    "backbone", "images", "largest_side", "batch", "at_once", "pool", "refresh", "updates", "repeats", "workers",
    "distractors",
)  # fmt: skip
"""Options that go on to the parts."""


def measure(options: argparse.Namespace) -> None:
    """Render, run the parts in turn, write after each."""
    begin = time.time()
    ids = max(4, round(options.images / 7.9))  # a little fewer images than each has
    write_market1501(
        options.folder / "market",
        world=1,
        train_ids=ids,
        test_ids=2,
        distractors=0,
        junk=0,
        hardness=0.45,
        workers=options.workers,
    )
    asked = "git rev-parse --short HEAD"  # of a shell, which prints nothing where there is no git
    commit = subprocess.run(asked, shell=True, capture_output=True, text=True, check=False).stdout
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "render_seconds": time.time() - begin,
        "ways": {},
        "command": " ".join(["python", *sys.argv]),
        "commit": commit.strip() or None,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "settings": {name: getattr(options, name) for name in (*PASSED, "minutes", "ways")},
    }
    end, deadline = begin + 60 * options.minutes, begin + 60 * options.minutes * 0.5  # the rest is for the other parts
    for name in options.ways if "schedule" in options.only else ():
        left = deadline - time.time()
        found["ways"][name] = run(options, name, left) if left > 0 else {"error": "no time was left"}
        write_json(options.json, found)
        print(f"{name}: {found['ways'][name]}", flush=True)
    chosen = fastest(found["ways"])
    if chosen is not None and "schedule" in options.only:
        found["way"], way = chosen, found["ways"][chosen]
        found["embedding_images_per_second"] = way["embedding_images_per_second"]
        found["gradient_agreement"] = way.get("gradient_agreement")
        until = f"--until={begin + 60 * options.minutes * (1 if options.only == ['schedule'] else 0.75) - 15}"
        at_once = f"--at-once={way['at_once']}"
        found |= run(options, "schedule", end - time.time(), until, f"--way={chosen}", at_once)
    for name in MORE:
        if name in options.only:
            left = end - time.time()
            found[name] = run(options, name, left) if left > 0 else {"error": "no time was left"}
            write_json(options.json, found)
            print(f"{name}: {found[name]}", flush=True)
    found["total_seconds"] = time.time() - begin
    write_json(options.json, found)
    print(table(found))
    if "projected_minutes" not in found and "schedule" in options.only:
        raise SystemExit("no update was measured: see the errors above")


def main() -> None:
    """Measure, print a table and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--minutes", type=float, default=9.5, help="that all of it may take")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS), help="to run in, the first float32")
    parts = ["schedule", *MORE]
    parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="schedule: with the ways before it")
    parser.add_argument("--distractors", type=int, default=500_000, help="of the ranking")
    parser.add_argument("--backbone", choices=LAYERS, default="resnet101")
    parser.add_argument("--images", type=int, default=12_936)
    parser.add_argument("--largest-side", type=int, default=416)
    parser.add_argument("--batch", type=int, default=64, help="triplets")
    parser.add_argument("--at-once", type=int, default=192, help="images whose activations are in memory together")
    parser.add_argument("--pool", type=int, default=5000, help="N")
    parser.add_argument("--refresh", type=int, default=16, help="k")
    parser.add_argument("--updates", type=int, default=208, help="measured, after one round of k; whole rounds")
    parser.add_argument("--repeats", type=int, default=5, help="of a gradient, the fastest counts")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    for name, kind in (("part", str), ("folder", Path), ("way", str), ("until", float)):  # of a part's process
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        timed = {**MORE, "schedule": time_schedule}.get(options.part, time_way)
        timed(options, lambda told: write_json(options.json, told))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        measure(options)


if __name__ == "__main__":
    main()
