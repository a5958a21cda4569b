"""Scores in, the paper's Tables 1-4 out: our numbers in its rows and columns, its printed values beside them.

The settings (as YAML); captions, headers and columns of the tables are the paper's, in `reid.reporting.shapes`:

    experiment: embedded            # named in every note
    title: Results of the embedded experiment
    command: snakemake --cores all  # what makes the report again
    synthetic: true                 # say under every heading that values do not compare with the paper's
    commit: null                    # null: ask git
    curves: true                    # whether Figure 7 is drawn
    parameters_digest: 3f9c41d2     # of the parameters behind the scores
    seeds: [0, 1]                   # a cell is the mean over these
    runs: [market-default-seed0]    # every run planned; other cells print "-", a benchmark without any has no columns
    allow_missing: false            # true: a planned run without scores prints an em dash instead of stopping
    baseline: default               # Tables 1-3 add each row's difference to this variant's row, paired by seed
    table1:                         # rows: variant of the runs, label printed here, row of the paper beside it
      - {variant: default, label: "- - ✓", paper: "- - ✓"}      # flip, crop, cut-out
    table2:
      - {variant: default, label: "64 pixels (paper: 416)", paper: 416 pixels}
    table3:                         # group: printed once; differences are to the baseline's row of the same group
      - {group: a) pooling strategy, variant: default, label: max, paper: max}
    table4:                         # one row a re-ranking, below all that the paper prints
      - {variant: default, label: Default, paper: Ours}
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid.artifacts import read_json, write_text
from reid.reporting.markdown import others_markdown, readme_markdown, table_markdown
from reid.reporting.paper import parse_paper
from reid.reporting.runs import index_runs, summarise
from reid.reporting.shapes import TABLES


def tabulate(*, scores: list[Path], paper: Path, settings: Mapping[str, Any], out: Path) -> list[Path]:
    """Write table1.md to table4.md, metrics.json and README.md into the folder `out` and give their paths.

    scores: one JSON file per run, from `evaluate`; those of runs not planned are passed over. paper:
    reports/paper.csv. settings: see the head of this module.
    Raises InputError naming the planned run and its file if its scores are missing.
    """
    given = index_runs((path, read_json(path)) for path in scores)
    runs = {key: run for key, run in given.items() if run.name in settings["runs"]}
    printed = parse_paper(paper, paper.read_text(encoding="utf-8"))
    settings = {**settings, "commit": settings["commit"] or _commit()}
    tables = {f"{name}.md": table_markdown(name, runs, printed, settings) for name in TABLES}
    shown = [tables[f"{name}.md"] for name in TABLES if settings[name]]
    others = others_markdown(runs, settings)
    files = {
        **tables,
        "metrics.json": json.dumps(summarise(runs), indent=1) + "\n",
        "README.md": readme_markdown([*shown, *([others] if others else [])], settings),
    }
    for name, text in files.items():
        write_text(out / name, text)
    return [out / name for name in files]


def _commit() -> str:
    """Name the commit of the working folder, "-dirty" if more than reports differ from it; "unknown" without git."""
    try:
        name = _git("rev-parse", "--short", "HEAD").stdout.strip()
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)reports").stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}-dirty" if changed else name


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
