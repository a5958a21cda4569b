"""Triplet training: from a classifier's backbone to an embedder (sections 3.2, 3.3 and 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from reid.artifacts import Weights, read_index, read_weights, write_log, write_weights
from reid.data.pixels import Pixels
from reid.models.backbone import set_up
from reid.models.embedder import Embedder, backbone_of
from reid.params import Ranking
from reid.training.rank import collapsed, rank


def train(*, settings: Mapping[str, Any], index: Path, weights: Path, out: Path, log: Path) -> None:
    """Train an embedder on the training images of `index`, its backbone from `weights`; write it and the log.

    settings: {"train": the resolved variant, "seed", "threads"}
    """
    device = set_up(settings["threads"])
    rows = read_index(index)
    initial = read_weights(weights)
    chosen = Ranking.model_validate(settings["train"])
    torch.manual_seed(settings["seed"])
    embedder = Embedder(backbone_of(initial, str(weights)), chosen.embedding, chosen.pooling)
    with tqdm(total=len(rows.train), desc="decode", unit="image") as bar:
        images = Pixels.read(rows, rows.train, device, out.parent, settings["threads"], bar.update)
    progress = lambda steps: tqdm(steps, desc="train", unit="update")  # noqa: E731
    history = rank(embedder, images, rows.person_id[rows.train], chosen, settings["seed"], device, progress)
    write_log(log, history)
    about = {
        "backbone": initial.about["backbone"],
        "embedding": chosen.embedding,
        "pooling": chosen.pooling,
        "largest_side": chosen.largest_side,
        "collapsed": collapsed(history, chosen.margin),
    }
    write_weights(out, Weights(embedder.state_dict(), about))
