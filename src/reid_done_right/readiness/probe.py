"""Measure networks before a run: size, FLOPs, memory, and speed on this device.

Size, FLOPs and memory are counted on tensors without data. A few updates of the default network measure the speed of
the device; everything else is scaled by FLOPs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import augmented
from reid_done_right.models.backbone import Backbone as Network
from reid_done_right.models.backbone import set_batch_norm
from reid_done_right.models.build import build
from reid_done_right.models.device import precise, set_up
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.models.pooling import Pool
from reid_done_right.params.networks import Backbone
from reid_done_right.params.training import Pretrain, Train
from reid_done_right.readiness.networks import smallest
from reid_done_right.training.classification import train_classifier
from reid_done_right.training.gradients import add_gradient, add_gradient_one_by_one
from reid_done_right.training.optimizer import Optimizer

BUDGET = 40 * 10**9
"""FLOPs to spend on a CPU in the forward passes of an update or an embedding: about a second."""

TIMES = 3
"""Number of timed updates, of which the fastest counts; a single one if the budget is less than a real update."""


@dataclass(frozen=True)
class Speed:
    """Measured seconds per image: classification and ranking updates (forward and backward), and embedding."""

    classify: float
    rank: float
    embed: float


@cache
def _flops(description: str, height: int, width: int) -> int:
    with torch.device("meta"):
        backbone = build(json.loads(description))
        image = torch.empty(1, 3, height, width)
    set_batch_norm(backbone)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(image)
    return int(counter.get_total_flops())


def arithmetic(layers: Backbone, height: int, width: int) -> int:
    """Count the floating-point operations of a backbone's forward pass over one image."""
    return _flops(json.dumps(layers.described()), height, width)


def weights_bytes(layers: Backbone, embedding: int | None = None) -> int:
    """Return the bytes of a backbone's weights or, given an embedding size, of an embedder's."""
    with torch.device("meta"):
        network: torch.nn.Module = build(layers.described())
        if embedding is not None:
            network = Embedder(build(layers.described()), embedding, "max")
    return 4 * sum(int(tensor.numel()) for tensor in network.state_dict().values())


def dimension(layers: Backbone, embedding: int) -> int:
    """Return the size of an embedding: that of the fully-connected layer or, if 0, the backbone's channels."""
    with torch.device("meta"):
        return embedding or build(layers.described()).channels


