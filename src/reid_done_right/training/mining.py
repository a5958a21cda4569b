"""Hard-triplet mining over a pool of embeddings (section 3.2, following Gordo et al., IJCV 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_done_right.models.products import linear


def hardest_triplets(
    embeddings: Tensor,
    person_id: NDArray[np.int64],
    queries: NDArray[np.int64],
    hardest: int,
    camera_id: NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each query's `hardest` triplets over the whole pool, largest loss first.

    embeddings  (N, D) unit norm; person_id (N,); queries (Q,) indices in the pool that have a positive there
    camera_id   (N,) positives are of another camera than the query; None: of any
    gives       positives (Q, K), negatives (Q, K) as indices in the pool and q'd- - q'd+ (Q, K), the loss without
                margin and clamp; -inf where a query has fewer than K triplets

    The loss separates into f(negative) - f(positive), so the K largest lie among the K most similar negatives x
    the K least similar positives: exact, without forming all triplets. Losses are ranked before the clamp, so that
    triplets with zero loss are still ordered. Raises ValueError if a query has no positive or no negative.
    """
    query = torch.from_numpy(queries).to(embeddings.device)
    identity = torch.from_numpy(person_id).to(embeddings.device)
    similarity = linear(embeddings[query], embeddings)  # (Q, N)
    same = identity[query][:, None] == identity[None, :]
    negative, negatives = _top(similarity.masked_fill(same, -torch.inf), hardest)
    if camera_id is None:
        same[torch.arange(len(query), device=same.device), query] = False
    else:
        camera = torch.from_numpy(camera_id).to(embeddings.device)
        same &= camera[query][:, None] != camera[None, :]
    opposite, positives = _top((-similarity).masked_fill(~same, -torch.inf), hardest)
    if torch.isinf(negative[:, 0]).any() or torch.isinf(opposite[:, 0]).any():
        raise ValueError("a query has no positive or no negative in the pool")
    loss = (opposite[:, :, None] + negative[:, None, :]).flatten(1)
    value, pair = _top(loss, hardest)
    return positives.gather(1, pair // negatives.shape[1]), negatives.gather(1, pair % negatives.shape[1]), value


def _top(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row and their columns, in descending order."""
    top = values.topk(min(k, values.shape[1]), dim=1)
    return top.values, top.indices


def mine(
    embeddings: Tensor,
    person_id: NDArray[np.int64],
    triplets: int,
    hardest: int,
    generator: np.random.Generator,
    margin: float | None = None,
    camera_id: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw triplets: a random query that has a positive in the pool, then one of its `hardest` triplets at random.

    margin     draw triplets that have a loss at this margin only, and another query where one has none, unless none
               has; None: draw any
    camera_id  (N,) positives are of another camera than the query; None: of any
    Gives triplets (T, 3) of indices in the pool (query, positive, negative) and q'd- - q'd+ of each (T,).
    Queries are drawn uniformly, each at most once more often than another that has such triplets: where few have, each
    of them comes often. Each query is searched once at most.
    Raises ValueError if no image of the pool has a positive there.
    """
    able = _partners(person_id, camera_id).able()
    least = -np.inf if margin is None else -margin
    searched = np.zeros(len(person_id), np.bool_)
    queue = np.empty(0, np.int64)
    found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    missing = triplets
    while missing:
        rounds = max(0, -(-(missing - len(queue)) // len(able)))
        queue = np.concatenate([queue, *(generator.permutation(able) for _ in range(rounds))])
        drawn, queue = queue[:missing], queue[missing:]
        unsearched = np.unique(drawn[~searched[drawn]])
        if len(unsearched):
            parts = hardest_triplets(embeddings, person_id, unsearched, hardest, camera_id)
            there = [part.cpu().numpy() for part in parts]
            if not searched.any():
                table = [np.empty((len(person_id), part.shape[1]), part.dtype) for part in there]
            for whole, part in zip(table, there, strict=True):
                whole[unsearched] = part
            searched[unsearched] = True
        positives, negatives, values = table
        eligible = (values[drawn] > least).sum(1)
        choice = (generator.random(len(drawn)) * eligible).astype(np.int64)
        triplet = np.stack([drawn, positives[drawn, choice], negatives[drawn, choice]], axis=1)
        # embeddings that are no numbers have none that is eligible, and are for the loop to tell
        kept = (eligible > 0) | np.isinf(least)
        found.append((triplet[kept], values[drawn, choice].astype(np.float32)[kept]))
        missing -= int(kept.sum())
        if missing and searched[able].all():
            fit: NDArray[np.bool_] = np.asarray((values > least).any(1))
            if fit[able].any():
                able, queue = able[fit[able]], queue[fit[queue]]
            else:
                least = -np.inf
    return np.concatenate([part for part, _ in found]), np.concatenate([part for _, part in found])


def random_triplets(
    embeddings: Tensor,
    person_id: NDArray[np.int64],
    triplets: int,
    generator: np.random.Generator,
    camera_id: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw triplets whatever their loss: a random query as in `mine`, any positive of it and any negative.

    Takes and gives what `mine` does, comparing embeddings of the drawn triplets only.
    """
    partners = _partners(person_id, camera_id)
    able = partners.able()
    query = np.concatenate([generator.permutation(able) for _ in range(-(-triplets // len(able)))])[:triplets]
    drawn = partners.draw(query, generator)
    of_query, of_positive, of_negative = embeddings[torch.from_numpy(drawn).to(embeddings.device)].unbind(1)
    value = (of_query * (of_negative - of_positive)).sum(1)
    return drawn, value.cpu().numpy().astype(np.float32)


@dataclass(frozen=True)
class _Partners:
    """Whom each image of a pool may be drawn with, as ranges of `order`, the pool by person, then camera.

    person  (N, 2) begin and end of each image's person
    own     (N, 2) of those among them that are no positive: the images of its camera, or only itself
    """

    order: NDArray[np.int64]
    person: NDArray[np.int64]
    own: NDArray[np.int64]

    def able(self) -> NDArray[np.int64]:
        """Return who has a positive and a negative. Raises ValueError if nobody has."""
        (positives, negatives), count = self.sizes(slice(None)), len(self.order)
        able = np.flatnonzero((positives > 0) & (negatives > 0))
        if len(able) == 0:
            raise ValueError(f"none of {count} pool images has both a positive and a negative there; enlarge `pool`")
        return able

    def sizes(self, query: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """Return the numbers of positives and of negatives (2, Q) of queries."""
        (begin, end), (first, last) = self.person[query].T, self.own[query].T
        return np.stack([end - begin - (last - first), len(self.order) - (end - begin)])

    def draw(self, query: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """Return triplets (Q, 3) of queries with random positives and negatives."""
        positive, negative = (generator.random((2, len(query))) * self.sizes(query)).astype(np.int64)
        (begin, end), (first, last) = self.person[query].T, self.own[query].T
        positive += begin
        positive += (last - first) * (positive >= first)
        negative += (end - begin) * (negative >= begin)
        return np.stack([query, self.order[positive], self.order[negative]], axis=1)


def _partners(person_id: NDArray[np.int64], camera_id: NDArray[np.int64] | None) -> _Partners:
    """Find whom images may be drawn with; by default, positives are of any camera."""
    count = len(person_id)
    alike = np.arange(count) if camera_id is None else camera_id
    order = np.lexsort((alike, person_id))
    person = np.diff(person_id[order], prepend=person_id.min() - 1) != 0
    ranges = []
    for new in (person, person | (np.diff(alike[order], prepend=-1) != 0)):
        begin = np.flatnonzero(new)
        of_place = np.stack([begin, np.append(begin[1:], count)], axis=1)[np.cumsum(new) - 1]
        ranges.append(np.empty_like(of_place))
        ranges[-1][order] = of_place
    return _Partners(order, *ranges)


def draw_pool(
    person_id: NDArray[np.int64],
    count: int,
    of: str,
    generator: np.random.Generator,
    tracklet_id: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Draw `count` of N images to mine, without replacement, or all if there are no more: indices, ascending.

    of  images: uniformly; identities: all images of one identity after the other, which are in random order;
        tracklets: a random frame of each tracklet (`tracklet_id`, 0 = none: an image by itself) in random order, then
        another frame of each that has one, and so on
    """
    order = generator.permutation(len(person_id))
    if of == "identities":
        _, number = np.unique(person_id[order], return_inverse=True)
        order = order[np.argsort(generator.permutation(number.max() + 1)[number], kind="stable")]
    if of == "tracklets" and tracklet_id is not None:
        tracklet = tracklet_id[order]
        together = np.argsort(tracklet, kind="stable")
        turn = np.empty_like(together)
        turn[together] = np.arange(len(order)) - np.searchsorted(tracklet[together], tracklet[together])
        order = order[np.argsort(np.where(tracklet == 0, 0, turn), kind="stable")]
    return np.sort(order[:count])


def mean_similarity(embeddings: Tensor) -> float:
    """Return the mean dot product over all pairs of different images in a pool (N, D): 1 if all are equal."""
    count = len(embeddings)
    total = embeddings.double().sum(0).square().sum().item()
    return (total - count) / (count * (count - 1))
