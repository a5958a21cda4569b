"""Compare two runs, variants or experiments query by query."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from reid_done_right.artifacts import InputError, read_json, read_parquet, write_text
from reid_done_right.dag import stem_of
from reid_done_right.reporting.comparisons import Scored, check_queries, over_draws, paired, scored
from reid_done_right.reporting.tables import interval_text, signed

Files = Mapping[str, Mapping[str, Path]]
"""Run name without its draw -> draw -> file of per-query scores."""


def compare(
    ours: str, theirs: str, *, metrics: Sequence[str] = ("mAP", "rank-1"), results: Path, csv: Path | None = None
) -> str:
    """Return a table that compares the scores of two sides on the same queries.

    A side is a file of per-query scores (.parquet, from `evaluate` or `score`), a folder of them (an experiment,
    possibly of another checkout), or a name: `dataset-variant` or `experiment/dataset-variant`, looked up in the
    folder `results`. Draws that both sides have are paired; collapsed runs count, and are named.

    csv: also write the numbers to this file, as fractions, one row per run, protocol, re-ranking and metric.
    Raises InputError if a side does not exist, if the sides have no run in common, or if their queries differ.
    """
    sides = [_find(side, results) for side in (ours, theirs)]
    if len(sides[0]) == len(sides[1]) == 1:  # their names may differ
        (left,), (right,) = sides
        pairs = [(left if left == right else f"{left} less {right}", sides[0][left], sides[1][right])]
    else:
        pairs = [(name, sides[0][name], sides[1][name]) for name in sides[0] if name in sides[1]]
    if not pairs:
        raise InputError(f"{ours} and {theirs}: no run in common; compare two files, or folders with runs of one name")
    shared = {name: [draw for draw in a if draw in b] for name, a, b in pairs}
    if not any(shared.values()):
        raise InputError(f"{', '.join(shared)}: no draw that both sides have; compare others")
    rows = [
        row
        for name, left, right in tqdm(pairs, desc="compare", unit="run", disable=len(pairs) < 3)
        for row in _rows(name, left, right, shared[name], metrics)
    ]
    if csv is not None:
        write_text(csv, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    align = ("left",) * 4 + ("right",) * 6
    text = tabulate([_printed(row) for row in rows], headers="keys", colalign=align, disable_numparse=True)
    failed = sorted(
        {each for name, *sides in pairs for side in sides for draw in shared[name] if (each := _collapsed(side[draw]))}
    )
    return text + (f"\n\nCollapsed in training, their scores count: {', '.join(failed)}" if failed else "")


def _printed(row: Mapping[str, Any]) -> dict[str, str]:
    """Format a row in percent and points."""
    return {
        "run": row["run"],
        "protocol": row["protocol"],
        "re-ranking": row["rerank"],
        "metric": row["metric"],
        "ours": f"{100 * row['ours']:.1f}",
        "theirs": f"{100 * row['theirs']:.1f}",
        "difference [95 %]": interval_text(*(100 * row[name] for name in ("difference", "low", "high"))),
        "p": f"{row['p']:.4f}",
        "each draw": ", ".join(signed(100 * value) for value in row["by_draw"]),
        "queries": str(row["queries"]),
    }


def _find(side: str, results: Path) -> Files:
    path = Path(side)
    if path.is_dir():
        folder = path / "evaluate" if (path / "evaluate").is_dir() else path
        return _by_run(sorted(folder.glob("*.parquet")), side)
    if path.suffix == ".parquet":
        if not path.is_file():
            raise InputError(f"{path}: no such file; give one written by `reid evaluate` or `reid score`")
        return {path.stem: {"": path}}
    experiment, _, name = side.rpartition("/")
    found = sorted(results.glob(f"{experiment or '*'}/evaluate/{name}-draw*.parquet"))
    if not found:
        files = results.glob(f"{experiment or '*'}/evaluate/*-draw*.parquet")
        there = sorted({f"{file.parts[-3]}/{stem_of(file.stem)}" for file in files})
        raise InputError(
            f"{side}: no queries of such a run under {results}; "
            + (f"there are {', '.join(there)}" if there else "give a file or a folder")
        )
    if len({file.parent for file in found}) > 1:
        known = ", ".join(sorted({f"{file.parts[-3]}/{name}" for file in found}))
        raise InputError(f"{side}: several experiments have it; say which: {known}")
    return _by_run(found, side)


def _by_run(files: Sequence[Path], side: str) -> Files:
    runs: dict[str, dict[str, Path]] = {}
    for file in files:
        name, _, draw = re.fullmatch(r"(.*?)(-draw(\d+))?", file.stem).groups()  # type: ignore[union-attr]
        runs.setdefault(name, {})[draw or ""] = file
    if not runs:
        raise InputError(
            f"{side}: no queries of such a run; give a file, a folder, or dataset-variant as in market-default"
        )
    return runs


def _rows(
    name: str, left: Mapping[str, Path], right: Mapping[str, Path], draws: Sequence[str], metrics: Sequence[str]
) -> Iterator[dict[str, Any]]:
    if not draws:
        return
    frames = [[_read(side[draw], metrics) for draw in draws] for side in (left, right)]
    rules = [_ap_rule(side[draws[0]]) for side in (left, right)]
    kinds = frames[0][0][["protocol", "rerank"]].drop_duplicates()
    for protocol, rerank in kinds.itertuples(index=False):
        for metric in metrics:
            ours, theirs = (
                [_scored(frame, protocol, rerank, metric, rules[i].get(protocol, "trapezoid")) for frame in frames[i]]
                for i in (0, 1)
            )
            pairs = [
                paired(f"{name}, {protocol}", a, b)
                for a, b in zip(ours, theirs, strict=True)
                if a is not None and b is not None
            ]
            if len(pairs) < len(draws):
                continue  # the other side has no such protocol or re-ranking
            found = over_draws(pairs)
            yield {
                "run": name,
                "protocol": protocol,
                "rerank": rerank,
                "metric": metric,
                "ours": float(np.mean([draw.ours.mean() for _, draw in pairs])),
                "theirs": float(np.mean([draw.theirs.mean() for _, draw in pairs])),
                "difference": found.interval.mean,
                "low": found.interval.low,
                "high": found.interval.high,
                "p": found.p,
                "by_draw": found.by_draw,
                "queries": sum(len(draw.person) for _, draw in pairs),
            }


def _scored(rows: pd.DataFrame, protocol: str, rerank: str, metric: str, ap_rule: str) -> Scored | None:
    """Return one metric of every query; mINP, which only `reid score` writes, is a mean as mAP is."""
    if metric == "mINP":
        rows = rows.assign(ap=rows["inp"], ap_step=rows["inp"])
    return scored(rows, protocol, rerank, metric, ap_rule)


def _read(path: Path, metrics: Sequence[str]) -> pd.DataFrame:
    """Read per-query scores. Files of `reid score` have one protocol and re-ranking, and do not name them."""
    rows = read_parquet(path).to_pandas()
    if "protocol" not in rows:
        rows = rows.assign(protocol="", rerank="")
    if "mINP" in metrics and "inp" not in rows:
        raise InputError(f"{path}: has no mINP; compare files of `reid score --per-query`, or other metrics")
    return check_queries(path, rows)


def _scores(queries: Path) -> dict[str, Any]:
    """Return the scores beside a file of queries, or {} if there are none."""
    scores = queries.with_suffix(".json")
    return read_json(scores) if scores.is_file() else {}


def _collapsed(queries: Path) -> str:
    """Return the run's name if it collapsed in training, or nothing."""
    return queries.stem if _scores(queries).get("collapsed", False) else ""


def _ap_rule(queries: Path) -> dict[str, str]:
    """Return protocol -> AP rule."""
    return {result["protocol"]: result["ap_rule"] for result in _scores(queries).get("results", [])}
