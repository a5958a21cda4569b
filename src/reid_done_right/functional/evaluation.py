"""Evaluation of anybody's embeddings in one call: a protocol, a re-ranking, arrays in, ranking out."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.functional.expansion import expand
from reid_done_right.functional.neighbours import Progress
from reid_done_right.functional.protocols import Labels, Lists, Rule, check_pair, check_unit_norm, detection_hits
from reid_done_right.functional.ranking import Ranking, rank, rank_by, rank_detections, split
from reid_done_right.functional.reciprocal import k_reciprocal

Rerank = Literal["none", "qe-dba", "k-reciprocal"]

_QUERIES = 256


def evaluate(
    query: NDArray[np.floating],
    query_labels: Labels,
    gallery: NDArray[np.floating],
    gallery_labels: Labels,
    rule: Rule,
    *,
    rerank: Rerank = "none",
    options: Mapping[str, Any] | None = None,
    lists: Sequence[NDArray[np.int64]] | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Progress = iter,
) -> Ranking:
    """Rank the gallery (G, D) for every query (Q, D), all of unit norm; ``.scores(rule.ap_rule)`` are the numbers.

    Args:
        query: (Q, D).
        query_labels: Q rows.
        gallery: (G, D), may be a memory map.
        gallery_labels: G rows.
        rule: who counts for whom, one of `protocols.RULES` or your own.
        rerank: ``none``, ``qe-dba`` (the paper's re-ranking, `expansion`) or ``k-reciprocal`` (`reciprocal`).
        options: keyword arguments of `expansion.expand` or `reciprocal.k_reciprocal`, if not their defaults.
        lists: for each query, the gallery rows that are its gallery (Person Search).
        threads: how many work at once, besides the matrix products.
        device: where PyTorch is to compute instead, such as ``cuda``; the same ranks.
        progress: wraps the list of blocks, as tqdm does.

    Raises:
        ValueError: naming the row, for embeddings or labels that cannot be evaluated, also those not of unit norm; for
            a re-ranking with `lists`, which would mix the galleries of different queries.
    """
    if rerank not in get_args(Rerank):
        raise ValueError(f"re-ranking {rerank!r} is unknown: use one of {', '.join(get_args(Rerank))}")
    if rerank == "none" and options:
        raise ValueError(f"options {', '.join(options)} belong to a re-ranking, but there is none")
    check_unit_norm(query, "query")
    check_unit_norm(gallery, "gallery")
    how: dict[str, Any] = {"threads": threads, "device": device, "progress": progress}
    if rerank == "none":
        return rank(query, query_labels, gallery, gallery_labels, rule, lists=lists, **how)
    if lists is not None:
        raise ValueError(f"{rerank} would mix the galleries of different queries; rank gallery lists plainly")
    check_pair(query, query_labels, gallery, gallery_labels, rule)
    if rerank == "qe-dba":
        query, gallery = expand(query, gallery, **(options or {}), **how)
        return rank(query, query_labels, gallery, gallery_labels, rule, **how)
    reranked = k_reciprocal(query, gallery, **(options or {}), **how)
    return rank_by(reranked.score, query_labels, gallery_labels, rule, place=reranked.place, progress=progress)


def evaluate_detections(
    query: NDArray[np.floating],
    detections: NDArray[np.floating],
    boxes: NDArray[np.floating],
    box_image: NDArray[np.int64],
    lists: Sequence[NDArray[np.int64]],
    truth: Lists,
    truth_boxes: NDArray[np.floating],
    truth_image: NDArray[np.int64],
) -> Ranking:
    """Person Search with a detector's boxes: AP x recall (`protocols.detection_hits`, `ranking.rank_detections`).

    Args:
        query: (Q, D) embeddings.
        detections: (N, D) embeddings of the detected boxes.
        boxes: (N, 4) x, y, w, h.
        box_image: (N,) image of each box.
        lists: for each query, the detections in its gallery images.
        truth: for each query, the rows of the next two that show its person in its gallery.
        truth_boxes: (P, 4) true boxes.
        truth_image: (P,) image of each.

    Raises:
        ValueError: for embeddings of different dimensions or not of unit norm.
    """
    if query.shape[1] != detections.shape[1]:
        raise ValueError(
            f"query embeddings have {query.shape[1]} dimensions, those of detections {detections.shape[1]}"
        )
    check_unit_norm(query, "query")
    check_unit_norm(detections, "detections")
    similarity, hits = [], []
    for rows in split(slice(0, len(query)), _QUERIES):
        scores = query[rows] @ detections.T
        for row, i in enumerate(range(rows.start, rows.stop)):
            items, wanted = lists[i], truth.items[truth.pointers[i] : truth.pointers[i + 1]]
            similarity.append(scores[row, items])
            true = (truth_boxes[wanted], truth_image[wanted])
            hits.append(detection_hits(boxes[items], box_image[items], similarity[-1], *true))
    return rank_detections(similarity, hits, truth.counts.tolist())
