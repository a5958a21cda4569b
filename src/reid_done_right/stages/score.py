"""Official scores for anybody's embeddings, from files that any framework can write."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reid_done_right.artifacts import InputError, replacing, write_json
from reid_done_right.data.arrays import Arrays, naming, read_arrays
from reid_done_right.functional.distractors import count_beating, draw_places, sweep
from reid_done_right.functional.evaluation import Rerank, evaluate, evaluate_detections
from reid_done_right.functional.protocols import (
    RULES,
    Labels,
    Lists,
    Pooling,
    Rule,
    check_embeddings,
    check_labels,
    normalise,
    pool_queries,
    pool_tracklets,
    rows_of,
)
from reid_done_right.functional.ranking import Ranking
from reid_done_right.functional.statistics import mean_interval

ARRAYS = (
    *("embeddings", "person_id", "camera_id", "tracklet_id"),
    *("image_id", "lists", "pointers", "box", "truth_box", "truth_image", "truth_pointers"),
)
LEVEL, RESAMPLES = 0.95, 2000


def score(
    query: Path,
    gallery: Path,
    out: Path,
    *,
    protocol: str = "market1501",
    changes: Mapping[str, Any] | None = None,
    multi_query: Path | None = None,
    pool: Pooling = "mean",
    normalise_frames: bool = True,
    rerank: Rerank = "none",
    options: Mapping[str, Any] | None = None,
    distractors: Path | None = None,
    sizes: Sequence[int] = (),
    draws: int = 10,
    ranks: Sequence[int] = (),
    seed: int = 0,
    per_query: Path | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> None:
    """Score the embeddings of one file against those of another by a benchmark's own protocol.

    Files are `.npz` or `.safetensors` (mapped, not read, so larger than memory) with these arrays, one row an image:

        embeddings    (N, D) float; rows whose norm is not 1 are normalised, and compared by dot product
        person_id     (N,) whole numbers
        camera_id     (N,) whole numbers; not needed where the same camera is no junk
        tracklet_id   (N,) whole numbers, MARS: rows are frames, pooled by tracklet
        image_id      (N,) whole numbers, Person Search: the photo that a box is from, in the gallery file; in the query
                      file too, each query's own photo is no part of its gallery
        lists         (L,) Person Search, query file: image ids of all queries' galleries, one after another
        pointers      (Q + 1,) where each query's begin and end in `lists`; without the two, all photos but its own
        box           (N, 4) x y w h, Person Search with detections, gallery file: its rows need no person_id
        truth_box, truth_image, truth_pointers    (P, 4), (P,), (Q + 1,) then say, in the query file, where the
                      person of each query is; that they are there says that the gallery holds detections

    Args:
        query: file of the queries.
        gallery: file of the gallery, junk and distractors included.
        out: JSON file of the scores, fractions in [0, 1].
        protocol: a key of `protocols.RULES`.
        changes: fields of `protocols.Rule` that differ from that protocol's, for a benchmark of your own.
        multi_query: file of further images of the queries' people, pooled by person and camera (Market-1501's gt_bbox).
        pool: how those, or the frames of a tracklet, are pooled.
        normalise_frames: whether frames are normalised before they are pooled; the official MARS code does not.
        rerank: ``none``, ``qe-dba`` or ``k-reciprocal``.
        options: keyword arguments of `expansion.expand` or `reciprocal.k_reciprocal` that differ from the defaults.
        distractors: file of images that are nobody, of which it needs the embeddings only.
        sizes: how many of them to add, ascending; each size is scored in each draw.
        draws: random orders of the distractors.
        ranks: at which CMC is given besides 1, 5 and 10.
        seed: of these orders, and of the resamples for the interval of mAP.
        per_query: Parquet file of AP by the protocol's rule and by both, and rank of the first hit (0 = none), a row
            a query, in the order of the queries; MARS: of their tracklet_id, ascending.
        threads: how many work at once, besides the matrix products.
        device: where PyTorch is to compute instead, such as ``cuda``.

    Raises:
        InputError: naming the file, and the row where there is one. Nothing is written then.
    """
    rule = _rule(protocol, changes or {})
    _check_request(protocol, rule, multi_query, rerank, distractors, sizes, draws, ranks)
    _check_output(out, ".json")
    _check_output(per_query, ".parquet")

    q, g = read_arrays(query, ARRAYS), read_arrays(gallery, ARRAYS)
    columns: dict[str, NDArray[Any]] = {}
    how: dict[str, Any] = {
        "threads": threads,
        "device": device,
        "progress": partial(tqdm, unit="block", leave=False, disable=None),
    }
    extra: NDArray[np.floating] | None = None
    if protocol == "person-search" and "truth_box" in q.arrays:
        ranking = _rank_detections(q, g)
    else:
        left, right = (_people(file, rule, protocol, pool, normalise_frames) for file in (q, g))
        if left.tracklet_id is not None:
            columns["tracklet_id"] = left.tracklet_id
        if multi_query is not None:
            boxes = _people(read_arrays(multi_query, ARRAYS), rule, protocol, pool, normalise_frames)
            left = _pooled(boxes, left, pool)
        _check_dimensions(left, right)
        with naming():
            check_labels(left.labels, right.labels, rule, (str(query), str(gallery)))
        if distractors is not None:
            extra = _extra(read_arrays(distractors, ARRAYS), right, sizes)
        lists = _lists(q, g) if protocol == "person-search" or "lists" in q.arrays else None
        pair = (left.embeddings, left.labels, right.embeddings, right.labels)
        with naming(f"{query} against {gallery}: "):
            ranking = evaluate(*pair, rule, rerank=rerank, options=options, lists=lists, **how)

    scores: dict[str, Any] = {"protocol": protocol, "rule": asdict(rule), "rerank": rerank, "options": options or {}}
    if multi_query is not None or protocol == "mars":
        scores |= {"pool": pool, "normalise_frames": normalise_frames}
    scores |= ranking.scores(rule.ap_rule)
    scores |= {f"rank{m}": float(ranking.cmc([m])[0]) for m in ranks}
    scores["mAP_interval"] = _interval(ranking.average_precision(rule.ap_rule), seed)
    if extra is not None:
        scores["distractors"] = _sweep(extra, left.embeddings, ranking, rule, sizes, draws, seed, how)
    columns |= {
        "ap": ranking.average_precision(rule.ap_rule),
        "ap_trapezoid": ranking.average_precision("trapezoid"),
        "ap_step": ranking.average_precision("step"),
        "first_hit_rank": ranking.first_hit_rank,
        "relevant": ranking.relevant,
    }
    _write(out, scores, per_query, {"query": np.arange(len(ranking.relevant)), **columns})


@dataclass(frozen=True)
class People:
    """Whom the rows of a file show: embeddings (N, D) of unit norm and labels; frames pooled to tracklets."""

    path: Path
    embeddings: NDArray[np.floating]
    labels: Labels
    tracklet_id: NDArray[np.int64] | None = None


def _rule(protocol: str, changes: Mapping[str, Any]) -> Rule:
    if protocol not in RULES:
        raise InputError(f"protocol {protocol!r} is unknown: use one of {', '.join(RULES)}")
    try:
        with naming():
            return replace(RULES[protocol], **changes)
    except TypeError:
        raise InputError(f"rules are {', '.join(asdict(RULES[protocol]))}; given {', '.join(changes)}") from None


def _check_request(
    protocol: str,
    rule: Rule,
    multi_query: Path | None,
    rerank: Rerank,
    distractors: Path | None,
    sizes: Sequence[int],
    draws: int,
    ranks: Sequence[int],
) -> None:
    """Refuse what does not go together, before any file is read."""
    if bool(distractors) != bool(sizes):
        raise InputError("distractors and sizes belong together: give a file of embeddings and how many of them to add")
    if list(sizes) != sorted(set(sizes)) or min(sizes, default=0) < 0:
        raise InputError(f"sizes are {', '.join(map(str, sizes))}: expected ascending numbers of distractors from 0 on")
    if not 1 <= draws * (len(sizes) + 1) < 2**16:
        raise InputError(f"{draws} draws of {len(sizes)} sizes: expected 1 draw or more, and at most 65,535 of both")
    if distractors and (rerank != "none" or rule.cut is not None or protocol in ("mars", "person-search")):
        raise InputError(
            f"{distractors}: distractors are added to a plain, uncut ranking of images; drop them, or the re-ranking, "
            "the cut, or the protocol"
        )
    if multi_query and protocol in ("mars", "person-search"):
        raise InputError(f"{multi_query}: protocol {protocol} has no multiple queries to pool; drop the file")
    if rerank != "none" and protocol == "person-search":
        raise InputError(f"{rerank} would mix the galleries of different queries; rank person-search plainly")
    if min(ranks, default=1) < 1:
        raise InputError(f"ranks are {', '.join(map(str, ranks))}: expected places from 1 on")


def _check_output(path: Path | None, suffix: str) -> None:
    """Refuse a name that could not be written to, before the long computation."""
    if path is None:
        return
    if path.suffix != suffix:
        raise InputError(f"{path}: expected a name that ends in {suffix}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{path}: {folder} is no folder that can be written to")


def _people(file: Arrays, rule: Rule, protocol: str, pool: Pooling, normalise_frames: bool) -> People:
    """Embeddings and labels of a file; the frames of MARS pooled to tracklets."""
    embeddings = file.column("embeddings")
    person = file.integers("person_id")
    camera = np.zeros(len(person), dtype=np.int64)
    if rule.same_camera_is_junk or "camera_id" in file.arrays:
        camera = file.integers("camera_id")
    with naming(f"{file.path}: "):
        labels = Labels(person, camera)
    if protocol != "mars":
        return People(file.path, _unit(file, labels), labels)
    with naming():
        check_embeddings(embeddings, labels, str(file.path))
    tracklet = file.integers("tracklet_id", len(labels))
    with naming(f"{file.path}: "):
        pooled, first = pool_tracklets(embeddings, tracklet, pool, normalise_frames)
    known, group = np.unique(tracklet, return_inverse=True)
    members = labels[first][group]
    mixed = (members.person_id != labels.person_id) | (members.camera_id != labels.camera_id)
    if mixed.any():
        row = int(np.argmax(mixed))
        raise InputError(
            f"{file.path}: row {row} has another person or camera than its tracklet {tracklet[row]} before it; give "
            "every tracklet of the file a number of its own"
        )
    return People(file.path, pooled, labels[first], known)


def _unit(file: Arrays, labels: Labels) -> NDArray[np.floating]:
    """As they are, perhaps mapped or float16, if all norms are 1; else a normalised copy."""
    embeddings = file.column("embeddings")
    with naming():
        norm = check_embeddings(embeddings, labels, str(file.path))
    return embeddings if np.abs(norm - 1).max() <= 1e-3 else normalise(embeddings)


def _unlabelled(file: Arrays) -> People:
    """Embeddings of a file that need no labels."""
    nobody = np.zeros(len(file.column("embeddings")), dtype=np.int64)
    labels = Labels(nobody, nobody)
    return People(file.path, _unit(file, labels), labels)


def _check_dimensions(left: People, right: People) -> None:
    sizes = [each.embeddings.shape[1] for each in (left, right)]
    if sizes[0] != sizes[1]:
        raise InputError(f"{left.path}: embeddings of {sizes[0]} dimensions, those of {right.path} have {sizes[1]}")


def _pooled(boxes: People, query: People, pool: Pooling) -> People:
    """The queries, each pooled from the boxes of its person in its camera."""
    _check_dimensions(boxes, query)
    with naming(f"{boxes.path}: "):
        return replace(query, embeddings=pool_queries(boxes.embeddings, boxes.labels, query.labels, pool))


def _lists(q: Arrays, g: Arrays) -> list[NDArray[np.int64]]:
    """Each query's gallery rows, ascending: those of the images of its list, or all; never those of its own photo."""
    queries, image = len(q.column("embeddings")), g.integers("image_id", len(g.column("embeddings")))
    if "lists" in q.arrays:
        images = q.integers("lists")
        pointers = q.pointers("pointers", queries, len(images))
        rows = rows_of(images, image)
        if len(rows.items) == 0:
            raise InputError(f"{q.path}: no image of lists is an image_id of {g.path}")
        lists = [np.unique(rows.items[first:last]) for first, last in pairwise(rows.pointers[pointers])]
    elif "image_id" in q.arrays:
        lists = [np.arange(len(image))] * queries
    else:
        raise InputError(
            f"{q.path}: no array 'lists' (with 'pointers') of each query's gallery images, and no 'image_id' of the "
            "queries' own photos, which a gallery of all photos must leave out"
        )
    if "image_id" in q.arrays:
        own = q.integers("image_id", queries)
        lists = [rows[image[rows] != photo] for rows, photo in zip(lists, own, strict=True)]
    return lists


