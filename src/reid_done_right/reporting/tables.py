"""Tables 1-4 from scores: cells are filled, compared and laid out once; the output formats only print them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from reid_done_right.artifacts import InputError
from reid_done_right.evaluation.statistics import Comparison, Interval, mean_and_deviation
from reid_done_right.reporting.comparisons import Measure, Queries, compared
from reid_done_right.reporting.paper import Paper
from reid_done_right.reporting.runs import Cell, Runs, gather, planned_draws
from reid_done_right.reporting.shapes import DATASETS, RERANKS, TABLES, Column, Shape

Settings = Mapping[str, Any]
ABSENT = "-"  # as in the paper: not measured by design
MISSING = "—"  # planned, but not measured yet
COLLAPSED = "†"
AP_RULES = {"step": "step x recall"}  # in words, where the name in scores files is short


def percent(fraction: float) -> str:
    """Print a fraction as the paper prints it: 0.8123 -> 81.2."""
    return f"{100 * fraction:.1f}"


def signed(points: float) -> str:
    """Print a difference of percentages with its sign: -3.25 -> −3.2; what rounds to zero has none."""
    text = f"{abs(points):.1f}"
    return text if text == "0.0" else ("+" if points > 0 else "−") + text


def interval_text(mean: float, low: float, high: float) -> str:
    """Print a difference and its interval, in points, the ends with their signs: −1.7 [−3.5, −0.0], on one line."""
    ends = ", ".join(f"{end:+.1f}" for end in (low, high)).replace("-", "−")
    return f"{signed(mean)} [{ends}]".replace(" ", "\N{NO-BREAK SPACE}")


def cell_text(cell: Cell, draws: int) -> str:
    """Print a cell: mean ± standard deviation over draws, n where it is not all of them, a mark if any collapsed.

    A no-break space keeps ± with its number where a narrow column wraps.
    """
    n = len(cell.values)
    if not n:
        return MISSING
    mean, deviation = mean_and_deviation(np.array(list(cell.values.values())))
    text = percent(mean)
    text += f" ±\N{NO-BREAK SPACE}{percent(deviation)}" if n > 1 else ""
    text += f" (n={n})" if n < draws else ""
    return text + (f" {COLLAPSED}" if cell.collapsed else "")


@dataclass(frozen=True)
class Row:
    """A row of ours: what is printed to its left, the run's variant and re-ranking, and the paper's row beside it."""

    labels: tuple[str, ...]
    variant: str
    rerank: str
    paper: str
    group: str


CellKey = tuple[int, int, str]
"""Row, column and metric of a cell."""


@dataclass(frozen=True)
class Table:
    """A table filled with measured cells; what is not in the design has none.

    best      cells that lead their column (in Table 3: their group's part of it) for sure
    changes   row less the baseline's row of its group, where both have runs
    """

    shape: Shape
    columns: Sequence[Column]
    rows: Sequence[Row]
    cells: Mapping[CellKey, Cell]
    best: frozenset[CellKey]
    changes: Mapping[CellKey, Comparison | None]

    @property
    def printed(self) -> Iterator[tuple[int, Column, str]]:
        """The printed columns from left to right: column number, column, metric."""
        for c, column in enumerate(self.columns):
            for metric in column.metrics:
                yield c, column, metric


def fill(name: str, runs: Runs, queries: Queries, settings: Settings) -> Table:
    """Collect and compare the cells of the planned runs; a benchmark without a planned run loses its columns.

    Raises InputError naming the run and its file that is missing.
    """
    shape = TABLES[name]
    rows = list(_rows(name, settings))

    def draws(column: Column, row: Row) -> list[int]:
        return planned_draws(settings, column.dataset, row.variant)

    columns = [column for column in shape.columns if any(draws(column, row) for row in rows)]
    cells = {
        (r, c, metric): gather(
            runs,
            dataset=column.dataset,
            variant=row.variant,
            protocol=column.protocol,
            rerank=row.rerank,
            metric=metric,
            draws=draws(column, row),
            allow_missing=settings["allow_missing"],
        )
        for r, row in enumerate(rows)
        for c, column in enumerate(columns)
        for metric in column.metrics
        if draws(column, row) and row.rerank in column.reranks
    }

    def less(r: int, b: int, c: int, metric: str) -> Comparison | None:
        sides = [
            Measure(columns[c].dataset, rows[i].variant, columns[c].protocol, rows[i].rerank, metric) for i in (r, b)
        ]
        return compared(runs, queries, sides[0], sides[1], settings["draws"])

    best = set()
    for c, column in enumerate(columns):
        for metric in column.metrics:
            for group in dict.fromkeys(row.group for row in rows):
                members = [r for r, row in enumerate(rows) if row.group == group and (r, c, metric) in cells]
                ranked = sorted(members, key=lambda r: -_mean(cells[r, c, metric]))
                if len(ranked) > 1 and cells[ranked[1], c, metric].values:
                    lead = less(ranked[0], ranked[1], c, metric)
                    if lead is not None and lead.sure and lead.mean > 0:
                        best.add((ranked[0], c, metric))

    baselines = _baselines(rows, settings)
    changes = {
        (r, c, metric): less(r, baseline, c, metric)
        for r, c, metric in cells
        for baseline in [baselines.get(rows[r].group, r)]
        if baseline != r and (baseline, c, metric) in cells
    }
    return Table(shape, columns, rows, cells, frozenset(best), changes)


def _mean(cell: Cell) -> float:
    return float(np.mean(list(cell.values.values()))) if cell.values else -1.0


def _baselines(rows: Sequence[Row], settings: Settings) -> dict[str, int]:
    """Return each group's baseline row, without re-ranking."""
    plain = (settings["baseline"], "none")
    return {row.group: r for r, row in reversed([*enumerate(rows)]) if (row.variant, row.rerank) == plain}


def _rows(name: str, settings: Settings) -> Iterator[Row]:
    """Read a table's rows: three marks in Table 1, a group in Table 3, one row a re-ranking in Table 4."""
    for row in settings[name]:
        variant, label, paper, group = row["variant"], row["label"], row["paper"], row.get("group", "")
        if name == "table4":
            for rerank, added in RERANKS.items():
                beside = {"none": paper, "qe-dba": f"{paper} (re-rank)"}.get(rerank, "")
                yield Row((label + added, ABSENT), variant, rerank, beside, group)
        else:
            labels = {"table1": tuple(label.split()), "table3": (group, label)}.get(name, (label,))
            if len(labels) != len(headers := TABLES[name].headers):
                raise InputError(f"{name}: label {label!r} has {len(labels)} words, write one for each of {headers}")
            yield Row(labels, variant, "none", paper, group)


# --- what is printed


@dataclass(frozen=True)
class Text:
    """What stands in a cell of a printed table; source: the dataset and variant whose runs it comes from."""

    text: str
    bold: bool = False
    source: str = ""


@dataclass(frozen=True)
class Grid:
    """Header and body as they are printed, with `labels` columns of words before the numbers.

    A line of one text is a heading over the lines below it.
    """

    title: str
    header: Sequence[str]
    labels: int
    body: Sequence[Sequence[Text]]


@dataclass(frozen=True)
class Sheet:
    """A table ready to print: caption, warning, grids, notes."""

    name: str
    caption: str
    warning: str
    grids: Sequence[Grid]
    notes: Sequence[str] = field(default_factory=tuple)


def lay_out(name: str, table: Table, runs: Runs, paper: Paper, settings: Settings) -> Sheet:
    """Lay out a table: ours beside (Tables 1-3) or beneath (Table 4) the paper's values, then differences, then notes.

    Raises InputError naming the paper's row that is missing.
    """
    caption = f"Table {table.shape.number}. {table.shape.caption}"
    if not table.columns:
        return Sheet(name, caption, "", (), ("No run of this experiment belongs here.",))
    published = name == "table4"
    grids = [_beneath_published(table, paper, settings) if published else _beside_paper(table, paper, settings)]
    grids += [_changes(table, paper, settings)] if table.changes else []
    warning = _warning(published, settings) if settings["synthetic"] else ""
    return Sheet(name, caption, warning, grids, tuple(_notes(table, runs, settings)))


def others(runs: Runs, settings: Settings) -> Sheet:
    """Lay out all scores on datasets that the paper does not have; without grids if there are none."""
    caption = "Scores on datasets that the paper does not have"
    foreign = [run for run in runs.values() if run.dataset not in DATASETS]
    results = [result for run in foreign for result in run.results.values()]
    if not results:
        return Sheet("others", caption, "", ())
    metrics, cells, body = ("mAP", "rank-1", "rank-5", "rank-10"), [], []
    lines = dict.fromkeys((run.dataset, run.variant, *scored) for run in foreign for scored in run.results)
    for dataset, variant, protocol, rerank in lines:
        chosen = {"dataset": dataset, "variant": variant, "protocol": protocol, "rerank": rerank}
        draws = [run.draw for run in foreign if (run.dataset, run.variant) == (dataset, variant)]
        found = [gather(runs, **chosen, metric=metric, draws=draws, allow_missing=False) for metric in metrics]
        texts = [Text(cell_text(cell, len(settings["draws"])), source=f"{dataset}/{variant}") for cell in found]
        body.append([*map(Text, chosen.values()), *texts])
        cells += found
    rules = sorted({AP_RULES.get(result["ap_rule"], result["ap_rule"]) for result in results})
    notes = [
        f"mAP and CMC in percent; {_spread_note(cells)}.",
        f"AP: {listed(rules)}; {listed(sorted({result['queries'] for result in results}))} queries.",
    ]
    if unmatched := sorted({result["queries_without_match"] for result in results} - {0}):
        notes.append(f"{listed(unmatched)} queries have no match in the gallery and score 0.")
    if any(cell.collapsed for cell in cells):
        notes.append(f"{COLLAPSED} Some of these runs collapsed in training; they count.")
    header = ["Dataset", "Variant", "Protocol", "Re-ranking", *metrics]
    return Sheet("others", caption, "", [Grid("", header, 4, body)], notes)


def _labels(row: Row) -> list[Text]:
    return [Text(label) for label in row.labels]


def _text(table: Table, key: CellKey, settings: Settings) -> Text:
    if key not in table.cells:
        return Text(ABSENT)
    return Text(cell_text(table.cells[key], len(settings["draws"])), key in table.best, _source(table, key))


def _source(table: Table, key: CellKey) -> str:
    return f"{table.columns[key[1]].dataset}/{table.rows[key[0]].variant}"


def _beside_paper(table: Table, paper: Paper, settings: Settings) -> Grid:
    header = [*table.shape.headers]
    for _, column, _ in table.printed:
        header += [column.title, "paper", "less paper"]
    body = []
    for r, row in enumerate(table.rows):
        line = _labels(row)
        for c, column, metric in table.printed:
            printed = paper.value(table.shape.number, row.paper, column.paper, metric)
            line += [_text(table, (r, c, metric), settings), Text(printed), _less_paper(table, (r, c, metric), printed)]
        body.append(line)
    return Grid("", header, len(table.shape.headers), body)


def _less_paper(table: Table, key: CellKey, printed: str | None) -> Text:
    cell = table.cells.get(key)
    if cell is None or not cell.values or printed is None:
        return Text(ABSENT)
    return Text(signed(100 * _mean(cell) - float(printed)), source=_source(table, key))


def _beneath_published(table: Table, paper: Paper, settings: Settings) -> Grid:
    header = [*table.shape.headers]
    for _, column, metric in table.printed:
        header.append(f"{column.title} {metric}")
    body = [[Text("As printed in the paper", bold=True)]]
    for (number, method), kind in paper.types.items():
        if number == table.shape.number:
            keys = ((number, method, column.paper, metric) for _, column, metric in table.printed)
            body.append([Text(method), Text(kind), *(Text(paper.values.get(key, ABSENT)) for key in keys)])
    where = f", {settings['experiment']} benchmark: NOT comparable" if settings["synthetic"] else ""
    body.append([Text(f"This repository{where}", bold=True)])
    for r, row in enumerate(table.rows):
        body.append([*_labels(row), *(_text(table, (r, c, metric), settings) for c, _, metric in table.printed)])
    body.append([Text("This repository less the paper's row of the same kind", bold=True)])
    for r, row in enumerate(table.rows):
        if row.paper:
            line = [Text(f"{row.labels[0]} − {row.paper}"), *_labels(row)[1:]]
            for c, column, metric in table.printed:
                printed = paper.values.get((table.shape.number, row.paper, column.paper, metric))
                line.append(_less_paper(table, (r, c, metric), printed))
            body.append(line)
    return Grid("", header, len(table.shape.headers), body)


def _changes(table: Table, paper: Paper, settings: Settings) -> Grid:
    """Write what each choice changes: a row less the baseline's row of its group, ours beside the paper's."""
    baselines = _baselines(table.rows, settings)
    beside = not any(row.rerank != "none" for row in table.rows)
    header = [*table.shape.headers]
    for _, column, metric in table.printed:
        header += [f"Δ {column.title}", "Δ paper"] if beside else [f"Δ {column.title} {metric}"]
    body = []
    for r in dict.fromkeys(key[0] for key in table.changes):
        row, baseline = table.rows[r], table.rows[baselines[table.rows[r].group]]
        line = _labels(row)
        for c, column, metric in table.printed:
            line.append(_change_text(table, (r, c, metric)))
            if beside:
                ours, theirs = (
                    float(paper.value(table.shape.number, each.paper, column.paper, metric)) for each in (row, baseline)
                )
                line.append(Text(signed(ours - theirs)))
        body.append(line)
    title = f"Difference to the `{settings['baseline']}` row in points, ours paired by query and draw:"
    return Grid(title, header, len(table.shape.headers), body)


def _change_text(table: Table, key: CellKey) -> Text:
    if key not in table.changes:
        return Text(ABSENT)
    change = table.changes[key]
    if change is None:
        return Text(MISSING)
    mean, low, high = (100 * value for value in (change.interval.mean, change.interval.low, change.interval.high))
    return Text(interval_text(mean, low, high), change.sure, _source(table, key))


def _warning(published: bool, settings: Settings) -> str:
    measured = f"measured on the {settings['experiment']} rendered benchmark"
    if published:
        return (
            f"**The rows of this repository are {measured}. They are NOT comparable with the published rows, "
            "which are measured on the real datasets.**"
        )
    return (
        f"**Our values are {measured}. They are NOT comparable with the paper's;** "
        "compare the direction and the size of the differences."
    )


def _notes(table: Table, runs: Runs, settings: Settings) -> Iterator[str]:
    """Say under a table what its numbers are: draws, spread, AP rule, protocol, origin, and which runs failed."""
    draws = settings["draws"]
    if table.shape.legend:
        yield table.shape.legend
    yield (
        f"Experiment {settings['experiment']}, draw{'s' if len(draws) > 1 else ''} {listed(draws)}; "
        f"mAP and CMC in percent; {_spread_note(table.cells.values())}."
    )
    if len(draws) > 1:
        yield (
            "[a, b]: 95 % interval of the paired difference, by Student's t over draws; where these share their test "
            "set, over its persons as well. Bold: p is below 0.05 for the difference, or for the lead of the best of a "
            "column over the next. The number of cells is not corrected for; that of claims, in the findings, is."
        )
    else:
        yield "[a, b]: 95 % interval of the paired difference over persons. One draw says nothing of others: no bold."
    yield f"AP: {_rule_note(table, runs)}. {_step_note(table, runs)}".rstrip()
    yield f"Protocol: {_protocol_note(table, runs)}."
    yield f"Digest of the parameters: {settings['parameters_digest']}."
    if failed := _both_ways(table):
        yield f"{COLLAPSED} Runs collapsed in training (the loss ended at the margin) and count. {'; '.join(failed)}."
    if any(not cell.values for cell in table.cells.values()):
        yield f"{MISSING} Not run yet."
    if any(0 < len(cell.values) < len(draws) for cell in table.cells.values()):
        yield "n: the draws behind a value, where it is not all of them."


def _spread_note(cells: Iterable[Cell]) -> str:
    if max((len(cell.values) for cell in cells), default=0) > 1:
        return "± is the sample standard deviation over draws"
    return "one run a cell, so no spread"


def _results(table: Table, runs: Runs, column: Column) -> list[Mapping[str, Any]]:
    """Return the results of the table's own variants that a column can draw on."""
    variants = {row.variant for row in table.rows}
    return [
        result
        for run in runs.values()
        if run.dataset == column.dataset and run.variant in variants
        for (protocol, _), result in run.results.items()
        if protocol == column.protocol
    ]


def _rule_note(table: Table, runs: Runs) -> str:
    """Name the AP rule and, where columns differ, the columns that have it."""
    titles: dict[str, list[str]] = {}
    for column in table.columns:
        for rule in sorted({result["ap_rule"] for result in _results(table, runs, column)}):
            titles.setdefault(AP_RULES.get(rule, rule), []).append(column.title)
    if len(titles) < 2:
        return "".join(titles)
    return "; ".join(f"{rule} ({', '.join(columns)})" for rule, columns in titles.items())


def _step_note(table: Table, runs: Runs) -> str:
    """Say how far the other rule would move the printed trapezoid mAP of any run."""
    changes = [
        100 * (result["mAP_step"] - result["mAP"])
        for column in table.columns
        for result in _results(table, runs, column)
        if result["ap_rule"] == "trapezoid"
    ]
    if not changes:
        return ""
    least, greatest = signed(min(changes)), signed(max(changes))
    span = least if least == greatest else f"{least} to {greatest}"
    return f"Step x recall instead of the trapezoid changes a run's mAP by {span} points (`report.json` has both)."


def _protocol_note(table: Table, runs: Runs) -> str:
    notes = []
    for column in table.columns:
        results = _results(table, runs, column)
        note = f"{column.title} {column.protocol}"
        if results:
            note += f", {listed(sorted({result['queries'] for result in results}))} queries"
        unmatched = sorted({result["queries_without_match"] for result in results} - {0})
        if unmatched:
            note += f", of which {listed(unmatched)} without a match score 0"
        notes.append(note)
    return "; ".join(notes)


def _both_ways(table: Table) -> list[str]:
    """Say of each variant with collapsed runs how many, and the first metric of its column with and without them."""
    told: dict[tuple[str, str], str] = {}
    for (r, c, metric), cell in table.cells.items():
        column, variant = table.columns[c], table.rows[r].variant
        if cell.collapsed:
            without = percent(float(np.mean(cell.healthy))) if cell.healthy else "none left"
            ways = f"{metric} {percent(_mean(cell))} with, {without} without them"
            count = f"{len(cell.collapsed)} of {len(cell.values)}"
            told.setdefault((column.dataset, variant), f"{column.title} {variant}: {count}, {ways}")
    return list(told.values())


def listed(items: Sequence[Any]) -> str:
    """Join things as English does: 1, 2 and 3."""
    words = [str(item) for item in items]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


# --- the numbers


def numbers(table: Table, paper: Paper, settings: Settings) -> pd.DataFrame:
    """Return a table's numbers as fractions, one row per cell; published rows of Table 4 first, with the paper's value.

    difference: mean less the paper's; change, low, high, p: to the baseline's row of the group.
    """
    lines: list[dict[str, Any]] = []
    common = {"table": table.shape.number, "experiment": settings["experiment"]}
    if table.shape.number == "4":
        titles = {column.paper: column.title for column in table.columns}
        for (number, name, dataset, metric), value in paper.values.items():
            if number == "4" and dataset in titles and name != "Improvement":
                said = {"group": "published", "row": name, "column": titles[dataset], "metric": metric}
                lines.append({**common, **said, "paper": float(value) / 100})
    for (r, c, metric), cell in table.cells.items():
        row, column = table.rows[r], table.columns[c]
        printed = float(paper.values.get((table.shape.number, row.paper, column.paper, metric)) or np.nan) / 100
        measured = np.array(list(cell.values.values()))
        mean, deviation = mean_and_deviation(measured) if len(measured) else (np.nan, np.nan)
        change = table.changes.get((r, c, metric))
        interval = change.interval if change else Interval(np.nan, np.nan, np.nan)
        lines.append(
            {
                **common,
                "group": row.group,
                "row": " ".join(label for label in row.labels if label != row.group),
                "column": column.title,
                "metric": metric,
                "dataset": column.dataset,
                "protocol": column.protocol,
                "rerank": row.rerank,
                "variant": row.variant,
                "n": len(measured),
                "mean": mean,
                "sd": deviation,
                "collapsed": len(cell.collapsed),
                "without": float(np.mean(cell.healthy)) if cell.healthy else np.nan,
                "paper": printed,
                "difference": mean - printed,
                "change": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "p": change.p if change else np.nan,
                "best": (r, c, metric) in table.best,
            }
        )
    return pd.DataFrame(lines)
