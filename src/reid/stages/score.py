"""Official scores for anybody's embeddings, from files that any framework can write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.artifacts import InputError, replacing, write_json
from reid.functional.distractors import count_beating, draw_places, sweep
from reid.functional.evaluation import Rerank, evaluate, evaluate_detections
from reid.functional.protocols import (
    RULES,
    Labels,
    Lists,
    Pooling,
    Rule,
    check_embeddings,
    normalise,
    pool_queries,
    pool_tracklets,
    rows_of,
)
from reid.functional.ranking import Ranking

Arrays = Mapping[str, NDArray[Any]]


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
    distractors: Path | None = None,
    sizes: Sequence[int] = (),
    draws: int = 10,
    seed: int = 0,
    per_query: Path | None = None,
    threads: int | None = None,
) -> None:
    """Score the embeddings of one file against those of another by a benchmark's own protocol.

    Files are `.npz` or `.safetensors` (mapped, not read, so larger than memory) with these arrays, one row an image:

        embeddings    (N, D) float; rows whose norm is not 1 are normalised, and compared by dot product
        person_id     (N,) integer
        camera_id     (N,) integer; not needed where the same camera is no junk
        tracklet_id   (N,) integer, MARS: rows are frames, pooled by tracklet
        image_id      (N,) integer, Person Search: the photo that a gallery box is from
        lists         (L,) integer, Person Search, query file: image ids of all queries' galleries, one after another
        pointers      (Q + 1,) where each query's begin and end in `lists`; without the two all have the whole gallery
        box           (N, 4) x y w h, Person Search, gallery file: its rows are detections and need no person_id
        truth_box, truth_image, truth_pointers    (P, 4), (P,), (Q + 1,) then say, in the query file, where the
                      person of each query is

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
        distractors: file of images that are nobody, of which it needs the embeddings only.
        sizes: how many of them to add, ascending; each size is scored in each draw.
        draws: random orders of the distractors.
        seed: of these orders.
        per_query: Parquet file of AP, AP by the step rule and rank of the first hit (0 = none), a row a query.
        threads: how many work at once, besides the matrix products.

    Raises:
        InputError: naming the file, and the row where there is one. Nothing is written then.
    """
    rule = _rule(protocol, changes or {})
    if bool(distractors) != bool(sizes):
        raise InputError("distractors and sizes belong together: give a file of embeddings and how many of them to add")
    if distractors and (rerank != "none" or protocol == "person-search"):
        raise InputError("distractors are added to a plain ranking of one gallery: drop the re-ranking or the protocol")
    try:
        q, g = _read(query), _read(gallery)
        if "box" in g:
            ranking = _detected(query, q, gallery, g)
        else:
            (left, left_labels), (right, right_labels) = (
                _people(path, arrays, rule, protocol, pool, normalise_frames)
                for path, arrays in ((query, q), (gallery, g))
            )
            if multi_query is not None:
                boxes = _people(multi_query, _read(multi_query), rule, protocol, pool, normalise_frames)
                left = pool_queries(*boxes, left_labels, pool)
            lists = _lists(query, q, gallery, g) if "lists" in q else None
            labels = (left_labels, right_labels)
            ranking = evaluate(left, labels[0], right, labels[1], rule, rerank=rerank, lists=lists, threads=threads)
        scores: dict[str, Any] = {"protocol": protocol, "rule": asdict(rule), "rerank": rerank}
        scores |= ranking.scores(rule.ap_rule)
        if distractors is not None:
            scores["distractors"] = _sweep(distractors, left, ranking, rule, sizes, draws, seed, threads)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{query} against {gallery}: {error}") from None
    if per_query is not None:
        _write_queries(per_query, ranking, rule)
    write_json(out, scores)


def _rule(protocol: str, changes: Mapping[str, Any]) -> Rule:
    if protocol not in RULES:
        raise InputError(f"protocol {protocol!r} is unknown: use one of {', '.join(RULES)}")
    try:
        return replace(RULES[protocol], **changes)
    except TypeError:
        raise InputError(f"rules are {', '.join(asdict(RULES[protocol]))}; given {', '.join(changes)}") from None


def _read(path: Path) -> Arrays:
    """Read or map the arrays of a file."""
    try:
        if path.suffix == ".safetensors":
            return _map_safetensors(path)
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # whatever a damaged archive makes zipfile, numpy or json raise
        raise InputError(f"{path}: not a readable .npz or .safetensors file ({error})") from None


def _map_safetensors(path: Path) -> Arrays:
    """Map the tensors of a safetensors file: 8 bytes of length, a JSON header of that length, then the data."""
    kinds = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (1, 2, 4, 8)}
    with path.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(start - 8))
    header.pop("__metadata__", None)
    return {
        name: np.memmap(path, kinds[each["dtype"]], "r", start + each["data_offsets"][0], tuple(each["shape"]))
        for name, each in header.items()
    }


def _column(path: Path, arrays: Arrays, name: str, rows: int | None = None) -> NDArray[Any]:
    """An array of a file, of `rows` rows if that is known."""
    if name not in arrays:
        raise InputError(f"{path}: no array {name!r}; it holds {', '.join(arrays) or 'nothing'}")
    if rows is not None and len(arrays[name]) != rows:
        raise InputError(f"{path}: {len(arrays[name])} rows of {name}, expected {rows}")
    return arrays[name]


def _people(
    path: Path, arrays: Arrays, rule: Rule, protocol: str, pool: Pooling, normalise_frames: bool
) -> tuple[NDArray[np.floating], Labels]:
    """Embeddings (N, D) of unit norm and their labels; the frames of MARS pooled to tracklets."""
    embeddings = _column(path, arrays, "embeddings")
    person = _column(path, arrays, "person_id")
    camera = _column(path, arrays, "camera_id") if rule.same_camera_is_junk else np.zeros(len(person), np.int64)
    try:
        labels = Labels(person, camera)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    _check(path, embeddings, labels)
    if protocol != "mars":
        return _unit(embeddings), labels
    tracklet = _column(path, arrays, "tracklet_id", len(labels))
    pooled, first = pool_tracklets(embeddings, tracklet, pool, normalise_frames)
    members = labels[first][np.unique(tracklet, return_inverse=True)[1]]
    mixed = (members.person_id != labels.person_id) | (members.camera_id != labels.camera_id)
    if mixed.any():
        row = int(np.argmax(mixed))
        raise InputError(f"{path}: row {row} has another person or camera than its tracklet {tracklet[row]} before it")
    return pooled, labels[first]


def _check(path: Path, embeddings: NDArray[np.floating], labels: Labels) -> None:
    try:
        check_embeddings(embeddings, labels, str(path))
    except ValueError as error:
        raise InputError(str(error)) from None


def _unit(embeddings: NDArray[np.floating]) -> NDArray[np.floating]:
    """As they are, perhaps mapped or float16, if all norms are 1; else a normalised copy."""
    part = 8192
    for first in range(0, len(embeddings), part):
        norm = np.linalg.norm(embeddings[first : first + part].astype(np.float32), axis=1)
        if np.abs(norm - 1).max() > 1e-3:
            return normalise(embeddings)
    return embeddings


def _lists(query: Path, q: Arrays, gallery: Path, g: Arrays) -> list[NDArray[np.int64]]:
    """Each query's gallery rows, from the images of its list."""
    queries, images = len(_column(query, q, "embeddings")), _column(query, q, "lists")
    pointers = _column(query, q, "pointers", queries + 1)
    boxes = rows_of(images, _column(gallery, g, "image_id", len(_column(gallery, g, "embeddings"))))
    ends = boxes.pointers[pointers]
    return [boxes.items[first:last] for first, last in pairwise(ends)]


