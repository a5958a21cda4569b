"""Whether a GPU computes what the CPU computes: pixels, gradients, embeddings, ranks, counts.

    python benchmarks/device.py --json device.json [--device cuda] [--only ranks gradients] [--small]

Each part runs alone, and one that fails spoils no other: FILE is written after each, and holds what failed and why. With
`--device cpu` both sides are the CPU: a check of this program. `--small` is for that, and takes seconds.

| part | key | meaning |
|---|---|---|
| pixels | `largest_difference` | of network inputs, augmented, of mixed sizes: 0, as resizing is exact (a grey level is 0.017) |
| gradients | `relative_l2`, `cosine`, `same_again` | of one batch against the CPU's float32, in each precision, in one part and in several; whether a second call gives the same bits |
| embeddings | `largest_difference` | of unit vectors in float32 |
| ranks | `differ`, `seconds` | share of ranks that are not the CPU's, without and with re-ranking; seconds of the CPU, of the device, and of it again, warm |
| lists | `differ` | share of the first places that are not the CPU's, by similarity and by k-reciprocal distance |
| counts | `differ`, `seconds` | the same for counts of distractors |

Scores are sums in another order, so ranks may differ where scores are equal up to rounding; `EXPECTED` says how far what
was estimated goes. Exit status 1 if a part failed or is beyond that.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_done_right.artifacts import write_json
from reid_done_right.evaluation import distractors
from reid_done_right.evaluation.embedded import Labels
from reid_done_right.evaluation.ranking import score
from reid_done_right.evaluation.rules import RULES
from reid_done_right.evaluation.topk import top_k
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import Views, augmented, render
from reid_done_right.models.backbone import set_batch_norm
from reid_done_right.models.build import build
from reid_done_right.models.device import precise, set_up
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.training.gradients import add_gradient

CPU = torch.device("cpu")
IMAGES = 24
EXPECTED = {
    "pixels.largest_difference": 0.0,
    "gradients.float32.relative_l2": 1e-3,
    "gradients.float32-in-parts.relative_l2": 1e-3,
    "embeddings.largest_difference": 1e-4,
    "ranks.none.differ": 1e-3,
    "ranks.qe-dba.differ": 1e-3,
    "ranks.k-reciprocal.differ": 1e-3,
    "lists.none.differ": 1e-3,
    "lists.k-reciprocal.differ": 1e-3,
    "counts.differ": 1e-3,
}
"""Largest values that are no fault, estimated: no GPU has been measured."""


class Comparison:
    """The two devices, and the sizes of what is compared."""

    def __init__(self, there: torch.device, small: bool) -> None:
        self.there = there
        self.side = 64 if small else 416
        self.layers = {"block": "bottleneck", "blocks": [1, 1, 1, 1] if small else [3, 4, 6, 3]}
        self.queries, self.gallery, self.dimensions = (60, 400, 32) if small else (3368, 15_913, 2048)
        self.extra = 500 if small else 100_000

    # --- networks

    def pixels(self, device: torch.device) -> Pixels:
        """Return images of mixed sizes."""
        rng = np.random.default_rng(0)
        sizes = np.stack([rng.integers(90, 260, IMAGES), rng.integers(40, 120, IMAGES)], 1).tolist()
        return Pixels.of([rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes], device)

    def show(self, images: Pixels) -> Callable[[NDArray[np.int64]], Views]:
        """Return how images are shown: cropped, mirrored, with a cut-out."""
        return lambda places: augmented(images.sizes[places], self.side, True, 0.8, 0.5, 0, 3, 0, places)

    def network(self, device: torch.device) -> Embedder:
        """Return a network with the same random weights on any device."""
        torch.manual_seed(0)
        made = Embedder(build(self.layers), 128, "max").to(device)
        made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        set_batch_norm(made)
        return made

    def gradient(self, device: torch.device, precision: str, at_once: int) -> torch.Tensor:
        """Return the gradient of a batch in which every triplet has a loss, as one vector on the CPU."""
        made, images = self.network(device), self.pixels(device)
        triplets = np.arange(IMAGES).reshape(-1, 3)
        with precise(precision, device):
            add_gradient(made, images, triplets, self.show(images), 2.5, 1 / len(triplets), at_once)
        parts = [parameter.grad.flatten() for parameter in made.parameters() if parameter.grad is not None]
        return torch.cat(parts).cpu().double()

    # --- ranking

    def benchmark(self) -> tuple[Any, ...]:
        """Return queries and gallery of 900 people, with labels and a rule."""
        rng = np.random.default_rng(1)
        person = np.concatenate([np.arange(self.queries) % 750, np.arange(self.gallery) % 900])
        rows = 0.7 * self.unit(900, 2)[person] + self.unit(len(person), 3)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        labels = [Labels(part + 1, rng.integers(1, 7, len(part))) for part in np.split(person, [self.queries])]
        return rows[: self.queries], labels[0], rows[self.queries :], labels[1], RULES["market1501"]

    def unit(self, count: int, seed: int) -> NDArray[np.float32]:
        """Return random unit vectors."""
        rows = np.random.default_rng(seed).standard_normal((count, self.dimensions), np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def both(self, work: Callable[[str | None], NDArray[Any]]) -> dict[str, Any]:
        """Do work with NumPy, then twice on the device; return the share that differs, and the seconds."""
        found, seconds = [], []
        for device in (None, str(self.there), str(self.there)):
            start = time.perf_counter()
            found.append(work(device))
            seconds.append(time.perf_counter() - start)
        return {"differ": float((found[0] != found[2]).mean()), "seconds": seconds}


# --- the parts


def pixels(on: Comparison) -> dict[str, Any]:
    """Compare network inputs."""
    rendered = []
    for device in (CPU, on.there):
        images = on.pixels(device)
        rendered.append(render(images, np.arange(IMAGES), on.show(images)(np.arange(IMAGES)))[0].cpu())
    return {"largest_difference": float((rendered[0] - rendered[1]).abs().max())}


def gradients(on: Comparison) -> dict[str, Any]:
    """Compare gradients in every precision with the CPU's in float32."""
    oracle = on.gradient(CPU, "float32", IMAGES)
    found = {}
    for name, precision, at_once in (
        ("float32", "float32", IMAGES),
        ("float32-in-parts", "float32", IMAGES // 3),
        ("bfloat16", "bfloat16", IMAGES),
    ):
        mine = on.gradient(on.there, precision, at_once)
        found[name] = {
            "relative_l2": float((mine - oracle).norm() / oracle.norm()),
            "cosine": float(mine @ oracle / (mine.norm() * oracle.norm())),
            "same_again": torch.equal(mine, on.gradient(on.there, precision, at_once)),
        }
    return found


def embeddings(on: Comparison) -> dict[str, Any]:
    """Compare embeddings."""
    here, there = (
        embed(on.network(device), on.pixels(device), np.arange(IMAGES), on.side) for device in (CPU, on.there)
    )
    return {"largest_difference": float(np.abs(here - there).max())}


def ranks(on: Comparison) -> dict[str, Any]:
    """Compare ranks of relevant items."""
    pair = on.benchmark()
    kinds: tuple[Any, ...] = ("none", "qe-dba", "k-reciprocal")
    return {kind: on.both(lambda device, kind=kind: score(*pair, rerank=kind, device=device).ranks) for kind in kinds}


def lists(on: Comparison) -> dict[str, Any]:
    """Compare the first places of some queries in a part of the gallery."""
    query, _, gallery, *_ = on.benchmark()
    kinds: tuple[Any, ...] = ("none", "k-reciprocal")

    def first(kind: Any, device: str | None) -> NDArray[Any]:
        return top_k(query[:50], gallery[:2000], 10, rerank=kind, device=device).items

    return {kind: on.both(lambda device, kind=kind: first(kind, device)) for kind in kinds}


def counts(on: Comparison) -> dict[str, Any]:
    """Compare counts of distractors."""
    pair = on.benchmark()
    plain, extra = score(*pair), on.unit(on.extra, 4)
    positions = distractors.order_positions(on.extra, 10, np.random.default_rng(0))
    sizes = [0, on.extra // 2, on.extra]
    return on.both(lambda device: distractors.count_beating(pair[0], plain, extra, positions, sizes, device=device))


PARTS = {part.__name__: part for part in (pixels, gradients, embeddings, ranks, lists, counts)}


def beyond(found: dict[str, Any]) -> list[str]:
    """Return what failed, and what is further from the CPU than `EXPECTED`."""
    wrong = [f"{name}: {found[name]['error']}" for name in PARTS if "error" in found.get(name, {})]
    for path, most in EXPECTED.items():
        value: Any = found
        for key in path.split("."):
            value = value.get(key, {}) if isinstance(value, dict) else {}
        if isinstance(value, float) and not value <= most:
            wrong.append(f"{path}: {value:.3g}, expected at most {most:g}")
    return wrong


def main() -> None:
    """Compare, write after each part, say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to check this program")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts to run")
    parser.add_argument("--small", action="store_true", help="little of everything")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    there = torch.device(options.device)
    if there.type == "cuda" and set_up(options.threads).type != "cuda":
        raise SystemExit("there is no CUDA device here; give --device cpu to check this program")
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if there.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "command": " ".join(["python", *sys.argv]),
        "small": options.small,
        "date": time.strftime("%Y-%m-%d"),
    }
    on = Comparison(there, options.small)
    for name in options.only:
        start = time.perf_counter()
        try:
            found[name] = PARTS[name](on)
        except Exception as error:  # one part's failure spoils no other
            found[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
        found[name]["part_seconds"] = time.perf_counter() - start
        write_json(options.json, found)
        print(name, json.dumps(found[name]), flush=True)
    if wrong := beyond(found):
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
