"""A trained embedder for your own photos: files, arrays or Pillow images in, unit vectors out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from reid_done_right import hub
from reid_done_right.artifacts import DIGITS, InputError, file_digest, read_weights
from reid_done_right.images.decode import Image
from reid_done_right.images.photos import array_image, decoded
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import resized
from reid_done_right.models.device import as_stages_do
from reid_done_right.models.embedder import Embedder, embedder_of
from reid_done_right.models.embedder import embed as run
from reid_done_right.models.padding import too_small

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

PATIENCE = 2
"""Seconds before a progress bar appears."""


class PhotoEmbedder:
    """A trained network and its preprocessing, made by `load_embedder`.

    module        the network (torch.nn.Module): normalised images (B, 3, H, W) to unit vectors (B, D)
    dimension     D
    largest_side  M: the longer side of every photo is resized to it, keeping the aspect ratio; both sides, if the model
                  was trained on squares
    digest        SHA-256 of the model file, which galleries record
    about         metadata of the file: backbone, embedding, pooling, largest_side, collapsed
    device        the device it computes on
    """

    def __init__(
        self,
        module: Embedder,
        about: Mapping[str, Any],
        digest: str,
        device: torch.device,
    ) -> None:
        self.module = module.eval().requires_grad_(False).to(device)
        self.dimension = module.dimension
        self.largest_side = int(about["largest_side"])
        self.about = dict(about)
        self.digest, self.device = digest, device

    def embed(
        self,
        photos: Iterable[str | os.PathLike[str] | NDArray[np.uint8] | PillowImage],
        *,
        threads: int | None = None,
        progress: bool = True,
    ) -> NDArray[np.float32]:
        """Embed photos of one person each, of any sizes: (N, D) float32 of unit norm, one row per photo.

        Compare embeddings by dot product, the cosine of their angle. An embedding does not depend on the other photos,
        except for rounding: about 1e-7 in each dimension on a CPU.

        >>> embedder = load_embedder("market-default-draw0.safetensors")
        >>> import numpy as np
        >>> photos = [np.zeros((128, 64, 3), np.uint8), "anna/door/IMG_0412.jpg"]
        >>> embeddings = embedder.embed(photos)
        >>> embeddings.shape == (2, embedder.dimension), embeddings.dtype
        (True, dtype('float32'))
        >>> bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1))
        True

        Args:
            photos: paths, uint8 arrays (h, w, 3) in RGB order (grey: (h, w)), or Pillow images, in any mixture.
                The EXIF orientation of files and Pillow images is applied.
            threads: threads for decoding; all cores if None.
            progress: show a progress bar on stderr after `PATIENCE` seconds.

        Raises:
            InputError: naming the first photo that cannot be read or is too small for the network.
        """
        listed = _listed(photos)
        rows = [np.empty((0, self.dimension), np.float32)]
        with tqdm(total=len(listed), desc="embed", unit="photo", delay=PATIENCE, disable=not progress) as bar:
            done = 0
            for faults, embeddings in self.parts(listed, threads or os.cpu_count() or 1):
                for number, fault in enumerate(faults, done):
                    if fault:
                        raise InputError(f"{_name(listed[number], number)}: cannot be embedded: {fault}")
                rows.append(embeddings)
                done += len(faults)
                bar.update(len(faults))
        return np.concatenate(rows)

    def embed_boxes(
        self, frame: NDArray[np.uint8], xyxy: NDArray[np.number] | Sequence[Sequence[float]]
    ) -> NDArray[np.float32]:
        """Embed the people in the boxes of a frame, as a tracker needs them: (N, D) float32 of unit norm, one row each.

        >>> embedder = load_embedder("market-default-draw0.safetensors")
        >>> import numpy as np
        >>> frame = np.zeros((480, 640, 3), np.uint8)
        >>> embedder.embed_boxes(frame, [[100, 50, 164, 178], [-9.5, 200, 40, 300]]).shape == (2, embedder.dimension)
        True

        Args:
            frame: pixels (h, w, 3) uint8 in RGB order; those of OpenCV are BGR: ``frame[..., ::-1]``.
            xyxy: (N, 4) left, top, right, bottom in pixels, rounded and cut at the frame's borders.

        Raises:
            InputError: naming the first box that is not in the frame, or that is too small for the network.
        """
        whole = array_image(frame)
        boxes = np.asarray(xyxy, np.float64).reshape(-1, 4) if len(xyxy) else np.empty((0, 4))
        if not np.isfinite(boxes).all():
            raise InputError(f"box {int(np.argmin(np.isfinite(boxes).all(1)))}: not finite; leave it out")
        left, top, right, bottom = np.clip(boxes.round(), 0, [whole.shape[1], whole.shape[0]] * 2).astype(int).T
        crops = [whole[t:b, x:r] for x, t, r, b in zip(left, top, right, bottom, strict=True)]
        for number, crop in enumerate(crops):
            fault = "nothing of it is in the frame" if crop.size == 0 else self._fault(crop)
            if fault:
                raise InputError(f"box {number}, {boxes[number].tolist()}: cannot be embedded: {fault}; leave it out")
        return self.embed_images(crops)

    def parts(self, photos: Sequence[Any], threads: int) -> Iterator[tuple[list[str | None], NDArray[np.float32]]]:
        """Yield, part by part, what is wrong with each photo, None if nothing is, and embeddings (n, D) of the others.

        Memory holds two parts, as `reid_done_right.images.photos.decoded` gives them.
        """
        for part in decoded(photos, threads):
            faults = [self._fault(image) for image in part]
            whole = [image for image, fault in zip(part, faults, strict=True) if not fault]
            yield faults, self.embed_images(whole)  # type: ignore[arg-type]

    def embed_images(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Embed decoded images (h, w, 3) uint8, all held in memory: (N, D)."""
        if not images:
            return np.empty((0, self.dimension), np.float32)
        with as_stages_do(self.device):
            rows = run(self.module, Pixels.of(images, self.device), np.arange(len(images)), self.largest_side)
        if not (np.abs(np.linalg.norm(rows, axis=1) - 1) < 1e-2).all():
            raise InputError(f"model {self.digest[:DIGITS]}...: embeddings of no direction; its weights are damaged")
        return rows

    def _fault(self, image: Image | str) -> str | None:
        """Return why an image, or what is said in its place, cannot be embedded; None if it can."""
        if isinstance(image, str):
            return image
        sizes = np.array([image.shape[:2]], np.int64)
        height, width = resized(sizes, self.largest_side, self.module.square)[0].tolist()
        smallest = self.module.backbone.smallest
        return too_small(height, width, smallest) if min(height, width) < smallest else None


