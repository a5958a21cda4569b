"""Compile backbones with PyTorch, for a small number of batch shapes."""

from __future__ import annotations

import os
import shutil

import torch
from torch import Tensor
from torch.nn import functional as F

from reid_done_right.artifacts import InputError
from reid_done_right.models.backbone import Backbone

COUNT, SIDE = 16, 16
"""Batch sizes and image sides are rounded up to multiples of these. 416 x 208 is one, so people of that size are not
padded, and batches of 192 images, whose distinct images vary in number, have few shapes."""


def compile_(backbone: Backbone, execution: str) -> None:
    """Compile a backbone, in place, on its first call, which takes minutes, and again when shapes change.

    execution  eager: no compilation; compiled: fused kernels, dynamic after the second shape; cuda-graphs: kernels of
               one shape are launched together, for at most eight shapes
    Raises InputError if there is no C++ compiler, which PyTorch needs.
    """
    if execution == "eager":
        backbone._compiled_call_impl = None  # set by nn.Module.compile
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
    """Add the vector width, in bits, to the key of PyTorch's cache of compiled graphs.

    The cache ignores that ATEN_CPU_CAPABILITY chose the width. After a native run, a portable run on the same machine
    would load loops over vectors twice as long as its own, and write past their ends.
    """
    from torch._inductor import config as settings  # the compiler takes seconds to load
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    settings.cpp.simdlen = None
    settings.cpp.simdlen = pick_vec_isa().bit_width() or None


def enlarged(images: Tensor, extent: Tensor | None, pads: bool) -> tuple[Tensor, Tensor | None]:
    """Pad a batch (B, 3, H, W) to one of few shapes, with blank images and, if the backbone `pads`, larger sides.

    extent  as in `reid_done_right.models.embedder.Embedder.forward`, for input and output
    The padding affects neither the embeddings of the first B images nor their gradients.
    """
    count, _, height, width = images.shape
    more = -count % COUNT
    low, right = (-height % SIDE, -width % SIDE) if pads else (0, 0)
    if low or right or extent is not None:
        if extent is None:
            extent = torch.tensor([[height, width]], device=images.device).expand(count, 2)
        extent = torch.cat([extent, extent.new_tensor([[height + low, width + right]]).expand(more, 2)])
    return F.pad(images, (0, right, 0, low, 0, 0, 0, more)) if low or right or more else images, extent
