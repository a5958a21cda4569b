"""The GPUs of a job: none unless it asks for one, and then one that no other job of this machine has."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reid_done_right.artifacts import InputError

DEVICE = "REID_DEVICE"
"""Environment variable: with the value cpu, a job that asks for a GPU computes on the CPU."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""Variables of schedulers, which say in `VISIBLE` which GPUs are a job's own."""

DRIVERS = {"11": "450", "12": "525", "13": "580"}
"""Major version of CUDA -> the first driver for it, by NVIDIA's release notes of CUDA."""

PATIENCE = 1.0
"""Seconds between two looks for a free GPU."""


def wanted(stated: int, device: str | None = None) -> int:
    """Return how many GPUs a job takes: those its settings state, but at least one for a `device` of CUDA.

    Raises InputError for an unknown value of `DEVICE`.
    """
    if (forced := os.environ.get(DEVICE, "")) not in ("", "cpu"):
        raise InputError(f"{DEVICE}={forced}: expected cpu, or nothing for the GPUs that the parameters ask for")
    if forced or (device or "cuda").split(":")[0] != "cuda":
        return 0
    return max(stated, int(device is not None))


@contextmanager
def assigned(count: int) -> Iterator[None]:
    """While this lasts, see only the GPUs that `assign` gives; the processes of torchrun see what their parent gave."""
    before = os.environ.get(VISIBLE)
    locks = assign(count) if "WORLD_SIZE" not in os.environ else []
    try:
        yield
    finally:
        for lock in locks:
            os.close(lock)
        os.environ.pop(VISIBLE, None)
        if before is not None:
            os.environ[VISIBLE] = before


def assign(count: int) -> list[int]:
    """Make so many GPUs visible to this process, and no other ones, before CUDA starts; return their locks.

    A lock is an open file, which `os.exec` passes on. GPUs that a scheduler has chosen are taken as they are; otherwise
    waits until enough are free. Raises InputError, naming the driver that PyTorch needs, if there are too few.
    """
    if count == 0:
        os.environ[VISIBLE] = ""
        return []
    import torch

    listed, there = os.environ.get(VISIBLE), torch.cuda.device_count()  # asks the driver's library, starts no CUDA
    names = list(map(str, range(there))) if listed is None else [name.strip() for name in listed.split(",")][:there]
    if len(names) < count:
        raise InputError(_too_few(count, len(names)))
    locks = dict.fromkeys(names, -1)
    if len(names) > count or not any(scheduler in os.environ for scheduler in SCHEDULERS):
        locks = _waited_for(names, count)
    os.environ[VISIBLE] = ",".join(locks)
    held = [lock for lock in locks.values() if lock >= 0]
    if not torch.cuda.is_available():
        for lock in held:
            os.close(lock)
        raise InputError(_too_few(count, 0))
    return held


def _waited_for(names: Sequence[str], count: int) -> dict[str, int]:
    """Lock GPUs as `_locked` does, once enough are free."""
    said = False
    while (locks := _locked(names, count)) is None:
        if not said:
            print(f"reid: waits for {count} of {len(names)} GPUs, which other jobs have", file=sys.stderr)
        said = True
        time.sleep(PATIENCE)
    return locks


def _locked(names: Sequence[str], count: int) -> dict[str, int] | None:
    """Lock the first free GPUs: name -> open file. None, and no lock, if too few are free."""
    import fcntl  # not on Windows

    found: dict[str, int] = {}
    for name in names:
        path = Path(tempfile.gettempdir()) / f"reid-gpu-{os.getuid()}-{name.replace('/', '_')}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        os.set_inheritable(lock, True)
        found[name] = lock
        if len(found) == count:
            return found
    for lock in found.values():
        os.close(lock)
    return None


def _too_few(count: int, there: int) -> str:
    import torch

    built = torch.version.cuda
    cause = "this PyTorch is built for CPUs"
    if built:
        driver = DRIVERS.get(built.split(".")[0], f"that of CUDA {built}")
        cause = f"PyTorch {torch.__version__} needs NVIDIA's driver {driver} or newer (see nvidia-smi)"
    asks = f"asks for {count} GPU{'s' * (count > 1)} and finds {there or 'none'}"
    return f"{asks}: {cause}; lower resources.*.gpu, or set {DEVICE}=cpu to compute on the CPU"