def _rank_detections(q: Arrays, g: Arrays) -> Ranking:
    """Ranking of Person Search with detections."""
    query, detections = _unlabelled(q), _unlabelled(g)
    _check_dimensions(query, detections)
    image = q.integers("truth_image")
    pointers = q.pointers("truth_pointers", len(query.labels), len(image))
    if len(image) == 0:
        raise InputError(f"{q.path}: no query has a match: truth_image is empty")
    truth = Lists(pointers, np.arange(len(image)))
    true = (truth, _boxes(q, "truth_box", len(image)), image)
    boxes, box_image = _boxes(g, "box", len(detections.labels)), g.integers("image_id", len(detections.labels))
    lists = _lists(q, g)
    if "lists" in q.arrays:
        listed = np.split(q.integers("lists"), q.integers("pointers")[1:-1])
        strays = [row for i, row in zip(truth.rows, truth.items, strict=True) if image[row] not in listed[i]]
        if strays:
            row = strays[0]
            raise InputError(
                f"{q.path}: truth_image of row {row} is {image[row]}, which is not in the list of its query "
                f"{truth.rows[row]}; give only the true boxes in each query's gallery"
            )
    return evaluate_detections(query.embeddings, detections.embeddings, boxes, box_image, lists, *true)


def _boxes(file: Arrays, name: str, rows: int) -> NDArray[np.float64]:
    boxes = file.column(name, rows)
    if boxes.shape != (rows, 4) or not np.issubdtype(boxes.dtype, np.number):
        raise InputError(f"{file.path}: {name} is {boxes.dtype} of shape {boxes.shape}, expected numbers ({rows}, 4)")
    boxes = boxes.astype(np.float64)
    bad = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"{file.path}: {name} of row {row} is {boxes[row].tolist()}, expected x, y and positive w, h")
    return boxes


