"""Write tables from the scores: our numbers in rows of variants, beside the paper's printed values, and its claims.

The settings (as YAML):

    experiment: embedded            # named in every note
    title: Results of the embedded experiment
    command: snakemake --cores all  # regenerates the report
    synthetic: true                 # state that values are not comparable with the paper's
    parameters_digest: 3f9c41d2     # of the parameters behind the scores
    draws: [0, 1]                   # a cell is the mean over these
    claims: the paper's claims      # whose verdicts are drawn; "" for none
    runs: [market-default-draw0]    # every planned run; other cells print "-", a benchmark without runs has no columns
    contact_sheet: true             # whether the rendered people are among the figures
    curves: [market-default-draw0]  # the runs of Figure 7, for its claim; optional
    shown: [market-default-draw0]   # the runs whose ranked lists are shown; optional
    inspected: [market-default-draw0]  # the runs of which it is known what they look at; optional
    identified: [market-default-draw0]  # the runs that are scored on an open set; optional
    allow_missing: false            # true: a planned run without scores prints an em dash instead of failing
    baseline: default               # tables add each row's difference to this variant's row, paired by draw
    tables: {table1: {...}}         # name -> `reid_done_right.params.report.Table`, complete
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from reid_done_right.artifacts import InputError, read_json, replacing, write_text
from reid_done_right.params.messages import validated
from reid_done_right.params.report import Table
from reid_done_right.reporting.claims import Finding, findings
from reid_done_right.reporting.comparisons import Queries, Scored, check_queries
from reid_done_right.reporting.figures import house_style, image
from reid_done_right.reporting.forest import forest
from reid_done_right.reporting.identification import open_set_sheet, read_open_sets
from reid_done_right.reporting.inspection import what_networks_look_at
from reid_done_right.reporting.latex import sheet_latex
from reid_done_right.reporting.markdown import begun, findings_sheet, readme_markdown, sheet_html, sheet_markdown
from reid_done_right.reporting.paper import parse_paper, whose
from reid_done_right.reporting.runs import Runs, about_run, headline, index_runs, summarise
from reid_done_right.reporting.tables import fill, lay_out, numbers, others


def tabulate(
    *,
    scores: list[Path],
    queries: list[Path],
    curves: list[Path],
    decays: list[Path],
    inspections: list[Path],
    identified: list[Path],
    paper: Path,
    settings: Mapping[str, Any],
    out: Path,
) -> list[Path]:
    """Write tables and findings, their picture, README.md, metrics.json and report.json; return their paths.

    Tables are .md, .html, .tex and .csv, findings .md and .html.
    scores and queries: JSON and Parquet of `evaluate`, one per run and named after it; unplanned runs are ignored.
    curves and decays: JSON and Parquet of `distract`, likewise. inspections: JSON of `inspect`, by run; identified: of
    `identify`.
    paper: reports/paper.csv. settings: see the module docstring.
    metrics.json holds the baseline's headline numbers, report.json everything the other files print.
    Raises InputError naming the planned run and its file if its scores are missing, unless `allow_missing`.
    """
    given = index_runs((path, read_json(path)) for path in scores)
    runs = {name: run for name, run in given.items() if name in settings["runs"]}
    printed = parse_paper(paper, paper.read_text(encoding="utf-8"))
    by_query = _read_queries(runs, queries)
    designs = {
        name: validated(Table, content, name, "run `reid plan` again") for name, content in settings["tables"].items()
    }
    settings = {**settings, "tables": designs}
    tables = {name: fill(name, runs, by_query, settings) for name in designs}
    sheets = [lay_out(table, runs, printed, settings) for table in tables.values()]
    found = findings(runs, by_query, printed, list(_read_decays(settings, curves, decays)), settings)
    claims = findings_sheet(found, settings)
    beside = others(runs, settings)
    looks = what_networks_look_at({path.stem: read_json(path) for path in inspections}, settings)
    of_files = ((path, read_json(path)) for path in identified)
    opened = read_open_sets(of_files, settings.get("identified", []), settings["allow_missing"])
    unknown = open_set_sheet(opened, settings)
    shown = [sheet for sheet in [*sheets, looks, unknown, beside] if sheet.grids]
    kept = ("experiment", "title", "synthetic", "command", "parameters_digest", "claims", "draws", "runs")
    lost = {
        "missing": [name for name in settings["runs"] if name not in runs],
        "collapsed": [name for name, run in runs.items() if run.collapsed],
        "native": [name for name, run in runs.items() if run.numerics != "portable"],
    }
    report: dict[str, Any] = {
        "about": {key: settings[key] for key in kept} | lost,
        "findings": [asdict(finding) for finding in found],
        "tables": [asdict(sheet) for sheet in shown],
        "runs": [about_run(run) for run in runs.values()],
        "scores": summarise(runs),
    }
    files = {f"{sheet.name}.md": sheet_markdown(sheet) for sheet in (*sheets, claims)}
    files |= {f"{sheet.name}.html": sheet_html(sheet) for sheet in (*sheets, claims)}
    files |= {f"{sheet.name}.tex": sheet_latex(sheet) for sheet in sheets}
    for name, table in tables.items():
        frame = numbers(table, printed, settings)
        files[f"{name}.csv"] = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    files |= {
        "metrics.json": json.dumps(headline(runs, settings["baseline"]), indent=1) + "\n",
        "report.json": json.dumps(report, indent=1, ensure_ascii=False) + "\n",
        "README.md": readme_markdown(
            [sheet_markdown(sheet) for sheet in (*([claims] if found else []), *shown)], report["about"], settings
        ),
    }
    for name, text in files.items():
        write_text(out / name, text)
    pictures = _picture(found, settings) if settings["claims"] else {}
    for name, drawn in pictures.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(drawn)
    return [out / name for name in (*files, *pictures)]


def _picture(found: Sequence[Finding], settings: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw the verdicts as forest.svg and forest.png."""
    where = f"{settings['experiment']} {'rendered benchmark' if settings['synthetic'] else 'experiment'}"
    draws = len(settings["draws"])
    unit = f"{draws} draws" if draws > 1 else "one draw, which decides nothing"
    about = (
        f"{where}, {unit}. Line: 95 % interval of the paired difference, with an arrow where it goes on; verdicts are "
        "adjusted for the number of claims, intervals are not."
    )
    with house_style():
        figure = forest(found, f"{begun(whose(settings))} on this experiment", about)
        return {f"forest.{kind}": image(figure, kind) for kind in ("svg", "png")}


