"""Convergence: mAP of the model at several points of its training, on the test and on the training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from tqdm import tqdm

from reid_done_right.artifacts import Embeddings, Index, Weights, read_index, read_weights, write_json
from reid_done_right.data.tasks import protocol_tasks
from reid_done_right.evaluation.embedded import Embedded, Labels
from reid_done_right.evaluation.ranking import rank_gallery
from reid_done_right.evaluation.rules import Rule, rule_of
from reid_done_right.evaluation.task import Task
from reid_done_right.images.pixels import Pixels
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import embed, embedder_of
from reid_done_right.numerics import computed_on, weakest
from reid_done_right.params.messages import validated
from reid_done_right.params.section import Natural, Strict
from reid_done_right.training.snapshots import snapshot


class SnapshotsAbout(Strict):
    """What models from along a training say of themselves, beside what their embedder says."""

    model_config = ConfigDict(extra="ignore")
    updates: Annotated[list[Natural], Field(min_length=1)]


def follow(*, settings: Mapping[str, Any], index: Path, snapshots: Path, embedder: Path, out: Path) -> None:
    """Score the snapshots of a training, and the embedder that it ended with, without re-ranking.

    settings: {"run", "format", "threads"} and the protocol's own, as `evaluate` takes them. Writes {"run", "updates",
    "mAP": by the dataset's first protocol, "mAP_train": of training images, by the same rule}, a list each; of a
    training person, one image of each camera is a query.
    """
    device = set_up(settings["threads"])
    rows, last, taken = read_index(index), read_weights(embedder), read_weights(snapshots)
    updates = validated(SnapshotsAbout, taken.about, str(snapshots), "run `reid train` again").updates
    tested = np.setdiff1d(np.arange(len(rows)), rows.train)
    wanted = np.concatenate([tested, rows.train])
    with tqdm(total=len(wanted), desc="decode", unit="image") as bar:
        images = Pixels.read(rows, wanted, device, out.parent, settings["threads"], bar.update)
    rule = rule_of(settings["format"], settings.get("protocol"))
    told: dict[str, list[float]] = {"mAP": [], "mAP_train": []}
    for done in tqdm([*updates[:-1], None], desc="follow", unit="model"):
        weights = last if done is None else Weights(snapshot(taken.state, done), last.about)
        network = embedder_of(weights, str(embedder if done is None else snapshots)).to(device)
        found = embed(network, images, np.arange(len(wanted)), weights.about["largest_side"])
        _, task = next(protocol_tasks(rows, Embeddings(tested, found[: len(tested)], weights.about), settings))
        trained = training_task(rows, found[len(tested) :], rule)
        for name, each in (("mAP", task), ("mAP_train", trained)):
            told[name].append(float(rank_gallery(each, threads=settings["threads"]).scores(rule.ap_rule)["mAP"]))
    computed = weakest(last.about.get("numerics"), computed_on(device.type))
    write_json(out, {"run": settings["run"], "numerics": computed, "updates": updates, **told})


def training_task(rows: Index, embeddings: NDArray[np.float32], rule: Rule) -> Task:
    """Return the training images, of `embeddings` (N, D), as a task.

    The first image of each person and camera is a query. The gallery is all images, or, for a rule that knows no
    cameras and would find the query itself, all others.
    """
    labels = Labels(rows.person_id[rows.train], rows.camera_id[rows.train])
    pairs = np.stack([labels.person_id, labels.camera_id], 1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    others = np.arange(len(labels)) if rule.same_camera_is_junk else np.setdiff1d(np.arange(len(labels)), first)
    query, gallery = (Embedded(embeddings[some], labels[some], name) for some, name in ((first, "q"), (others, "g")))
    return Task(query, gallery, rule)