def load_embedder(model: str | os.PathLike[str], *, device: str | None = None) -> PhotoEmbedder:
    """Load a trained embedder, such as `results/embedded/train/market-default-draw0.safetensors`.

    The file holds everything needed: backbone, pooling, largest side. Normalisation is always the same
    (`reid_done_right.images.transforms.MEAN` and `STD`). No code in the file is executed.

    >>> embedder = load_embedder("market-default-draw0.safetensors")
    >>> embedder.largest_side
    64

    Args:
        model: file written by `reid train`, or ``hub:owner/name`` for what `reid export --format hub` made of it.
        device: such as ``cuda``; None for a GPU if there is one.

    Raises:
        InputError: if the file is missing, damaged, or not an embedder, or if the hub does not give it.
    """
    path = hub.local(model)
    weights = read_weights(path)
    network = embedder_of(weights, str(path))
    try:
        there = torch.zeros(1, device=device or ("cuda" if torch.cuda.is_available() else "cpu")).device
        torch.zeros(1, device=there).cpu()  # the device `meta` has no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if str(device).startswith("cuda"):
            reason = f"GPUs that PyTorch finds: {torch.cuda.device_count()}"
        raise InputError(f"device {device!r} cannot be used here ({reason}): try cpu") from None
    return PhotoEmbedder(network, weights.about, file_digest(path), there)


def _listed(photos: Any) -> list[Any]:
    single = isinstance(photos, str | os.PathLike) or hasattr(photos, "getexif")
    if single or (isinstance(photos, np.ndarray) and photos.ndim < 4 and photos.dtype == np.uint8):
        raise InputError("photos must be a list: write embed([photo]) for a single one")
    return [Path(photo) if isinstance(photo, os.PathLike) else photo for photo in photos]


def _name(photo: Any, number: int) -> str:
    return str(photo) if isinstance(photo, str | Path) else f"photo {number}"
