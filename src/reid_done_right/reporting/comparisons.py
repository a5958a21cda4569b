"""Compare two rows of a table: values of single queries, paired by query and draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reid_done_right.artifacts import InputError
from reid_done_right.dag import drawn
from reid_done_right.evaluation.statistics import Comparison, Draw, compare
from reid_done_right.reporting.runs import Measure, Runs

NEEDED = ("protocol", "rerank", "query", "person_id", "ap", "ap_step", "first_hit_rank", "relevant")
Queries = Mapping[str, pd.DataFrame]
"""Per-query scores from `reid evaluate`, by run."""


@dataclass(frozen=True)
class Scored:
    """One metric of every query (Q,), and the test set that it was measured on: person and matches of every query."""

    values: NDArray[np.float64]
    person: NDArray[np.int64]
    relevant: NDArray[np.int64]

    def on_the_queries_of(self, other: Scored) -> bool:
        """Return whether both have the same queries, as far as persons and numbers of matches tell."""
        return np.array_equal(self.person, other.person) and np.array_equal(self.relevant, other.relevant)


def check_queries(file: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows. Raises InputError naming the file if they are not from `reid evaluate`."""
    if absent := [name for name in NEEDED if name not in rows.columns]:
        raise InputError(
            f"{file}: not a file of queries, it lacks {absent[0]}; run `reid evaluate` or `reid score` again"
        )
    counts: dict[str, int] = {}
    for (protocol, rerank), some in rows.groupby(["protocol", "rerank"], observed=True):
        which = f"{file}: {protocol} {rerank}".rstrip()
        if not some[["ap", "ap_step"]].apply(lambda column: column.between(0, 1)).all(axis=None):
            raise InputError(f"{which}: an average precision is not from 0 to 1; run `reid evaluate` again")
        if sorted(some["query"]) != list(range(counts.setdefault(str(protocol), len(some)))):
            raise InputError(f"{which}: queries are left out or there twice; run `reid evaluate` again")
    return rows


def scored(rows: pd.DataFrame, protocol: str, rerank: str, metric: str, ap_rule: str) -> Scored | None:
    """Return one metric of every query, in order: mAP is its AP by the benchmark's rule, rank-k a hit (1) or not.

    None if nothing of that protocol and re-ranking was scored.
    """
    some = rows[(rows["protocol"] == protocol) & (rows["rerank"] == rerank)].sort_values("query")
    if some.empty:
        return None
    if metric.startswith("rank"):
        first = some["first_hit_rank"].to_numpy()
        values = (first > 0) & (first <= int(metric.lstrip("rank-")))
    else:
        values = some["ap" if ap_rule == "trapezoid" else "ap_step"].to_numpy()
    return Scored(values.astype(np.float64), some["person_id"].to_numpy(), some["relevant"].to_numpy())


def compared(runs: Runs, queries: Queries, ours: Measure, theirs: Measure, draws: Sequence[int]) -> Comparison | None:
    """Compare two measures over the draws that both have; None without any.

    Raises InputError naming the runs if the two were not scored on the same queries.
    """
    pairs = []
    for draw in draws:
        left, right = (_of_draw(runs, queries, side, draw) for side in (ours, theirs))
        if left is not None and right is not None:
            name = f"{ours.dataset}: {ours.variant} and {theirs.variant}"
            pairs.append(paired(name, left, right))
    return over_draws(pairs) if pairs else None


def paired(name: str, left: Scored, right: Scored) -> tuple[Scored, Draw]:
    """Pair two runs of a draw query by query. Raises InputError, beginning with `name`, for different queries."""
    if not left.on_the_queries_of(right):
        raise InputError(
            f"{name}: {len(left.values)} queries against {len(right.values)}, or of other persons; score the same "
            "queries"
        )
    return left, Draw(left.values, right.values, left.person)


def over_draws(pairs: Sequence[tuple[Scored, Draw]]) -> Comparison:
    """Compare two runs over draws, which either share one test set or each have their own."""
    first = pairs[0][0]
    shared = all(scored.on_the_queries_of(first) for scored, _ in pairs)
    return compare([draw for _, draw in pairs], shared=shared)


def _of_draw(runs: Runs, queries: Queries, side: Measure, draw: int) -> Scored | None:
    name = drawn(side.stem, draw)
    run = runs.get(name)
    result = run.results.get((side.protocol, side.rerank)) if run else None
    if result is None or name not in queries:
        return None
    return scored(queries[name], side.protocol, side.rerank, side.metric, result["ap_rule"])
