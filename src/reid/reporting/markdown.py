"""Tables as GitHub Markdown: our means and spreads in the paper's rows and columns, the paper's values beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reid.artifacts import InputError
from reid.functional.tables import mean_and_spread, paired_differences
from reid.reporting.paper import Paper
from reid.reporting.runs import Cell, Runs, gather, run_name
from reid.reporting.shapes import DATASETS, RERANKS, TABLES, Column, Shape

Settings = Mapping[str, Any]
ABSENT = "-"  # as the paper prints it: by design there is nothing to measure
MISSING = "—"  # to be measured, but was not yet
COLLAPSED = "†"
AP_RULES = {"step": "step x recall"}  # in words, where the name in scores files is short

FIGURES = {
    "figure7.svg": "Figure 7. Performance in the presence of distractors",
    "training_curves.svg": "Training of every run",
}


def percent(fraction: float) -> str:
    """Print a fraction as the paper prints it: 0.8123 -> 81.2."""
    return f"{100 * fraction:.1f}"


def signed(points: float) -> str:
    """Print a difference of percentages with its sign: -3.25 -> −3.2; what rounds to zero has none."""
    text = f"{abs(points):.1f}"
    return text if text == "0.0" else ("+" if points > 0 else "−") + text


def cell_text(cell: Cell, seeds: int, difference: bool = False) -> str:
    """Print a cell: mean ± spread of the runs that did not collapse, n where it is not all of the seeds.

    A no-break space keeps ± with its number where a narrow column wraps.
    """
    n = len(cell.values)
    if not n:
        return COLLAPSED if cell.collapsed else MISSING
    mean, spread = mean_and_spread(list(cell.values.values()))
    text = signed(100 * mean) if difference else percent(mean)
    text += f" ±\N{NO-BREAK SPACE}{percent(spread)}" if spread is not None else ""
    text += f" (n={n})" if n < seeds else ""
    return text + (f" {COLLAPSED}" if cell.collapsed else "")


@dataclass(frozen=True)
class Row:
    """A row of ours: what is printed to its left, the run's variant and re-ranking, and the paper's row beside it."""

    labels: tuple[str, ...]
    variant: str
    rerank: str
    paper: str
    group: str


@dataclass(frozen=True)
class Table:
    """A table filled with measured cells, by (row, column, metric); what is not in the design has none."""

    shape: Shape
    columns: Sequence[Column]
    rows: Sequence[Row]
    cells: Mapping[tuple[int, int, str], Cell]

    @property
    def printed(self) -> Iterator[tuple[int, Column, str]]:
        """The printed columns from left to right: column number, column, metric."""
        for c, column in enumerate(self.columns):
            for metric in column.metrics:
                yield c, column, metric


def table_markdown(name: str, runs: Runs, paper: Paper, settings: Settings) -> str:
    """Write one of `table1` to `table4`: heading, table, differences to the baseline, notes.

    Tables 1-3 print the paper's value beside each of ours; Table 4 prints all published rows, then ours.
    `settings`: see `reid.stages.tabulate`. Raises InputError naming the run and its file, or the paper's row, that
    is missing.
    """
    table = _fill(name, runs, settings)
    published = name == "table4"
    parts = [f"### Table {table.shape.number}. {table.shape.caption}"]
    if not table.columns:
        return f"{parts[0]}\n\nNo run of this experiment belongs here.\n"
    if settings["synthetic"]:
        parts.append(_warning(published, settings))
    if published:
        parts.append(_beneath_published(table, paper, settings))
    else:
        parts.append(_beside_paper(table, paper, settings))
        parts.append(_differences(table, paper, settings))
    parts.append("\n".join(f"- {note}" for note in _notes(table, runs, settings)))
    return "\n\n".join(part for part in parts if part) + "\n"


def others_markdown(runs: Runs, settings: Settings) -> str:
    """Write a table of all scores on datasets that the paper does not have; empty if there are none."""
    lines: dict[tuple[str, ...], Cell] = {}
    metrics = ("mAP", "rank-1", "rank-5", "rank-10")
    for run in runs.values():
        for protocol, rerank in run.results if run.dataset not in DATASETS else ():
            for metric in metrics:
                chosen = {"dataset": run.dataset, "variant": run.variant, "protocol": protocol, "rerank": rerank}
                seeds = [seed for dataset, variant, seed in runs if (dataset, variant) == (run.dataset, run.variant)]
                cell = gather(runs, **chosen, metric=metric, seeds=seeds, allow_missing=False)
                lines[*chosen.values(), metric] = cell
    if not lines:
        return ""
    body = [
        [*key, *(cell_text(lines[*key, metric], len(settings["seeds"])) for metric in metrics)]
        for key in dict.fromkeys(key[:-1] for key in lines)
    ]
    frame = pd.DataFrame(body, columns=["Dataset", "Variant", "Protocol", "Re-ranking", *metrics])
    table = frame.to_markdown(index=False, colalign=["left"] * 4 + ["right"] * 4, disable_numparse=True)
    notes = [f"mAP and CMC in percent; {_spread_note(lines.values())}."]
    results = [result for run in runs.values() if run.dataset not in DATASETS for result in run.results.values()]
    rules = sorted({AP_RULES.get(result["ap_rule"], result["ap_rule"]) for result in results})
    notes.append(f"AP: {_listed(rules)}; {_listed(sorted({result['queries'] for result in results}))} queries.")
    if unmatched := sorted({result["queries_without_match"] for result in results} - {0}):
        notes.append(f"{_listed(unmatched)} queries have no match in the gallery and score 0.")
    if any(cell.collapsed for cell in lines.values()):
        notes.append(f"{COLLAPSED} Collapsed in training: left out of every mean, no finding.")
    listed = "\n".join(f"- {note}" for note in notes)
    return f"### Scores on datasets that the paper does not have\n\n{table}\n\n{listed}\n"


def _fill(name: str, runs: Runs, settings: Settings) -> Table:
    """Collect the cells of the planned runs; a benchmark without a planned run loses its columns."""
    shape = TABLES[name]
    rows = list(_rows(name, settings))
    planned = set(settings["runs"])

    def seeds(column: Column, row: Row) -> list[int]:
        return [s for s in settings["seeds"] if run_name(column.dataset, row.variant, s) in planned]

    columns = [column for column in shape.columns if any(seeds(column, row) for row in rows)]
    cells = {
        (r, c, metric): gather(
            runs,
            dataset=column.dataset,
            variant=row.variant,
            protocol=column.protocol,
            rerank=row.rerank,
            metric=metric,
            seeds=seeds(column, row),
            allow_missing=settings["allow_missing"],
        )
        for r, row in enumerate(rows)
        for c, column in enumerate(columns)
        for metric in column.metrics
        if seeds(column, row) and row.rerank in column.reranks
    }
    return Table(shape, columns, rows, cells)


def _rows(name: str, settings: Settings) -> Iterator[Row]:
    """Read a table's rows: three marks in Table 1, a group in Table 3, one row a re-ranking in Table 4."""
    for row in settings[name]:
        variant, label, paper, group = row["variant"], row["label"], row["paper"], row.get("group", "")
        if name == "table4":
            for rerank, added in RERANKS.items():
                yield Row((label + added, ABSENT), variant, rerank, paper, group)
        else:
            labels = {"table1": tuple(label.split()), "table3": (group, label)}.get(name, (label,))
            if len(labels) != len(headers := TABLES[name].headers):
                raise InputError(f"{name}: label {label!r} has {len(labels)} words, write one for each of {headers}")
            yield Row(labels, variant, "none", paper, group)


