"""Official scores for embeddings of any framework, read from files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reid_done_right.artifacts import InputError, printable, replacing, write_json
from reid_done_right.data.arrays import Arrays, naming, read_arrays
from reid_done_right.data.tasks import array_task, gallery_lists
from reid_done_right.evaluation.detections import evaluate_detections
from reid_done_right.evaluation.distractors import count_beating, order_positions, sweep
from reid_done_right.evaluation.embedded import Embedded, Labels, UnnormalisedError, check_dimensions, unit
from reid_done_right.evaluation.metrics import inverse_negative_penalty
from reid_done_right.evaluation.open_set import open_set
from reid_done_right.evaluation.plausibility import suspicions
from reid_done_right.evaluation.pooling import Pooling
from reid_done_right.evaluation.ragged import Ragged
from reid_done_right.evaluation.ranking import Ranking, Rerank, rank_gallery, resolved
from reid_done_right.evaluation.rules import GALLERIES, RULES, Rule
from reid_done_right.evaluation.shards import Orders, Shard, count_shards
from reid_done_right.evaluation.statistics import mean_interval
from reid_done_right.evaluation.task import Task

ARRAYS = (
    *("embeddings", "person_id", "camera_id", "tracklet_id"),
    *("image_id", "lists", "pointers", "box", "truth_box", "truth_image", "truth_pointers"),
)
SHARDS = (".npz", ".safetensors")
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
    orders: int = 10,
    ranks: Sequence[int] = (),
    seed: int = 0,
    false_alarms: Sequence[float] | None = None,
    per_query: Path | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> None:
    """Score query embeddings against gallery embeddings by a benchmark's own protocol.

    Files are `.npz` or `.safetensors` (memory-mapped, so they may exceed memory) with these arrays, one row per image:

        embeddings    (N, D) float; normalised if necessary, and compared by dot product
        person_id     (N,) integers
        camera_id     (N,) integers; not needed if the same camera is not junk
        tracklet_id   (N,) integers, MARS: rows are frames, pooled by tracklet
        image_id      (N,) integers, Person Search: in the gallery file, the photo of each box; in the query file, the
                      query's own photo, which is excluded from its gallery
        lists         (L,) Person Search, query file: image ids of all queries' galleries, concatenated
        pointers      (Q + 1,) bounds of each query's gallery in `lists`; without both, all photos but the query's own
        box           (N, 4) x y w h, Person Search with detections, gallery file: its rows need no person_id
        truth_box, truth_image, truth_pointers    (P, 4), (P,), (Q + 1,) true boxes of each query's person, in the
                      query file; if present, the gallery holds detections

    Args:
        query: file of the queries.
        gallery: file of the gallery, including junk and distractors.
        out: JSON file for the scores, fractions in [0, 1].
        protocol: a key of `rules.RULES`.
        changes: fields of `rules.Rule` that differ from the protocol's, for your own benchmark.
        multi_query: file of more images of the query persons, pooled by person and camera (Market-1501's gt_bbox).
        pool: how to pool those, or the frames of a tracklet.
        normalise_frames: whether to normalise frames before pooling; the official MARS code does not.
        rerank: ``none``, ``qe-dba`` or ``k-reciprocal``.
        options: keyword arguments of `expansion.expand` or `reciprocal.k_reciprocal` that differ from the defaults.
        distractors: file of distractor images; only their embeddings are used. A folder of such files is a gallery
            without end: one file at a time is in memory, in the order of their names.
        sizes: numbers of distractors to add, ascending; each is scored in each order.
        orders: number of random orders of the distractors.
        ranks: CMC ranks besides 1, 5 and 10.
        seed: for these orders and for the resamples of mAP's interval.
        false_alarms: an open set: rates of false alarms in [0, 1) to give thresholds for. Queries whose person the
            gallery does not hold are then searches for strangers (`evaluation.open_set`).
        per_query: Parquet file for person, AP by the protocol's rule and by both, inverse negative penalty and rank of
            the first hit (0 = none), one row per query in the order of the queries (MARS: by ascending tracklet_id).
        threads: number of threads, not counting matrix products.
        device: PyTorch device to use instead of compiled loops, such as ``cuda``.

    Raises:
        InputError: naming the file and, if possible, the row. Nothing is written in this case.
    """
    rule = _rule(protocol, changes or {})
    _check_request(protocol, rule, multi_query, rerank, distractors, sizes, orders, ranks)
    _check_false_alarms(false_alarms, rerank)
    _check_output(out, ".json")
    _check_output(per_query, ".parquet")
    if per_query is not None:
        import pyarrow.parquet  # noqa: F401  # if it is not installed, say so before the work

    q, g = read_arrays(query, ARRAYS), read_arrays(gallery, ARRAYS)
    columns: dict[str, NDArray[Any]] = {}
    how: dict[str, Any] = {
        "threads": threads,
        "device": device,
        "progress": partial(tqdm, unit="block", leave=False, disable=None),
    }
    extra: Embedded | dict[Path, int] | None = None
    if protocol in GALLERIES and "truth_box" in q.arrays:
        if false_alarms is not None:
            raise InputError(
                f"{query}: holds true boxes; an open set is of labelled boxes, so drop these or --open-set"
            )
        ranking, queries = _rank_detections(q, g), np.arange(len(q.column("embeddings")))
        columns["person_id"] = q.integers("person_id", len(queries)) if "person_id" in q.arrays else queries
    else:
        boxes = None if multi_query is None else read_arrays(multi_query, ARRAYS)
        task, tracklet_id = array_task(q, g, protocol, rule, boxes, pool, normalise_frames, rerank == "none")
        columns["person_id"] = task.query.labels.person_id
        if tracklet_id is not None:
            columns["tracklet_id"] = tracklet_id
        if distractors is not None:
            of = _shards if distractors.is_dir() else _extra
            extra = of(distractors, task, sizes)
        with naming("" if rerank == "none" else f"{query} against {gallery}: "):
            ranking = rank_gallery(task, rerank=rerank, options=options, **how)
        if false_alarms is not None:
            with naming():
                opened = open_set(replace(task, gallery=replace(task.gallery, late=False)), ranking)
        for seen in suspicions(task):
            print(printable(f"reid: warning: {seen}"), file=sys.stderr)

    scores: dict[str, Any] = {"protocol": protocol, "rule": asdict(rule), "rerank": rerank}
    scores["options"] = resolved(rerank, options)
    if multi_query is not None or protocol == "mars":
        scores |= {"pool": pool, "normalise_frames": normalise_frames}
    scores |= ranking.scores(rule.ap_rule)
    penalties = inverse_negative_penalty(ranking.ranks, ranking.pointers, ranking.relevant)
    scores["mINP"] = float(penalties.mean())
    scores |= {f"rank{m}": float(ranking.cmc([m])[0]) for m in ranks}
    scores["mAP_interval"] = _interval(ranking.average_precision(rule.ap_rule), seed)
    if extra is not None:
        curves = sweep(ranking, _counted(extra, task, ranking, sizes, orders, seed, how), "trapezoid")
        swept = {"mAP_trapezoid": curves.average_precision.tolist(), "mAP_step": curves.average_precision_step.tolist()}
        swept = {"mAP": swept[f"mAP_{rule.ap_rule}"], **swept, "rank1": curves.rank1.tolist()}
        scores["distractors"] = {"sizes": list(sizes), "orders": orders, "seed": seed, **swept}
    if false_alarms is not None:
        scores["open_set"] = opened.report(list(false_alarms), LEVEL)
    columns |= {
        "ap": ranking.average_precision(rule.ap_rule),
        "ap_trapezoid": ranking.average_precision("trapezoid"),
        "ap_step": ranking.average_precision("step"),
        "inp": penalties,
        "first_hit_rank": ranking.first_hit_rank,
        "relevant": ranking.relevant,
    }
    _write(out, scores, per_query, {"query": np.arange(len(ranking.relevant)), **columns})


def _rule(protocol: str, changes: Mapping[str, Any]) -> Rule:
    if protocol not in RULES:
        raise InputError(
            f"protocol {protocol!r} is unknown: use one of {', '.join(RULES)}; most other benchmarks of single images, "
            "such as Occluded-Duke, follow the rule of market1501"
        )
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
    orders: int,
    ranks: Sequence[int],
) -> None:
    """Reject incompatible options, before any file is read."""
    if bool(distractors) != bool(sizes):
        raise InputError("distractors and sizes belong together; give both the file and the numbers to add")
    if list(sizes) != sorted(set(sizes)) or min(sizes, default=0) < 0:
        raise InputError(
            f"sizes are {', '.join(map(str, sizes))}: expected ascending numbers of distractors, at least 0"
        )
    if not 1 <= orders * (len(sizes) + 1) < 2**16:
        raise InputError(f"{orders} orders of {len(sizes)} sizes: expected 1 order or more, and at most 65,535 of both")
    single = protocol != "mars" and protocol not in GALLERIES
    if distractors and (rerank != "none" or rule.cut is not None or not single):
        raise InputError(
            f"{distractors}: distractors are added to a plain, uncut ranking of images; drop them, or the re-ranking, "
            "the cut, or the protocol"
        )
    if multi_query and not single:
        raise InputError(f"{multi_query}: protocol {protocol} has no multiple queries to pool; drop the file")
    if rerank != "none" and protocol in GALLERIES:
        raise InputError(f"{rerank} would mix the galleries of different queries; rank {protocol} plainly")
    if min(ranks, default=1) < 1:
        raise InputError(f"ranks are {', '.join(map(str, ranks))}: expected integers from 1")


def _check_false_alarms(rates: Sequence[float] | None, rerank: Rerank) -> None:
    if rates is None:
        return
    if not rates or min(rates) < 0 or max(rates) >= 1:
        raise InputError(
            f"false alarms are {', '.join(map(str, rates)) or 'none'}: expected rates from 0 to below 1, as in 0.01"
        )
    if rerank != "none":
        raise InputError(f"{rerank} changes similarities by what else is searched for; rank an open set plainly")


def _check_output(path: Path | None, suffix: str) -> None:
    """Reject an output path that cannot be written, before the long computation."""
    if path is None:
        return
    if path.suffix != suffix:
        raise InputError(f"{path}: expected a file name ending in {suffix}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name")
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{path}: {folder} is not a writable folder")


def _unlabelled(file: Arrays) -> NDArray[np.floating]:
    """Return the unit-norm embeddings of a file whose rows need no labels."""
    with naming():
        return unit(file.column("embeddings"), str(file.path), normalise=True)


def _rank_detections(q: Arrays, g: Arrays) -> Ranking:
    """Rank Person Search with detections."""
    query, detections = _unlabelled(q), _unlabelled(g)
    with naming():
        check_dimensions(query, detections, (str(q.path), str(g.path)))
    image = q.integers("truth_image")
    pointers = q.pointers("truth_pointers", len(query), len(image))
    if len(image) == 0:
        raise InputError(f"{q.path}: no query has a match: truth_image is empty")
    truth = Ragged(pointers, np.arange(len(image)))
    true = (truth, _boxes(q, "truth_box", len(image)), image)
    boxes, box_image = _boxes(g, "box", len(detections)), g.integers("image_id", len(detections))
    lists = gallery_lists(q, g)
    if "lists" in q.arrays:
        listed = np.split(q.integers("lists"), q.integers("pointers")[1:-1])
        strays = [row for i, row in zip(truth.rows, truth.items, strict=True) if image[row] not in listed[i]]
        if strays:
            row = strays[0]
            raise InputError(
                f"{q.path}: truth_image of row {row} is {image[row]}, which is not in the list of its query "
                f"{truth.rows[row]}; give only the true boxes in each query's gallery"
            )
    return evaluate_detections(query, detections, boxes, box_image, lists, *true)


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


def _extra(path: Path, task: Task, sizes: Sequence[int]) -> Embedded:
    """Return the distractors of a file, to be checked when they are read."""
    embeddings = read_arrays(path, ARRAYS).column("embeddings")
    nobody = np.zeros(len(embeddings), np.int64)
    with naming():
        extra = Embedded(embeddings, Labels(nobody, nobody), str(path), normalise=True, late=True)
        check_dimensions(embeddings, task.gallery.embeddings, (str(path), task.gallery.name))
    _check_enough(path, len(extra), sizes)
    return extra


def _shards(folder: Path, task: Task, sizes: Sequence[int]) -> dict[Path, int]:
    """Return the files of distractors in a folder and their rows: shorter names first, so that 2 comes before 10."""
    found = sorted(
        (path for path in folder.iterdir() if path.suffix in SHARDS), key=lambda path: (len(path.name), path)
    )
    if not found:
        raise InputError(
            f"{folder}: no {' or '.join(SHARDS)} file in it; give the folder of the distractors' embeddings"
        )
    there = {path: len(_extra(path, task, [])) for path in found}
    _check_enough(folder, sum(there.values()), sizes)
    return there


def _check_enough(path: Path, there: int, sizes: Sequence[int]) -> None:
    if max(sizes, default=0) > there:
        raise InputError(f"{path}: {there} distractors, but sizes ask for {max(sizes)}")


def _counted(
    extra: Embedded | dict[Path, int],
    task: Task,
    ranking: Ranking,
    sizes: Sequence[int],
    orders: int,
    seed: int,
    how: Mapping[str, Any],
) -> NDArray[np.integer]:
    """Count which relevant items the distractors beat: those of one file, or of many, a file at a time."""
    query = task.query.embeddings
    if isinstance(extra, Embedded):
        positions = order_positions(len(extra), orders, np.random.default_rng(seed))
        try:
            return count_beating(query, ranking, extra, positions, sizes, **how)
        except UnnormalisedError:
            with naming():
                return count_beating(query, ranking, replace(extra, late=False), positions, sizes, **how)
    starts = np.cumsum([0, *extra.values()]).tolist()

    def shards() -> Iterator[Shard]:
        for first, path in how["progress"](
            list(zip(starts[:-1], extra, strict=True)), desc="distractors", unit="shard"
        ):
            with naming():
                yield first, replace(_extra(path, task, []), late=False)

    threads, device = how["threads"], how["device"]
    return count_shards(
        query, ranking, shards(), Orders(starts[-1], orders, seed), sizes, threads=threads, device=device
    )


def _interval(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Return the confidence interval of mAP over queries; null for a single query."""
    found = mean_interval(values, np.random.default_rng(seed), level=LEVEL, resamples=RESAMPLES)
    known = len(values) > 1
    ends = {"low": found.low if known else None, "high": found.high if known else None}
    return {**ends, "level": LEVEL, "resamples": RESAMPLES, "seed": seed}


def _write(out: Path, scores: Mapping[str, Any], per_query: Path | None, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write both files or neither."""
    try:
        if per_query is None:
            write_json(out, scores)
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        with replacing(per_query) as temporary:
            pq.write_table(pa.table(dict(columns)), temporary, compression="zstd")
            write_json(out, scores)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error})") from None
