"""The paper's printed values, looked up by table, row, dataset and metric."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from reid_done_right.artifacts import InputError

DATASETS = {"market": "Market", "duke": "Duke", "mars": "MARS", "person-search": "Person Search"}
"""Benchmarks as the paper calls them, by their names in the settings."""

OF_THE_PAPER = "the paper's claims"

COLUMNS = ["table", "row", "type", "dataset", "metric", "value"]


@dataclass(frozen=True)
class Paper:
    """The paper's tables, as printed.

    values     (table, row, dataset, metric) -> the printed value, "81.2" or "+8.1"
    types      (table, row) -> the printed type (Table 4: P, A, At or -), in the paper's order of rows
    """

    file: Path
    values: Mapping[tuple[str, str, str, str], str]
    types: Mapping[tuple[str, str], str]

    def check_row(self, table: str, row: str) -> None:
        """Raise InputError for a row that a table of the paper does not have."""
        if (table, row) not in self.types:
            known = ", ".join(repr(name) for number, name in self.types if number == table) or "none"
            raise InputError(f"{self.file}: table {table} has no row {row!r}; correct `paper` of a row, known: {known}")

    def value(self, table: str, row: str, dataset: str, metric: str) -> str:
        """Return a printed value. Raises InputError if the paper has none there."""
        try:
            return self.values[table, row, dataset, metric]
        except KeyError:
            raise InputError(
                f"{self.file}: no {metric} on {dataset} in row {row!r} of table {table}; "
                "correct the row's `paper` in the settings of the tables"
            ) from None


def whose(settings: Mapping[str, Any]) -> str:
    """Return whose claims are judged, in words: the paper's, unless the settings say that others are among them."""
    claims: str = settings["claims"]
    return claims or OF_THE_PAPER


def parse_paper(file: Path, text: str) -> Paper:
    """Parse the paper's values from CSV, one row a value. Raises InputError for other columns or a repeated value."""
    reader = csv.DictReader(StringIO(text))
    if reader.fieldnames != COLUMNS:
        raise InputError(f"{file}: columns {reader.fieldnames}, expected {COLUMNS}")
    values: dict[tuple[str, str, str, str], str] = {}
    types: dict[tuple[str, str], str] = {}
    for row in reader:
        key = (row["table"], row["row"], row["dataset"], row["metric"])
        if key in values:
            raise InputError(f"{file}, line {reader.line_num}: {key} stands twice; keep one")
        values[key] = row["value"]
        types[row["table"], row["row"]] = row["type"]
    return Paper(file, values, types)
