"""What each reading of the paper changes: a table with a row for each variant that takes another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reid_done_right.params.report import TableColumn
from reid_done_right.reporting.comparisons import Queries, compared
from reid_done_right.reporting.runs import Measure, Runs, gather, planned_draws
from reid_done_right.reporting.tables import ABSENT, Grid, Sheet, Text, cell_text, interval_text


def what_readings_change(runs: Runs, queries: Queries, settings: Mapping[str, Any]) -> Sheet:
    """Lay out mAP of each variant that reads the paper otherwise, and its difference to the baseline with its interval.

    Without grids if the settings name no such variant. Raises InputError naming a planned run without scores, unless
    `allow_missing`.
    """
    caption = "What each reading of the paper changes (mAP)"
    words: Mapping[str, str] = settings.get("readings", {})
    if not words:
        return Sheet("readings", caption, "", ())
    baseline = settings["baseline"]
    ablation = settings["tables"]["table3"].columns

    def measure(column: TableColumn, variant: str) -> Measure:
        return Measure(column.dataset, variant, column.protocol, "none", "mAP")

    columns = [column for column in ablation if any(planned_draws(settings, measure(column, v)) for v in words)]
    body = []
    for variant, word in {baseline: "the default", **words}.items():
        line = [Text(word), Text(variant)]
        for column in columns:
            ours = measure(column, variant)
            draws = planned_draws(settings, ours)
            if not draws:
                line += [Text(ABSENT), Text(ABSENT)]
                continue
            cell = gather(runs, ours, draws, settings["allow_missing"])
            theirs = measure(column, baseline)
            change = None if variant == baseline else compared(runs, queries, ours, theirs, settings["draws"])
            told = ABSENT
            if change is not None:
                told = interval_text(
                    *(100 * end for end in (change.interval.mean, change.interval.low, change.interval.high))
                )
            sure = change is not None and change.sure
            text = cell_text(cell, len(settings["draws"]))
            line += [Text(text, source=ours.source), Text(told, bold=sure, source=ours.source)]
        body.append(line)
    header = ["Reading", "Variant"]
    for column in columns:
        header += [column.title, "change"]
    notes = (
        "mAP in percent; change: to the default, paired by query and draw, with its 95 % interval over draws and, "
        "where these share their test set, over its persons. Bold: several draws, and p below 0.05.",
    )
    return Sheet("readings", caption, "", [Grid("", header, 2, body)], notes)
