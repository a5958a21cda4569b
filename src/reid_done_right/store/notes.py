"""What is computed now, and where: a note of each job, in the store's folder in which it computes.

The note is written when a computation begins, and goes with its folder when the result is whole; one that failed or was
killed leaves it. Whether a job still runs is told by the lock that it holds, which dies with it.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from reid_done_right.artifacts import HOST, read_regular, write_text

NOTE = ".job.json"
SCHEDULED = {"SLURM_JOB_ID": "Slurm", "PBS_JOBID": "PBS", "LSB_JOBID": "LSF"}
"""Variables in which schedulers tell a job its number."""


class Note(BaseModel, frozen=True):
    """A job that began to compute.

    settings   path of its settings file, which is its own
    host       of the process
    scheduled  its number with a scheduler, such as "Slurm 12", or ""
    since      seconds of the epoch
    held       whether it holds its lock: it still runs, unless the file system has no locks between machines
    """

    settings: str
    host: str
    pid: int
    scheduled: str = ""
    since: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    held: bool = False

    @property
    def here(self) -> bool:
        """Whether it began on this machine, whose locks are certain."""
        return self.host == HOST

    @property
    def where(self) -> str:
        """Return the machine and, if known, the scheduler's number of the job."""
        return f"{self.host}, {self.scheduled}" if self.scheduled else f"{self.host}, process {self.pid}"


def note(folder: Path, settings: str) -> None:
    """Note in a job's folder that it computes; without effect where nothing can be written, as the job will tell."""
    number = next((f"{name} {os.environ[key]}" for key, name in SCHEDULED.items() if os.environ.get(key)), "")
    told = Note(settings=settings, host=HOST, pid=os.getpid(), scheduled=number, since=time.time())
    with suppress(OSError):
        write_text(folder / NOTE, told.model_dump_json(exclude={"held"}))


def notes() -> dict[str, Note]:
    """Return the notes in the current store by the settings file of their job: the one that runs, or the last."""
    store = os.environ.get("REID_STORE", ".store")
    found: dict[str, Note] = {}
    for file in Path(store, "partial").glob(f"*/{NOTE}") if store != "none" else ():
        try:
            read = Note.model_validate_json(read_regular(file))
        except (OSError, ValidationError):  # it has ended meanwhile, or is damaged
            continue
        told = read.model_copy(update={"held": _is_held(file.parent.with_suffix(".lock"))})
        before = found.get(told.settings)
        if before is None or (before.held, before.since) < (told.held, told.since):
            found[told.settings] = told
    return found


def _is_held(lock: Path) -> bool:
    """Return whether a process holds a lock, without taking it from one that wants it: only readers share it."""
    if sys.platform == "win32":
        return lock.exists()
    import fcntl

    try:
        with lock.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it has ended, or there are no locks here
        return False
    return False
