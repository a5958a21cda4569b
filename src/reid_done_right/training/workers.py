"""Data parallelism over processes started by `torchrun`: each has a share of the triplets, and sums are shared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor


class Workers:
    """This process among `count`, numbered from 0; a single one unless started by torchrun."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1 and not torch.distributed.is_initialized():
            # objects and waiting go over gloo, before a process has its GPU; a week, as the first may wait for a lock
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            torch.distributed.init_process_group(backend, timeout=timedelta(days=7))

    def share(self, items: int) -> NDArray[np.int64]:
        """Return the indices of this process's share of `count` items."""
        return np.arange(self.rank, items, self.count)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their sums over all processes, in one all-reduce."""
        if self.count == 1:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(together)
        for tensor, part in zip(tensors, torch.split(together, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether the value is true in any process."""
        if self.count == 1:
            return flag
        votes = torch.tensor([float(flag)], device=device)
        self.sum([votes])
        return bool(votes.item())

    def agree(self, value: Any) -> Any:
        """Broadcast the first process's value to all."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def part(self) -> None:
        """Wait for all processes, then close the connection."""
        if self.count > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
