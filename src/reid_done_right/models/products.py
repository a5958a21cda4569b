"""Convolutions and matrix products of networks. Under portable arithmetic, all of them go through oneDNN.

PyTorch uses MKL for matrix products and for convolutions of few or small maps. MKL chooses kernels by the processor's
manufacturer, so the last digits of a product differ between Intel and AMD; oneDNN chooses them by instruction set
alone. On a CPU, a product and its gradient are therefore computed as convolutions with 1 x 1 kernels. Elsewhere, and
under native arithmetic, PyTorch's own functions are used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reid_done_right.numerics import in_force

Pair = tuple[int, ...]

FEWEST = 16
"""Smallest batch for which PyTorch computes the gradient of a 1 x 1 kernel with oneDNN; 2 for other kernels."""


def convolve(
    maps: Tensor, kernel: Tensor, shift: Tensor | None, stride: Pair, padding: Pair, groups: int = 1
) -> Tensor:
    """Convolve maps (B, C, H, W) with a kernel (F, C / groups, h, w), as `torch.nn.functional.conv2d`."""
    if not _portable(maps):
        return F.conv2d(maps, kernel, shift, stride, padding, groups=groups)
    count, _, height, width = maps.shape
    if count < FEWEST and (*kernel.shape[2:], *stride, *padding, groups) == (1, 1, 1, 1, 0, 0, 1):
        rows = linear(maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]), kernel[:, :, 0, 0], shift)
        return rows.view(count, height, width, -1).permute(0, 3, 1, 2)
    if count == 1:  # an additional empty image changes no sum
        maps = torch.cat([maps, torch.zeros_like(maps)])
    convolved = torch.mkldnn_convolution(maps, kernel, shift, padding, stride, (1, 1), groups)
    return convolved if len(convolved) == count else convolved[:count]  # slicing makes autograd copy, so avoid it


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows (N, C) by a weight (F, C): (N, F), as `torch.nn.functional.linear`."""
    if not _portable(rows) or not len(rows):
        return F.linear(rows, weight, bias)
    return _Linear.apply(rows, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class Linear(nn.Linear):
    """A fully-connected layer that uses `linear` for its product."""

    def forward(self, rows: Tensor) -> Tensor:
        """Map (B, C) to (B, F)."""
        return linear(rows, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    """The product in `linear` and its gradients, which are products too."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias).clone()  # not a view, so that later layers may change it in place

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        wanted, (gradient,) = ctx.needs_input_grad, gradients
        return (
            _product(gradient, weight.T) if wanted[0] else None,
            _product(gradient.T, rows.T) if wanted[1] else None,
            gradient.sum(0) if wanted[2] else None,
        )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply (N, K) by the transpose of (M, K): a map of N pixels and K channels, convolved to M channels."""
    pixels = left.contiguous().view(1, len(left), 1, -1).permute(0, 3, 1, 2)
    maps = torch.mkldnn_convolution(pixels, right[:, :, None, None], bias, (0, 0), (1, 1), (1, 1), 1)
    return maps.permute(0, 2, 3, 1).reshape(len(left), -1)


def _portable(factor: Tensor) -> bool:
    """Return whether products go through oneDNN: not while the program is being compiled or exported."""
    return (
        factor.device.type == "cpu"
        and factor.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and in_force() == "portable"
    )
