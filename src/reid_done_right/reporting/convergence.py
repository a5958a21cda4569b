"""Convergence: mAP along the training, on test and on training images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from reid_done_right.artifacts import InputError
from reid_done_right.dag import run_name
from reid_done_right.reporting.figures import INK, MARKERS, NOTHING, PALETTE, label_ends, say, titled

METRICS = {"mAP": "test persons: mAP (%)", "mAP_train": "training persons: mAP (%)"}
"""What is scored along a training, and the title of its panel."""


def convergence_lines(
    contents: Iterable[tuple[Path, Mapping[str, Any]]], planned: Sequence[str], lost: Iterable[str] = ()
) -> pd.DataFrame:
    """Pool the runs of each variant over draws, in the order of `planned`, without those in `lost`.

    Gives one row per variant and number of updates: the runs that were scored there, and mean, least and greatest of
    each metric, in percent. Raises InputError for another planned run without a file.
    """
    found = {}
    for file, content in contents:
        if absent := [name for name in ("run", "updates", *METRICS) if name not in content]:
            raise InputError(f"{file}: not the convergence of a run, it lacks {absent[0]}; run `reid follow` again")
        run = content["run"]
        frame = pd.DataFrame({name: content[name] for name in ("updates", *METRICS)})
        found[run_name(run["dataset"], run["variant"], run["draw"])] = frame.assign(variant=run["variant"])
    lost = set(lost)
    if missing := [name for name in planned if name not in found and name not in lost]:
        raise InputError(f"{missing[0]}.json: no convergence of this planned run; run `reid follow` for it")
    frames = [found[name] for name in planned if name in found]
    if not frames:
        return pd.DataFrame(columns=["variant", "updates", "runs"])
    every = pd.concat(frames)
    groups = every.groupby(["variant", "updates"], sort=False)
    columns = {"runs": ("mAP", "size")}
    for metric in METRICS:
        every[metric] *= 100
        columns |= {metric: (metric, "mean"), f"{metric}_min": (metric, "min"), f"{metric}_max": (metric, "max")}
    return groups.agg(**columns).reset_index()


def convergence(lines: pd.DataFrame, title: str, subtitle: str) -> Figure:
    """Draw mAP against updates of the ranking stage, a panel for test and one for training persons.

    lines: from `convergence_lines`; without any row the axes say that there is no run to show.
    """
    figure, header = titled(9, 3.3, title, subtitle)
    height = figure.get_figheight()
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.045, right=0.82, top=1 - (header + 0.3) / height, bottom=0.49 / height, wspace=0.56)
    for axes, (metric, name) in zip(panels, METRICS.items(), strict=True):
        axes.set_title(name)
        axes.set_xlabel("updates of the ranking stage", color=INK)
        axes.tick_params(labelleft=True)
        if lines.empty:
            say(axes, NOTHING)
            continue
        ends = []
        for number, (variant, line) in enumerate(lines.groupby("variant", sort=False)):
            colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
            axes.plot(line["updates"], line[metric], color=colour, marker=marker)
            low, high = line[f"{metric}_min"].to_numpy(float), line[f"{metric}_max"].to_numpy(float)
            axes.fill_between(line["updates"], low, high, color=colour, alpha=0.14, linewidth=0)
            ends.append((float(line[metric].iloc[-1]), str(variant), colour))
        label_ends(axes, ends, float(lines["updates"].max()), below=False)
    return figure
