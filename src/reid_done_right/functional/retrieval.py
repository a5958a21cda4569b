"""The first places of every ranked list, and how similarities of the same and of other people are distributed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_done_right.functional.protocols import Labels, Rule, check_pair, deleted, relevant_and_junk
from reid_done_right.functional.ranking import split

_QUERIES = 256


@dataclass(frozen=True)
class Retrieved:
    """What people look at: who came first, and how far the right ones stand from the wrong ones.

    items        (Q, K) gallery rows, best first, junk deleted; -1 beyond the end of a short gallery
    similarity   (Q, K) float32, theirs
    relevant     (Q, K) whether each shows the query's person
    positives    (bins,) how many pairs of a query and a relevant item fall into each bin of similarity
    negatives    (bins,) the same of all other pairs that count
    edges        (bins + 1,) of the bins, from -1 to 1
    """

    items: NDArray[np.int64]
    similarity: NDArray[np.float32]
    relevant: NDArray[np.bool_]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    edges: NDArray[np.float64]


def retrieve(
    query: NDArray[np.floating],
    query_labels: Labels,
    gallery: NDArray[np.floating],
    gallery_labels: Labels,
    rule: Rule,
    *,
    places: int = 10,
    bins: int = 100,
    lists: Sequence[NDArray[np.int64]] | None = None,
) -> Retrieved:
    """Rank the gallery (G, D) for every query (Q, D), both of unit norm; keep the first K = `places` of each list.

    Equal similarities keep gallery order, as in `ranking.rank`. lists: for each query, the gallery rows that are its
    gallery. Raises ValueError for embeddings or labels that cannot be evaluated (`protocols.check_pair`).
    """
    check_pair(query, query_labels, gallery, gallery_labels, rule)
    relevant, junk = relevant_and_junk(query_labels, gallery_labels, rule)
    gone = deleted(gallery_labels, rule)
    shape = (len(query), places)
    found = Retrieved(
        np.full(shape, -1, np.int64),
        np.zeros(shape, np.float32),
        np.zeros(shape, bool),
        np.zeros(bins, np.int64),
        np.zeros(bins, np.int64),
        np.linspace(-1, 1, bins + 1),
    )
    for rows in split(slice(0, len(query)), _QUERIES):
        scores = np.asarray(query[rows], np.float32) @ np.asarray(gallery, np.float32).T
        counts = np.tile(~gone, (len(scores), 1))
        counts[junk.part(rows).rows, junk.part(rows).items] = False
        if lists is not None:
            for row, members in zip(counts, lists[rows], strict=True):
                row &= np.isin(np.arange(len(row)), members)
        same = np.zeros_like(counts)
        same[relevant.part(rows).rows, relevant.part(rows).items] = True
        for pairs, histogram in ((counts & same, found.positives), (counts & ~same, found.negatives)):
            histogram += np.histogram(scores[pairs].clip(-1, 1), found.edges)[0]
        order = np.argsort(np.where(counts, -scores, np.inf), axis=1, kind="stable")[:, :places]
        kept = np.take_along_axis(counts, order, 1)
        width = order.shape[1]
        found.items[rows, :width] = np.where(kept, order, -1)
        found.similarity[rows, :width] = np.where(kept, np.take_along_axis(scores, order, 1), 0)
        found.relevant[rows, :width] = kept & np.take_along_axis(same, order, 1)
    return found