def _extra(file: Arrays, gallery: People, sizes: Sequence[int]) -> NDArray[np.floating]:
    """Embeddings of the distractors."""
    extra = _unlabelled(file)
    _check_dimensions(extra, gallery)
    if max(sizes) > len(extra.labels):
        raise InputError(f"{file.path}: {len(extra.labels)} distractors, but sizes ask for {max(sizes)}")
    return extra.embeddings


def _sweep(
    extra: NDArray[np.floating],
    query: NDArray[np.floating],
    ranking: Ranking,
    rule: Rule,
    sizes: Sequence[int],
    draws: int,
    seed: int,
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """Scores among more and more distractors, (sizes, draws) each."""
    places = draw_places(len(extra), draws, np.random.default_rng(seed))
    curves = sweep(ranking, count_beating(query, ranking, extra, places, sizes, **how), "trapezoid")
    both = {
        "mAP_trapezoid": curves.average_precision.tolist(),
        "mAP_step": curves.average_precision_step.tolist(),
    }
    mean = both[f"mAP_{rule.ap_rule}"]
    return {"sizes": list(sizes), "draws": draws, "seed": seed, "mAP": mean, **both, "rank1": curves.rank1.tolist()}


def _interval(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Confidence interval of mAP over queries; null for one query, which says nothing about others."""
    found = mean_interval(values, np.random.default_rng(seed), level=LEVEL, resamples=RESAMPLES)
    known = len(values) > 1
    ends = {"low": found.low if known else None, "high": found.high if known else None}
    return {**ends, "level": LEVEL, "resamples": RESAMPLES, "seed": seed}


def _write(out: Path, scores: Mapping[str, Any], per_query: Path | None, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write both files or none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if per_query is None:
            write_json(out, scores)
            return
        with replacing(per_query) as temporary:
            pq.write_table(pa.table(dict(columns)), temporary, compression="zstd")
            write_json(out, scores)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error})") from None
