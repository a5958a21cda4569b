"""What batching, mining and the data path win over the obvious way, on this machine's CPU, and that they are exact.

    python benchmarks/training.py --json benchmarks/results/training.json

Gauge: CPU seconds of one thread, everything in one process and in turn, median of `--repeats`.

| key | what is compared | with |
|---|---|---|
| gradient_error | the gradient of a batch of mixed sizes, ResNet-18, float64 | image by image: relative L2 |
| equal_size_speedup | gradient of 16 triplets, ResNet-18, 64 x 32, `add_gradient` | `add_gradient_one_by_one`, the paper's words |
| mixed_size_speedup | the same, seven widths | the same |
| embedding_speedup | `embed`, ResNet-18, 64 x 32 | torchvision's ResNet-18, one image at a time |
| embedding_speedup_resnet50 | `embed`, ResNet-50, 128 x 64 | torchvision's ResNet-50, one image at a time |
| mining_speedup | 25 hardest triplets of each of 5,000 images, 2048-d, people of Market-1501 | query by query: its similarities, a P x N matrix of losses, the 25 largest |
| mining_speedup_shared | the same | the same, with all similarities from one product beforehand |
| mining_ratio_to_matmul | the same | the matrix product 5,000 x 5,000 |
| data_speedup | decode once, resize, augment and normalise in the batch | Pillow and transforms each time (`data.py`) |
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import data
import evaluation
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import Views, augmented, render, whole
from reid_done_right.models.backbone import set_batch_norm
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.models.resnet import ResNet
from reid_done_right.training.gradients import Show, add_gradient, add_gradient_one_by_one
from reid_done_right.training.mining import hardest_triplets

CPU = torch.device("cpu")
LAYERS = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet50": ("bottleneck", [3, 4, 6, 3])}


class Double(Embedder):
    """An embedder in float64, whatever its images come in."""

    def forward(self, images: Tensor, extent: Tensor | None = None) -> Tensor:
        """Embed images of any precision."""
        return super().forward(images.double(), extent)


def embedder(backbone: str, kind: type[Embedder] = Embedder) -> Embedder:
    """Make a network of published shape with random weights and frozen batch norm."""
    torch.manual_seed(0)
    made = kind(ResNet(*LAYERS[backbone]), 128, "max").to(memory_format=torch.channels_last)
    set_batch_norm(made)
    return made


def pictures(count: int, height: int, widths: list[int]) -> Pixels:
    """Make images of noise."""
    generator = np.random.default_rng(0)
    sizes = [(height, widths[k % len(widths)], 3) for k in range(count)]
    return Pixels.of([generator.integers(0, 256, size, dtype=np.uint8) for size in sizes], CPU)


def show_at(images: Pixels, side: int) -> Show:
    """Augment as at the end of a training."""

    def show(places: NDArray[np.int64]) -> Views:
        return augmented(images.sizes[places], side, False, 0.0, 0.5, 0.0, 0, 0, places)

    return show


def gradient(made: Embedder, images: Pixels, one_by_one: bool, side: int) -> Tensor:
    """Return the gradient of 16 triplets of distinct images, all with a loss, as one vector."""
    triplets = np.arange(48).reshape(16, 3)
    made.zero_grad()
    add = add_gradient_one_by_one if one_by_one else add_gradient
    add(made, images, triplets, show_at(images, side), 2.5, 1 / 16, 48)
    return torch.cat([parameter.grad.flatten() for parameter in made.parameters() if parameter.grad is not None])


@torch.inference_mode()
def alone(network: torch.nn.Module, images: Pixels, side: int) -> None:
    """Embed one image at a time."""
    for place in np.arange(len(images))[:, None]:
        pixels, _ = render(images, place, whole(images.sizes[place], side))
        F.normalize(network(pixels))


def steps(repeats: int) -> dict[str, float]:
    """Compare batches with single images."""
    mixed = [32, 30, 29, 27, 26, 24, 31]
    double, few = embedder("resnet18", Double).double(), pictures(48, 64, mixed)
    oracle = gradient(double, few, True, 64)
    error = (gradient(double, few, False, 64) - oracle).norm() / oracle.norm()
    small, large = embedder("resnet18"), embedder("resnet50")
    theirs = {name: torchvision.models.get_model(name).eval() for name in LAYERS}
    equal, wide, many = pictures(48, 64, [32]), pictures(96, 64, [32]), pictures(32, 128, [64])
    seconds = data.in_turn(
        repeats,
        {
            "equal": lambda: gradient(small, equal, False, 64),
            "equal_alone": lambda: gradient(small, equal, True, 64),
            "mixed": lambda: gradient(small, few, False, 64),
            "mixed_alone": lambda: gradient(small, few, True, 64),
            "embed": lambda: embed(small, wide, np.arange(96), 64),
            "embed_alone": lambda: alone(theirs["resnet18"], wide, 64),
            "embed50": lambda: embed(large, many, np.arange(32), 128),
            "embed50_alone": lambda: alone(theirs["resnet50"], many, 128),
        },
    )
    return {
        "gradient_error": float(error),
        "equal_size_speedup": seconds["equal_alone"] / seconds["equal"],
        "mixed_size_speedup": seconds["mixed_alone"] / seconds["mixed"],
        "embedding_speedup": seconds["embed_alone"] / seconds["embed"],
        "embedding_speedup_resnet50": seconds["embed50_alone"] / seconds["embed50"],
    }


def one_query_at_a_time(
    embeddings: Tensor, person: NDArray[np.int64], queries: NDArray[np.int64], margin: float = 0.1, shared: bool = False
) -> list[Tensor]:
    """Rank all P x N losses of each query."""
    identity = torch.from_numpy(person)
    similarity = embeddings[torch.from_numpy(queries)] @ embeddings.T if shared else None
    found = []
    for place, query in enumerate(queries.tolist()):
        row = embeddings @ embeddings[query] if similarity is None else similarity[place]
        same = identity == person[query]
        positive = same.clone()
        positive[query] = False
        losses = margin + row[~same][None, :] - row[positive][:, None]
        found.append(losses.flatten().topk(25).values)
    return found


def mining(repeats: int) -> dict[str, float]:
    """Mine a pool of the paper's size; people and images each as among Market-1501's labelled gallery."""
    _, labels = evaluation.market()
    labelled = labels[labels.person_id > 0]
    chosen = labelled[np.sort(np.random.default_rng(0).permutation(len(labelled))[:5000])]
    person = chosen.person_id
    embeddings = torch.from_numpy(evaluation.embed(chosen, 0))
    _, place, counts = np.unique(person, return_inverse=True, return_counts=True)
    queries = np.flatnonzero(counts[place] > 1)
    some = queries[:: len(queries) // 500]

    def ours() -> None:
        for part in np.split(queries, range(512, len(queries), 512)):
            hardest_triplets(embeddings, person, part, 25)

    work = {
        "ours": ours,
        "theirs": lambda: one_query_at_a_time(embeddings, person, some),
        "theirs_shared": lambda: one_query_at_a_time(embeddings, person, some, shared=True),
        "matmul": lambda: embeddings @ embeddings.T,
    }
    seconds = data.in_turn(repeats, work)
    value = hardest_triplets(embeddings, person, some, 25)[2]
    for mine, oracle in zip(value, one_query_at_a_time(embeddings, person, some, 0.0), strict=True):
        torch.testing.assert_close(mine.sort(descending=True).values[: len(oracle)], oracle, rtol=0, atol=1e-6)
    return {
        "mining_speedup": seconds["theirs"] * len(queries) / len(some) / seconds["ours"],
        "mining_speedup_shared": seconds["theirs_shared"] * len(queries) / len(some) / seconds["ours"],
        "mining_ratio_to_matmul": seconds["ours"] / seconds["matmul"],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=3, help="of everything, the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = steps(options.repeats) | mining(options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        found["data_speedup"] = data.measure(Path(folder) / "market", options.repeats)["data_speedup"]
    machine = {"torch": torch.__version__, "cpus": os.cpu_count(), "repeats": options.repeats, "threads": 1}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**machine, **found, "date": time.strftime("%Y-%m-%d")}, indent=1) + "\n")
    print(json.dumps(found, indent=1), file=sys.stdout)


if __name__ == "__main__":
    main()
