"""Data for the figures: scores against the number of distractors, and training logs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from reid_done_right.artifacts import InputError
from reid_done_right.dag import run_name
from reid_done_right.evaluation.statistics import binned_means

CURVE = ("run", "sizes", "gallery", "mAP", "rank1")
ENDS = [f"{metric}{end}" for metric in ("mAP", "rank1") for end in ("", "_min", "_max")]
LINE = ("variant", "label", "distractors", "gallery", "runs", "values", *ENDS)
LOG = ("update", "loss", "active")


def distractor_lines(
    contents: Iterable[tuple[Path, Mapping[str, Any]]], planned: Sequence[str], lost: Collection[str]
) -> pd.DataFrame:
    """Pool the curves of each variant over draws and orders, in the order of `planned`, without the runs in `lost`.

    Gives one row per variant and number of distractors, columns `LINE`: label (the backbone), distractors, gallery (its
    images, distractors not counted), runs, values (runs x orders) and mean, least and greatest mAP and rank1.
    Raises InputError for another planned curve without a file, and for curves of one variant with different sizes.
    """
    curves = {}
    for file, content in contents:
        if absent := [field for field in CURVE if field not in content]:
            raise InputError(f"{file}: not a distractor curve, it lacks {absent[0]}; run `reid distract` again")
        run = content["run"]
        curves[run_name(run["dataset"], run["variant"], run["draw"])] = (file, content)
    drawn = [name for name in planned if name not in lost]
    if missing := [name for name in drawn if name not in curves]:
        raise InputError(f"{missing[0]}.json: no distractor curve of this planned run; run `reid distract` for it")
    variants: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
    for name in drawn:
        variants.setdefault(curves[name][1]["run"]["variant"], []).append(curves[name])
    rows = [row for variant, members in variants.items() for row in _pooled(variant, members)]
    return pd.DataFrame(rows, columns=list(LINE))


def _pooled(variant: str, members: Sequence[tuple[Path, Mapping[str, Any]]]) -> Iterable[dict[str, Any]]:
    for file, content in members:
        if content["sizes"] != members[0][1]["sizes"]:
            raise InputError(f"{file}: sizes differ from {members[0][0]}; run `reid distract` again for both")
    for i, size in enumerate(members[0][1]["sizes"]):
        first = members[0][1]
        row = {
            "variant": variant,
            "label": backbone_label(first["run"]["backbone"]),
            "distractors": size,
            "gallery": first["gallery"],
            "runs": len(members),
        }
        for metric in ("mAP", "rank1"):
            values = [float(value) for _, content in members for value in content[metric][i]]
            row |= {"values": len(values), metric: sum(values) / len(values)}
            row |= {f"{metric}_min": min(values), f"{metric}_max": max(values)}
        yield row


def backbone_label(backbone: str) -> str:
    """Print a backbone's name as the paper does: resnet50 -> ResNet-50."""
    families = {"resnet": "ResNet", "resnext": "ResNeXt", "densenet": "DenseNet", "inception": "Inception"}
    return re.sub(rf"^({'|'.join(families)})-?", lambda match: f"{families[match[1]]}-", backbone)


@dataclass(frozen=True)
class Training:
    """The log of a run: one row an update, columns `LOG` and others; active is the share of triplets with a loss."""

    dataset: str
    variant: str
    draw: int
    collapsed: bool
    log: pd.DataFrame


def training_means(runs: Sequence[Training], bins: int = 32) -> pd.DataFrame:
    """Average logs over runs of updates and over draws: a row for each dataset, variant and bin of updates.

    Collapsed runs are variants of their own, named as such.
    """
    binned = []
    for run in runs:
        columns = {name: binned_means(run.log[name].to_numpy(float), bins) for name in LOG}
        about = {"dataset": run.dataset, "variant": run.variant}
        about["variant"] += f" (collapsed, draw {run.draw})" if run.collapsed else ""
        binned.append(pd.DataFrame(columns).assign(**about, bin=range(len(columns["update"]))))
    if not binned:
        return pd.DataFrame(columns=["dataset", "variant", *LOG])
    means = pd.concat(binned).groupby(["dataset", "variant", "bin"], sort=False).mean().reset_index()
    return means[["dataset", "variant", *LOG]]


def parse_log(file: Path, text: str) -> pd.DataFrame:
    """Parse a training log. Raises InputError for missing columns or a log without updates."""
    try:
        log = pd.read_csv(StringIO(text))
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise InputError(f"{file}: no columns of a training log ({error}); run `reid train` again") from None
    if missing := [name for name in LOG if name not in log.columns]:
        raise InputError(f"{file}: no column {missing[0]} in a training log; run `reid train` again")
    if log.empty:
        raise InputError(f"{file}: a training log without updates; run `reid train` again")
    return log
