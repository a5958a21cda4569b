"""Portable arithmetic: the same bits on any processor, environment and number of cores."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conftest import ROOT
from reid_done_right import numerics
from reid_done_right.cli.options import compute_as
from reid_done_right.models import products
from reid_done_right.models.products import Linear, convolve, linear
from reid_done_right.store.ledger import made_with

HOSTILE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "AUTO",
    "OPENBLAS_CORETYPE": "Prescott",
    "NUMBA_CPU_NAME": "generic",
    "NPY_DISABLE_CPU_FEATURES": "",
    "OPENCV_IPP": "sse42",
    "OMP_NUM_THREADS": "3",
    "MKL_VERBOSE": "1",
}
"""An environment that asks every library for other kernels, and has MKL say what it is asked for."""

supported = pytest.mark.skipif(not numerics.supported(), reason="needs x86-64 with AVX2 under Linux")


def python(code: str, **environment: str) -> str:
    """Run a program that imports what it needs itself; return what it prints."""
    clean = {name: value for name, value in os.environ.items() if name not in {*numerics.pins(), numerics.VARIABLE}}
    clean |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}", **environment}
    ended = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def other_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor without AVX2."""
    for cached in (numerics.supported, numerics.pins):
        cached.cache_clear()
    monkeypatch.setattr(numerics, "processor", lambda: {"flags": "sse2 ssse3", "model name": "an old one"})
    with mock.patch.dict(os.environ):  # what is chosen for it stays there
        yield
    for cached in (numerics.supported, numerics.pins):
        cached.cache_clear()


# --- every stage that computes


@pytest.mark.slow
@supported
def test_chain_in_hostile_environment_gives_committed_bytes(tmp_path: Path) -> None:
    """On one core, whatever the user's environment asks of the libraries; and MKL, which asks who made the processor,
    is asked for nothing."""
    code = f"""
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import sys, runpy
sys.argv = ["chain.py", {str(tmp_path)!r}]
runpy.run_path({str(ROOT / "tests/chain.py")!r}, run_name="__main__")
"""
    printed = python(code, **HOSTILE)
    assert not re.findall(r"^MKL_VERBOSE (?!oneMKL).*$", printed, re.MULTILINE)
    assert json.loads(printed[printed.index("{") :]) == json.loads((ROOT / "tests/structure/portable.json").read_text())


@pytest.mark.slow
def test_mkl_reports_requested_kernels() -> None:
    """Else the test above could not fail."""
    assert "MKL_VERBOSE SGEMM" in python("import torch; torch.ones(8, 8) @ torch.ones(8, 8)", MKL_VERBOSE="1")


# --- the choice


@supported
def test_choose_replaces_environment_and_native_restores_it() -> None:
    code = """
import os
from reid_done_right import numerics
before = dict(os.environ)
assert numerics.in_force() == "native"
assert numerics.choose() == "portable" and os.environ["OPENBLAS_CORETYPE"] == "Haswell"
assert numerics.choose("native") == "native" and dict(os.environ) == before
assert numerics.choose("portable") == "portable"
import torch
print(torch.backends.cpu.get_cpu_capability())
"""
    assert python(code, OPENBLAS_CORETYPE="Prescott") == "AVX2\n"


def test_choose_after_a_library_has_loaded_is_native() -> None:
    code = "import numpy; from reid_done_right import numerics; print(numerics.choose('portable'), numerics.loaded())"
    assert python(code) == "native ['numpy']\n"


def test_choose_reads_the_variable_and_rejects_other_words() -> None:
    code = """
from reid_done_right import numerics
print(numerics.choose())
try:
    numerics.choose("fast")
except ValueError as error:
    print(error)
"""
    assert python(code, REID_NUMERICS="native") == "native\nnumerics 'fast': expected portable or native\n"


@supported
@pytest.mark.slow
def test_package_imported_by_a_program_computes_portably() -> None:
    code = "import reid_done_right as r; r.rank; from reid_done_right import numerics; print(numerics.in_force())"
    assert python(code) == "portable\n"
    assert python(code, REID_NUMERICS="native") == "native\n"


def test_unsupported_processor_is_native_with_one_warning(
    other_processor: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not numerics.supported() and numerics.pins() == {} and numerics.choose("portable") == "native"
    compute_as("portable")
    assert capsys.readouterr().err == f"reid: warning: {numerics.WHY_NATIVE}\n"
    compute_as("native")
    assert capsys.readouterr().err == ""
    assert made_with().numerics == "native" and made_with().processor == "an old one"


# --- products


def gradients(function: object, *arguments: Tensor, **options: object) -> list[Tensor]:
    """Return a function's value and its gradients with respect to the arguments."""
    value = function(*arguments, **options)  # type: ignore[operator]
    upstream = torch.linspace(-1, 1, value.numel()).view(value.shape)
    return [value.detach(), *torch.autograd.grad(value, arguments, upstream)]


def drawn(*shape: int, seed: int) -> Tensor:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return torch.from_numpy(values).requires_grad_()


@pytest.mark.parametrize("count", [1, 2, 15, 16, 33])
@pytest.mark.parametrize(("side", "stride", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 2), (7, 2, 1)])
def test_convolve_has_the_values_and_gradients_of_conv2d(count: int, side: int, stride: int, groups: int) -> None:
    maps, kernel, shift = drawn(count, 16, 9, 5, seed=1), drawn(32, 16 // groups, side, side, seed=2), drawn(32, seed=3)
    options = {"stride": (stride, stride), "padding": (side // 2, side // 2), "groups": groups}
    ours, theirs = (
        gradients(convolve, maps, kernel, shift, **options),
        gradients(F.conv2d, maps, kernel, shift, **options),
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("shape", [(1, 5, 3), (7, 64, 10), (300, 16, 250)])
def test_linear_has_the_values_and_gradients_of_a_product(shape: tuple[int, int, int]) -> None:
    count, inner, outer = shape
    rows, weight, bias = drawn(count, inner, seed=1), drawn(outer, inner, seed=2), drawn(outer, seed=3)
    for one, other in zip(gradients(linear, rows, weight, bias), gradients(F.linear, rows, weight, bias), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    torch.testing.assert_close(linear(rows, weight), rows @ weight.T, rtol=1e-4, atol=1e-4)


def test_product_result_can_change_in_place() -> None:
    maps, kernel = drawn(2, 8, 3, 3, seed=1), drawn(4, 8, 1, 1, seed=2)
    value = F.relu(convolve(maps, kernel, None, (1, 1), (0, 0)), inplace=True)
    (gradient,) = torch.autograd.grad(value.sum(), maps)
    assert gradient.shape == maps.shape and (value >= 0).all()


def test_linear_of_no_rows_has_no_rows() -> None:
    assert linear(torch.empty(0, 5), torch.ones(3, 5)).shape == (0, 3)


def test_float64_native_and_autocast_are_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, rows = Linear(4, 3), drawn(2, 4, seed=1)
    assert torch.equal(layer.double()(rows.double()), F.linear(rows.double(), layer.weight, layer.bias))
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(rows).dtype == torch.bfloat16
    monkeypatch.setattr(products, "in_force", lambda: "native")
    assert torch.equal(layer(rows), F.linear(rows, layer.weight, layer.bias))
