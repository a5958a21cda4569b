"""Who counts for whom: each benchmark's rule on labels, apart from any metric, and what its queries are made of.

For a query, a gallery item of the same person is *relevant*, unless the same camera saw it: then it is
*junk*, deleted from the ranked list before ranks are counted, as is any item of the junk id. Every other item
is a negative, items of the distractor id included, and other people seen by the query's own camera too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.functional.metrics import ApRule

Pooling = Literal["mean", "max"]

_ROWS = 8192


@dataclass(frozen=True)
class Rule:
    """What a benchmark's own evaluation code deletes, keeps and computes."""

    same_camera_is_junk: bool = True
    """Same person and same camera as the query: deleted. Switch it off for data of one camera."""
    junk_id: int | None = -1
    """Items of this id are deleted for every query."""
    distractor_id: int | None = 0
    """Items of this id are nobody: negatives for every query."""
    cut: int | None = None
    """Ranks beyond this place, counted before junk is deleted, add nothing to AP or CMC."""
    ap_rule: ApRule = "trapezoid"
    """The AP that the benchmark's code computes."""
    queries_in_gallery: bool = False
    """The gallery may hold the very images of the queries, which are junk by their own camera."""

    def __post_init__(self) -> None:
        """Raise ValueError for a cut that leaves nothing and for an AP rule that is unknown."""
        if self.cut is not None and self.cut < 1:
            raise ValueError(f"cut is {self.cut}, expected a place from 1 on")
        if self.ap_rule not in get_args(ApRule):
            raise ValueError(f"AP rule {self.ap_rule!r} is unknown: use one of {', '.join(get_args(ApRule))}")


MARKET1501 = Rule()
MARKET_500K = MARKET1501
DUKEMTMC = Rule()
DUKEMTMC_OFFICIAL = Rule(cut=4000)
"""As `evaluation_res_duke_fast.m`, which ranks only the first 4,000 gallery items."""
MARS = Rule(queries_in_gallery=True)
"""On tracklets; the gallery holds the queries."""
PERSON_SEARCH = Rule(same_camera_is_junk=False, junk_id=None, distractor_id=-1, ap_rule="step")
"""No cameras; boxes of unlabelled pedestrians (-1) are negatives; each query has its own gallery list."""

RULES: dict[str, Rule] = {
    "market1501": MARKET1501,
    "market1501-500k": MARKET_500K,
    "dukemtmc": DUKEMTMC,
    "dukemtmc-official": DUKEMTMC_OFFICIAL,
    "mars": MARS,
    "person-search": PERSON_SEARCH,
}


def rule_of(layout: str, own: Mapping[str, Any] | None = None) -> Rule:
    """Give the rule of a benchmark's format, or of one's own data: {"same_camera_is_junk", "ap_rule"}."""
    return RULES[layout] if own is None else Rule(own["same_camera_is_junk"], ap_rule=own["ap_rule"])


