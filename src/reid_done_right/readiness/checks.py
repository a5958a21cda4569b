"""The state of one thing that a run needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ready", "note", "missing", "wrong", "damaged", "short"]

FAILING = ("missing", "wrong", "damaged", "short")


@dataclass(frozen=True)
class Check:
    """The state of a dataset, a weight file, the disk or the GPU and, unless it is ready, what to do.

    state   ready; note: it will run, but read this; it will not run if missing, wrong (another folder, other counts),
            damaged, or short (of space or memory)
    files   damaged files, each with its reason
    """

    name: str
    state: State
    told: str
    files: tuple[str, ...] = ()
