"""Triplet training: turn a classifier's backbone into an embedder (sections 3.2, 3.3 and 4.1)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from reid_done_right.artifacts import Weights, read_index, read_weights, write_log, write_weights
from reid_done_right.images.pixels import Pixels
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import Embedder, backbone_of
from reid_done_right.numerics import computed_on, weakest
from reid_done_right.params.training import RankingStage
from reid_done_right.training.checkpoints import Checkpoints
from reid_done_right.training.ranking import collapsed, train_ranking
from reid_done_right.training.schedules import noise_share
from reid_done_right.training.snapshots import Snapshots, moments
from reid_done_right.training.watching import naming_images, watching
from reid_done_right.training.workers import Workers


def train(
    *,
    settings: Mapping[str, Any],
    index: Path,
    weights: Path,
    out: Path,
    log: Path,
    snapshots: Path | None = None,
) -> None:
    """Train an embedder on the training images of `index`, starting from `weights`; write it and the log.

    settings: {"train": the resolved variant, "seed", "threads"}, "workers", the number of processes that share each
    batch, and "snapshots", how many models from along the training are kept, 0 if absent. Checkpoints are written
    beside `out`, to `checkpoint.safetensors`, from which a killed training resumes.
    """
    workers = Workers()
    chosen = RankingStage.model_validate(settings["train"])
    device = set_up(settings["threads"], chosen.precision, chosen.deterministic)
    rows = read_index(index)
    initial = read_weights(weights)
    torch.manual_seed(settings["seed"])
    backbone, square = backbone_of(initial, str(weights)), chosen.aspect == "square"
    embedder = Embedder(backbone, chosen.embedding, chosen.pooling, chosen.bias, square)
    first = workers.rank == 0
    with tqdm(total=len(rows.train), desc="decode", unit="image", disable=not first) as bar:
        images = Pixels.read(rows, rows.train, device, out.parent, settings["threads"], bar.update)
    checkpoints = Checkpoints(out.with_name("checkpoint.safetensors") if first else None)
    people, cameras, tracklets = (column[rows.train] for column in (rows.person_id, rows.camera_id, rows.tracklet_id))
    if first and chosen.cutout:
        tqdm.write(
            f"cut-out: noise covers {100 * noise_share(chosen):.1f} % of an image, weighted by the rate", sys.stderr
        )
    copies = Snapshots(moments(settings.get("snapshots", 0), chosen.updates))
    watched = watching("train", out.stem, chosen.updates, silent=not first)
    with naming_images(rows), checkpoints.catching(), watched as watch:
        history = train_ranking(
            embedder, images, people, chosen, settings["seed"], watch, checkpoints, workers, cameras, tracklets, copies
        )
    if not first:
        return
    write_log(log, history)
    computed = computed_on(device.type, chosen.precision, chosen.execution)
    about = {
        "backbone": initial.about["backbone"],
        "embedding": chosen.embedding,
        "pooling": chosen.pooling,
        "largest_side": chosen.largest_side,
        "collapsed": collapsed(history, chosen.margin),
        "numerics": weakest(initial.about.get("numerics"), computed),
    }
    about |= {} if chosen.bias else {"bias": False}
    about |= {"square": True} if square else {}
    if copies.moments and snapshots is not None:
        write_weights(snapshots, Weights(copies.taken, {**about, "updates": [*copies.moments, chosen.updates]}))
    write_weights(out, Weights(embedder.state_dict(), about))
