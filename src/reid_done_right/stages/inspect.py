"""Inspect what a network looks at in rendered queries, whose true outlines the renderer knows.

Measures the scores of occluded and of clean queries, the share of the heat of Figure 6 that lies on the person, and
what blanking the hottest tiles of a query costs. The settings (as YAML):

    run: {dataset: market, variant: default, backbone: resnet10, draw: 0}
    format: market1501       # or dukemtmc
    render: {world: 21, ...} # what the dataset was rendered from
    activations: value       # which dimensions are the strongest, as for Figures 1 and 6
    occluded: 0.1            # a query is occluded if an obstacle covers more than this share of its person
    queries: 200             # whose heat is measured, evenly spaced
    tiles: [8, 4]            # rows and columns into which a query is divided
    blanked: 0.25            # share of the tiles that are blanked
    seed: 0                  # of the tiles that are blanked at random
    threads: 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pedestrians.releases import query_silhouettes
from pedestrians.shots import Silhouette
from pedestrians.takes import Release
from reid_done_right.artifacts import (
    Index,
    InputError,
    read_embeddings,
    read_index,
    read_parquet,
    read_weights,
    replacing,
    write_json,
)
from reid_done_right.data.tasks import image_task
from reid_done_right.evaluation.embedded import Embedded
from reid_done_right.evaluation.ranking import rank_gallery
from reid_done_right.evaluation.task import Task
from reid_done_right.images.decode import load
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.tiles import blanked, tile_means
from reid_done_right.images.transforms import render, whole
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import embed, embedder_of
from reid_done_right.models.saliency import Heat, share_inside
from reid_done_right.numerics import computed_on, weakest

RELEASES = {"market1501": Release.MARKET1501, "dukemtmc": Release.DUKEMTMC}
WAYS = ("hottest", "random")
CHUNK = 128
"""Queries whose blanked images are in memory together."""


def inspect(
    *,
    settings: Mapping[str, Any],
    index: Path,
    embedder: Path,
    embeddings: Path,
    queries: Path,
    out: Path,
    measured: Path,
) -> None:
    """Write the means of what was measured as JSON, and a row for each query as Parquet. settings: see the module.

    queries: Parquet of `evaluate`, whose first protocol counts, without re-ranking. The embeddings of the gallery are
    those given, so that only queries are blanked. Raises InputError if the index is not of the rendered dataset.
    """
    device = set_up(settings["threads"])
    rows, weights, embedded = read_index(index), read_weights(embedder), read_embeddings(embeddings)
    network, side = embedder_of(weights, str(embedder)).to(device).eval(), weights.about["largest_side"]
    task, heat = image_task(rows, embedded, settings), Heat(network, settings["activations"])
    tiles = tuple(settings["tiles"])
    count = max(1, round(settings["blanked"] * tiles[0] * tiles[1]))
    total = len(rows.query)
    chosen = np.linspace(0, total - 1, min(settings["queries"], total)).round().astype(np.int64)
    columns = {name: np.full(total, np.nan) for name in ("occluded", "heat", "person", *WAYS)}
    views: dict[str, list[NDArray[np.uint8]]] = {way: [] for way in WAYS}
    vectors: dict[str, list[NDArray[np.float32]]] = {way: [] for way in WAYS}

    for query, silhouette in enumerate(_silhouettes(rows, settings)):
        columns["occluded"][query] = silhouette.occluded
        if query not in chosen:
            continue
        (picture,) = load(rows, rows.query[[query]])
        pixels = Pixels.of([picture], device)
        image, _ = render(pixels, np.array([0]), whole(pixels.sizes, side, network.square))
        hot = heat.attention(image, picture.shape[:2])
        columns["person"][query] = silhouette.visible.mean()
        columns["heat"][query] = share_inside(hot, silhouette.visible)
        order = {
            "hottest": np.argsort(-tile_means(hot, tiles).ravel(), kind="stable"),
            "random": np.random.default_rng((settings["seed"], query)).permutation(tiles[0] * tiles[1]),
        }
        for way in WAYS:
            views[way].append(blanked(picture, tiles, order[way][:count]))
            if len(views[way]) == CHUNK or query == chosen[-1]:
                pixels = Pixels.of(views[way], device)
                vectors[way].append(embed(network, pixels, np.arange(len(pixels)), side))
                views[way] = []

    for way in WAYS:
        asked = Embedded(np.concatenate(vectors[way]), task.query.labels[chosen], "blanked queries")
        ranking = rank_gallery(Task(asked, task.gallery, task.rule), threads=settings["threads"])
        columns[way][chosen] = ranking.average_precision(task.rule.ap_rule)
    columns["ap"] = _precision(queries, task)
    about = {
        "run": settings["run"],
        "collapsed": bool(embedded.about.get("collapsed", False)),
        "numerics": weakest(embedded.about.get("numerics"), computed_on(device.type)),
    }
    tiled = {"tiles": {"blanked": count, "of": tiles[0] * tiles[1]}}
    write_json(out, about | {"above": settings["occluded"]} | _means(columns, settings["occluded"]) | tiled)
    _write_rows(measured, {"query": np.arange(total), "person_id": rows.person_id[rows.query], **columns})


def _silhouettes(rows: Index, settings: Mapping[str, Any]) -> Iterator[Silhouette]:
    try:
        yield from query_silhouettes(RELEASES[settings["format"]], rows.path[rows.query].tolist(), **settings["render"])
    except ValueError as error:
        raise InputError(f"index of {rows.root}: {error}; render and index the dataset again") from None


def _precision(queries: Path, task: Task) -> NDArray[np.float64]:
    """Return the AP (Q,) of the first protocol, by its rule. Raises InputError for scores of other queries."""
    table = read_parquet(queries)
    protocol, rerank = (np.asarray(table[name].to_pylist()) for name in ("protocol", "rerank"))
    scored = table.filter((protocol == protocol[0]) & (rerank == "none")).sort_by("query")
    if not np.array_equal(scored["person_id"].to_numpy(), task.query.labels.person_id):
        raise InputError(f"{queries}: not the scores of these queries; run `reid evaluate` again")
    return np.asarray(scored["ap" if task.rule.ap_rule == "trapezoid" else "ap_step"].to_numpy(), np.float64)


def _means(columns: Mapping[str, NDArray[np.float64]], above: float) -> dict[str, Any]:
    """Return mAP of clean and of occluded queries, and means over the queries that have any heat."""
    hidden, warm = columns["occluded"] > above, np.isfinite(columns["heat"])
    parts = {"clean": ~hidden, "occluded": hidden}
    return {
        **{name: {"queries": int(part.sum()), "mAP": _mean(columns["ap"][part])} for name, part in parts.items()},
        "heat": {
            "queries": int(warm.sum()),
            "without": int(np.isfinite(columns["person"]).sum() - warm.sum()),
            "inside": _mean(columns["heat"][warm]),
            "person": _mean(columns["person"][warm]),
        },
        "mAP": {"whole": _mean(columns["ap"][warm]), **{way: _mean(columns[way][warm]) for way in WAYS}},
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean; None of nothing."""
    return float(values.mean()) if len(values) else None


def _write_rows(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(pa.table(dict(columns)), temporary, compression="zstd")
