"""Portable arithmetic: the same bits on every x86-64 processor with AVX2, of any manufacturer and with any extensions.

The libraries below choose their kernels by processor, and kernels differ in the order of their sums, so the same
training would give different results on different machines. Environment variables, set before the libraries load,
restrict them to kernels that every such processor has. The number of threads, which also affects the order of sums,
is a parameter of each job.

Settings of each library (docs/numerics.md lists what was measured, on which processors):

PyTorch's own kernels    ATEN_CPU_CAPABILITY
oneDNN, convolutions     ONEDNN_MAX_CPU_ISA
MKL                      nothing of ours passes through it, as its kernels depend on the processor's maker
                         (`reid_done_right.models.products`); MKL_CBWR, MKL_DYNAMIC for whatever else does
OpenBLAS                 OPENBLAS_CORETYPE, for NumPy's and SciPy's matrix products
NumPy                    NPY_DISABLE_CPU_FEATURES; the functions of AVX-512 round otherwise. Under two names, as NumPy
                         2.4 renamed them; a name that NumPy or the processor does not know is passed over
Numba                    NUMBA_CPU_NAME, NUMBA_CPU_FEATURES
OpenCV                   OPENCV_IPP, OPENCV_CPU_DISABLE
Arrow                    ARROW_USER_SIMD_LEVEL
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Literal

Numerics = Literal["portable", "native"]

VARIABLE = "REID_NUMERICS"
"""Environment variable that applies where there is no setting or option."""

LIBRARIES = ("numpy", "torch", "cv2", "numba", "pyarrow")
"""Modules that read the environment when they load."""

WHY_NATIVE = "native arithmetic: portable needs x86-64 with AVX2 under Linux, so other machines get other last digits"
"""Warning, printed once, if portable arithmetic is not available."""

LEVEL = {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
"""Flags of a processor of the level x86-64-v3, as far as /proc/cpuinfo names them alike for every maker."""

_before: dict[str, str | None] = {}  # what the variables were before this process changed them


@cache
def processor() -> dict[str, str]:
    """Return the first processor in /proc/cpuinfo; empty if there is no such file."""
    cpuinfo = Path("/proc/cpuinfo")
    first = cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.is_file() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}


@cache
def supported() -> bool:
    """Return whether this processor can compute portably: x86-64 with AVX2, FMA and BMI, under Linux."""
    flags = set(processor().get("flags", "").split())
    return platform.machine() == "x86_64" and flags >= LEVEL


@cache
def pins() -> dict[str, str]:
    """Return the environment of portable arithmetic; empty if the processor is not supported."""
    if not supported():
        return {}
    return {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",
        "MKL_DYNAMIC": "FALSE",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL",
        "NUMBA_CPU_NAME": "x86-64-v3",
        "NUMBA_CPU_FEATURES": "",
        "OPENCV_IPP": "avx2",
        "OPENCV_CPU_DISABLE": "AVX512-SKX",
        "ARROW_USER_SIMD_LEVEL": "AVX2",
    }


def choose(wanted: str = "") -> Numerics:
    """Choose portable or native arithmetic; return which of the two this process now uses.

    wanted  portable or native; default: REID_NUMERICS, otherwise portable

    Portable arithmetic needs processor support, and no library may have loaded without it. Native leaves the user's
    environment unchanged. Raises ValueError for any other value.
    """
    wanted = wanted or os.environ.get(VARIABLE) or "portable"
    if wanted not in ("portable", "native"):
        raise ValueError(f"numerics {wanted!r}: expected portable or native")
    if wanted == "native":
        for name, value in _before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _before.clear()
    elif in_force() == "native" and not loaded():
        for name, value in pins().items():
            _before.setdefault(name, os.environ.get(name))
            os.environ[name] = value
    return in_force()


def in_force() -> Numerics:
    """Return how this process computes on its CPU."""
    wanted = pins()
    return "portable" if wanted and all(os.environ.get(name) == wanted[name] for name in wanted) else "native"


def weakest(*links: object) -> Numerics:
    """Return portable if every step of a computation was portable, native if one was not or is unknown."""
    return "portable" if all(link == "portable" for link in links) else "native"


def computed_on(device: str, precision: str = "float32", execution: str = "eager") -> Numerics:
    """Return how this process computes on a kind of device: portably in float32 on a CPU, operation by operation."""
    return in_force() if (device, precision, execution) == ("cpu", "float32", "eager") else "native"


def ranked_on(device: str | None) -> Numerics:
    """Return how this process ranks: NumPy's products follow `in_force`, those of a `device` are PyTorch's own."""
    return in_force() if device is None else "native"


def loaded() -> list[str]:
    """Return the loaded libraries, which have already chosen their kernels."""
    return [name for name in LIBRARIES if name in sys.modules]
