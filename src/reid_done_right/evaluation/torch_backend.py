"""Ranking and neighbour search with PyTorch, on a GPU or wherever else it computes.

Scores are float32 products (TF32 stays off). Score and number of an item make one integer, higher for a higher score
and then for an earlier item, so that one comparison orders items exactly, ties included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_done_right.evaluation.blocks import Progress, blocks
from reid_done_right.evaluation.counting import Backend

_LAST = 2**31 - 1


class TorchBackend(Backend):
    """The same with tensors on a device of PyTorch. Raises ValueError if there is none."""

    def __init__(self, device: str) -> None:
        try:
            self.device = torch.zeros(1, device=device).device
            torch.zeros(1, device=self.device).cpu()  # the device `meta` has no values
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            if device.startswith("cuda"):
                reason = f"GPUs that PyTorch finds: {torch.cuda.device_count()}"
            raise ValueError(f"device {device!r} cannot be used here ({reason}): leave it out for the CPU") from None

    def empty(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.float32, device=self.device)

    def put(self, rows: NDArray[np.floating]) -> Tensor:
        return torch.tensor(np.asarray(rows), device=self.device).float()

    def multiply(self, left: Tensor, right: Tensor, block: Tensor) -> None:
        with _whole_products():
            torch.mm(left, right.T, out=block)

    def clip(self, block: Tensor) -> None:
        block.clamp_(min=0)

    def column(self, values: NDArray[np.float32]) -> Tensor:
        return self._on(values)[:, None]

    def read(self, block: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.host(block[self._on(rows), self._on(columns)])

    def host(self, block: Tensor) -> NDArray[np.float32]:
        whole: NDArray[np.float32] = block.cpu().numpy()
        return whole

    def add(self, block: Tensor, rows: NDArray[Any], columns: NDArray[Any], values: NDArray[np.float32]) -> None:
        block[self._on(rows).long(), self._on(columns).long()] += self._on(values)

    def delete(self, block: Tensor, rows: Any, columns: Any) -> None:
        pairs = tuple(self._on(side) if isinstance(side, np.ndarray) else side for side in (rows, columns))
        block[pairs] = -torch.inf

    def count(
        self,
        block: Tensor,
        items: NDArray[np.int64],
        pointers: NDArray[np.int64],
        thresholds: NDArray[np.float32],
        order: NDArray[np.int64],
        cells: NDArray[np.uint16],
        counts: NDArray[np.int32],
    ) -> None:
        """Search each item among its query's relevant items, worst first: how many it beats says which the best is."""
        first, last = int(pointers[0]), int(pointers[-1])
        sizes = np.diff(pointers)
        if last == first:
            return
        rows, within = np.repeat(np.arange(len(sizes)), sizes), np.arange(first, last) - np.repeat(pointers[:-1], sizes)
        worst_first = np.repeat(sizes, sizes) - 1 - within
        table = torch.full((len(sizes), int(sizes.max())), torch.iinfo(torch.int64).max, device=self.device)
        known = _keys(self._on(thresholds[first:last]), self._on(order[first:last]))
        table[self._on(rows), self._on(worst_first)] = known
        beaten = torch.searchsorted(table, _keys(block, self._on(items)))  # (Q, B) in [0, size of the row]
        best = self._on(pointers[1:] - first)[:, None] - beaten
        columns = counts.shape[1]
        row, item = beaten.nonzero(as_tuple=True)
        best = best[row, item] * columns
        total = torch.zeros((last - first) * columns, dtype=torch.int64, device=self.device)
        for draw in self._on(cells.astype(np.int64)).T:
            total += torch.bincount(best + draw[item], minlength=len(total))
        counts[first:last] += total.view(-1, columns).cpu().numpy().astype(np.int32)

    def _on(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


@contextmanager
def _whole_products() -> Iterator[None]:
    """Multiply without TF32, whatever else the process computes with."""
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, False
    try:
        yield
    finally:
        products.allow_tf32 = before


def _free(device: torch.device) -> int:
    """Return the bytes free on a GPU; elsewhere 0, as nothing has to travel there."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _keys(scores: Tensor, items: Tensor) -> Tensor:
    """Return integers in the order of scores, and of items backwards where scores are equal (items below 2^31)."""
    bits = (scores + 0.0).view(torch.int32)  # adding 0 makes -0 the same as 0
    order = torch.where(bits < 0, bits ^ _LAST, bits).long()
    return (order << 32) | (_LAST - items)


def _scores_and_items(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `_keys` were made of."""
    bits = (keys >> 32).int()
    return torch.where(bits < 0, bits ^ _LAST, bits).view(torch.float32), _LAST - (keys & 0xFFFFFFFF)


def nearest(
    query: Sequence[NDArray[np.floating]],
    gallery: Sequence[NDArray[np.floating]],
    k: int,
    *,
    rows: int,
    device: str,
    exclude_self: bool = False,
    progress: Progress = iter,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return the fields of `neighbours.Neighbours`; query and gallery are in parts, counted in turn.

    `exclude_self` leaves out the item of the query's own number. Holds rows x (rows + k) keys of 8 bytes at a time.
    """
    backend = TorchBackend(device)
    items, similarity, lowest = [], [], []
    others = blocks(gallery, rows)
    fits = 4 * sum(part.size for part in gallery) < _free(backend.device) / 2
    kept = [backend.put(load()) for _, load in others] if fits else []
    for row, load in progress(blocks(query, rows)):
        left = backend.put(load())
        best = torch.empty((len(left), 0), dtype=torch.int64, device=backend.device)
        least = torch.full((len(left),), torch.inf, device=backend.device)
        for number, (column, load_other) in enumerate(others):
            right = kept[number] if kept else backend.put(load_other())
            with _whole_products():
                scores = left @ right.T
            least = torch.minimum(least, scores.amin(1))
            if exclude_self and column == row:
                scores.fill_diagonal_(-torch.inf)
            found = _keys(scores, torch.arange(column, column + len(right), device=backend.device))
            best = torch.cat([best, found], 1).topk(min(k, best.shape[1] + found.shape[1]), dim=1).values
        score, item = _scores_and_items(best)
        items.append(item.cpu().numpy())
        similarity.append(score.cpu().numpy())
        lowest.append(least.cpu().numpy())
    return np.concatenate(items), np.concatenate(similarity), np.concatenate(lowest)