def _read_queries(runs: Runs, files: list[Path]) -> Queries:
    """Read the per-query scores of the runs. Raises InputError naming a missing file."""
    by_name = {path.stem: path for path in files}
    found = {}
    for name, run in runs.items():
        path = by_name.get(name, run.file.with_suffix(".parquet"))
        found[name] = check_queries(path, _read_rows(path))
    return found


def _read_decays(settings: Mapping[str, Any], curves: list[Path], decays: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the AP of every query at both ends of each planned distractor curve, or the name of a run that has none."""
    rows_of = {path.stem: path for path in decays}
    files = {path.stem: path for path in curves}
    for name in settings["curves"]:
        if name not in files:
            if not settings["allow_missing"]:
                raise InputError(f"{name}.json: no distractor curve of this planned run; run `reid distract` for it")
            yield {"run": name}
            continue
        curve = read_json(files[name])
        rows = _read_rows(rows_of.get(name, files[name].with_suffix(".parquet")))
        tested = (rows["person_id"].to_numpy(), rows["relevant"].to_numpy())
        yield {
            "run": name,
            "dataset": curve["run"]["dataset"],
            "variant": curve["run"]["variant"],
            "gallery": curve["gallery"] + curve["sizes"][0],
            "distractors": curve["sizes"][-1] - curve["sizes"][0],
            "fewest": Scored(rows["ap_fewest"].to_numpy(), *tested),
            "most": Scored(rows["ap_most"].to_numpy(), *tested),
        }


def _read_rows(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it first") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not rows of queries ({error}); delete it and run its stage again") from None
