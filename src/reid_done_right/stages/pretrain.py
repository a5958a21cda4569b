"""ID classification: train the backbone to classify the training identities (sections 3.3 and 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reid_done_right.artifacts import Weights, read_index, read_weights, write_log, write_weights
from reid_done_right.images.pixels import Pixels
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import backbone_of
from reid_done_right.numerics import computed_on, weakest
from reid_done_right.params.training import Pretrain
from reid_done_right.training.checkpoints import Checkpoints
from reid_done_right.training.classification import train_classifier
from reid_done_right.training.watching import naming_images, watching


def pretrain(*, settings: Mapping[str, Any], index: Path, weights: Path, out: Path, log: Path) -> None:
    """Train `weights` to classify the training identities of `index`; write backbone weights and the log.

    settings: {"pretrain": the section of the parameters, "seed", "threads"}. Checkpoints are written beside `out`, to
    `checkpoint.safetensors`, from which a killed training resumes.
    """
    chosen = Pretrain.model_validate(settings["pretrain"])
    device = set_up(settings["threads"], chosen.precision)
    rows = read_index(index)
    initial = read_weights(weights)
    backbone = backbone_of(initial, str(weights))
    with tqdm(total=len(rows.train), desc="decode", unit="image") as bar:
        images = Pixels.read(rows, rows.train, device, out.parent, settings["threads"], bar.update)
    checkpoints = Checkpoints(out.with_name("checkpoint.safetensors"))
    people = rows.person_id[rows.train]
    updates = chosen.length(len(people))
    with naming_images(rows), checkpoints.catching(), watching("pretrain", out.stem, updates) as watch:
        history = train_classifier(backbone, images, people, chosen, settings["seed"], watch, checkpoints)
    write_log(log, history)
    computed = weakest(initial.about.get("numerics"), computed_on(device.type, chosen.precision))
    write_weights(out, Weights(backbone.state_dict(), {"backbone": initial.about["backbone"], "numerics": computed}))
