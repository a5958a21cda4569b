"""Person Search with a detector's boxes: AP x recall, as the benchmark's authors compute it (`psdb.py`)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.blocks import split
from reid_done_right.evaluation.embedded import check_dimensions, unit
from reid_done_right.evaluation.ragged import Ragged
from reid_done_right.evaluation.ranking import Ranking

_QUERIES = 256


def evaluate_detections(
    query: NDArray[np.floating],
    detections: NDArray[np.floating],
    boxes: NDArray[np.floating],
    box_image: NDArray[np.int64],
    lists: Sequence[NDArray[np.int64]],
    truth: Ragged,
    truth_boxes: NDArray[np.floating],
    truth_image: NDArray[np.int64],
) -> Ranking:
    """Rank a detector's boxes for every query of Person Search: AP of the result is AP x recall of the official code.

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
    query, detections = unit(query, "query"), unit(detections, "detections")
    check_dimensions(query, detections, ("query", "detections"))
    similarity, hits = [], []
    for rows in split(slice(0, len(query)), _QUERIES):
        scores = query[rows] @ detections.T
        for row, i in enumerate(range(rows.start, rows.stop)):
            items, wanted = lists[i], truth.items[truth.pointers[i] : truth.pointers[i + 1]]
            similarity.append(scores[row, items])
            true = (truth_boxes[wanted], truth_image[wanted])
            hits.append(detection_hits(boxes[items], box_image[items], similarity[-1], *true))
    return rank_detections(similarity, hits, truth.counts.tolist())


def rank_detections(
    similarity: Sequence[NDArray[np.floating]], hits: Sequence[NDArray[np.bool_]], relevant: Sequence[int]
) -> Ranking:
    """Return the ranking of detections whose similarities and hits are known.

    Args:
        similarity: for each query, (n,) of the detections in its gallery.
        hits: for each query, (n,) which of them are true positives (`detection_hits`).
        relevant: (Q,) true boxes of the person in the query's gallery, detected or not.
    """
    order = [np.argsort(-each, kind="stable") for each in similarity]
    ranks = [np.flatnonzero(hit[best_first]) for hit, best_first in zip(hits, order, strict=True)]
    table = Ragged.of(ranks)
    scores = [each[best_first][rank] for each, best_first, rank in zip(similarity, order, ranks, strict=True)]
    return Ranking(
        table.pointers,
        table.items + 1,
        np.concatenate([np.empty(0), *scores]).astype(np.float32),
        np.asarray(relevant, dtype=np.int64),
    )


def overlap(boxes: NDArray[np.floating], box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the intersection over union of boxes (N, 4) with one box (4,): x, y, w, h in pixels, real (no +1)."""
    boxes, box = np.asarray(boxes, dtype=np.float64), np.asarray(box, dtype=np.float64)
    low = np.maximum(boxes[:, :2], box[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], box[:2] + box[2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(boxes[:, 2:], axis=1) + np.prod(box[2:]) - shared
    ratio: NDArray[np.float64] = shared / np.maximum(union, np.finfo(float).tiny)
    return ratio


def overlap_threshold(box: NDArray[np.floating]) -> float:
    """Return the overlap that a detection needs with the true box x, y, w, h: min(0.5, wh / ((w + 10)(h + 10)))."""
    width, height = float(box[2]), float(box[3])
    return min(0.5, width * height / ((width + 10) * (height + 10)))


def detection_hits(
    boxes: NDArray[np.floating],
    box_image: NDArray[np.int64],
    similarity: NDArray[np.floating],
    truth: NDArray[np.floating],
    truth_image: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return (N,) which detections are true positives of one query of Person Search.

    In each image that contains the person it is the *most similar* detection that overlaps the true box enough, not the
    best placed one; at most one per image (`psdb.py` of the benchmark's authors). Every other detection is a negative.

    Args:
        boxes: (N, 4) detections x, y, w, h in the query's gallery images.
        box_image: (N,) image of each detection.
        similarity: (N,) to the query.
        truth: (P, 4) true boxes of the person.
        truth_image: (P,) image of each true box.
    """
    hits = np.full(len(boxes), False)
    for box, image in zip(truth, truth_image, strict=True):
        inside = np.flatnonzero(box_image == image)
        placed = inside[overlap(boxes[inside], box) >= overlap_threshold(box)]
        if len(placed):
            hits[placed[np.argmax(similarity[placed])]] = True
    return hits