@dataclass(frozen=True)
class Labels:
    """Who is on each row and which camera saw it: two (N,) integer arrays."""

    person_id: NDArray[np.int64]
    camera_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Cast to int64; raise for anything that is not two equally long lists of integers."""
        for name in ("person_id", "camera_id"):
            object.__setattr__(self, name, integers(getattr(self, name), name))
        if len(self.person_id) != len(self.camera_id):
            raise ValueError(f"{len(self.person_id)} person_id but {len(self.camera_id)} camera_id")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.person_id)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> "Labels":
        """Select rows."""
        return Labels(self.person_id[rows], self.camera_id[rows])


@dataclass(frozen=True)
class Lists:
    """A ragged table: row i is ``items[pointers[i]:pointers[i + 1]]``."""

    pointers: NDArray[np.int64]
    items: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int64]]) -> "Lists":
        """Join one array per row."""
        items = np.concatenate([np.empty(0, np.int64), *rows])
        return cls(np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]), items)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Length of each row."""
        return np.diff(self.pointers)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each item."""
        return np.repeat(np.arange(len(self.pointers) - 1), self.counts)

    def keep(self, mask: NDArray[np.bool_]) -> "Lists":
        """Only the items where `mask` is true; as many rows as before."""
        counts = np.bincount(self.rows[mask], minlength=len(self.pointers) - 1)
        return Lists(np.concatenate([[0], np.cumsum(counts)]), self.items[mask])

    def part(self, rows: slice) -> "Lists":
        """A range of the rows."""
        pointers = self.pointers[rows.start : rows.stop + 1]
        return Lists(pointers - pointers[0], self.items[pointers[0] : pointers[-1]])


def same_person(query: Labels, gallery: Labels) -> Lists:
    """For each query, the gallery rows of its person, in gallery order."""
    return rows_of(query.person_id, gallery.person_id)


def rows_of(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> Lists:
    """For each of the ids `wanted` (W,), the rows of `ids` (N,) that hold it, ascending."""
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    start = np.searchsorted(sorted_ids, wanted, side="left")
    counts = np.searchsorted(sorted_ids, wanted, side="right") - start
    pointers = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(pointers[-1]) - np.repeat(pointers[:-1], counts)
    return Lists(pointers, order[np.repeat(start, counts) + within])


def relevant_and_junk(query: Labels, gallery: Labels, rule: Rule) -> tuple[Lists, Lists]:
    """For each query, the gallery rows that it should find and those deleted for it alone (Q rows each)."""
    same = same_person(query, gallery)
    junk = np.full(len(same.items), False)
    if rule.same_camera_is_junk:
        junk = gallery.camera_id[same.items] == query.camera_id[same.rows]
    return same.keep(~junk), same.keep(junk)


def deleted(gallery: Labels, rule: Rule) -> NDArray[np.bool_]:
    """(G,) whether a gallery row is deleted for every query."""
    return gallery.person_id == rule.junk_id if rule.junk_id is not None else np.full(len(gallery), False)


def check_embeddings(embeddings: NDArray[np.floating], labels: Labels, name: str) -> NDArray[np.float32]:
    """Raise ValueError naming `name` and the first bad row of embeddings (N, D) that cannot be compared.

    Returns their norms (N,).
    """
    if embeddings.ndim != 2 or 0 in embeddings.shape[1:] or not np.issubdtype(embeddings.dtype, np.floating):
        raise ValueError(
            f"{name}: embeddings are {embeddings.dtype} of shape {embeddings.shape}, expected floats of shape (N, D)"
        )
    if len(embeddings) != len(labels):
        raise ValueError(f"{name}: {len(embeddings)} embeddings but {len(labels)} labels")
    if len(labels) == 0:
        raise ValueError(f"{name}: no rows")
    squared = np.empty(len(embeddings), dtype=np.float32)
    for first in range(0, len(embeddings), _ROWS):
        with np.errstate(over="ignore"):
            block = np.asarray(embeddings[first : first + _ROWS], dtype=np.float32)
            np.einsum("nd,nd->n", block, block, out=squared[first : first + _ROWS])
        bad = ~(np.isfinite(squared[first : first + _ROWS]) & (squared[first : first + _ROWS] > 0))
        if bad.any():
            row = first + int(np.argmax(bad))
            raise ValueError(f"{name}: embedding of row {row} {_fault(embeddings[row])}")
    return np.sqrt(squared)


def _fault(embedding: NDArray[np.floating]) -> str:
    if not np.isfinite(embedding).all():
        return "holds a value that is not finite; embed that image again or leave it out"
    if not embedding.any():
        return "is all zeros; embed that image again or leave it out"
    return "is too long or too short for 32-bit floats; normalise the rows first"


def check_unit_norm(embeddings: NDArray[np.floating], name: str) -> None:
    """Raise ValueError naming the first row of embeddings (N, D) whose norm is not 1."""
    for first in range(0, len(embeddings), _ROWS):
        block = np.asarray(embeddings[first : first + _ROWS], dtype=np.float32)
        norm = np.sqrt(np.einsum("nd,nd->n", block, block))
        bad = ~(np.abs(norm - 1) < 1e-2)
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"{name}: embedding of row {first + row} has norm {norm[row]:.4g}, expected 1: normalise first"
            )


def check_labels(query: Labels, gallery: Labels, rule: Rule, names: tuple[str, str] = ("query", "gallery")) -> None:
    """Raise ValueError if an id is nobody's, if a query is nobody, or if no query at all has anything to find.

    `names` are what messages call the two sides, such as their files.
    """
    nobody = [each for each in (rule.junk_id, rule.distractor_id) if each is not None]
    for name, labels in zip(names, (query, gallery), strict=True):
        unknown = (labels.person_id < -1) & ~np.isin(labels.person_id, nobody)
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(
                f"{name}: row {row} has person_id {labels.person_id[row]}, which is nobody's: junk is {rule.junk_id}, "
                f"a distractor {rule.distractor_id}, and people have positive numbers"
            )
    marked = np.isin(query.person_id, nobody)
    if marked.any():
        row = int(np.argmax(marked))
        raise ValueError(
            f"{names[0]}: row {row} has person_id {query.person_id[row]}, which marks junk or distractors; "
            "a query must show a person; number people from 1 on, or change the rule (distractor_id=None, or "
            "--distractor-id none)"
        )
    relevant, junk = relevant_and_junk(query, gallery, rule)
    if len(relevant.items):
        return
    if len(junk.items):
        raise ValueError(
            f"no query of {names[0]} has a match: every item of {names[1]} that shows a query's person is from the "
            "query's own camera, hence excluded; for data of one camera switch same-camera exclusion off "
            "(same_camera_is_junk=False, or --same-camera-counts)"
        )
    raise ValueError(f"no query has a match: no person_id of {names[0]} occurs in {names[1]}")


def check_pair(
    query: NDArray[np.floating],
    query_labels: Labels,
    gallery: NDArray[np.floating],
    gallery_labels: Labels,
    rule: Rule,
) -> None:
    """Everything that must hold of queries (Q, D) and gallery (G, D) before they are ranked; raises ValueError."""
    check_embeddings(query, query_labels, "query")
    check_embeddings(gallery, gallery_labels, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query embeddings have {query.shape[1]} dimensions, those of the gallery {gallery.shape[1]}")
    check_labels(query_labels, gallery_labels, rule)
    if rule.queries_in_gallery and rule.same_camera_is_junk:
        return
    if query.shape == gallery.shape and np.array_equal(query, gallery):
        raise ValueError(
            "the gallery is the query set: every query would meet itself; choose some images as queries and leave them "
            "out of the gallery"
        )


def normalise(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of unit norm, (N, D) float32. A row of zeros raises ValueError."""
    norm = np.linalg.norm(embeddings.astype(np.float32, copy=False), axis=1, keepdims=True)
    if not norm.all():
        raise ValueError(f"embedding of row {int(np.argmin(norm))} is all zeros and has no direction")
    unit: NDArray[np.float32] = np.divide(embeddings, norm, dtype=np.float32)
    return unit


