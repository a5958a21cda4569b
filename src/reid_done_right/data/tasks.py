"""Build evaluation tasks from an index and its embeddings, or from user arrays, for all stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.artifacts import Embeddings, Index, InputError
from reid_done_right.data.arrays import Arrays, naming
from reid_done_right.evaluation.embedded import Embedded, Labels, norms
from reid_done_right.evaluation.pooling import Pooling, pool_queries, pool_tracklets
from reid_done_right.evaluation.ragged import rows_of
from reid_done_right.evaluation.rules import GALLERIES, Rule, rule_of
from reid_done_right.evaluation.task import OtherImages, Task


def image_task(index: Index, embedded: Embeddings, settings: Mapping[str, Any]) -> Task:
    """Return the task of single images.

    settings: "format", "protocol" (of one's own data only), "person_search_gallery" (for an index with lists)
    Raises InputError for an index without queries, gallery or the gallery lists asked for.
    """
    if len(index.query) == 0 or len(index.gallery) == 0:
        raise InputError(
            f"index of {index.root}: {len(index.query)} queries, {len(index.gallery)} gallery rows to score"
        )
    rule = rule_of(settings["format"], settings.get("protocol"))
    query, gallery = _rows(index, embedded, index.query, "query"), _rows(index, embedded, index.gallery, "gallery")
    return Task(query, gallery, rule, _lists(index, settings))


def _lists(index: Index, settings: Mapping[str, Any]) -> Sequence[NDArray[np.int64]] | None:
    """Return each query's gallery, as rows of the index's gallery; None if there is one for all."""
    own = GALLERIES.get(settings["format"])
    if own is None:
        return None
    if own == "other-images":
        _, image = np.unique(index.path, return_inverse=True)
        return OtherImages(image[index.query], image[index.gallery])
    size = str(settings["person_search_gallery"])
    if index.gallery_lists is None or size not in index.gallery_lists:
        known = ", ".join(index.gallery_lists or {}) or "none"
        raise InputError(
            f"index of {index.root}: no gallery lists of size {size}; it has {known}: set "
            "evaluate.person_search_gallery"
        )
    return [np.searchsorted(index.gallery, members) for members in index.gallery_lists[size]]


def protocol_tasks(index: Index, embedded: Embeddings, settings: Mapping[str, Any]) -> Iterator[tuple[str, Task]]:
    """Yield the protocols of a dataset's format, by name.

    settings: as for `image_task`, and "multi_query" and "tracklets", how these are pooled
    """
    own = settings.get("protocol")
    images = image_task(index, embedded, settings)
    if settings["format"] == "mars" or (own is not None and own["items"] == "tracklet"):
        query, gallery = (
            pooled_tracklets(frames.embeddings, frames.labels, index.tracklet_id[rows], settings["tracklets"])[0]
            for frames, rows in ((images.query, index.query), (images.gallery, index.gallery))
        )
        yield "tracklet", Task(query, gallery, images.rule)
    elif images.lists is not None:
        listed = GALLERIES[settings["format"]] == "listed"
        yield f"gallery-{settings['person_search_gallery'] if listed else 'all'}", images
    else:
        yield "single-query", images
        boxes = index.rows("boxes")
        if len(boxes):
            labels = images.query.labels
            pooled = pool_queries(_rows(index, embedded, boxes, "boxes"), labels, settings["multi_query"])
            yield "multi-query", Task(Embedded(pooled, labels, "query"), images.gallery, images.rule)


def array_task(
    query: Arrays,
    gallery: Arrays,
    protocol: str,
    rule: Rule,
    multi_query: Arrays | None = None,
    pool: Pooling = "mean",
    normalise_frames: bool = True,
    late: bool = False,
) -> tuple[Task, NDArray[np.int64] | None]:
    """Return the task of two files of arrays, as described in `stages.score`, and the queries' tracklets.

    late: whether the gallery is checked, and normalised if need be, only when it is ranked.

    Raises InputError naming the file, and the row where there is one.
    """
    asked, tracklet_id = _embedded(query, rule, protocol, pool, normalise_frames)
    there, _ = _embedded(gallery, rule, protocol, pool, normalise_frames, late)
    if multi_query is not None:
        boxes, _ = _embedded(multi_query, rule, protocol, pool, normalise_frames)
        with naming(f"{multi_query.path}: "):
            asked = Embedded(pool_queries(boxes, asked.labels, pool), asked.labels, asked.name)
    lists = gallery_lists(query, gallery) if protocol in GALLERIES or "lists" in query.arrays else None
    with naming():
        return Task(asked, there, rule, lists), tracklet_id


def gallery_lists(query: Arrays, gallery: Arrays) -> Sequence[NDArray[np.int64]]:
    """Return each query's gallery rows, ascending: those of the images of its list, or all; never of its own photo."""
    queries = len(query.column("embeddings"))
    image = gallery.integers("image_id", len(gallery.column("embeddings")))
    own = query.integers("image_id", queries) if "image_id" in query.arrays else None
    if "lists" in query.arrays:
        images = query.integers("lists")
        pointers = query.pointers("pointers", queries, len(images))
        rows = rows_of(images, image)
        if len(rows.items) == 0:
            raise InputError(f"{query.path}: no image of lists is an image_id of {gallery.path}")
        lists = [np.unique(rows.items[first:last]) for first, last in pairwise(rows.pointers[pointers])]
        return lists if own is None else [rows[image[rows] != photo] for rows, photo in zip(lists, own, strict=True)]
    if own is None:
        raise InputError(
            f"{query.path}: no array 'lists' (with 'pointers') of each query's gallery images, and no 'image_id' of "
            "the queries' own photos, which a gallery of all photos must leave out"
        )
    return OtherImages(own, image)


def pooled_tracklets(
    frames: NDArray[np.floating],
    labels: Labels,
    tracklet_id: NDArray[np.int64],
    pool: Pooling,
    normalise_frames: bool = True,
    name: str = "tracklets",
) -> tuple[Embedded, NDArray[np.int64]]:
    """Return frames (N, D) pooled to tracklets, and their ids (T,), ascending.

    Raises ValueError naming the first row whose person or camera is not its tracklet's.
    """
    pooled, first = pool_tracklets(frames, tracklet_id, pool, normalise_frames)
    known, group = np.unique(tracklet_id, return_inverse=True)
    members = labels[first][group]
    mixed = (members.person_id != labels.person_id) | (members.camera_id != labels.camera_id)
    if mixed.any():
        row = int(np.argmax(mixed))
        raise ValueError(
            f"row {row} has another person or camera than its tracklet {tracklet_id[row]} before it; give "
            "every tracklet of the file a number of its own"
        )
    return Embedded(pooled, labels[first], name), known


def _rows(index: Index, embedded: Embeddings, rows: NDArray[np.int64], name: str) -> Embedded:
    return Embedded(embedded.of(rows), Labels(index.person_id[rows], index.camera_id[rows]), name)


def _embedded(
    file: Arrays, rule: Rule, protocol: str, pool: Pooling, normalise_frames: bool, late: bool = False
) -> tuple[Embedded, NDArray[np.int64] | None]:
    """Return the embeddings and labels of a file, the frames of MARS pooled to tracklets; and the tracklets' ids."""
    embeddings = file.column("embeddings")
    person = file.integers("person_id")
    camera = np.zeros(len(person), dtype=np.int64)
    if rule.same_camera_is_junk or "camera_id" in file.arrays:
        camera = file.integers("camera_id")
    with naming(f"{file.path}: "):
        labels = Labels(person, camera)
    if protocol != "mars":
        with naming():
            return Embedded(embeddings, labels, str(file.path), normalise=True, late=late), None
    with naming():
        norms(embeddings, str(file.path))  # raw frames: of any norm, but finite
    if len(embeddings) != len(labels):
        raise InputError(f"{file.path}: {len(embeddings)} embeddings but {len(labels)} labels")
    tracklet = file.integers("tracklet_id", len(labels))
    with naming(f"{file.path}: "):
        return pooled_tracklets(embeddings, labels, tracklet, pool, normalise_frames, str(file.path))
