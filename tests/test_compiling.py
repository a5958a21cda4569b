"""Compiled backbones: padded shapes change nothing, and training equals eager mode."""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import needs
from reid_done_right import numerics
from reid_done_right.artifacts import InputError
from reid_done_right.models import device
from reid_done_right.models.backbone import Backbone, conv_norm
from reid_done_right.models.compiling import COUNT, SIDE, enlarged
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.models.padding import halve, zero_
from reid_done_right.training.ranking import train_ranking
from test_gradients import CPU, PEOPLE, ignore, pictures, ranking
from test_padding import FAMILIES, SIZES, embedder, error, gradients, grid, images, one_by_one


class Little(Backbone):
    """One convolution with batch norm, so that it is compiled in seconds."""

    channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        mask = halve(mask)
        return zero_(conv_norm(self.conv1, self.bn1, images), mask).relu(), mask


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_of_compiled_batch_has_no_effect(family: str, pooling: str) -> None:
    made = embedder(family, pooling, "affine")
    shapes: list[tuple[int, ...]] = []
    made.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    for sizes in (SIZES, [(64, 33)] * 3, [(64, 32)] * 5, [(64, 32)] * COUNT):
        expected, oracle = one_by_one(made, images(sizes))
        made.execution = "compiled"  # as to shapes; the backbone itself is eager, in float64
        batch, extent = grid(images(sizes))
        rows = made(batch, extent if sizes is SIZES else None)
        made.execution = "eager"
        assert len(shapes[-1]) == 4 and shapes[-1][0] == COUNT and all(side % SIDE == 0 for side in shapes[-1][2:])
        assert rows.shape == expected.shape and (rows - expected).norm() <= 1e-12 * expected.norm()
        assert error(gradients(made, rows), oracle) <= 1e-10


def test_batch_that_fits_is_unchanged() -> None:
    people = torch.zeros(2 * COUNT, 3, 416, 208)
    assert enlarged(people, None, pads=True) == (people, None)
    made, extent = enlarged(torch.zeros(COUNT + 1, 3, 75, 80), None, pads=False)
    assert (made.shape, extent) == ((2 * COUNT, 3, 75, 80), None)
    people = people.contiguous(memory_format=torch.channels_last)[:3]
    assert enlarged(people, None, pads=True)[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@needs("g++", shutil.which("g++") is not None)
@pytest.mark.parametrize("execution", ["compiled", "cuda-graphs"])
def test_compiled_backbone_trains_as_it_does_eager(execution: str) -> None:
    """On a CPU both are the same kernels; CUDA graphs need a GPU."""
    found: list[tuple[list[dict[str, float]], Any, dict[str, Tensor]]] = []
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for how in ("eager", execution):
        torch.manual_seed(0)
        made, some = Embedder(Little(), 8, "max"), pictures()
        log = train_ranking(made, some, PEOPLE, ranking(updates=3, refresh=2, execution=how), 0, ignore)
        found.append((log, embed(made, some, np.arange(30), 32), made.state_dict()))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before, "nothing was compiled"
    width = torch._inductor.config.cpp.simdlen  # in the key of a cached graph, which must not serve other vectors
    assert width == 256 if numerics.in_force() == "portable" else width is not None
    (log, rows, state), (compiled_log, compiled_rows, compiled_state) = found
    for row, compiled in zip(log, compiled_log, strict=True):
        assert compiled == pytest.approx(row, rel=1e-3, abs=1e-5)
    np.testing.assert_allclose(compiled_rows, rows, atol=1e-5)
    assert compiled_state.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(compiled_state[name], tensor, rtol=1e-3, atol=1e-5)


def test_compile_without_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"train\.execution: compiled needs a C\+\+ compiler, and there is no no-such"):
        Embedder(Little(), 8, "max").execute("compiled")


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have PyTorch say that there is a GPU, and restore what is set for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    kept = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    switches = convolutions.benchmark, convolutions.allow_tf32, products.allow_tf32
    yield
    torch.use_deterministic_algorithms(kept[0])
    torch.utils.deterministic.fill_uninitialized_memory = kept[1]
    convolutions.benchmark, convolutions.allow_tf32, products.allow_tf32 = switches


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_switches_of_a_gpu_follow_the_parameters(precision: str, deterministic: bool) -> None:
    assert device.set_up(1, precision, deterministic) == torch.device("cuda", 0)
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is (precision == "tf32")
    assert device.precise(precision, CPU)._enabled is (precision == "bfloat16")


@pytest.mark.usefixtures("a_gpu")
def test_bfloat16_on_a_gpu_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with pytest.raises(InputError, match=r"precision: Tesla T4 has no bfloat16, .*; write float32"):
        device.set_up(1, "bfloat16")
    assert device.set_up(1, "tf32").type == "cuda"


def test_missing_engine_is_not_out_of_memory() -> None:
    assert not device.out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))
    assert device.out_of_memory(RuntimeError("CUDNN_STATUS_ALLOC_FAILED"))
    assert device.out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
