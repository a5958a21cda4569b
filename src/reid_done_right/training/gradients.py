"""The gradient of a batch of triplets: the paper's accumulation over single images, at the speed of batches.

Section 3.2 passes the images of a batch through the network one by one, so that they keep their shape, and adds up the
gradients. With frozen batch norm no image knows of another, so the same sum comes from any batches: each distinct view
once, mixed sizes padded exactly (`reid_done_right.models.padding`), and only views that a triplet with a loss needs.

View v of N images shows image v mod N, its copy v div N: triplets of images show each image in one way, as often as it
occurs; `with_copies` makes a view of its own of each occurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_done_right.images.transforms import Images, Views, render
from reid_done_right.images.upload import upload
from reid_done_right.models.embedder import Embedder
from reid_done_right.models.padding import batches
from reid_done_right.training.losses import triplet_loss

Show = Callable[[NDArray[np.int64]], Views]
"""Says how the images of some views (B,) are shown in this update."""


def with_copies(triplets: NDArray[np.int64], images: int) -> NDArray[np.int64]:
    """Return triplets (T, 3) of indices of so many images as views, the occurrences of an image as copies 0, 1, ..."""
    flat = triplets.ravel()
    order = np.argsort(flat, kind="stable")
    first = np.searchsorted(flat[order], flat[order])
    copy = np.empty_like(flat)
    copy[order] = np.arange(len(flat)) - first
    return (flat + copy * images).reshape(triplets.shape)


def add_gradient(
    embedder: Embedder,
    images: Images,
    triplets: NDArray[np.int64],
    show: Show,
    margin: float,
    scale: float,
    at_once: int,
) -> Tensor:
    """Add the gradient of `scale` times the sum of Eq. 1 over triplets to the parameters; return the losses (T,).

    triplets  (T, 3) views of query, positive, negative
    at_once   images whose activations are in memory together. If the batch has more, all are embedded without
              activations first, and then those again, `at_once` at a time, whose embeddings have a gradient
    Raises torch.OutOfMemoryError, perhaps with part of the gradient added.
    """
    distinct, member = np.unique(triplets, return_inverse=True)
    views = show(distinct)
    together = len(distinct) <= at_once
    with torch.set_grad_enabled(together):
        parts = list(_embedded(embedder, images, distinct, views, at_once))
    embeddings = torch.empty(len(distinct), embedder.dimension, dtype=parts[0][1].dtype, device=images.device)
    for rows, part in parts:
        embeddings[upload(rows, images.device)] = part.detach()
    embeddings.requires_grad_()
    members = upload(member.reshape(-1, 3), images.device)
    query, positive, negative = embeddings[members].unbind(1)
    losses = triplet_loss(query, positive, negative, margin)
    gradient = torch.autograd.grad(losses.sum() * scale, embeddings)[0]
    needed = (gradient != 0).any(1).cpu().numpy()
    if together:
        for rows, part in parts:
            if needed[rows].any():
                part.backward(gradient[upload(rows, images.device)])  # type: ignore[no-untyped-call]
    else:
        some = np.flatnonzero(needed)
        for rows, part in _embedded(embedder, images, distinct[some], views[some], at_once):
            part.backward(gradient[upload(some[rows], images.device)])  # type: ignore[no-untyped-call]
    return losses.detach()


def add_gradient_one_by_one(
    embedder: Embedder,
    images: Images,
    triplets: NDArray[np.int64],
    show: Show,
    margin: float,
    scale: float,
    at_once: int,
) -> Tensor:
    """Do the same as `add_gradient`, literally as in the paper: triplet by triplet, one image at a time."""
    losses = []
    for triplet in triplets:
        query, positive, negative = (
            embedder(*render(images, view % len(images.sizes), show(view))) for view in triplet[:, None]
        )
        loss = triplet_loss(query, positive, negative, margin)
        (loss.sum() * scale).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return torch.cat(losses)


def _embedded(
    embedder: Embedder, images: Images, shown: NDArray[np.int64], views: Views, at_once: int
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Give embeddings of views in batches, with their rows."""
    indices = shown % len(images.sizes)
    for rows in batches(views.size, at_once, embedder.backbone.pads, embedder.backbone.smallest):
        yield rows, embedder(*render(images, indices[rows], views[rows]))
