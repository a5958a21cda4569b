"""Monitor a training with a progress bar and, if `REID_EVENTS` is set to a folder, TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reid_done_right.artifacts import Index, InputError
from reid_done_right.training.classification import Diverged, Watch


@contextmanager
def watching(stage: str, run: str, updates: int, silent: bool = False) -> Iterator[Watch]:
    """Yield a callback for a loop: it takes each row of the log and the number of images in the update.

    The bar shows loss, share of active triplets or accuracy, learning rate, images per second and the time left. If
    the environment variable REID_EVENTS is set to a folder, each value is also written as TensorBoard events to
    `<folder>/<stage>/<run>`.
    """
    folder = os.environ.get("REID_EVENTS")
    writer: Any = None
    shown = {"loss": "loss", "active": "active", "accuracy": "accuracy", "learning_rate": "rate"}
    with tqdm(total=updates, desc=stage, unit="update", disable=silent) as bar:

        def watch(row: Mapping[str, float], images: int) -> None:
            nonlocal writer
            update = int(row["update"])
            if bar.n < update:  # resumed
                bar.initial = bar.n = update
            values = {label: f"{row[name]:.3g}" for name, label in shown.items() if name in row}
            speed = bar.format_dict["rate"]
            bar.set_postfix(values | ({"images/s": f"{speed * images:.0f}"} if speed else {}), refresh=False)
            bar.update()
            if folder and not silent:
                if writer is None:  # a killed run's events after its last checkpoint are written again
                    writer = _writer(Path(folder, stage, run), update)
                for name, value in row.items():
                    if name != "update":
                        writer.add_scalar(name, value, update)

        try:
            yield watch
        finally:
            if writer is not None:
                writer.close()


def _writer(folder: Path, update: int) -> Any:
    """Open an event file, which replaces older events from an update on."""
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(str(folder), purge_step=update)


@contextmanager
def naming_images(index: Index) -> Iterator[None]:
    """Turn Diverged into an InputError that names the images of the batch, training rows of the index."""
    try:
        yield
    except Diverged as error:
        names = ", ".join(index.path[index.train][error.images].tolist())
        raise InputError(f"{error}; images of the batch, in {index.root}: {names}") from None
