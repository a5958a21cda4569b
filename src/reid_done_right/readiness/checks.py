"""One thing that a run needs, and in what state it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ready", "note", "missing", "wrong", "damaged", "short"]

FAILING = ("missing", "wrong", "damaged", "short")


@dataclass(frozen=True)
class Check:
    """A dataset, a file of weights, the disk or the GPU: what was found, and, unless it is ready, what to do.

    state   ready; note: it will run, but read this; missing, wrong (another folder, other counts), damaged, short (of
            space or memory): it will not
    files   damaged files, each with its reason
    """

    name: str
    state: State
    told: str
    files: tuple[str, ...] = ()
