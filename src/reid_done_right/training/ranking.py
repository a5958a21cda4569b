"""The ranking loop: hard triplets, Eq. 1, one update per batch of triplets (sections 3.2, 3.3 and 4.1)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reid_done_right.images.transforms import Images, Views, augmented
from reid_done_right.images.upload import upload
from reid_done_right.models.backbone import set_batch_norm
from reid_done_right.models.device import out_of_memory, precise
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.params.training import RankingStage
from reid_done_right.training.averaging import add_to, take_mean
from reid_done_right.training.checkpoints import Checkpoints
from reid_done_right.training.classification import Diverged, Watch
from reid_done_right.training.gradients import Show, add_gradient, add_gradient_one_by_one, with_copies
from reid_done_right.training.mining import draw_pool, mean_similarity, mine, random_triplets
from reid_done_right.training.optimizer import Optimizer, layer_rates
from reid_done_right.training.schedules import cutout_largest, ranking_rate
from reid_done_right.training.snapshots import Snapshots
from reid_done_right.training.workers import Workers


@dataclass
class Mined:
    """Triplets for the next updates, and statistics of mining.

    triplets  (T, 3) indices of query, positive, negative among the images
    hardness  (T,) q'd- - q'd+ when they were mined
    crowding  mean similarity of the pool
    """

    triplets: NDArray[np.int64]
    hardness: NDArray[np.float32]
    crowding: float


def train_ranking(
    embedder: Embedder,
    images: Images,
    person_id: NDArray[np.int64],
    settings: RankingStage,
    seed: int,
    watch: Watch,
    checkpoints: Checkpoints | None = None,
    workers: Workers | None = None,
    camera_id: NDArray[np.int64] | None = None,
    tracklet_id: NDArray[np.int64] | None = None,
    snapshots: Snapshots | None = None,
) -> list[dict[str, float]]:
    """Train the embedder in place; return the log, one row per update.

    person_id  (N,) of the images; camera_id, tracklet_id alike, 0 = none; by default, no image has any
    watch      is called with each row of the log and the number of images of the update
    snapshots  take the model after some numbers of updates
    Every `refresh` updates a pool of random images is embedded, clean, and triplets for the next updates are drawn
    from the hardest of each query. Batch norm's statistics are frozen, so that a batch has the gradient of the
    paper's image-by-image accumulation (`reid_done_right.training.gradients`), or are those of one image at a time.
    Each of the workers takes a share of the triplets. With `average`, the embedder ends as the mean of itself after
    each of the last updates. Raises Diverged if the loss or its gradient is not finite, and ValueError for several
    workers if batch norm learns statistics.
    """
    device, workers, checkpoints = images.device, workers or Workers(), checkpoints or Checkpoints()
    generator, snapshots = np.random.default_rng((seed, 2)), snapshots or Snapshots()
    nowhere = np.zeros(len(person_id), np.int64)
    camera_id, tracklet_id = (
        nowhere if camera_id is None else camera_id,
        nowhere if tracklet_id is None else tracklet_id,
    )
    if settings.batch_norm == "statistics" and workers.count > 1:
        raise ValueError(
            f"batch_norm: statistics of {workers.count} processes would differ; set resources.train.gpu to 1"
        )
    embedder.to(device)
    embedder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_batch_norm(embedder, settings.batch_norm)
    embedder.execute(settings.execution)
    times = layer_rates(embedder.backbone, settings.layer_decay)
    times |= dict.fromkeys(embedder.fc.parameters(), settings.head_rate)
    optimizer = Optimizer(embedder.parameters(), times, settings)
    log: list[dict[str, float]] = []
    mined = Mined(np.empty((0, 3), np.int64), np.empty(0, np.float32), 0.0)
    sums: dict[str, torch.Tensor] = {}
    at_once = settings.at_once

    if kept := workers.agree(checkpoints.load()):
        checkpoints.restore(embedder, "embedder.", kept)
        optimizer.restore(kept.state)
        generator.bit_generator.state = kept.about["generator"]
        mined = Mined(kept.state["triplets"].numpy(), kept.state["hardness"].numpy(), kept.about["crowding"])
        sums = {
            name.removeprefix("sum."): value.to(device) for name, value in kept.state.items() if name.startswith("sum.")
        }
        log, at_once = kept.about["log"], kept.about["at_once"]
        snapshots.restore(kept.state)

    for update in range(len(log), settings.updates):
        snapshots.take(update, embedder)
        if update % settings.refresh == 0:
            pool = draw_pool(person_id, settings.pool, settings.pool_of, generator, tracklet_id)
            mined = _mine(embedder, images, pool, person_id[pool], camera_id[pool], settings, generator, workers)
        rate = ranking_rate(update, settings)
        cutout = cutout_largest(update, settings.updates, settings.cutout, settings.cutout_growth)
        start = update % settings.refresh * settings.batch
        batch = mined.triplets[start : start + settings.batch]
        viewed = with_copies(batch, len(images.sizes)) if settings.views == "independent" else batch

        def show(view: NDArray[np.int64], cutout: float = cutout, update: int = update) -> Views:
            copy, rows = np.divmod(view, len(images.sizes))
            return augmented(
                images.sizes[rows],
                settings.largest_side,
                settings.flip,
                settings.crop,
                cutout,
                settings.cutout_least,
                seed,
                update,
                rows,
                settings.cutout_regions,
                copy,
                settings.aspect == "square",
            )

        losses, at_once = _add_gradients(embedder, images, viewed, show, settings, at_once, optimizer, workers)
        norm = optimizer.gradient_norm()
        if not np.isfinite([*losses, norm]).all():
            raise Diverged(f"triplet loss {losses.mean():.4g}, gradient {norm:.4g}", update, batch, checkpoints.where)
        optimizer.descend(rate)
        log.append(
            {
                "update": update,
                "loss": float(losses.mean()),
                "active": float((losses > 0).mean()),
                "gradient": norm,
                "mined_active": float((mined.hardness + settings.margin > 0).mean()),
                **_quantiles(mined.hardness + settings.margin),
                "crowding": mined.crowding,
                "learning_rate": rate,
                "cutout": cutout,
            }
        )
        watch(log[-1], 3 * len(batch))
        done = update + 1
        if done > settings.updates - settings.averaged:
            add_to(sums, embedder)
        stopping = workers.any(checkpoints.asked_to_stop, device)
        if workers.rank == 0 and checkpoints.due(done, settings.updates, stopping):
            state = {f"embedder.{name}": value for name, value in embedder.state_dict().items()} | optimizer.moments()
            state |= {f"sum.{name}": value for name, value in sums.items()}
            state |= {f"snapshot.{name}": value for name, value in snapshots.taken.items()}
            state |= {"triplets": torch.from_numpy(mined.triplets), "hardness": torch.from_numpy(mined.hardness)}
            about = {"generator": generator.bit_generator.state, "crowding": mined.crowding, "at_once": at_once}
            checkpoints.save(done, state, {**about, "log": log})
        if stopping and done < settings.updates:
            checkpoints.stop()
    take_mean(embedder, sums, settings.averaged)
    return log


def _mine(
    embedder: Embedder,
    images: Images,
    pool: NDArray[np.int64],
    person_id: NDArray[np.int64],
    camera_id: NDArray[np.int64],
    settings: RankingStage,
    generator: np.random.Generator,
    workers: Workers,
) -> Mined:
    """Embed a pool (N,), each worker its share, and draw the triplets of the next updates from it."""
    clean = torch.zeros(len(pool), embedder.dimension, device=images.device)
    share = workers.share(len(pool))
    with precise(settings.precision, images.device):
        clean[upload(share, images.device)] = torch.from_numpy(
            embed(embedder, images, pool[share], settings.largest_side)
        ).to(images.device)
    workers.sum([clean])
    wanted = settings.batch * settings.refresh
    margin = settings.margin if settings.satisfied == "redraw" else None
    cameras = camera_id if settings.positives == "other-camera" else None
    if settings.mining == "random":
        triplets, hardness = random_triplets(clean, person_id, wanted, generator, cameras)
    else:
        triplets, hardness = mine(clean, person_id, wanted, settings.hardest, generator, margin, cameras)
    return Mined(pool[triplets], hardness, mean_similarity(clean))


def _add_gradients(
    embedder: Embedder,
    images: Images,
    batch: NDArray[np.int64],
    show: Show,
    settings: RankingStage,
    at_once: int,
    optimizer: Optimizer,
    workers: Workers,
) -> tuple[NDArray[np.float32], int]:
    """Return the losses (T,) and the number of images that fit at once; accumulate the gradients of all workers.

    If memory runs out, halves the number and retries. This changes nothing, because augmentation depends only on the
    update; statistics of batch norm would learn twice, so that with these, which take one image at a time anyway, it
    raises.
    """
    if settings.batch_norm == "statistics":
        set_batch_norm(embedder, settings.batch_norm)  # mining leaves it in evaluation mode
    add = {"padded": add_gradient, "sequential": add_gradient_one_by_one}[settings.batching]
    scale = 1 / settings.batch if settings.reduction == "mean" else 1.0
    share = workers.share(len(batch))
    losses = torch.zeros(len(batch), device=images.device)
    while True:
        optimizer.zero_grad()
        try:
            if len(share):
                with precise(settings.precision, images.device):
                    found = add(embedder, images, batch[share], show, settings.margin, scale, at_once)
                losses[upload(share, images.device)] = found.float()
            break
        except RuntimeError as error:
            if not out_of_memory(error) or at_once == 1 or settings.batch_norm == "statistics":
                raise
            at_once = max(1, at_once // 2)
            warnings.warn(f"out of memory: from now on {at_once} images at once", stacklevel=2)
        torch.cuda.empty_cache()  # after the except block, where the error no longer holds activations
    workers.sum(optimizer.gradients)
    workers.sum([losses])
    return losses.cpu().numpy(), at_once


def _quantiles(margins: NDArray[np.float32]) -> dict[str, float]:
    """Return the first, fifth and ninth decile of the mined triplets' losses before the clamp."""
    low, middle, high = np.quantile(margins, [0.1, 0.5, 0.9]).tolist()
    return {"margin_low": low, "margin_middle": middle, "margin_high": high}


def collapsed(log: Sequence[dict[str, float]], margin: float) -> bool:
    """Return whether the embeddings of a run collapsed towards one point.

    All similarities are then nearly 1, and the loss of every triplet is nearly the margin. The criteria, over the last
    eighth of the updates: a mean similarity of the pool of at least 0.9 (healthy runs end below
    0.5) and a mean loss of at least 95 % of the margin.
    """
    last = log[-max(1, len(log) // 8) :]
    crowding, loss = (np.mean([row[name] for row in last]) for name in ("crowding", "loss"))
    return bool(crowding >= 0.9 and loss >= 0.95 * margin)
