"""The ranking loop: hard triplets, Eq. 1, one update per batch of triplets (sections 3.2, 3.3 and 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from reid.functional.losses import triplet_loss
from reid.functional.mining import mean_similarity, mine
from reid.functional.schedules import cutout_limit, halving, warm_up
from reid.functional.transforms import Images, apply_by_size, augmented
from reid.models.backbone import freeze_statistics
from reid.models.embedder import Embedder, embed
from reid.params import Ranking
from reid.training.classify import Progress


def rank(
    embedder: Embedder,
    images: Images,
    person_id: NDArray[np.int64],
    settings: Ranking,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train the embedder in place; give the log, a row an update.

    person_id  (N,) of the images
    Every `refresh` updates a pool of random images is embedded, clean, and triplets for the next updates are drawn
    from the hardest of each query. Batch norm is frozen, so same-size batches give the gradient of the paper's
    triplet-by-triplet accumulation; gradients of `at_once` triplets at a time are accumulated to the batch.
    """
    generator = np.random.default_rng((seed, 2))
    embedder.to(device)
    embedder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze_statistics(embedder)
    optimiser = torch.optim.SGD(
        [parameter for parameter in embedder.parameters() if parameter.requires_grad],
        settings.learning_rate,
        settings.momentum,
        weight_decay=settings.weight_decay,
    )
    log = []
    for update in progress(range(settings.updates)):
        if update % settings.refresh == 0:
            pool = np.sort(generator.permutation(len(person_id))[: settings.pool])
            clean = torch.from_numpy(embed(embedder, images, pool, settings.largest_side))
            wanted = settings.batch * settings.refresh
            crowding = mean_similarity(clean)
            mined, hardness = mine(clean, person_id[pool], wanted, settings.hardest, generator)
            triplets = pool[mined]
        rate = halving(update, settings.learning_rate, settings.halve_every)
        rate *= warm_up(update, settings.warm_up * settings.updates)
        for group in optimiser.param_groups:
            group["lr"] = rate
        cutout = cutout_limit(update, settings.updates, settings.cutout)
        start = update % settings.refresh * settings.batch
        batch = triplets[start : start + settings.batch].ravel()
        views = augmented(
            images.sizes[batch],
            settings.largest_side,
            settings.flip,
            settings.crop,
            cutout,
            seed,
            update,
            batch,
        )
        optimiser.zero_grad(set_to_none=True)
        parts = []
        for first in range(0, len(batch), 3 * settings.at_once):
            some = slice(first, first + 3 * settings.at_once)
            embeddings = apply_by_size(embedder, images, batch[some], views[some])
            query, positive, negative = embeddings.view(-1, 3, embeddings.shape[1]).unbind(1)
            part = triplet_loss(query, positive, negative, settings.margin)
            weight = settings.batch if settings.reduction == "mean" else 1
            (part.sum() / weight).backward()  # type: ignore[no-untyped-call]
            parts.append(part.detach())
        losses = torch.cat(parts)
        optimiser.step()
        log.append(
            {
                "update": update,
                "loss": losses.mean().item(),
                "active": (losses > 0).float().mean().item(),
                "mined_active": float((hardness + settings.margin > 0).mean()),
                "crowding": crowding,
                "learning_rate": rate,
                "cutout": cutout,
            }
        )
        if not np.isfinite(log[-1]["loss"]):
            raise FloatingPointError(f"triplet loss is {log[-1]['loss']} at update {update}; lower learning_rate")
    return log


def collapsed(log: Sequence[dict[str, float]], margin: float) -> bool:
    """Tell whether a run ended with its embeddings crowded into one point.

    All similarities are then nearly 1 and the loss of every triplet is nearly the margin, whatever the images. The
    signs, over the last eighth of the updates: a mean similarity of the pool of at least 0.9 (healthy runs end below
    0.5) and a mean loss of at least 95 % of the margin.
    """
    last = log[-max(1, len(log) // 8) :]
    crowding, loss = (np.mean([row[name] for row in last]) for name in ("crowding", "loss"))
    return bool(crowding >= 0.9 and loss >= 0.95 * margin)
