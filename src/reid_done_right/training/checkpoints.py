"""Taking a training up where it was stopped, to the last bit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from reid_done_right.artifacts import InputError, Weights, read_checkpoint, set_aside, write_weights
from reid_done_right.models.backbone import load_state

EVERY = 128
"""Updates between checkpoints; the environment variable REID_CHECKPOINT_UPDATES says otherwise."""


def _digest(state: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Give the SHA-256 of what is known of a state and of its tensors' bytes, in the order of their names."""
    content = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for _, tensor in sorted(state.items()):
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


class Checkpoints:
    """Where a loop keeps its state, and when: every `every` updates, and when the process is asked to end.

    path  of the file; None keeps nothing
    """

    def __init__(self, path: Path | None = None, every: int | None = None) -> None:
        self.path = path
        self.every = every or int(os.environ.get("REID_CHECKPOINT_UPDATES", EVERY))
        self.last: int | None = None
        self.signal: int | None = None

    def load(self) -> Weights | None:
        """Give the state that is kept, None if there is none.

        Raises InputError if the file is damaged; it is set aside then, so that the same again begins from the start.
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
            raise InputError(f"{self.path}: damaged; set aside: run the same again, and the training begins anew")
        self.last = kept.about["update"]
        return kept

    def due(self, done: int, updates: int, stopping: bool) -> bool:
        """Tell whether the state after `done` of so many updates is to be kept."""
        return self.path is not None and done < updates and (stopping or done % self.every == 0)

    def save(self, done: int, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep the state after `done` updates in place of the one before."""
        if self.path is not None:
            about = {"update": done, **about}
            write_weights(self.path, Weights(state, {**about, "content": _digest(state, about)}))
            self.last = done

    def restore(self, network: nn.Module, name: str, kept: Weights) -> None:
        """Load a network from its tensors `name`.* of a state. Raises InputError if they are another training's."""
        own = {key.removeprefix(name): tensor for key, tensor in kept.state.items() if key.startswith(name)}
        load_state(network, own, f"{self.path}: not the state of this training, delete it to begin again")

    @property
    def asked_to_stop(self) -> bool:
        """Whether a signal asked the process to end."""
        return self.signal is not None

    def stop(self) -> None:
        """End the process with the exit status of the signal that asked for it."""
        raise SystemExit(128 + (self.signal or signal.SIGTERM))

    @property
    def where(self) -> str:
        """Say what can be taken up again."""
        return "no checkpoint yet" if self.last is None else f"last good checkpoint: {self.path}, {self.last} updates"

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the process after the update in hand, its state kept."""

        def note(number: int, frame: FrameType | None) -> None:
            self.signal = number

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
