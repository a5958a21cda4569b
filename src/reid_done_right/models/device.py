"""The device of a stage: its arithmetic, its precision, and how to recognise that it ran out of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reid_done_right.artifacts import InputError


def set_up(threads: int, precision: str = "float32", deterministic: bool = True) -> torch.device:
    """Choose the device and its arithmetic; on a CPU, a fixed number of threads makes results repeatable.

    precision      tf32 lets a GPU round the factors of float32 products to 10 bits; for bfloat16 see `precise`
    deterministic  use GPU kernels with a fixed order of sums, with a warning where PyTorch has none; otherwise cuDNN
                   benchmarks its kernels for each new shape and keeps the fastest
    Raises InputError if torchrun started more processes than there are GPUs, and for bfloat16 on a GPU without it.
    """
    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for a fixed order of sums; cuBLAS reads it on start
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    number, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= there:
        raise InputError(
            f"process {number + 1} finds {there} GPUs; request at most as many in resources as a machine has"
        )
    torch.cuda.set_device(number)
    if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise InputError(f"precision: {name} has no bfloat16, as GPUs before Ampere; write float32")
    return torch.device("cuda", number)


@contextmanager
def as_stages_do(device: torch.device) -> Iterator[None]:
    """Compute in a user's process as `set_up` has stages compute in float32; its own switches come back afterwards."""
    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        products.allow_tf32 = before


def precise(precision: str, device: torch.device) -> torch.autocast:
    """Compute products in bfloat16 if `precision` says so; parameters, sums and losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


OUT_OF_MEMORY = ("can't allocate memory", "ALLOC_FAILED")
"""Messages of PyTorch for errors without a class of their own: main memory, cuDNN and cuBLAS."""


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether a PyTorch error means out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)
