"""Compare two rows of a table: values of single queries, paired by query and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reid_done_right.artifacts import InputError
from reid_done_right.evaluation.statistics import Comparison, compare
from reid_done_right.reporting.runs import Runs

NEEDED = ("protocol", "rerank", "query", "ap", "ap_step", "first_hit_rank")
Key = tuple[str, str, int]
Queries = Mapping[Key, pd.DataFrame]
"""Per-query scores from `reid evaluate`, by (dataset, variant, seed)."""


@dataclass(frozen=True)
class Measure:
    """What one cell of a table measures, apart from the seed."""

    dataset: str
    variant: str
    protocol: str
    rerank: str
    metric: str


def check_queries(file: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows. Raises InputError naming the file if they are not from `reid evaluate`."""
    if absent := [name for name in NEEDED if name not in rows.columns]:
        raise InputError(f"{file}: not a file of queries, it lacks {absent[0]}; run `reid evaluate` again")
    counts: dict[str, int] = {}
    for (protocol, rerank), some in rows.groupby(["protocol", "rerank"], observed=True):
        which = f"{file}: {protocol} {rerank}".rstrip()
        if not some[["ap", "ap_step"]].apply(lambda column: column.between(0, 1)).all(axis=None):
            raise InputError(f"{which}: an average precision is not from 0 to 1; run `reid evaluate` again")
        if sorted(some["query"]) != list(range(counts.setdefault(str(protocol), len(some)))):
            raise InputError(f"{which}: queries are left out or there twice; run `reid evaluate` again")
    return rows


def values(rows: pd.DataFrame, protocol: str, rerank: str, metric: str, ap_rule: str) -> NDArray[np.float64]:
    """Return one metric of every query (Q,), in order: mAP is its AP by the benchmark's rule, rank-k a hit (1) or not.

    Empty if nothing of that protocol and re-ranking was scored.
    """
    some = rows[(rows["protocol"] == protocol) & (rows["rerank"] == rerank)].sort_values("query")
    if metric.startswith("rank"):
        first = some["first_hit_rank"].to_numpy()
        return ((first > 0) & (first <= int(metric.lstrip("rank-")))).astype(np.float64)
    return some["ap" if ap_rule == "trapezoid" else "ap_step"].to_numpy(np.float64)


def compared(runs: Runs, queries: Queries, ours: Measure, theirs: Measure, seeds: Sequence[int]) -> Comparison | None:
    """Compare two measures over the seeds that both have and that did not collapse; None without any.

    Raises InputError naming the run if the two were not scored on the same number of queries.
    """
    pairs = []
    for seed in seeds:
        sides = [_of_seed(runs, queries, side, seed) for side in (ours, theirs)]
        if all(side is not None for side in sides):
            pairs.append(sides)
    if not pairs:
        return None
    lengths = {len(side) for sides in pairs for side in sides if side is not None}
    if len(lengths) > 1:
        raise InputError(
            f"{ours.dataset}: {ours.variant} and {theirs.variant} were scored on different queries "
            f"({', '.join(map(str, sorted(lengths)))}); run `reid evaluate` again for both"
        )
    left, right = (np.stack([sides[i] for sides in pairs if sides[i] is not None]) for i in (0, 1))  # type: ignore[misc]
    return compare(left, right, np.random.default_rng(0))


def _of_seed(runs: Runs, queries: Queries, side: Measure, seed: int) -> NDArray[np.float64] | None:
    key = (side.dataset, side.variant, seed)
    run = runs.get(key)
    result = run.results.get((side.protocol, side.rerank)) if run else None
    if run is None or run.collapsed or result is None or key not in queries:
        return None
    return values(queries[key], side.protocol, side.rerank, side.metric, result["ap_rule"])
