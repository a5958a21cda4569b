"""Embedding: turn every query, gallery and multi-query image, or a shard of distractors, into a unit vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from reid_done_right.artifacts import Embeddings, read_index, read_weights, write_embeddings
from reid_done_right.images.pixels import ahead
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import embed as run
from reid_done_right.models.embedder import embedder_of
from reid_done_right.numerics import computed_on, weakest


def embed(*, settings: Mapping[str, Any], index: Path, embedder: Path, out: Path) -> None:
    """Embed the test images of `index`, or shard k of n of them, at the size the embedder was trained for.

    settings: {"threads"} and, for distractors, {"shard": k, "shards": n}: rows k, k + n, k + 2n, ...
    """
    device = set_up(settings["threads"])
    rows = read_index(index)
    weights = read_weights(embedder)
    network = embedder_of(weights, str(embedder)).to(device)
    wanted = np.setdiff1d(np.arange(len(rows)), rows.train)[settings.get("shard", 0) :: settings.get("shards", 1)]
    parts = []
    with tqdm(total=len(wanted), desc="embed", unit="image") as bar:
        for images in ahead(rows, wanted, device, settings["threads"]):
            parts.append(run(network, images, np.arange(len(images)), weights.about["largest_side"]))
            bar.update(len(images))
    empty = np.empty((0, network.dimension), np.float32)
    about = {key: weights.about[key] for key in ("collapsed", "largest_side", "pooling")}
    about["numerics"] = weakest(weights.about.get("numerics"), computed_on(device.type))
    write_embeddings(out, Embeddings(wanted, np.concatenate([empty, *parts]), about))