def _beside_paper(table: Table, paper: Paper, settings: Settings) -> str:
    header = [*table.shape.headers]
    for _, column, _ in table.printed:
        header += [column.title, "paper"]
    body = []
    for r, row in enumerate(table.rows):
        line = [*row.labels]
        for c, column, metric in table.printed:
            line.append(_text(table, (r, c, metric), settings))
            line.append(paper.value(table.shape.number, row.paper, column.paper, metric))
        body.append(line)
    return _markdown(table, header, body)


def _differences(table: Table, paper: Paper, settings: Settings) -> str:
    """Write what each choice changes: a row less the baseline's row of its group, ours beside the paper's."""
    baselines = {row.group: r for r, row in enumerate(table.rows) if row.variant == settings["baseline"]}
    header = [*table.shape.headers]
    for _, column, _ in table.printed:
        header += [f"Δ {column.title}", "Δ paper"]
    body = []
    for r, row in enumerate(table.rows):
        b = baselines.get(row.group, r)
        if b == r:
            continue
        line = [*row.labels]
        for c, column, metric in table.printed:
            cell, baseline = table.cells.get((r, c, metric)), table.cells.get((b, c, metric))
            line.append(_paired_text(cell, baseline, settings) if cell and baseline else ABSENT)
            printed, beside = (
                float(paper.value(table.shape.number, table.rows[i].paper, column.paper, metric)) for i in (r, b)
            )
            line.append(signed(printed - beside))
        body.append(line)
    if not body:
        return ""
    title = f"Difference to the `{settings['baseline']}` row in points, ours paired by seed:"
    return f"{title}\n\n{_markdown(table, header, body)}"


