"""Publish a report as one self-contained page: tables, figures and ranked lists of queries.

The settings (as YAML):

    images: true                    # thumbnails of people, if their licence allows; else only file names
    queries: 150                    # of each browsable run, spread evenly from the lowest AP to the highest
    shown:                          # browsable runs and, for each, the runs to compare its queries with
      market-default-draw0:
        {dataset: market, index: market-draw0, format: market1501, variants: {flip: market-flip-draw0}}
    contact_sheet: true             # whether there is one
    curves: [market-default-draw0]  # the runs of Figure 7; without any it is left out
    allow_missing: false            # true: report what was not run or drawn yet instead of failing
    pipeline:                       # picture of the graph: each rule with its column and row, and the edges
      boxes: [{rule: train, at: [2, 2], does: triplet loss, jobs: 48}]
      arrows: [[pretrain, train]]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reid_done_right.artifacts import InputError, read_index, read_json, write_text
from reid_done_right.evaluation.metrics import ApRule
from reid_done_right.evaluation.rules import rule_of
from reid_done_right.images.decode import load
from reid_done_right.reporting.markdown import WITH_PEOPLE, captions
from reid_done_right.reporting.page import Browsed, page, thumbnails

WITHHELD = "It shows people whose images are not to be passed on; it is beside this page, as files."
NUMBERS = {f"{name}.svg": (f"{name}.csv",) for name in ("figure7", "convergence", "open_set", "training_curves")}


def publish(
    *,
    report: Path,
    figures: list[Path],
    indexes: list[Path],
    places: list[Path],
    queries: list[Path],
    settings: Mapping[str, Any],
    out: Path,
) -> None:
    """Write the page.

    report: report.json of `tabulate`. figures: SVG of `tabulate`, `draw` and `illustrate`, and the contact sheet.
    indexes: one per shown run, named after its job. places: Parquet of `retrieve`, named after the runs. queries: of
    `evaluate`, likewise.
    Raises InputError naming the file that is missing, unless `allow_missing`.
    """
    content = read_json(report)
    browsed = [
        _browse(run, indexes, places, queries, settings)
        for run, about in settings["shown"].items()
        if not settings["allow_missing"] or (_has(indexes, about["index"]) and _has(places, run) and _has(queries, run))
    ]
    write_text(out, page(content, list(_figures(figures, settings)), browsed, settings["pipeline"]))


def _figures(files: list[Path], settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    given = {path.name: path for path in files}
    for name, caption in captions(settings).items():
        figure: dict[str, Any] = {"name": Path(name).stem, "caption": caption, "files": [], "image": None}
        if name not in given:
            if not settings["allow_missing"]:
                missing = f"{name}: no such figure among those given"
                raise InputError(f"{missing}; run `reid tabulate`, `reid draw` and `reid illustrate` first")
            yield figure | {"absent": "Not drawn yet."}
            continue
        figure["files"] = [name, *([f"{Path(name).stem}.png"] if name.endswith(".svg") else []), *NUMBERS.get(name, ())]
        if settings["images"] or name not in WITH_PEOPLE:
            figure["image"] = given[name].read_bytes()
        yield figure | {"absent": WITHHELD}


def _browse(
    run: str,
    indexes: list[Path],
    places: list[Path],
    queries: list[Path],
    settings: Mapping[str, Any],
) -> Browsed:
    shown = settings["shown"][run]
    index = read_index(_named(indexes, shown["index"]))
    lists = pd.read_parquet(_named(places, run))
    rule = rule_of(shown["format"], shown.get("protocol")).ap_rule
    scored = _scored(_named(queries, run), rule)
    order = np.lexsort((scored["query"], scored["ap"]))
    chosen = np.sort(order[np.unique(np.linspace(0, len(order) - 1, settings["queries"]).round().astype(int))])
    some = scored.iloc[chosen].assign(row=index.query[scored["query"].to_numpy()[chosen]])
    lists = lists[lists["query"].isin(some["query"])]
    tiles = np.unique(np.concatenate([some["row"], lists["gallery_row"]])).tolist()
    told = {
        row: (str(index.path[row]), int(index.person_id[row]), int(index.camera_id[row])) for row in tiles
    }  # what the page may show of an image without its pixels
    return Browsed(
        run,
        some,
        lists,
        told,
        len(scored),
        {
            variant: _scored(_named(queries, other), rule)["ap"].to_numpy()[chosen]
            for variant, other in shown["variants"].items()
            if not settings["allow_missing"] or _has(queries, other)
        },
        thumbnails(load(index, np.array(tiles))) if settings["images"] else None,
        tiles,
    )


def _scored(path: Path, rule: ApRule) -> pd.DataFrame:
    """Read AP, relevant items and first hit of every query for the first protocol, without re-ranking."""
    rows = pd.read_parquet(path)
    rows = rows[(rows["protocol"] == rows["protocol"].iloc[0]) & (rows["rerank"] == "none")].sort_values("query")
    ap = rows["ap" if rule == "trapezoid" else "ap_step"]
    scored: pd.DataFrame = rows[["query", "relevant", "first_hit_rank"]].assign(ap=ap).reset_index(drop=True)
    return scored


def _has(files: Sequence[Path], name: str) -> bool:
    return any(path.stem == name for path in files)


def _named(files: Sequence[Path], name: str) -> Path:
    for path in files:
        if path.stem == name and path.is_file():
            return path
    raise InputError(f"{name}: no such file among {', '.join(map(str, files[:1]))} and so on; run its stage first")
