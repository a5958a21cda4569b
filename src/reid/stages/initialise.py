"""First weights of a backbone: procedural object classification, or torchvision's ImageNet files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reid.artifacts import Weights, write_weights
from reid.data.pixels import Pixels
from reid.data.synthetic.objects import object_images
from reid.models.backbone import build, set_up
from reid.params import Objects, Pretrain
from reid.training.classify import classify
from reid.training.watching import watching


def initialise(*, settings: Mapping[str, Any], out: Path) -> None:
    """Write initial backbone weights.

    settings: {"backbone": its description, "seed", "threads"} and either {"objects": ...}: learn procedural object
    classes, which share nothing with people; or {"imagenet": "IMAGENET1K_V1", "architecture": "resnet101"}:
    torchvision's file, verified by the SHA-256 in its name and kept in torch's hub folder.
    """
    device = set_up(settings["threads"])
    torch.manual_seed(settings["seed"])
    backbone = build(settings["backbone"])
    if "imagenet" in settings:
        from torchvision.models import get_model_weights

        source = get_model_weights(settings["architecture"])[settings["imagenet"]]
        state = torch.hub.load_state_dict_from_url(source.url, check_hash=True, weights_only=True)
        backbone.load_published(state, source.url)
    else:
        objects = Objects.model_validate(settings["objects"])
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
            flip=True,
        )
        with watching("initialise", out.stem, schedule.updates) as watch:
            classify(backbone, Pixels.of(images, device), label, schedule, settings["seed"], watch)
    write_weights(out, Weights(backbone.state_dict(), {"backbone": settings["backbone"]}))