def _detected(query: Path, q: Arrays, gallery: Path, g: Arrays) -> Ranking:
    """Ranking of Person Search with detections."""
    embeddings, detections = _column(query, q, "embeddings"), _column(gallery, g, "embeddings")
    for path, rows in ((query, embeddings), (gallery, detections)):
        nobody = np.zeros(len(rows), dtype=np.int64)
        _check(path, rows, Labels(nobody, nobody))
    count = len(embeddings)
    pointers = _column(query, q, "truth_pointers", count + 1)
    image = _column(query, q, "truth_image", int(pointers[-1]))
    truth = Lists(pointers.astype(np.int64), np.arange(len(image)))
    lists = _lists(query, q, gallery, g) if "lists" in q else [np.arange(len(detections))] * count
    boxes = _column(gallery, g, "box", len(detections))
    box_image = _column(gallery, g, "image_id", len(detections))
    true = (truth, _column(query, q, "truth_box", len(image)), image)
    return evaluate_detections(_unit(embeddings), _unit(detections), boxes, box_image, lists, *true)


def _sweep(
    path: Path,
    query: NDArray[np.floating],
    ranking: Ranking,
    rule: Rule,
    sizes: Sequence[int],
    draws: int,
    seed: int,
    threads: int | None,
) -> dict[str, Any]:
    """Scores among more and more distractors, (sizes, draws) each."""
    extra = _column(path, _read(path), "embeddings")
    nobody = np.zeros(len(extra), dtype=np.int64)
    _check(path, extra, Labels(nobody, nobody))
    if max(sizes) > len(extra):
        raise InputError(f"{path}: {len(extra)} distractors, but sizes ask for {max(sizes)}")
    places = draw_places(len(extra), draws, np.random.default_rng(seed))
    curves = sweep(ranking, count_beating(query, ranking, _unit(extra), places, sizes, threads=threads), rule.ap_rule)
    return {
        "sizes": list(sizes),
        "draws": draws,
        "seed": seed,
        "mAP": curves.average_precision.tolist(),
        "mAP_step": curves.average_precision_step.tolist(),
        "rank1": curves.rank1.tolist(),
    }


def _write_queries(path: Path, ranking: Ranking, rule: Rule) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "query": np.arange(len(ranking.relevant)),
        "ap": ranking.average_precision(rule.ap_rule),
        "ap_step": ranking.average_precision("step"),
        "first_hit_rank": ranking.first_hit_rank,
        "relevant": ranking.relevant,
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