def ranking_memory(layers: Backbone, settings: Train, workers: int = 1) -> int:
    """Return the bytes in use during a ranking update: weights, gradients, momentum, activations."""
    share = 3 * -(-settings.batch // workers)
    count = 3 if settings.batching == "sequential" else min(settings.at_once, share)
    with torch.device("meta"):
        embedder = Embedder(build(layers.described()), settings.embedding, settings.pooling)
        images = torch.empty(count, 3, *sides(layers, settings.largest_side))
    set_batch_norm(embedder, settings.batch_norm)
    if settings.precision == "bfloat16":  # the precision of activations under autocast
        embedder, images = embedder.bfloat16(), images.bfloat16()
    sums = 2 * weights_bytes(layers, settings.embedding) if settings.average else 0
    return sums + _kept(embedder, images, lambda network, batch: network(batch).sum())


def classification_memory(layers: Backbone, settings: Pretrain) -> int:
    """Return the same for a classification update, without the classifier's own few weights."""
    with torch.device("meta"):
        backbone = build(layers.described())
        crops = torch.empty(settings.batch, 3, settings.crop_height, settings.crop_width)
    pool = Pool(settings.pooling)
    return _kept(backbone.train(), crops, lambda network, batch: pool(network(batch)[0]).sum())


def sides(layers: Backbone, largest: int) -> tuple[int, int]:
    """Return (height, width) of a person's image with a given largest side: half as wide as high, as in Market-1501.

    If that is too small for the backbone, returns the smallest size it accepts.
    """
    return largest, max(smallest(layers), largest // 2)


def probe(layers: Backbone, pretrain: Pretrain, train: Train, threads: int, gpu: bool = True) -> Speed:
    """Measure updates and embeddings of a network on random images, in seconds per image, as the jobs run them.

    On a GPU, if `gpu` says that jobs ask for one and there is one, images have their real size, `at_once` at a time. On
    a CPU, `BUDGET` limits the number of images and, if that is less than the smallest update, also their size; the time
    is then scaled by FLOPs.
    """
    device = set_up(threads, train.precision, train.deterministic) if gpu else torch.device("cpu")
    torch.set_num_threads(threads)
    embedder = Embedder(build(layers.described()), train.embedding, train.pooling).to(device)
    crop = (pretrain.crop_height, pretrain.crop_width)
    person = sides(layers, train.largest_side)
    together = min(3 * train.batch, train.at_once if train.batching == "padded" else 3 * train.batch)

    def measure(
        wanted: int, least: int, size: tuple[int, int], action: Callable[[int, tuple[int, int], int], float]
    ) -> float:
        count, shown, times = wanted, size, TIMES
        if device.type == "cpu":
            count, shown = affordable(layers, wanted, least, size)
            times = TIMES if (count, shown) == (wanted, size) else 1
        share = arithmetic(layers, *size) / arithmetic(layers, *shown)
        return action(count, shown, times) / count * share

    return Speed(
        measure(pretrain.batch, 2, crop, lambda *asked: _classify(embedder.backbone, pretrain, device, *asked)),
        measure(max(3, together - together % 3), 3, person, lambda *asked: _rank(embedder, train, device, *asked)),
        measure(together, 1, person, lambda *asked: _embed(embedder, train, device, *asked)),
    )


def is_affordable(layers: Backbone, train: Train) -> bool:
    """Return whether this device can be timed by an update of one triplet of real size, always true of a GPU."""
    return torch.cuda.is_available() or 3 * arithmetic(layers, *sides(layers, train.largest_side)) <= BUDGET


def affordable(layers: Backbone, wanted: int, least: int, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Return number, height and width of the images whose forward pass fits `BUDGET`.

    All wanted images if possible, otherwise fewer, a multiple of `least`, or `least` smaller ones.
    """
    count = min(wanted, BUDGET // arithmetic(layers, *size) // least * least)
    if count >= min(wanted, least):
        return count, size
    scale = (BUDGET / (least * arithmetic(layers, *size))) ** 0.5
    least_side = max(smallest(layers), 16)
    height, width = (max(min(side, least_side), int(side * scale)) for side in size)
    return least, (height, width)


def device_memory() -> tuple[str, int, int, int] | None:
    """Return the GPU's name, its free and total memory in bytes, and the number of GPUs; None without CUDA."""
    if not torch.cuda.is_available():
        return None
    free, whole = torch.cuda.mem_get_info()
    return torch.cuda.get_device_name(), free, whole, torch.cuda.device_count()


def _classify(
    network: Network,
    pretrain: Pretrain,
    device: torch.device,
    count: int,
    size: tuple[int, int],
    times: int,
) -> float:
    """Return the seconds of a classification update."""
    crops = {"crop_height": size[0], "crop_width": size[1]}
    settings = pretrain.model_copy(
        update={"updates": times, "passes": None, "batch": count, "learning_rate": 1e-6, **crops}
    )
    stamps = [time.perf_counter()]
    label = np.arange(count) % 4
    train_classifier(
        network, _noise(count, size, device), label, settings, 0, lambda *_: stamps.append(time.perf_counter())
    )
    return float(np.diff(stamps).min())


def _rank(
    embedder: Embedder, train: Train, device: torch.device, count: int, size: tuple[int, int], times: int
) -> float:
    """Return the seconds of a ranking update in which every triplet has a loss."""
    images = _noise(count, size, device)
    embedder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_batch_norm(embedder, train.batch_norm)
    embedder.execute(train.execution)
    optimizer = Optimizer(embedder.parameters(), {}, train)
    add = {"padded": add_gradient, "sequential": add_gradient_one_by_one}[train.batching]

    def update() -> None:
        optimizer.zero_grad()
        with precise(train.precision, device):
            add(
                embedder,
                images,
                np.arange(count).reshape(-1, 3),
                lambda rows: augmented(
                    images.sizes[rows],
                    max(size),
                    train.flip,
                    train.crop,
                    train.cutout,
                    train.cutout_least,
                    0,
                    0,
                    rows,
                    train.cutout_regions,
                ),
                margin=2.0,  # similarities differ by less
                scale=3 / count,
                at_once=count,
            )
        optimizer.gradient_norm()
        optimizer.descend(1e-6)

    return _fastest(update, times + (train.execution != "eager"))  # the first call compiles


def _embed(
    embedder: Embedder, train: Train, device: torch.device, count: int, size: tuple[int, int], times: int
) -> float:
    """Return the seconds to embed the images as mining does, in the precision and execution of training."""
    images = _noise(count, size, device)

    def pool() -> None:
        with precise(train.precision, device):
            embed(embedder, images, np.arange(count), max(size))

    return _fastest(pool, times + (train.execution != "eager"))


def _noise(count: int, size: tuple[int, int], device: torch.device) -> Pixels:
    generator = np.random.default_rng(0)
    return Pixels.of(generator.integers(0, 256, (count, *size, 3), dtype=np.uint8), device)


def _fastest(action: Callable[[], object], times: int) -> float:
    """Return the seconds of the fastest of several calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _kept(network: torch.nn.Module, images: Tensor, loss: Callable[[Any, Tensor], Tensor]) -> int:
    """Return the bytes of distinct tensors kept by the graph of a loss, plus weights, gradients and momentum."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        graph = loss(network, images)
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del graph
    return activations + 3 * 4 * sum(parameter.numel() for parameter in network.parameters())
