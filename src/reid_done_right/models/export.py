"""Export a trained embedder as ONNX or as PyTorch's exported program, for any number and size of images.

Both take uint8 RGB pixels and include normalisation. The images of a call have one size, so nothing is padded. The
caller resizes to the largest side, because no two runtimes resize in the same way. With a fixed size, they take floats
that the caller has normalised, as trackers do.
"""

from __future__ import annotations

import json
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_done_right.artifacts import InputError
from reid_done_right.images.transforms import MEAN, STD
from reid_done_right.models.embedder import Embedder

Form = Literal["onnx", "torch-export"]

OPSETS = range(18, 26)
"""ONNX opsets that PyTorch 2.11 writes and onnxruntime reads."""
OPSET = 18

Size = tuple[int, int]
"""Height and width of the images that a file of a fixed size takes."""


class Deployed(nn.Module):
    """Pixels uint8 (B, 3, H, W) in RGB order to unit-norm embeddings (B, D) float32."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        mean, std = (torch.tensor(of, dtype=torch.float64).view(3, 1, 1) for of in (MEAN, STD))
        self.register_buffer("slope", (1 / (255 * std)).float())
        self.register_buffer("start", (-mean / std).float())

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise with ImageNet's mean and deviation, and embed."""
        return self.embedder(pixels.float() * self.slope + self.start)  # type: ignore[no-any-return, operator]


def export(
    embedder: Embedder, form: Form, about: Mapping[str, Any], opset: int = OPSET, size: Size | None = None
) -> bytes:
    """Return the file of an embedder on the CPU in evaluation mode.

    Input `pixels` uint8 (B, 3, H, W), output `embeddings` float32 (B, D). B, H and W are dynamic, from 1 or from the
    smallest side the backbone accepts. With a size, the input is `images`, float32 (B, 3, H, W) normalised, and only B
    is dynamic. about: stored in the file, as JSON under "reid".
    Raises InputError for an opset outside `OPSETS`, or if onnx or onnxscript is not installed.
    """
    if form == "onnx":
        _check_onnx(opset)
    smallest = embedder.backbone.smallest
    network: nn.Module = embedder.eval()
    sides: dict[int, Any] = {}
    example = torch.zeros((2, 3, *(size or (max(64, smallest), max(48, smallest)))))
    if size is None:
        network, example = Deployed(embedder).eval(), example.to(torch.uint8)
        sides = {2: torch.export.Dim("height", min=smallest), 3: torch.export.Dim("width", min=smallest)}
    shapes = ({0: torch.export.Dim("batch", min=1), **sides},)
    with _quiet(), _free_sizes(), torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
    if form == "onnx":
        return _onnx(program, about, opset, size)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains paths of this machine
    written = BytesIO()
    with _quiet():
        torch.export.save(program, written, extra_files={"reid": json.dumps(dict(about))})
    return written.getvalue()


def _check_onnx(opset: int) -> None:
    if opset not in OPSETS:
        raise InputError(f"opset {opset} is not supported; use one from {OPSETS[0]} to {OPSETS[-1]}")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX needs {error.name}, which is not installed: pip install onnx onnxscript") from None


def _onnx(program: Any, about: Mapping[str, Any], opset: int, size: Size | None) -> bytes:
    names: dict[str, Any] = {"input_names": ["images" if size else "pixels"], "output_names": ["embeddings"]}
    with _quiet():
        made = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False, **names)
    assert made is not None
    model = made.model_proto
    if (found := [each.version for each in model.opset_import if not each.domain]) != [opset]:
        raise InputError(f"opset {opset} cannot express this network (it needs {found[0]}); use another")
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # contains paths of this machine
    del model.graph.value_info[:]  # sizes under PyTorch's internal names
    (pixels,), (embeddings,) = model.graph.input, model.graph.output
    free = [(pixels, 0, "batch"), (embeddings, 0, "batch")]
    for value, axis, name in free if size else [*free, (pixels, 2, "height"), (pixels, 3, "width")]:
        value.type.tensor_type.shape.dim[axis].dim_param = name
    entry = model.metadata_props.add()
    entry.key, entry.value = "reid", json.dumps(dict(about))
    content: bytes = model.SerializeToString()
    return content


def largest_difference(
    embedder: Embedder, content: bytes, form: Form, sizes: Sequence[tuple[int, int, int]], fixed: bool = False
) -> float:
    """Run an exported file on random images and return the largest difference from the module.

    sizes  batch, height, width of each trial; fixed: whether the file takes normalised floats
    Raises InputError if onnxruntime is not installed.
    """
    run, rng = runner(content, form), np.random.default_rng(0)
    network = embedder.eval() if fixed else Deployed(embedder).eval()
    furthest = 0.0
    for batch, height, width in sizes:
        pixels: NDArray[Any] = rng.integers(0, 256, (batch, 3, height, width), np.uint8)
        if fixed:
            pixels = rng.standard_normal(pixels.shape, np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(pixels)).numpy()
        furthest = float(np.maximum(furthest, np.abs(run(pixels) - expected).max()))  # not a number stays one
    return furthest


def runner(content: bytes, form: Form) -> Any:
    """Return a function that runs an exported file: its input (B, 3, H, W) to embeddings (B, D), as NumPy arrays.

    Raises InputError if onnxruntime is not installed.
    """
    if form == "onnx":
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                "running ONNX needs onnxruntime, which is not installed: pip install onnxruntime"
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (taken,) = session.get_inputs()
        return lambda pixels: session.run(["embeddings"], {taken.name: pixels})[0]
    with _quiet():
        module = torch.export.load(BytesIO(content)).module()

    def run(pixels: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(pixels)).numpy()
        return found

    return run


@contextmanager
def _free_sizes() -> Iterator[None]:
    """Make sizes fully dynamic in the exported program.

    PyTorch assumes that a side that happens to be even, or not 1, always is: where it checks whether a tensor of one
    pixel is contiguous, and where it rounds the sides of a pooled map (`div_rtn`, which for integers is Python's //);
    and that a batch of maps whose channels are last always has several.
    """
    from torch import _meta_registrations
    from torch.fx.experimental import _config

    rounding = mock.patch.object(_meta_registrations, "div_rtn", operator.floordiv)
    order = mock.patch.object(torch._C, "_conv_determine_backend_memory_format", lambda *_: torch.contiguous_format)
    with rounding, order, _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of PyTorch's exporters; their output is checked."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
