"""Initial weights of a backbone: procedural object classification, torchvision's ImageNet files, or your own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pedestrians.objects import object_images
from reid_done_right.artifacts import Weights, file_digest, read_state, write_weights
from reid_done_right.images.pixels import Pixels
from reid_done_right.models.backbone import Backbone
from reid_done_right.models.build import build
from reid_done_right.models.device import set_up
from reid_done_right.numerics import computed_on
from reid_done_right.params.networks import Objects
from reid_done_right.params.training import Pretrain
from reid_done_right.training.classification import train_classifier
from reid_done_right.training.watching import watching


def initialise(*, settings: Mapping[str, Any], out: Path, weights: Path | None = None) -> None:
    """Write initial backbone weights.

    settings   {"backbone": its description, "seed", "threads"}; with {"objects": ...} they are trained on procedural
               object classes, which share nothing with people; with neither these nor a file they are random
    weights    file to load: torchvision's, or the user's own (`reid_done_right.artifacts.read_state`)
    Raises InputError listing every tensor that is missing, unexpected or of the wrong shape.
    """
    device = set_up(settings["threads"])
    torch.manual_seed(settings["seed"])
    backbone = build(settings["backbone"])
    about: dict[str, Any] = {"backbone": settings["backbone"]}
    if weights is not None:
        backbone.adopt(read_state(weights), str(weights))
        computed, about["from"] = "portable", file_digest(weights)
    else:
        computed = computed_on(device.type)
    about["numerics"] = computed if backbone.portable else "native"
    if "objects" in settings:
        _learn_objects(backbone, Objects.model_validate(settings["objects"]), settings["seed"], device, out.stem)
    write_weights(out, Weights(backbone.state_dict(), about))


def _learn_objects(backbone: Backbone, objects: Objects, seed: int, device: torch.device, name: str) -> None:
    """Train a backbone to classify procedural objects."""
    images, label = object_images(
        world=objects.world,
        classes=objects.classes,
        per_class=objects.per_class,
        height=objects.side,
        width=objects.side,
        workers=1,
    )
    schedule = Pretrain(
        updates=objects.updates,
        batch=objects.batch,
        learning_rate=objects.learning_rate,
        final_learning_rate=objects.learning_rate / 100,
        decay="linear",
        warm_up=0.05,
        momentum=0.9,
        weight_decay=5e-5,
        pooling="max",
        crop_height=objects.crop,
        crop_width=objects.crop,
        crop_area=0.4,
        crop_aspect="image",
        flip=True,
    )
    with watching("initialise", name, objects.updates) as watch:
        train_classifier(backbone, Pixels.of(images, device), label, schedule, seed, watch)
