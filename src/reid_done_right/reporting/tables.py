"""Tables from scores: cells are filled, compared and laid out once; the output formats only print them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from reid_done_right.dag import stem_of
from reid_done_right.evaluation.statistics import Comparison, Interval, mean_and_deviation
from reid_done_right.params.report import Table, TableColumn, number_of, title_of
from reid_done_right.reporting.comparisons import Queries, compared
from reid_done_right.reporting.paper import Paper
from reid_done_right.reporting.runs import Cell, Measure, Run, Runs, gather, model_name, planned_draws

Settings = Mapping[str, Any]
ABSENT = "-"  # as in the paper: not measured by design
MISSING = "—"  # planned, but not measured yet
COLLAPSED = "†"
RERANKS = {"none": "", "qe-dba": " + QE and DBA", "k-reciprocal": " + k-reciprocal"}
"""The re-rankings in the order of a table's rows, and what each adds to a row's label."""
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


def cell_text(cell: Cell, draws: int, printed: Callable[[float], str] = percent) -> str:
    """Print a cell: mean ± standard deviation over draws, n where it is not all of them, a mark if any collapsed.

    A no-break space keeps ± with its number where a narrow column wraps.
    """
    n = len(cell.values)
    if not n:
        return MISSING
    mean, deviation = mean_and_deviation(np.array(list(cell.values.values())))
    text = printed(mean)
    text += f" ±\N{NO-BREAK SPACE}{printed(deviation)}" if n > 1 else ""
    text += f" (n={n})" if n < draws else ""
    return text + (f" {COLLAPSED}" if cell.collapsed else "")


@dataclass(frozen=True)
class Row:
    """A row of ours: what is printed to its left, the run's variant and re-ranking, and the paper's row beside it.

    trained_on: the dataset that the variant was trained on, if not that of each column
    """

    labels: tuple[str, ...]
    variant: str
    rerank: str
    paper: str
    group: str
    trained_on: str

    def measure(self, column: TableColumn, metric: str) -> Measure:
        """Return what its cell in a column measures."""
        return Measure(column.dataset, self.variant, column.protocol, self.rerank, metric, self.trained_on)


CellKey = tuple[int, int, str]
"""Row, column and metric of a cell."""


@dataclass(frozen=True)
class Filled:
    """A table filled with measured cells; what is not in the design has none.

    columns   those of benchmarks with planned runs
    best      cells that lead their column (in a table of groups: their group's part of it) for sure
    changes   row less the baseline's row of its group, where both have runs; in a table of transfers, less the row
              that was trained on the column's dataset
    steps     row less the row before it, likewise, in groups that ask for it
    """

    name: str
    design: Table
    columns: Sequence[TableColumn]
    rows: Sequence[Row]
    cells: Mapping[CellKey, Cell]
    best: frozenset[CellKey]
    changes: Mapping[CellKey, Comparison | None]
    steps: Mapping[CellKey, Comparison | None]

    @property
    def printed(self) -> Iterator[tuple[int, TableColumn, str]]:
        """The printed columns from left to right: column number, column, metric."""
        for c, column in enumerate(self.columns):
            for metric in column.metrics:
                yield c, column, metric

    def title(self, column: TableColumn, metric: str) -> str:
        """Return the title of a printed column; in a table of mAP alone, the caption names the metric."""
        alone = {metric for each in self.design.columns for metric in each.metrics} == {"mAP"}
        return column.title if alone else f"{column.title} {metric}"


def fill(name: str, runs: Runs, queries: Queries, settings: Settings) -> Filled:
    """Collect and compare the cells of the planned runs; a benchmark without a planned run loses its columns.

    Raises InputError naming the run and its file that is missing.
    """
    design: Table = settings["tables"][name]
    rows = list(_rows(design))

    def draws(column: TableColumn, row: Row) -> list[int]:
        return planned_draws(settings, row.measure(column, column.metrics[0]))

    columns = [column for column in design.columns if any(draws(column, row) for row in rows)]
    cells: dict[CellKey, Cell] = {
        (r, c, metric): gather(runs, row.measure(column, metric), draws(column, row), settings["allow_missing"])
        for r, row in enumerate(rows)
        for c, column in enumerate(columns)
        for metric in column.metrics
        if draws(column, row) and row.rerank in column.reranks
    }

    def less(r: int, b: int, c: int, metric: str) -> Comparison | None:
        ours, theirs = (rows[i].measure(columns[c], metric) for i in (r, b))
        return compared(runs, queries, ours, theirs, settings["draws"])

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

    def differences(others: Others) -> dict[CellKey, Comparison | None]:
        return {
            (r, c, metric): less(r, others[r, c], c, metric)
            for r, c, metric in cells
            if (r, c) in others and (others[r, c], c, metric) in cells
        }

    changes, steps = differences(_baselines(rows, columns, settings)), differences(_befores(rows, columns, design))
    return Filled(name, design, columns, rows, cells, frozenset(best), changes, steps)


def _mean(cell: Cell) -> float:
    return float(np.mean(list(cell.values.values()))) if cell.values else -1.0


Others = Mapping[tuple[int, int], int]
"""The row that a row is compared with in a column, by (row, column)."""


def _baselines(rows: Sequence[Row], columns: Sequence[TableColumn], settings: Settings) -> Others:
    """Return for each other row the baseline's row of its group, without re-ranking; of transfers, what stayed there.

    That is the row of its group, variant and re-ranking which was trained on the column's dataset.
    """
    plain = (settings["baseline"], "none")
    of_group = {row.group: r for r, row in reversed([*enumerate(rows)]) if (row.variant, row.rerank) == plain}
    trained = {(row.group, row.variant, row.rerank, row.trained_on): r for r, row in enumerate(rows)}
    found = {}
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            stayed = trained.get((row.group, row.variant, row.rerank, column.dataset), r)
            found[r, c] = stayed if row.trained_on else of_group.get(row.group, r)
    return {(r, c): other for (r, c), other in found.items() if other != r}


def _befores(rows: Sequence[Row], columns: Sequence[TableColumn], design: Table) -> Others:
    """Return the row before each row of a group that is compared so, with the same re-ranking."""
    found: dict[tuple[int, int], int] = {}
    last: dict[tuple[str, str], int] = {}
    for r, row in enumerate(rows):
        if row.group in design.groups and design.groups[row.group].to == "previous":
            if (row.group, row.rerank) in last:
                found |= {(r, c): last[row.group, row.rerank] for c in range(len(columns))}
            last[row.group, row.rerank] = r
    return found


def _rows(design: Table) -> Iterator[Row]:
    """Read a table's rows, each once for every re-ranking that a column has."""
    reranks = {rerank for column in design.columns for rerank in column.reranks}
    for row in design.rows:
        for rerank, added in RERANKS.items():
            if rerank in reranks:
                labels = [*design.labels(row)]
                labels[0 if design.published else -1] += added
                beside = {"none": row.paper, "qe-dba": f"{row.paper} (re-rank)"}.get(rerank, "") if row.paper else ""
                yield Row(tuple(labels), row.variant, rerank, beside, row.group, row.trained_on)


# --- what is printed


@dataclass(frozen=True)
class Text:
    """What stands in a cell of a printed table; source: the runs that it comes from, see `Measure.source`."""

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


def lay_out(table: Filled, runs: Runs, paper: Paper, settings: Settings) -> Sheet:
    """Lay out a table: ours beside or, if it is published, beneath the paper's values, then differences, then notes.

    Raises InputError naming the paper's row that is missing.
    """
    caption = f"{title_of(table.name)}. {table.design.caption}"
    if not table.columns:
        return Sheet(table.name, caption, "", (), ("No run of this experiment belongs here.",))
    published = table.design.published
    grids = [_beneath_published(table, paper, settings) if published else _beside_paper(table, paper, settings)]
    to = f"the `{settings['baseline']}` row"
    if table.design.transfers:
        to = "training on the column's own dataset"
    differences = (
        (f"Difference to {to}", _baselines(table.rows, table.columns, settings), table.changes),
        ("Difference to the row before", _befores(table.rows, table.columns, table.design), table.steps),
    )
    for what, others, found in differences:
        if found:
            title = f"{what} in points, ours paired by query and draw:"
            grids.append(_differences(title, table, others, found, paper))
    warning = _warning(published, settings) if settings["synthetic"] else ""
    return Sheet(table.name, caption, warning, grids, tuple(_notes(table, runs, settings)))


def others(runs: Runs, settings: Settings) -> Sheet:
    """Lay out all scores on datasets that no table has, nor the paper; without grids if there are none."""
    foreign = [run for run in runs.values() if not _has_table(run, settings)]
    moved = any(run.training != run.name for run in foreign)
    caption = "Scores that no other table has" if moved else "Scores on datasets that the paper does not have"
    results = [result for run in foreign for result in run.results.values()]
    if not results:
        return Sheet("others", caption, "", ())
    metrics, cells, body = ("mAP", "rank-1", "rank-5", "rank-10"), [], []
    lines: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in foreign:
        for protocol, rerank in run.results:
            lines.setdefault((run.dataset, run.model, protocol, rerank), []).append(run)
    for words, members in lines.items():
        dataset, _, protocol, rerank = words
        first, draws = members[0], [run.draw for run in members]
        of = [Measure(dataset, first.variant, protocol, rerank, metric, first.trained_on) for metric in metrics]
        found = [gather(runs, measure, draws, allow_missing=False) for measure in of]
        texts = [Text(cell_text(cell, len(settings["draws"])), source=of[0].source) for cell in found]
        body.append([*map(Text, words), *texts])
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


def _has_table(run: Run, settings: Settings) -> bool:
    """Return whether a table has a column of a run's dataset and, if it was trained on another, a row for it."""
    tables = [each for each in settings["tables"].values() if run.dataset in {c.dataset for c in each.columns}]
    rows = ((row.trained_on, row.variant) for each in tables for row in each.rows)
    return (run.trained_on, run.variant) in rows if run.training != run.name else bool(tables)


def _labels(row: Row) -> list[Text]:
    return [Text(label) for label in row.labels]


def _text(table: Filled, key: CellKey, settings: Settings) -> Text:
    if key not in table.cells:
        return Text(ABSENT)
    return Text(cell_text(table.cells[key], len(settings["draws"])), key in table.best, _source(table, key))


def _source(table: Filled, key: CellKey) -> str:
    r, c, metric = key
    return table.rows[r].measure(table.columns[c], metric).source


def _has_paper(table: Filled, column: TableColumn) -> bool:
    """Return whether the paper's values stand beside a column."""
    return bool(column.paper) and any(row.paper for row in table.rows)


def _printed(table: Filled, row: Row, column: TableColumn, metric: str, paper: Paper) -> str | None:
    """Return the paper's value of a cell; None where it prints none. Raises InputError for a row that it lacks."""
    if row.paper and row.rerank == "none":
        paper.check_row(table.design.paper, row.paper)
    return paper.values.get((table.design.paper, row.paper, column.paper, metric))


def _beside_paper(table: Filled, paper: Paper, settings: Settings) -> Grid:
    """Return the rows, each cell with the paper's value and, unless ours is of rendered data, the difference."""
    beside = ["paper"] if settings["synthetic"] else ["paper", "less paper"]
    header = [*table.design.headers]
    for _, column, metric in table.printed:
        header += [table.title(column, metric), *(beside if _has_paper(table, column) else [])]
    body = []
    for r, row in enumerate(table.rows):
        line = _labels(row)
        for c, column, metric in table.printed:
            line.append(_text(table, (r, c, metric), settings))
            if _has_paper(table, column):
                printed = _printed(table, row, column, metric, paper)
                line.append(Text(printed or ABSENT))
                line += [] if settings["synthetic"] else [_less_paper(table, (r, c, metric), printed)]
        body.append(line)
    return Grid("", header, len(table.design.headers), body)


def _less_paper(table: Filled, key: CellKey, printed: str | None) -> Text:
    cell = table.cells.get(key)
    if cell is None or not cell.values or printed is None:
        return Text(ABSENT)
    return Text(signed(100 * _mean(cell) - float(printed)), source=_source(table, key))


def _beneath_published(table: Filled, paper: Paper, settings: Settings) -> Grid:
    header = [*table.design.headers, *(table.title(column, metric) for _, column, metric in table.printed)]
    body = [[Text("As printed in the paper", bold=True)]]
    for (number, method), kind in paper.types.items():
        if number == table.design.paper:
            keys = ((number, method, column.paper, metric) for _, column, metric in table.printed)
            body.append([Text(method), Text(kind), *(Text(paper.values.get(key, ABSENT)) for key in keys)])
    where = f", {settings['experiment']} benchmark: NOT comparable" if settings["synthetic"] else ""
    body.append([Text(f"This repository{where}", bold=True)])
    for r, row in enumerate(table.rows):
        body.append([*_labels(row), *(_text(table, (r, c, metric), settings) for c, _, metric in table.printed)])
    of_a_kind = [] if settings["synthetic"] else [(r, row) for r, row in enumerate(table.rows) if row.paper]
    if of_a_kind:
        body.append([Text("This repository less the paper's row of the same kind", bold=True)])
    for r, row in of_a_kind:
        line = [Text(f"{row.labels[0]} − {row.paper}"), *_labels(row)[1:]]
        for c, column, metric in table.printed:
            printed = paper.values.get((table.design.paper, row.paper, column.paper, metric))
            line.append(_less_paper(table, (r, c, metric), printed))
        body.append(line)
    return Grid("", header, len(table.design.headers), body)


def _differences(
    title: str,
    table: Filled,
    others: Others,
    found: Mapping[CellKey, Comparison | None],
    paper: Paper,
) -> Grid:
    """Write what each choice changes: a row less another, ours beside the paper's."""
    ranked_once = not any(row.rerank != "none" for row in table.rows)
    header = [*table.design.headers]
    for _, column, metric in table.printed:
        header += [f"Δ {table.title(column, metric)}"]
        header += ["Δ paper"] if ranked_once and _has_paper(table, column) else []
    body = []
    for r in dict.fromkeys(key[0] for key in found):
        line = _labels(table.rows[r])
        for c, column, metric in table.printed:
            line.append(_difference_text(table, (r, c, metric), found))
            if ranked_once and _has_paper(table, column):
                pair = [_printed(table, table.rows[each], column, metric, paper) for each in (r, others[r, c])]
                line.append(Text(ABSENT if None in pair else signed(float(pair[0] or 0) - float(pair[1] or 0))))
        body.append(line)
    return Grid(title, header, len(table.design.headers), body)


def _difference_text(table: Filled, key: CellKey, found: Mapping[CellKey, Comparison | None]) -> Text:
    if key not in found:
        return Text(ABSENT)
    change = found[key]
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


def _notes(table: Filled, runs: Runs, settings: Settings) -> Iterator[str]:
    """Say under a table what its numbers are: draws, spread, AP rule, protocol, origin, and which runs failed."""
    draws = settings["draws"]
    if table.design.legend:
        yield table.design.legend
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


def _results(table: Filled, runs: Runs, column: TableColumn) -> list[Mapping[str, Any]]:
    """Return the results of the table's own variants that a column can draw on."""
    stems = {row.measure(column, "mAP").stem for row in table.rows}
    return [
        result
        for run in runs.values()
        if stem_of(run.name) in stems
        for (protocol, _), result in run.results.items()
        if protocol == column.protocol
    ]


def _rule_note(table: Filled, runs: Runs) -> str:
    """Name the AP rule and, where columns differ, the columns that have it."""
    titles: dict[str, list[str]] = {}
    for column in table.columns:
        for rule in sorted({result["ap_rule"] for result in _results(table, runs, column)}):
            titles.setdefault(AP_RULES.get(rule, rule), []).append(column.title)
    if len(titles) < 2:
        return "".join(titles)
    return "; ".join(f"{rule} ({', '.join(columns)})" for rule, columns in titles.items())


def _step_note(table: Filled, runs: Runs) -> str:
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


def _protocol_note(table: Filled, runs: Runs) -> str:
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


def _both_ways(table: Filled) -> list[str]:
    """Say of each variant with collapsed runs how many, and the first metric of its column with and without them."""
    told: dict[str, str] = {}
    for (r, c, metric), cell in table.cells.items():
        column, row = table.columns[c], table.rows[r]
        if cell.collapsed:
            without = percent(float(np.mean(cell.healthy))) if cell.healthy else "none left"
            ways = f"{metric} {percent(_mean(cell))} with, {without} without them"
            count = f"{len(cell.collapsed)} of {len(cell.values)}"
            model = model_name(row.variant, row.trained_on)
            told.setdefault(_source(table, (r, c, metric)), f"{column.title} {model}: {count}, {ways}")
    return list(told.values())


def listed(items: Sequence[Any]) -> str:
    """Join things as English does: 1, 2 and 3."""
    words = [str(item) for item in items]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def spanned(counts: Sequence[int]) -> str:
    """Print counts as the least and the greatest of them: 283 to 312."""
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


# --- the numbers


def numbers(table: Filled, paper: Paper, settings: Settings) -> pd.DataFrame:
    """Return a table's numbers as fractions, one row per cell; published rows first, with the paper's value.

    difference: mean less the paper's; change, low, high, p: to the baseline's row of the group or, of transfers, to
    training on the column's dataset; step, step_low, step_high, step_p: to the row before, in tables that have such a
    group.
    """
    lines: list[dict[str, Any]] = []
    common = {"table": number_of(table.name), "experiment": settings["experiment"]}
    if table.design.published:
        titles = {column.paper: column.title for column in table.columns}
        for (number, name, dataset, metric), value in paper.values.items():
            if number == table.design.paper and dataset in titles and name != "Improvement":
                said = {"group": "published", "row": name, "column": titles[dataset], "metric": metric}
                lines.append({**common, **said, "paper": float(value) / 100})
    for (r, c, metric), cell in table.cells.items():
        row, column = table.rows[r], table.columns[c]
        printed = float(_printed(table, row, column, metric, paper) or np.nan) / 100
        measured = np.array(list(cell.values.values()))
        mean, deviation = mean_and_deviation(measured) if len(measured) else (np.nan, np.nan)
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
                **({"trained_on": row.trained_on} if row.trained_on else {}),
                "n": len(measured),
                "mean": mean,
                "sd": deviation,
                "collapsed": len(cell.collapsed),
                "without": float(np.mean(cell.healthy)) if cell.healthy else np.nan,
                "paper": printed,
                "difference": mean - printed,
                **_numbers_of("change", table.changes.get((r, c, metric))),
                "best": (r, c, metric) in table.best,
                **(_numbers_of("step", step, "step_") if (step := table.steps.get((r, c, metric))) else {}),
            }
        )
    return pd.DataFrame(lines)


def _numbers_of(what: str, difference: Comparison | None, prefix: str = "") -> dict[str, float]:
    interval = difference.interval if difference else Interval(np.nan, np.nan, np.nan)
    p = difference.p if difference else np.nan
    return {what: interval.mean, f"{prefix}low": interval.low, f"{prefix}high": interval.high, f"{prefix}p": p}
