"""Hard-triplet mining over a pool of embeddings (section 3.2, following Gordo et al., IJCV 2017)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_done_right.models.products import linear


def hardest_triplets(
    embeddings: Tensor, person_id: NDArray[np.int64], queries: NDArray[np.int64], hardest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Give each query's `hardest` triplets over the whole pool, largest loss first.

    embeddings  (N, D) unit norm; person_id (N,); queries (Q,) indices in the pool that have a positive there
    gives       positives (Q, K), negatives (Q, K) as indices in the pool and q'd- - q'd+ (Q, K), the loss without
                margin and clamp; -inf where a query has fewer than K triplets

    The loss separates into f(negative) - f(positive), so the K largest lie among the K most similar negatives x
    the K least similar positives: exact, without forming all triplets. Ranked unclamped, so that triplets of zero
    loss keep an order. Raises ValueError if a query has no positive or no negative.
    """
    query = torch.from_numpy(queries).to(embeddings.device)
    identity = torch.from_numpy(person_id).to(embeddings.device)
    similarity = linear(embeddings[query], embeddings)  # (Q, N)
    same = identity[query][:, None] == identity[None, :]
    negative, negatives = _top(similarity.masked_fill(same, -torch.inf), hardest)
    same[torch.arange(len(query), device=same.device), query] = False
    opposite, positives = _top((-similarity).masked_fill(~same, -torch.inf), hardest)
    if torch.isinf(negative[:, 0]).any() or torch.isinf(opposite[:, 0]).any():
        raise ValueError("a query has no positive or no negative in the pool")
    loss = (opposite[:, :, None] + negative[:, None, :]).flatten(1)
    value, pair = _top(loss, hardest)
    return positives.gather(1, pair // negatives.shape[1]), negatives.gather(1, pair % negatives.shape[1]), value


def _top(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give the k largest of each row and their columns, descending."""
    top = values.topk(min(k, values.shape[1]), dim=1)
    return top.values, top.indices


def mine(
    embeddings: Tensor,
    person_id: NDArray[np.int64],
    triplets: int,
    hardest: int,
    generator: np.random.Generator,
    margin: float | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw triplets: a random query that has a positive in the pool, then one of its `hardest` triplets at random.

    margin  draw triplets that have a loss at this margin only, and another query where one has none, unless none has;
            None: draw any
    Gives triplets (T, 3) of indices in the pool (query, positive, negative) and q'd- - q'd+ of each (T,).
    Queries are drawn uniformly, each at most once more often than another.
    Raises ValueError if no image of the pool has a positive there.
    """
    identities, number, counts = np.unique(person_id, return_inverse=True, return_counts=True)
    able = np.flatnonzero(counts[number] > 1)
    if len(able) == 0 or len(identities) < 2:
        raise ValueError(
            f"none of {len(person_id)} pool images has both a positive and a negative there; enlarge `pool`"
        )
    least = -np.inf if margin is None else -margin
    queue = np.empty(0, np.int64)
    found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    missing, fruitless = triplets, 0
    while missing:
        rounds = max(0, -(-(missing - len(queue)) // len(able)))
        queue = np.concatenate([queue, *(generator.permutation(able) for _ in range(rounds))])
        drawn, queue = queue[:missing], queue[missing:]
        unique, back = np.unique(drawn, return_inverse=True)
        positives, negatives, values = hardest_triplets(embeddings, person_id, unique, hardest)
        eligible = (values > least).sum(1).cpu().numpy()[back]
        choice = (generator.random(len(drawn)) * eligible).astype(np.int64)
        pick = (torch.from_numpy(back), torch.from_numpy(choice))
        triplet = np.stack([drawn, positives.cpu()[pick].numpy(), negatives.cpu()[pick].numpy()], axis=1)
        kept = (eligible > 0) | np.isinf(
            least
        )  # embeddings that are no numbers have none, and are for the loop to tell
        found.append((triplet[kept], values.cpu()[pick].numpy().astype(np.float32)[kept]))
        missing -= int(kept.sum())
        fruitless = 0 if kept.any() else fruitless + len(drawn)
        if fruitless >= 2 * len(able):  # every query has been drawn, and has no triplet with a loss
            least = -np.inf
    return np.concatenate([part for part, _ in found]), np.concatenate([part for _, part in found])


def draw_pool(person_id: NDArray[np.int64], count: int, of: str, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` of N images to mine, without replacement, or all if there are no more: indices, ascending.

    of  images: uniformly; identities: all images of one identity after the other, which are in random order
    """
    order = generator.permutation(len(person_id))
    if of == "identities":
        _, number = np.unique(person_id[order], return_inverse=True)
        order = order[np.argsort(generator.permutation(number.max() + 1)[number], kind="stable")]
    return np.sort(order[:count])


def mean_similarity(embeddings: Tensor) -> float:
    """Give the mean dot product over all pairs of different images of a pool (N, D): 1 if all are in one point."""
    count = len(embeddings)
    total = embeddings.double().sum(0).square().sum().item()
    return (total - count) / (count * (count - 1))
