"""The classification loop, for identities before ranking (section 4.1) and for objects before identities."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from reid_done_right.artifacts import InputError
from reid_done_right.images.transforms import Images, random_crops, render
from reid_done_right.images.upload import upload
from reid_done_right.models.backbone import Backbone
from reid_done_right.models.device import out_of_memory, precise
from reid_done_right.models.pooling import Pool
from reid_done_right.models.products import Linear
from reid_done_right.params.training import Pretrain
from reid_done_right.training.checkpoints import Checkpoints
from reid_done_right.training.optimizer import Optimizer, layer_rates
from reid_done_right.training.schedules import classification_rate, warm_up

Watch = Callable[[Mapping[str, float], int], object]


class Diverged(FloatingPointError):
    """A loss or gradient is not finite: the update, its images, and where training can resume.

    images  indices of training images
    """

    def __init__(self, what: str, update: int, images: NDArray[np.int64], where: str) -> None:
        super().__init__(f"{what} at update {update}; {where}; lower learning_rate")
        self.images = np.unique(images)


def train_classifier(
    backbone: Backbone,
    images: Images,
    label: NDArray[np.int64],
    settings: Pretrain,
    seed: int,
    watch: Watch,
    checkpoints: Checkpoints | None = None,
) -> list[dict[str, float]]:
    """Train the backbone, in place, with a temporary linear layer on top; return the log, one row per update.

    label  (N,) of the images, any integers; each distinct value is a class
    watch  called with each row of the log and the number of images in the update
    Batches iterate over permutations of the images. Batch norm trains as usual, because all crops have one size.
    Raises Diverged if the loss is not finite, and InputError if a batch does not fit into memory.
    """
    device, checkpoints = images.device, checkpoints or Checkpoints()
    generator = np.random.default_rng((seed, 1))
    torch.manual_seed(seed)
    classes, target = np.unique(label, return_inverse=True)
    head = Linear(backbone.channels, len(classes))
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    pool = Pool(settings.pooling)
    network = nn.ModuleList([backbone, head]).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimizer = Optimizer(network.parameters(), layer_rates(backbone, settings.layer_decay), settings)
    updates = settings.length(len(label))
    log: list[dict[str, float]] = []
    order = np.empty(0, np.int64)

    if kept := checkpoints.load():
        checkpoints.restore(network, "network.", kept)
        optimizer.restore(kept.state)
        generator.bit_generator.state = kept.about["generator"]
        log, order = kept.about["log"], kept.state["order"].numpy()

    for update in range(len(log), updates):
        rate = classification_rate(
            update, updates, settings.learning_rate, settings.final_learning_rate, settings.decay
        ) * warm_up(update, settings.warm_up * updates)
        while len(order) < settings.batch:
            order = np.concatenate([order, generator.permutation(len(label))])
        rows, order = order[: settings.batch], order[settings.batch :]
        size = (settings.crop_height, settings.crop_width)
        views = random_crops(
            images.sizes[rows],
            size,
            settings.crop_area,
            settings.flip,
            seed,
            update,
            rows,
            settings.crop_aspect,
            settings.cutout,
        )
        crops, _ = render(images, rows, views)
        wanted = upload(target[rows], device)
        optimizer.zero_grad()
        try:
            with precise(settings.precision, device):
                scores = head(pool(backbone(crops)[0])).float()
            loss = F.cross_entropy(scores, wanted)
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            why = f"batch norm needs the batch of {settings.batch} together"
            raise InputError(f"out of memory at update {update}: {why}; lower its batch, crops or precision") from None
        if not torch.isfinite(loss):
            raise Diverged(f"classification loss is {loss.item()}", update, rows, checkpoints.where)
        optimizer.descend(rate)
        accuracy = (scores.detach().argmax(1) == wanted).float().mean().item()
        log.append({"update": update, "loss": loss.item(), "accuracy": accuracy, "learning_rate": rate})
        watch(log[-1], len(rows))
        done = update + 1
        if checkpoints.due(done, updates, checkpoints.asked_to_stop):
            state = {f"network.{name}": value for name, value in network.state_dict().items()} | optimizer.moments()
            about = {"generator": generator.bit_generator.state, "log": log}
            checkpoints.save(done, {**state, "order": torch.from_numpy(order)}, about)
        if checkpoints.asked_to_stop and done < updates:
            checkpoints.stop()
    return log
