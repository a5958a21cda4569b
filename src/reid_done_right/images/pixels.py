"""The images of an index in one block of memory: each decoded once and kept as uint8 at its own size.

The size of the block decides where it is stored, without changing any pixel: on the device, if it takes at most
`ON_DEVICE` of its free memory; otherwise in main memory, if it takes at most `IN_MEMORY` of what is available;
otherwise in an unlinked, memory-mapped file in the stage's folder. The file's space is reserved before decoding, and it
disappears when the process ends, however it ends. Batches reach the device through pinned memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from os import posix_fallocate
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_done_right.artifacts import Index, InputError
from reid_done_right.images.decode import Image, load, measure
from reid_done_right.images.upload import upload

ON_DEVICE = 0.25
"""Share of a device's free memory that images may take: the rest is for activations."""
IN_MEMORY = 0.5
"""Share of the available main memory that images may take."""
CHUNK = 1024
"""Images decoded together, which are in memory twice while the block is filled."""
AHEAD = 4096
"""Images decoded ahead in a single pass."""


class Pixels:
    """N images of mixed sizes, one after the other, each (h, w, 3), in one tensor.

    flat     uint8; on `device`, in memory or mapped from a file
    sizes    (N, 2) int64 height, width
    offsets  (N,) int64, start of each image in `flat`
    device   device of the batches
    """

    def __init__(
        self, flat: Tensor, sizes: NDArray[np.int64], offsets: NDArray[np.int64], device: torch.device
    ) -> None:
        self.flat, self.sizes, self.offsets, self.device = flat, sizes, offsets, device
        if len(sizes) and (sizes.min() < 1 or offsets.min() < 0 or (offsets + _bytes(sizes)).max() > len(flat)):
            raise ValueError(f"{len(flat)} bytes do not hold the {len(sizes)} images that are said to be there")

    def __len__(self) -> int:
        """Return N."""
        return len(self.sizes)

    @classmethod
    def of(cls, images: Sequence[Image] | NDArray[np.uint8], device: torch.device) -> Pixels:
        """Pack images that are in memory, (h, w, 3) uint8 each."""
        sizes = np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
        flat = np.concatenate([np.empty(0, np.uint8), *(image.reshape(-1) for image in images)])
        return cls(torch.from_numpy(flat).to(device), sizes, np.cumsum(_bytes(sizes)) - _bytes(sizes), device)

    @classmethod
    def read(
        cls,
        index: Index,
        rows: NDArray[np.int64],
        device: torch.device,
        folder: Path,
        threads: int = 1,
        progress: Callable[[int], object] = lambda images: None,
    ) -> Pixels:
        """Decode every image or box of some index rows; a file that several rows share is decoded once.

        folder    for the file, if memory is too small
        progress  called with the number of newly decoded images
        Raises InputError as `reid_done_right.images.decode.load` does, or if the file does not fit the folder's disk.
        """
        sizes = measure(index, rows, threads)
        order = np.argsort(index.path[rows], kind="stable")  # rows of one file together
        ends = np.cumsum(_bytes(sizes)[order])
        offsets = np.empty(len(rows), np.int64)
        offsets[order] = ends - _bytes(sizes)[order]
        flat = _room(int(ends[-1]) if len(ends) else 0, device, folder)
        for start, stop in pairwise(_cuts(index.path[rows][order])):
            some = order[start:stop]
            images = load(index, rows[some], threads)
            for number, image in zip(some.tolist(), images, strict=True):
                if image.shape[:2] != tuple(sizes[number]):
                    path = index.root / index.path[rows[number]]
                    raise InputError(f"{path}: changed while it was read; let it be and run this again")
            part = torch.from_numpy(np.concatenate([image.reshape(-1) for image in images]))
            flat[ends[stop - 1] - len(part) : ends[stop - 1]].copy_(part)
            progress(len(some))
        return cls(flat, sizes, offsets, device)

    def batch(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the images at `indices` (B,) as uint8 (B, 3, H, W), channels last, on the device.

        H and W are the largest in the batch; images are at the top left, padded by zeros. Raises IndexError for an
        invalid index.
        """
        outside = (indices < 0) | (indices >= len(self))
        if outside.any():
            raise IndexError(f"index {indices[outside.argmax()]} of {len(self)} images, which are counted from 0")
        sizes = self.sizes[indices]
        height, width = sizes.max(0, initial=0).tolist()
        gather = self._on_device if self.flat.is_cuda else self._in_memory
        return gather(indices, height, width).to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    def _in_memory(self, indices: NDArray[np.int64], height: int, width: int) -> Tensor:
        """Copy image by image to (B, H, W, 3), pinned if it is for another device."""
        pinned = self.device.type == "cuda"
        batch = torch.zeros((len(indices), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
        to, flat = batch.numpy(), self.flat.numpy()
        for slot, number in enumerate(indices.tolist()):
            (h, w), offset = self.sizes[number].tolist(), self.offsets[number]
            to[slot, :h, :w] = flat[offset : offset + 3 * h * w].reshape(h, w, 3)
        return batch

    def _on_device(self, indices: NDArray[np.int64], height: int, width: int) -> Tensor:
        """Gather all images at once to (B, H, W, 3)."""
        device = self.flat.device
        places = upload(np.column_stack([self.offsets[indices], self.sizes[indices]]), device)
        offset, h, w = (column.view(-1, 1, 1) for column in places.unbind(1))
        row = torch.arange(height, device=device).view(1, -1, 1)
        value = torch.arange(3 * width, device=device).view(1, 1, -1)
        inside = (row < h) & (value < 3 * w)
        batch = self.flat[torch.where(inside, offset + row * 3 * w + value, 0)] * inside
        return batch.view(len(indices), height, width, 3)


def ahead(index: Index, rows: NDArray[np.int64], device: torch.device, threads: int = 1) -> Iterator[Pixels]:
    """Yield index rows for a single pass, in chunks and in order, decoding the next chunk meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        chunks = [rows[start : start + AHEAD] for start in range(0, len(rows), AHEAD)]
        coming = None
        for chunk in [*chunks, None]:
            current, coming = coming, None if chunk is None else pool.submit(load, index, chunk, threads)
            if current is not None:
                yield Pixels.of(current.result(), device)


def _bytes(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bytes of each of N images."""
    return np.asarray(3 * sizes.prod(1))


def _cuts(paths: NDArray[np.str_]) -> list[int]:
    """Split sorted paths (N,) into runs of about CHUNK, each path in one run: starts of the runs, then N."""
    begins = np.flatnonzero(np.append(True, paths[1:] != paths[:-1])) if len(paths) else np.empty(0, np.int64)
    firsts = np.searchsorted(begins, np.arange(0, len(paths), CHUNK))
    return [*np.unique(begins[firsts[firsts < len(begins)]]).tolist(), len(paths)] if len(paths) else [0]


def _room(size: int, device: torch.device, folder: Path) -> Tensor:
    """Allocate `size` bytes where they fit: on the device, in memory or in a file."""
    if device.type == "cuda" and size <= ON_DEVICE * torch.cuda.mem_get_info(device)[0]:
        return torch.empty(size, dtype=torch.uint8, device=device)
    if size * int(os.environ.get("LOCAL_WORLD_SIZE", 1)) <= IN_MEMORY * psutil.virtual_memory().available:
        return torch.empty(size, dtype=torch.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise InputError(
                f"{folder}: {size / 2**30:.1f} GiB of decoded images fit neither memory nor this disk "
                f"({error.strerror}); free memory or disk, or set REID_STORE to a larger one"
            ) from None
        return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=(size,)))
