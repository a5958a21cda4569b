"""Jobs before a run: which are done, which are to run, and what those that ran took."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid_done_right.artifacts import InputError
from reid_done_right.plan import CODE, Jobs
from reid_done_right.store.keys import code_key

OUTPUTS = {
    "dataset": "results/{experiment}/dataset/{job}.json",
    "index": "results/{experiment}/index/{job}.parquet",
    "initialise": "results/{experiment}/initialise/{job}.safetensors",
    "pretrain": "results/{experiment}/pretrain/{job}.safetensors",
    "train": "results/{experiment}/train/{job}.safetensors",
    "embed": "results/{experiment}/embed/{job}.safetensors",
    "evaluate": "results/{experiment}/evaluate/{job}.json",
    "distract": "results/{experiment}/distract/{job}.json",
    "retrieve": "results/{experiment}/retrieve/{job}.parquet",
    "tabulate": "reports/{experiment}/metrics.json",
    "illustrate": "reports/{experiment}/figure1.svg",
    "draw": "reports/{experiment}/training_curves.svg",
    "publish": "reports/{experiment}/report.html",
}
"""Each group's main output; a shard's is in the plan."""


def output(experiment: str, group: str, job: str, fields: Mapping[str, Any]) -> Path:
    """Give a job's main output."""
    return Path(fields["out"] if "out" in fields else OUTPUTS[group].format(experiment=experiment, job=job))


def done(experiment: str, jobs: Mapping[str, Jobs]) -> dict[str, set[str]]:
    """Give each group's jobs that need not run: made by the present settings and code, from inputs that are done too.

    An engine also sees inputs that changed since; what it then finds in the store costs no time either.
    """
    finished: dict[str, set[str]] = {}
    for group, members in jobs.items():
        stage = CODE.get(group, group)
        finished[group] = {
            job
            for job, fields in members.items()
            if _is_made(experiment, group, job, fields, stage)
            and all(before in finished[other] for other, before in _inputs(jobs, group, job, fields))
        }
    return finished


def _is_made(experiment: str, group: str, job: str, fields: Mapping[str, Any], stage: str) -> bool:
    made, settings = (
        output(experiment, group, job, fields),
        Path(f"results/{experiment}/settings/{group}/{job}.json"),
    )
    if not made.is_file() or not settings.is_file() or made.stat().st_mtime < settings.stat().st_mtime:
        return False
    try:
        written = json.loads(settings.read_text(encoding="utf-8"))
    except ValueError:
        return False
    code = code_key(stage, fields["parameters"])
    return bool(written["code"] == code and written["parameters"] == json.loads(json.dumps(fields["parameters"])))


def _inputs(jobs: Mapping[str, Jobs], group: str, job: str, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give the jobs, as (group, name), whose outputs a job reads."""
    found = []
    if "dataset" in fields:
        found.append(("index", fields["dataset"]))
    if group == "index":
        found.append(("dataset", job))
    if "weights" in fields:
        path = Path(fields["weights"])
        found.append((path.parent.name, path.stem))
    if group == "embed":
        found.append(("train", job))
    if "embedder" in fields:
        found.append(("train", Path(fields["embedder"]).stem))
    if group in ("evaluate", "distract", "retrieve"):
        found.append(("embed", job))
    if group == "distract":
        found += [("shard", shard) for shard in jobs["shard"] if shard.rsplit("-", 1)[0] == job]
    if group == "illustrate":
        found += [(before, job) for before in ("train", "retrieve", "evaluate")]
    if group in ("tabulate", "draw"):
        found += [(before, run) for before in ("evaluate", "distract") for run in jobs[before]]
    if group == "draw":
        found += [("retrieve", run) for run in jobs["retrieve"]]
    if group == "publish":
        found += [(before, job) for before in ("tabulate", "illustrate", "draw", "retrieve") for job in jobs[before]]
    return found


def measured(experiment: str, group: str) -> float | None:
    """Give the mean seconds that jobs of a group took in this tree, by Snakemake's benchmarks; None if none ran."""
    folder = Path(f"results/{experiment}/benchmarks")
    files = [*folder.glob(f"{group}/*.tsv"), *folder.glob(f"{group}.tsv")]
    seconds = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as opened:
            try:
                seconds += [float(row["s"]) for row in csv.DictReader(opened, delimiter="\t")]
            except (KeyError, ValueError):
                raise InputError(f"{file}: not a benchmark of Snakemake; delete it") from None
    return sum(seconds) / len(seconds) if seconds else None