def _paired_text(cell: Cell, baseline: Cell, settings: Settings) -> str:
    paired = Cell(paired_differences(cell.values, baseline.values), {**cell.collapsed, **baseline.collapsed})
    return cell_text(paired, len(settings["seeds"]), difference=True)


def _beneath_published(table: Table, paper: Paper, settings: Settings) -> str:
    header = [*table.shape.headers]
    for _, column, metric in table.printed:
        header.append(f"{column.title}<br>{metric}" if metric == column.metrics[0] else f"<br>{metric}")
    blank = [""] * (len(header) - 1)
    body = [["**As printed in the paper**", *blank]]
    for (number, method), kind in paper.types.items():
        if number == table.shape.number:
            keys = ((number, method, column.paper, metric) for _, column, metric in table.printed)
            body.append([method, kind, *(paper.values.get(key, ABSENT) for key in keys)])
    where = f", {settings['experiment']} benchmark: NOT comparable" if settings["synthetic"] else ""
    body.append([f"**This repository{where}**", *blank])
    for r, row in enumerate(table.rows):
        body.append([*row.labels, *(_text(table, (r, c, metric), settings) for c, _, metric in table.printed)])
    return _markdown(table, header, body)


def _text(table: Table, key: tuple[int, int, str], settings: Settings) -> str:
    return cell_text(table.cells[key], len(settings["seeds"])) if key in table.cells else ABSENT


