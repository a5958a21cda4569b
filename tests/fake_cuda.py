"""A CUDA device that computes nothing: shapes, types and devices are real, what is read from it is made up.

Operands on different devices raise as on a GPU. Values read on the host are 0, truth is True (of `any`: False). The
engine of gradients wants a driver, so `backward` only gives parameters of the graph an empty gradient.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
aten = torch.ops.aten


class Watch(TorchDispatchMode):
    """Counts kernels and transfers, and which of these make the host wait.

    counts  kernels, uploads, downloads, reads (of single values, or of sizes that depend on values), waits (all
            transfers but uploads from pinned memory that are told not to)
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.dtypes: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        source = next((each for each in _tensors((args, kwargs))), None)
        if packet is aten._local_scalar_dense:
            self._reads(source)
            truth = source is not None and getattr(source, "made_up", True)
            return truth if source is not None and source.dtype == torch.bool else 0
        if packet is aten.nonzero:
            self._reads(source)
            return source.new_zeros((1, source.dim()), dtype=torch.int64)  # type: ignore[union-attr]
        if packet is aten.bincount:
            self._reads(source)
            return source.new_zeros(args[2])  # type: ignore[union-attr]
        if packet in (aten.index, aten.index_put_) and source is not None and source.device.type == "cuda":
            left = sum(each is not None and each.device.type == "cpu" for each in args[1])
            self.counts.update({"uploads": left, "waits": left})  # of indices, by the kernel itself
        out = func(*args, **kwargs)
        if packet is aten.any:
            out.made_up = False
        if kwargs.get("pin_memory"):
            out.pinned = True
        if packet is aten.copy_:
            self._moves(args[1], args[0], len(args) > 2 and args[2])
        elif packet in (aten._to_copy, aten.to):  # the second is what inference mode leaves whole
            self._moves(args[0], out, kwargs.get("non_blocking") or args[3:4] == (True,))
        on_gpu = any(each.device.type == "cuda" for each in _tensors(out))
        self.counts["kernels"] += on_gpu
        if packet in (aten.convolution, aten.mm, aten.addmm) and on_gpu:
            self.dtypes[out.dtype] += 1
        return out

    def _reads(self, source: Tensor | None) -> None:
        if source is not None and source.device.type == "cuda":
            self.counts.update(("reads", "waits"))

    def _moves(self, source: Tensor, to: Tensor, non_blocking: bool) -> None:
        ends = source.device.type, to.device.type
        if ends[0] == ends[1]:
            return
        self.counts["uploads" if ends[1] == "cuda" else "downloads"] += 1
        self.counts["waits"] += not (non_blocking and ends[1] == "cuda" and getattr(source, "pinned", False))


def _tensors(of: Any) -> Iterator[Tensor]:
    if isinstance(of, Tensor):
        yield of
    elif isinstance(of, tuple | list):
        for each in of:
            yield from _tensors(each)
    elif isinstance(of, dict):
        yield from _tensors(list(of.values()))


def _numpy(tensor: Tensor, *_: Any, **__: Any) -> Any:
    if tensor.device.type == "cuda":
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    if tensor.requires_grad:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
    return np.full(tuple(tensor.shape), tensor.dtype == torch.bool, np.dtype(str(tensor.dtype).removeprefix("torch.")))


def _pin_memory(tensor: Tensor) -> Tensor:
    assert tensor.device.type == "cpu"
    tensor.pinned = True  # type: ignore[attr-defined]
    return tensor


def _leaves(graph: Any) -> Iterator[Tensor]:
    """Give the parameters that a graph leads to."""
    waiting, seen = [graph], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [each for each, _ in node.next_functions]


def _backward(tensor: Tensor, gradient: Tensor | None = None, *_: Any, **__: Any) -> None:
    if gradient is not None and (gradient.shape, gradient.device) != (tensor.shape, tensor.device):
        raise RuntimeError(f"a gradient {tuple(gradient.shape)} on {gradient.device}, of {tuple(tensor.shape)}")
    for leaf in _leaves(tensor.grad_fn):
        leaf.grad = torch.zeros_like(leaf)


def _grad(outputs: Tensor, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    assert outputs.requires_grad and outputs.numel() == 1
    return tuple(torch.zeros_like(each) for each in ([inputs] if isinstance(inputs, Tensor) else inputs))


def _apply(module: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
    """Do what `nn.Module._apply` does, which cannot replace fake parameters twice."""
    for child in module.children():
        _apply(child, function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(function(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


@contextmanager
def fake_cuda() -> Iterator[Watch]:
    """Have a GPU of 80 GB that computes nothing; networks are made before, and moved to it by what is tested."""
    watch, numpy = Watch(), torch.Tensor.numpy
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.MonkeyPatch.context() as patch, watch:
        for name, value in {
            "is_available": True,
            "is_bf16_supported": True,
            "device_count": 1,
            "mem_get_info": (80 * 10**9, 80 * 10**9),
            "empty_cache": None,
            "set_device": None,
            "get_device_name": "Fake",
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(torch.Tensor, "backward", _backward)
        patch.setattr(torch.autograd, "grad", _grad)
        patch.setattr(
            torch.Tensor,
            "numpy",
            lambda tensor, *more, **named: (
                _numpy(tensor) if isinstance(tensor, FakeTensor) else numpy(tensor, *more, **named)
            ),
        )
        patch.setattr(torch.Tensor, "pin_memory", _pin_memory)
        patch.setattr(fake_tensor, "init_gpu_context", lambda device: None)
        patch.setattr(FakeTensorMode, "avoid_device_init", True)  # CUDA is not started, although it is said to be there
        yield watch
