"""Check jobs before a run: which are done, which remain, and how long finished ones took."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from reid_done_right.artifacts import InputError, read_text
from reid_done_right.dag import STAGES
from reid_done_right.plan import Job, Jobs
from reid_done_right.store.keys import code_key
from reid_done_right.store.ledger import Ledger


def done(jobs: Mapping[str, Jobs]) -> dict[str, set[str]]:
    """Return each stage's finished jobs: made with the current settings and code, from finished inputs.

    An engine also notices inputs that changed since; what it then finds in the store costs no time either.
    """
    finished: dict[str, set[str]] = {}
    made: set[str] = set()
    planned = {path for members in jobs.values() for job in members.values() for path in job.outputs.values()}
    for stage, members in jobs.items():
        finished[stage] = set()
        for name, job in members.items():
            if _is_made(job) and _read(job) & planned <= made:
                finished[stage].add(name)
                made.update(job.outputs.values())
    return finished


def _read(job: Job) -> set[str]:
    return set(chain.from_iterable([each] if isinstance(each, str) else each for each in job.inputs.values()))


def _is_made(job: Job) -> bool:
    outputs, settings = [Path(path) for path in job.outputs.values()], Path(job.settings)
    if not settings.is_file() or not all(path.is_file() for path in outputs):
        return False
    if min(path.stat().st_mtime for path in outputs) < settings.stat().st_mtime:
        return False
    try:
        written = json.loads(read_text(settings))
    except ValueError:
        return False
    code = code_key(STAGES[job.stage].command or job.stage, job.parameters)
    return bool(written["code"] == code and written["parameters"] == json.loads(json.dumps(job.parameters)))


def measured(experiment: str, stage: str) -> float | None:
    """Return the mean seconds per job of a stage in this tree, from Snakemake's benchmarks; None if none ran."""
    folder = Path(f"results/{experiment}/benchmarks")
    seconds = []
    for file in folder.glob(f"{stage}/*.tsv"):
        with file.open(encoding="utf-8", newline="") as opened:
            try:
                seconds += [float(row["s"]) for row in csv.DictReader(opened, delimiter="\t")]
            except (KeyError, ValueError):
                raise InputError(f"{file}: not a benchmark of Snakemake; delete it") from None
    return sum(seconds) / len(seconds) if seconds else None


def recorded() -> dict[str, float]:
    """Return the seconds that jobs took where they were computed, by their settings file, from the ledger."""
    found: dict[str, float] = {}
    for entry in Ledger.here().entries:  # the last first
        if entry.settings is not None and entry.seconds is not None:
            found.setdefault(entry.settings, entry.seconds)
    return found
