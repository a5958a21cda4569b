"""The networks before a run: how large, how much arithmetic, how much memory, and how fast on this device.

Size, arithmetic and memory are counted on tensors without data; a few updates of the default network at its real size
measure the device, and everything else is scaled by its arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from reid.models.backbone import Backbone, freeze_statistics, pool, set_up
from reid.models.embedder import Embedder, embed
from reid.params import Backbone as Layers
from reid.params import Pretrain, Train
from reid.training.classify import classify
from reid.training.rank import rank

FILL = 8
"""Batches of images of one size are filled up to a multiple of this (`reid.functional.transforms.apply_by_size`)."""

BUDGET = 100 * 10**9
"""Floating-point operations of an update on a CPU, but for the fewest images that make one."""

SLOW = 5.0
"""Seconds of an update from which one is measured, not three."""


@dataclass(frozen=True)
class Speed:
    """Seconds an image, measured: classification and ranking updates (forward and backward), and embedding."""

    classify: float
    rank: float
    embed: float


@cache
def flops(block: str, blocks: tuple[int, ...], width: int, last_stride: int, height: int, breadth: int) -> int:
    """Count the floating-point operations of a backbone's forward pass over one image."""
    with torch.device("meta"):
        backbone = Backbone(block, blocks, width, last_stride)
        image = torch.empty(1, 3, height, breadth)
    freeze_statistics(backbone)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(image)
    return int(counter.get_total_flops())


def arithmetic(layers: Layers, height: int, breadth: int) -> int:
    """Count as `flops`, from a section of the parameters."""
    return flops(layers.block, tuple(layers.blocks), layers.width, layers.last_stride, height, breadth)


def weights_bytes(layers: Layers, embedding: int | None = None) -> int:
    """Give the bytes of a backbone's weights or, with an embedding size, of an embedder's."""
    with torch.device("meta"):
        network: torch.nn.Module = _backbone(layers)
        if embedding is not None:
            network = Embedder(_backbone(layers), embedding, "max")
    return 4 * sum(int(tensor.numel()) for tensor in network.state_dict().values())


def ranking_memory(layers: Layers, settings: Train) -> int:
    """Count the bytes that an update of the ranking stage keeps: weights, gradients, momentum, activations."""
    with torch.device("meta"):
        embedder = Embedder(_backbone(layers), settings.embedding, settings.pooling)
        images = torch.empty(3 * min(settings.at_once, settings.batch), 3, *sides(settings.largest_side))
    freeze_statistics(embedder)
    return _kept(embedder, images, lambda network, batch: network(batch).sum())


def classification_memory(layers: Layers, settings: Pretrain) -> int:
    """Count the same of an update of the classification stage; the classifier's own few weights are left out."""
    with torch.device("meta"):
        backbone = _backbone(layers)
        crops = torch.empty(settings.batch, 3, settings.crop_height, settings.crop_width)
    backbone.train()
    return _kept(backbone, crops, lambda network, batch: pool(network(batch), settings.pooling).sum())


def sides(largest: int) -> tuple[int, int]:
    """Give height and width of a person's image of a largest side: half as wide as high, as in Market-1501."""
    return largest, max(1, largest // 2)


def padded(images: int) -> int:
    """Give how many images are computed where a batch is filled up."""
    return images + -images % FILL


def probe(layers: Layers, pretrain: Pretrain, train: Train, threads: int) -> Speed:
    """Measure a few updates of the default network at its real size on the device at hand, on random images.

    On a GPU with the real batches; on a CPU with as many images as take seconds.
    """
    device = set_up(threads)
    small = device.type == "cpu"
    generator = np.random.default_rng(0)

    def images(count: int, height: int, breadth: int) -> list[Tensor]:
        pixels = generator.integers(0, 256, (count, 3, height, breadth), dtype=np.uint8)
        return list(torch.from_numpy(pixels))

    crop = (pretrain.crop_height, pretrain.crop_width)
    batch = min(pretrain.batch, max(2, BUDGET // (3 * arithmetic(layers, *crop)))) if small else pretrain.batch
    crops = images(batch, *crop)
    settings = pretrain.model_copy(update={"updates": 3, "batch": batch, "learning_rate": 1e-6})
    classification = _seconds(
        lambda progress: classify(_backbone(layers), crops, np.arange(batch) % 4, settings, 0, device, progress)
    )
    size = sides(train.largest_side)
    triplets = min(train.at_once, train.batch)
    if small:
        triplets = min(triplets, max(2, BUDGET // (9 * arithmetic(layers, *size))))
    people = images(3 * triplets, *size)
    shrunk = {"updates": 3, "refresh": 3, "batch": triplets, "at_once": triplets, "pool": 3 * triplets}
    ranking = train.model_copy(update={**shrunk, "learning_rate": 1e-6})
    embedder = Embedder(_backbone(layers), train.embedding, train.pooling)
    embedded = min(_time(lambda: embed(embedder.to(device), people, device)) for _ in range(2))
    person = np.arange(3 * triplets) // 3
    ranked = _seconds(lambda progress: rank(embedder, people, person, ranking, 0, device, progress))
    if ranked > SLOW:
        ranked -= embedded  # the first update, the only one then, also embeds the pool
    count = padded(3 * triplets)
    return Speed(classification / batch, ranked / count, embedded / count)


def device_memory() -> tuple[str, int, int] | None:
    """Give the GPU's name, its free and its whole memory in bytes; None without a CUDA device."""
    if not torch.cuda.is_available():
        return None
    free, whole = torch.cuda.mem_get_info()
    return torch.cuda.get_device_name(), free, whole


def _backbone(layers: Layers) -> Backbone:
    return Backbone(**layers.model_dump())


def _kept(network: torch.nn.Module, images: Tensor, loss: Callable[[Any, Tensor], Tensor]) -> int:
    """Count the distinct memory that the graph of a loss keeps, and weights, gradients and momentum."""
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


def _time(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _seconds(loop: Callable[[Callable[[Iterable[int]], Iterable[int]]], Any]) -> float:
    """Give the seconds of a loop's fastest update; a slow one is enough, as warming up is little of it."""
    stamps: list[float] = []

    def progress(updates: Iterable[int]) -> Iterator[int]:
        for update in updates:
            stamps.append(time.perf_counter())
            yield update
            if time.perf_counter() - stamps[-1] > SLOW:
                break
        stamps.append(time.perf_counter())

    loop(progress)
    return float(np.diff(stamps).min())
