"""Backbones compiled by PyTorch, and the few shapes of batches that they are compiled for."""

from __future__ import annotations

import os
import shutil

import torch
from torch import Tensor
from torch.nn import functional as F

from reid_done_right.artifacts import InputError
from reid_done_right.models.backbone import Backbone

COUNT, SIDE = 16, 16
"""Images of a batch, and pixels of its sides, are multiples of these: 416 x 208 is, so people of one size are not
padded, and a batch of 192 whose distinct images vary has few shapes."""


def compile_(backbone: Backbone, execution: str) -> None:
    """Compile a backbone, in place, when it is first called, which takes minutes, and once more where shapes change.

    execution  eager: not at all; compiled: fused kernels, for any shape after the second; cuda-graphs: those of one
               shape are launched together, at most eight shapes
    Raises InputError if there is no C++ compiler, which PyTorch's needs.
    """
    if execution == "eager":
        backbone._compiled_call_impl = None  # what nn.Module.compile sets
        return
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InputError(f"train.execution: {execution} needs a C++ compiler, and there is no {compiler}; write eager")
    _separate_caches()
    if execution == "compiled":
        backbone.compile()
    else:
        backbone.compile(mode="reduce-overhead", dynamic=False)


def _separate_caches() -> None:
    """Have PyTorch look up compiled graphs by the width of their vectors, in bits.

    Its cache forgets that ATEN_CPU_CAPABILITY chose the width: after a native run a portable one on the same machine
    would take up loops over vectors twice as long as its own, and write past their ends.
    """
    from torch._inductor import config as settings  # the compiler takes seconds to load
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    settings.cpp.simdlen = None
    settings.cpp.simdlen = pick_vec_isa().bit_width() or None


def enlarged(images: Tensor, extent: Tensor | None, pads: bool) -> tuple[Tensor, Tensor | None]:
    """Bring a batch (B, 3, H, W) to one of few shapes: blank images at its end, and padding, if the backbone `pads`.

    extent  as `reid_done_right.models.embedder.Embedder.forward` takes it, and gives it
    What is added has no effect on the embeddings of the first B, nor on gradients that come from them.
    """
    count, _, height, width = images.shape
    more = -count % COUNT
    low, right = (-height % SIDE, -width % SIDE) if pads else (0, 0)
    if low or right or extent is not None:
        if extent is None:
            extent = torch.tensor([[height, width]], device=images.device).expand(count, 2)
        extent = torch.cat([extent, extent.new_tensor([[height + low, width + right]]).expand(more, 2)])
    return F.pad(images, (0, right, 0, low, 0, 0, 0, more)) if low or right or more else images, extent