def _markdown(table: Table, header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if any(row.group for row in table.rows):
        body = [["" if i and body[i - 1][0] == line[0] else line[0], *line[1:]] for i, line in enumerate(body)]
    frame = pd.DataFrame(body).map(lambda text: text.replace("|", r"\|"))
    labels = len(table.shape.headers)
    align = ["left"] * labels + ["right"] * (len(header) - labels)
    return str(frame.to_markdown(index=False, headers=header, tablefmt="pipe", colalign=align, disable_numparse=True))


def _warning(published: bool, settings: Settings) -> str:
    measured = f"measured on the {settings['experiment']} rendered benchmark"
    if published:
        return (
            f"> **The rows of this repository are {measured}. They are NOT comparable with the published rows, "
            "which are measured on the real datasets.**"
        )
    return (
        f"> **Our values are {measured}. They are NOT comparable with the paper's;** "
        "compare the direction and the size of the differences."
    )


def _notes(table: Table, runs: Runs, settings: Settings) -> Iterator[str]:
    """Say under a table what its numbers are: seeds, spread, AP rule, protocol, origin, and which runs failed."""
    seeds = settings["seeds"]
    if table.shape.legend:
        yield table.shape.legend
    yield (
        f"Experiment {settings['experiment']}, seed{'s' if len(seeds) > 1 else ''} {_listed(seeds)}; "
        f"mAP and CMC in percent; {_spread_note(table.cells.values())}."
    )
    yield f"AP: {_rule_note(table, runs)}. {_step_note(table, runs)}".rstrip()
    yield f"Protocol: {_protocol_note(table, runs)}."
    yield f"Commit {settings['commit']}, parameters {settings['parameters_digest']}."
    failed = _collapsed_runs(table)
    if failed:
        yield (
            f"{COLLAPSED} Collapsed in training (the loss ended at the margin): left out of every mean, no finding: "
            f"{'; '.join(failed)}."
        )
    if any(not cell.values and not cell.collapsed for cell in table.cells.values()):
        yield f"{MISSING} Not run yet."
    if any(0 < len(cell.values) < len(seeds) for cell in table.cells.values()):
        yield "n: the seeds behind a value, where it is not all of them."


def _spread_note(cells: Iterable[Cell]) -> str:
    counts = {len(cell.values) for cell in cells}
    kinds = ["the sample standard deviation over seeds"] if max(counts, default=0) > 2 else []
    kinds += ["half the range of two seeds"] if 2 in counts else []
    return f"± is {' or '.join(kinds)}" if kinds else "one run a cell, so no spread"


def _results(table: Table, runs: Runs, column: Column) -> list[Mapping[str, Any]]:
    """Give the results of the table's own variants that a column can draw on."""
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
    return f"Step x recall instead of the trapezoid changes a run's mAP by {span} points (`metrics.json` has both)."


def _protocol_note(table: Table, runs: Runs) -> str:
    notes = []
    for column in table.columns:
        results = _results(table, runs, column)
        note = f"{column.title} {column.protocol}"
        if results:
            note += f", {_listed(sorted({result['queries'] for result in results}))} queries"
        unmatched = sorted({result["queries_without_match"] for result in results} - {0})
        if unmatched:
            note += f", of which {_listed(unmatched)} without a match score 0"
        notes.append(note)
    return "; ".join(notes)


def _collapsed_runs(table: Table) -> list[str]:
    """Name each collapsed run once, with what it scored in the first metric of its column."""
    failed: dict[tuple[str, str, int], str] = {}
    for (r, c, metric), cell in table.cells.items():
        column, variant = table.columns[c], table.rows[r].variant
        for seed, value in cell.collapsed.items():
            told = f"{column.title} {variant} seed {seed} ({metric} {percent(value)})"
            failed.setdefault((column.dataset, variant, seed), told)
    return list(failed.values())


def _listed(items: Sequence[Any]) -> str:
    words = [str(item) for item in items]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def readme_markdown(tables: Sequence[str], settings: Settings) -> str:
    """Join the tables, the figures beside them and the command that makes them into one page."""
    figures = {**({"contact_sheet.png": "The rendered benchmark"} if settings["synthetic"] else {}), **FIGURES}
    if not settings["curves"]:
        del figures["figure7.svg"]
    parts = [f"# {settings['title']}"]
    if settings["synthetic"]:
        parts.append(
            "Measured on a rendered benchmark: the paper's whole experiment in small, under its rules, with numbers "
            "of its own. **No value here is comparable with one measured on the real datasets.**"
        )
    parts.append(f"Made with\n\n```sh\n{settings['command']}\n```")
    behind = "; behind Figure 7: [figure7.csv](figure7.csv)" if settings["curves"] else ""
    parts.append(f"Numbers behind the tables, all metrics: [metrics.json](metrics.json){behind}.")
    parts += ["## Tables", *(table.rstrip("\n") for table in tables), "## Figures"]
    parts += [f"### {caption}\n\n![{caption}]({file})" for file, caption in figures.items()]
    return "\n\n".join(parts) + "\n"
