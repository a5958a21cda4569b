"""Open-set identification: some test persons are left out of the gallery, and searches for them are false alarms.

The settings (as YAML):

    run: {dataset: market, variant: default, backbone: resnet10, draw: 0}
    format: market1501       # with protocol: {...} if it is one's own
    tracklets: mean          # as in the parameters
    unknown: 0.5             # share of the test persons to leave out of the gallery
    fpir: [0.01, 0.1]        # rates of false alarms for which thresholds are found
    threads: 1
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reid_done_right.artifacts import read_embeddings, read_index, write_json
from reid_done_right.data.arrays import naming
from reid_done_right.data.tasks import protocol_tasks
from reid_done_right.evaluation.open_set import leave_out, open_set
from reid_done_right.evaluation.ranking import rank_gallery
from reid_done_right.evaluation.rules import deleted
from reid_done_right.numerics import ranked_on, weakest


def identify(*, settings: Mapping[str, Any], index: Path, embeddings: Path, out: Path) -> None:
    """Write the error rates of an open set made of the dataset's first protocol, without re-ranking.

    settings: see the module. Writes {"run", "collapsed", "numerics", "protocol", "unknown", "gallery_items",
    "gallery_persons"}, junk and distractors left out of the counts, and what `OpenSet.report` has. Raises InputError if
    the share leaves out nobody, or everybody.
    """
    rows, embedded = read_index(index), read_embeddings(embeddings)
    protocol, closed = next(protocol_tasks(rows, embedded, settings))
    with naming(f"index of {rows.root}: "):
        task = leave_out(closed, settings["unknown"])
    found = open_set(task, rank_gallery(task, threads=settings["threads"]))
    there = task.gallery.labels.person_id[~deleted(task.gallery.labels, task.rule)]
    content = {
        "run": settings["run"],
        "collapsed": bool(embedded.about.get("collapsed", False)),
        "numerics": weakest(embedded.about.get("numerics"), ranked_on(None)),
        "protocol": protocol,
        "unknown": settings["unknown"],
        "gallery_items": len(there),
        "gallery_persons": len(np.setdiff1d(there, [task.rule.distractor_id])),
    }
    write_json(out, content | found.report(settings["fpir"]))