def pool_queries(
    boxes: NDArray[np.float32], box_labels: Labels, query_labels: Labels, pool: Pooling = "mean"
) -> NDArray[np.float32]:
    """Multi-query embeddings (Q, D) of unit norm: for each query, all boxes of its person in its camera, pooled.

    `boxes` (N, D) are the embeddings of Market's hand-drawn crops; they are normalised before pooling and the
    result after it (official `baseline_evaluation`, which has both ``mean`` and ``max``). Raises ValueError
    naming the first query without a box.
    """
    check_embeddings(boxes, box_labels, "multi-query boxes")
    keys, group = np.unique(_pairs(box_labels), axis=0, return_inverse=True)
    wanted = {(int(person), int(camera)): row for row, (person, camera) in enumerate(keys)}
    rows = [wanted.get((int(person), int(camera)), -1) for person, camera in _pairs(query_labels)]
    if -1 in rows:
        row = rows.index(-1)
        raise ValueError(
            f"query row {row} has no box to pool: none of person {query_labels.person_id[row]} "
            f"in camera {query_labels.camera_id[row]}"
        )
    return _pool(boxes, group, pool, normalise_rows=True)[rows]


def pool_tracklets(
    embeddings: NDArray[np.float32],
    tracklet_id: NDArray[np.int64],
    pool: Pooling = "mean",
    normalise_frames: bool = True,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tracklet embeddings (T, D) of unit norm, and the first frame's row of each (T,), in ascending tracklet id.

    The official MARS code takes the ``max`` of raw frame features (`normalise_frames` off) and normalises the
    tracklet; for embeddings trained with unit norm the ``mean`` of normalised frames is the default.
    """
    if len(embeddings) != len(tracklet_id):
        raise ValueError(f"{len(embeddings)} embeddings but {len(tracklet_id)} tracklet_id")
    _, first, group = np.unique(tracklet_id, return_index=True, return_inverse=True)
    return _pool(embeddings, group, pool, normalise_frames), first


def overlap(boxes: NDArray[np.floating], box: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) with one box (4,); x, y, w, h in pixels, real coordinates (no +1)."""
    boxes, box = np.asarray(boxes, dtype=np.float64), np.asarray(box, dtype=np.float64)
    low = np.maximum(boxes[:, :2], box[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], box[:2] + box[2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(boxes[:, 2:], axis=1) + np.prod(box[2:]) - shared
    ratio: NDArray[np.float64] = shared / np.maximum(union, np.finfo(float).tiny)
    return ratio


def overlap_threshold(box: NDArray[np.floating]) -> float:
    """Overlap that a detection needs with the true box x, y, w, h: min(0.5, wh / ((w + 10)(h + 10)))."""
    width, height = float(box[2]), float(box[3])
    return min(0.5, width * height / ((width + 10) * (height + 10)))


def detection_hits(
    boxes: NDArray[np.floating],
    box_image: NDArray[np.int64],
    similarity: NDArray[np.floating],
    truth: NDArray[np.floating],
    truth_image: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """(N,) which detections are true positives of one query of Person Search.

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


def _pool(
    embeddings: NDArray[np.float32], group: NDArray[np.int64], pool: Pooling, normalise_rows: bool
) -> NDArray[np.float32]:
    """Pool the rows of each group, then normalise: (groups, D). The mean needs no division before that."""
    if pool not in get_args(Pooling):
        raise ValueError(f"pooling {pool!r} is unknown: use mean or max")
    reduce = np.add if pool == "mean" else np.maximum
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max(initial=-1) + 2))
    pooled = np.empty((len(starts) - 1, embeddings.shape[1]), dtype=np.float32)
    first = 0
    while first < len(pooled):  # as many whole groups at a time as fit into a block of rows
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _ROWS, side="right")) - 1)
        rows = embeddings[order[starts[first] : starts[last]]]
        rows = normalise(rows) if normalise_rows else rows
        reduce.reduceat(rows, starts[first:last] - starts[first], axis=0, out=pooled[first:last])
        first = last
    return normalise(pooled)


def _pairs(labels: Labels) -> NDArray[np.int64]:
    return np.stack([labels.person_id, labels.camera_id], axis=1)


def integers(values: object, name: str) -> NDArray[np.int64]:
    """(N,) int64 from any whole numbers, also those that came through a table of floats.

    Raises ValueError, naming `name` and the row, for anything else and for numbers that int64 or their own type of
    float cannot hold exactly.
    """
    array = np.asarray(values)
    numbers = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if array.dtype.kind in "SU":
        raise ValueError(f"{name} holds text, expected integers: number them")
    if array.ndim != 1 or not (numbers or array.size == 0):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected integers of shape (N,)")
    if np.issubdtype(array.dtype, np.floating):
        exact = 2.0 ** min(np.finfo(array.dtype).nmant + 1, 63)
        bad, why = (
            ~((np.abs(array) < exact) & (array == np.rint(array))),
            f"not a whole number that {array.dtype} holds",
        )
    else:
        bad, why = array > np.iinfo(np.int64).max, "too large for a signed integer of 64 bits"
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name} of row {row} is {array[row]}, {why}")
    return array.astype(np.int64)
