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

from reid_done_right.artifacts import InputError, read_json, regular, write_text
from reid_done_right.evaluation.statistics import compare as compare_queries
from reid_done_right.reporting.comparisons import check_queries, values
from reid_done_right.reporting.tables import interval_text, signed

Files = Mapping[str, Mapping[str, Path]]
"""Run name without its seed -> seed -> file of per-query scores."""


def compare(
    ours: str, theirs: str, *, metrics: Sequence[str] = ("mAP", "rank-1"), results: Path, csv: Path | None = None
) -> str:
    """Return a table that compares the scores of two sides on the same queries.

    A side is a file of per-query scores (.parquet, from `evaluate` or `score`), a folder of them (an experiment,
    possibly of another checkout), or a name: `dataset-variant` or `experiment/dataset-variant`, looked up in the
    folder `results`. Seeds that both sides have are paired; collapsed runs are left out.

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
    shared = {name: [seed for seed in a if seed in b and not _collapsed(a[seed], b[seed])] for name, a, b in pairs}
    rows = [
        row
        for name, left, right in tqdm(pairs, desc="compare", unit="run", disable=len(pairs) < 3)
        for row in _rows(name, left, right, shared[name], metrics)
    ]
    left_out = [name for name, seeds in shared.items() if not seeds]
    if not rows:
        raise InputError(
            f"{', '.join(left_out)}: no seed that both sides have and neither collapsed in; compare others"
        )
    if csv is not None:
        write_text(csv, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    align = ("left",) * 4 + ("right",) * 6
    text = tabulate([_printed(row) for row in rows], headers="keys", colalign=align, disable_numparse=True)
    return text + (f"\n\nLeft out, without a seed that did not collapse: {', '.join(left_out)}" if left_out else "")


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
        "each seed": ", ".join(signed(100 * value) for value in row["by_seed"]),
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
        there = sorted({f"{file.parts[-3]}/{file.stem.rpartition('-draw')[0]}" for file in files})
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
        name, _, seed = re.fullmatch(r"(.*?)(-draw(\d+))?", file.stem).groups()  # type: ignore[union-attr]
        runs.setdefault(name, {})[seed or ""] = file
    if not runs:
        raise InputError(
            f"{side}: no queries of such a run; give a file, a folder, or dataset-variant as in market-default"
        )
    return runs


def _rows(
    name: str, left: Mapping[str, Path], right: Mapping[str, Path], seeds: Sequence[str], metrics: Sequence[str]
) -> Iterator[dict[str, Any]]:
    if not seeds:
        return
    frames = [[_read(side[seed]) for seed in seeds] for side in (left, right)]
    rules = [_ap_rule(side[seeds[0]]) for side in (left, right)]
    kinds = frames[0][0][["protocol", "rerank"]].drop_duplicates()
    for protocol, rerank in kinds.itertuples(index=False):
        for metric in metrics:
            tables = [
                [values(frame, protocol, rerank, metric, rules[i].get(protocol, "trapezoid")) for frame in frames[i]]
                for i in (0, 1)
            ]
            lengths = sorted({len(row) for table in tables for row in table})
            if lengths[0] == 0:
                continue  # the other side has no such protocol or re-ranking
            if len(lengths) > 1:
                raise InputError(
                    f"{name}, {protocol}: {lengths[0]} queries against {lengths[-1]}; score the same queries"
                )
            found = compare_queries(np.stack(tables[0]), np.stack(tables[1]), np.random.default_rng(0))
            yield {
                "run": name,
                "protocol": protocol,
                "rerank": rerank,
                "metric": metric,
                "ours": float(np.mean(tables[0])),
                "theirs": float(np.mean(tables[1])),
                "difference": found.interval.mean,
                "low": found.interval.low,
                "high": found.interval.high,
                "p": found.p,
                "by_seed": found.by_seed,
                "queries": lengths[0],
            }


def _read(path: Path) -> pd.DataFrame:
    """Read per-query scores. Files of `reid score` have one protocol and re-ranking, and do not name them."""
    rows = pd.read_parquet(regular(path))
    if "protocol" not in rows:
        rows = rows.assign(protocol="", rerank="")
    return check_queries(path, rows)


def _scores(queries: Path) -> dict[str, Any]:
    """Return the scores beside a file of queries, or {} if there are none."""
    scores = queries.with_suffix(".json")
    return read_json(scores) if scores.is_file() else {}


def _collapsed(*queries: Path) -> bool:
    """Return whether any of these runs collapsed in training."""
    return any(_scores(file).get("collapsed", False) for file in queries)


def _ap_rule(queries: Path) -> dict[str, str]:
    """Return protocol -> AP rule."""
    return {result["protocol"]: result["ap_rule"] for result in _scores(queries).get("results", [])}
