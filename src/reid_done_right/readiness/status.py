"""The state of a running experiment: what is done, what runs where, what failed, and how long the rest takes.

Everything is derived from the plan, the results, the store and the logs, so that it does not matter whether Snakemake,
DVC or a scheduler runs the jobs. Nothing is changed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from reid_done_right.artifacts import InputError, printable
from reid_done_right.params import Params, load
from reid_done_right.plan import Job, Jobs
from reid_done_right.readiness.jobs import done, measured, recorded
from reid_done_right.store.notes import Note, notes

QUIET = 60.0
"""Seconds for which the log of a running job, which has a line at least every ten, may say nothing."""

UNNOTED = "starting, or without a store"

TAIL = 8192
"""Bytes at the end of a log that are read."""

ENDED = re.compile(r": (computed in [\d.]+ s|found in the store), wrote ")
FAILED = re.compile(r"^(reid: error: |Traceback )", re.MULTILINE)
SHARE = re.compile(r"(\d+)%\|")


@dataclass(frozen=True)
class Running:
    """A job that runs: where, since how many seconds, and the share done that its log tells; None if unknown."""

    stage: str
    job: str
    where: str
    seconds: float | None
    share: float | None


@dataclass(frozen=True)
class Failed:
    """A job whose last try ended without a result: the last line of its log, or what is known, and where to look."""

    stage: str
    job: str
    told: str
    log: str


@dataclass(frozen=True)
class Progress:
    """The jobs of one stage; seconds of those that are not done, one after the other, None if none was measured.

    source   of the time: "ledger", "benchmarks" or ""
    """

    stage: str
    jobs: int
    done: int
    running: int
    failed: int
    seconds: float | None
    source: Literal["ledger", "benchmarks", ""]

    @property
    def left(self) -> int:
        """Return the number of jobs that neither are done nor run nor failed."""
        return self.jobs - self.done - self.running - self.failed


@dataclass(frozen=True)
class Status:
    """The state of an experiment: its stages that have jobs, the jobs that run, and those that failed."""

    experiment: str
    stages: list[Progress]
    running: list[Running]
    failed: list[Failed]

    @property
    def finished(self) -> bool:
        """Return whether every job is done."""
        return all(stage.done == stage.jobs for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Return the seconds left with as many jobs at a time as run now, of the stages that were measured."""
        return sum(stage.seconds or 0.0 for stage in self.stages) / max(1, len(self.running))

    @property
    def unmeasured(self) -> list[str]:
        """Return the stages with jobs left of which none was measured."""
        return [stage.stage for stage in self.stages if stage.seconds is None]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {
            "experiment": self.experiment,
            "finished": self.finished,
            "seconds_left": self.seconds,
            "unmeasured": self.unmeasured,
            "stages": [asdict(stage) | {"left": stage.left} for stage in self.stages],
            "running": [asdict(job) for job in self.running],
            "failed": [asdict(job) for job in self.failed],
        }


def find_params(of: Path) -> Params:
    """Return the parameters of an experiment, given by them or by its folder in `results/` or `reports/`.

    Raises InputError if neither `params.yaml` nor one in `experiments/` is of this experiment.
    """
    if of.suffix and not of.is_dir():
        return load(of)
    if (of / "params.yaml").is_file():
        return load(of / "params.yaml")
    for file in (Path("params.yaml"), *sorted(Path("experiments").glob("*/params.yaml"))):
        if file.is_file() and (params := load(file)).experiment == of.name:
            return params
    raise InputError(f"{of}: no params.yaml here or in experiments/ is of {of.name!r}; give the parameters instead")


def status(experiment: str, jobs: Mapping[str, Jobs]) -> Status:
    """Return the state of an experiment's jobs now."""
    finished, noted, before = done(jobs), notes(), recorded()
    stages, everyone = [], list[Running | Failed]()
    for stage, members in jobs.items():
        rest = {name: job for name, job in members.items() if name not in finished[stage]}
        tries = {name: _last_try(job, name, noted.get(job.settings)) for name, job in rest.items()}
        running = [found for found in tries.values() if isinstance(found, Running)]
        failed = [found for found in tries.values() if isinstance(found, Failed)]
        known = [before[job.settings] for name, job in members.items() if name not in rest and job.settings in before]
        each = fmean(known) if known else measured(experiment, stage)
        left = None if each is None else each * len(rest) - sum(min(each, found.seconds or 0.0) for found in running)
        source: Literal["ledger", "benchmarks", ""] = "ledger" if known else "benchmarks"
        if not rest or each is None:
            left, source = (None if rest else 0.0), ""
        if members:
            counts = len(members), len(members) - len(rest), len(running), len(failed)
            stages.append(Progress(stage, *counts, left, source))
        everyone += [*running, *failed]
    now = [job for job in everyone if isinstance(job, Running)]
    return Status(experiment, stages, now, [job for job in everyone if isinstance(job, Failed)])


def _last_try(job: Job, name: str, noted: Note | None) -> Running | Failed | None:
    """Return how the last try of a job that is not done stands; None if there was none with its settings."""
    now, asked = time.time(), _modified(Path(job.settings))
    log = Path("results", job.places["experiment"], "logs", job.stage, f"{name}.log")
    written, text = _tail(log)
    age = None if noted is None else now - noted.since
    if noted is not None and noted.held:
        shares = SHARE.findall(text)
        return Running(job.stage, name, noted.where, age, int(shares[-1]) / 100 if shares else None)
    last = text.rpartition("\n")[2]
    if written >= asked and not ENDED.search(last):
        if FAILED.search(text):
            return Failed(job.stage, name, printable(last), log.as_posix())
        lost = bool(text) and noted is not None and noted.here and noted.since >= asked
        if now - written < QUIET and not lost:
            return Running(job.stage, name, UNNOTED if noted is None else noted.where, age, None)
        return Failed(job.stage, name, "ended without a word: killed, or out of memory", log.as_posix())
    if noted is not None and noted.since >= max(asked, written):
        return Failed(job.stage, name, f"failed or killed on {noted.where}", job.settings)
    return None


def _modified(path: Path) -> float:
    return path.stat().st_mtime if path.is_file() else time.time()


def _tail(log: Path) -> tuple[float, str]:
    """Return when a log was last written, in seconds of the epoch, and its end; 0 and nothing if there is none."""
    try:
        with log.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - TAIL))
            text = opened.read().decode(errors="replace").replace("\r", "\n").rstrip()
            return os.fstat(opened.fileno()).st_mtime, text
    except OSError:
        return 0.0, ""
