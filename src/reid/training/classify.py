"""The classification loop: identities before ranking (section 4.1), and objects before identities."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from reid.functional.schedules import classification_rate, warm_up
from reid.functional.transforms import Images, random_crops, render
from reid.models.backbone import Backbone, pool
from reid.params import Pretrain

Progress = Callable[[Iterable[int]], Iterable[int]]


def classify(
    backbone: Backbone,
    images: Images,
    label: NDArray[np.int64],
    settings: Pretrain,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train the backbone, in place, under a new linear layer that is thrown away; give the log, a row an update.

    label  (N,) of the images, any integers, one class each distinct value
    Batches walk through permutations of the images. Batch norm trains as usual: all crops have one size.
    """
    generator = np.random.default_rng((seed, 1))
    torch.manual_seed(seed)
    classes, target = np.unique(label, return_inverse=True)
    head = nn.Linear(backbone.features, len(classes))
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    network = nn.ModuleList([backbone, head]).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimiser = torch.optim.SGD(
        network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    log = []
    order = np.empty(0, np.int64)
    for update in progress(range(settings.updates)):
        rate = classification_rate(
            update, settings.updates, settings.learning_rate, settings.final_learning_rate, settings.decay
        ) * warm_up(update, settings.warm_up * settings.updates)
        for group in optimiser.param_groups:
            group["lr"] = rate
        while len(order) < settings.batch:
            order = np.concatenate([order, generator.permutation(len(label))])
        rows, order = order[: settings.batch], order[settings.batch :]
        size = (settings.crop_height, settings.crop_width)
        views = random_crops(images.sizes[rows], size, settings.crop_area, settings.flip, seed, update, rows)
        crops, _ = render(images, rows, views)
        scores = head(pool(backbone(crops), settings.pooling))
        wanted = torch.from_numpy(target[rows]).to(device)
        loss = F.cross_entropy(scores, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        accuracy = (scores.detach().argmax(1) == wanted).float().mean().item()
        log.append({"update": update, "loss": loss.item(), "accuracy": accuracy, "learning_rate": rate})
        if not np.isfinite(log[-1]["loss"]):
            raise FloatingPointError(
                f"classification loss is {log[-1]['loss']} at update {update}; lower learning_rate"
            )
    return log
