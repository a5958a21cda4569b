"""Checkpoints: resume a stopped training with the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from reid_done_right.artifacts import InputError, Weights, read_checkpoint, set_aside, write_weights
from reid_done_right.models.backbone import load_state

EVERY, SHARE = 30.0, 0.02
"""At least so many seconds between checkpoints, and so many that saving takes no more than this share of the time. With
the environment variable REID_CHECKPOINT_UPDATES, so many updates instead."""


def _digest(state: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a state's metadata and of the bytes of its tensors, in order of their names."""
    content = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for _, tensor in sorted(state.items()):
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


class Checkpoints:
    """Where and when a loop saves its state: from time to time, and on SIGTERM or SIGINT. Results do not depend on it.

    path   of the file; None saves nothing
    every  updates from one to the next; None: by time (`EVERY`)
    """

    def __init__(self, path: Path | None = None, every: int | None = None) -> None:
        self.path = path
        self.every = every or int(os.environ.get("REID_CHECKPOINT_UPDATES", 0))
        self.saved, self.cost = time.monotonic(), 0.0  # when the last was there, and the seconds that it took
        self.last: int | None = None
        self.signal: int | None = None

    def load(self) -> Weights | None:
        """Return the saved state, or None.

        Raises InputError if the file is damaged. It is set aside, so that the next run starts from the beginning.
        """
        if self.path is None or not self.path.is_file():
            return None
        try:
            kept = read_checkpoint(self.path)
        except InputError:
            kept = None
        about = dict(kept.about) if kept else {}
        if kept is None or about.pop("content", "") != _digest(kept.state, about):
            set_aside(self.path)
            raise InputError(f"{self.path}: damaged and set aside; run the same command again to start over")
        self.last = kept.about["update"]
        return kept

    def due(self, done: int, updates: int, stopping: bool) -> bool:
        """Return whether to save the state after `done` updates."""
        if self.path is None or done == updates:
            return False
        if self.every:
            return stopping or done % self.every == 0
        return stopping or time.monotonic() - self.saved >= max(EVERY, self.cost / SHARE)

    def save(self, done: int, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Save the state after `done` updates, replacing the previous one."""
        if self.path is not None:
            start, about = time.monotonic(), {"update": done, **about}
            write_weights(self.path, Weights(state, {**about, "content": _digest(state, about)}))
            self.last, self.saved = done, time.monotonic()
            self.cost = self.saved - start

    def restore(self, network: nn.Module, name: str, kept: Weights) -> None:
        """Load a network from the tensors `name`.* of a state. Raises InputError if they belong to another training."""
        own = {key.removeprefix(name): tensor for key, tensor in kept.state.items() if key.startswith(name)}
        load_state(network, own, f"{self.path}: not the state of this training, delete it to begin again")

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal asked the process to end."""
        return self.signal is not None

    def stop(self) -> None:
        """Exit with the status of the received signal."""
        raise SystemExit(128 + (self.signal or signal.SIGTERM))

    @property
    def where(self) -> str:
        """Return a sentence about where training can resume."""
        return "no checkpoint yet" if self.last is None else f"last good checkpoint: {self.path}, {self.last} updates"

    @contextmanager
    def catching(self) -> Iterator[None]:
        """On SIGTERM or SIGINT, finish the current update, save the state and exit."""

        def note(number: int, frame: FrameType | None) -> None:
            self.signal = number

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
