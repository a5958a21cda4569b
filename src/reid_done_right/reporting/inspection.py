"""What networks look at: a table with a row for each variant that was inspected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reid_done_right.artifacts import InputError
from reid_done_right.reporting.paper import DATASETS
from reid_done_right.reporting.runs import Cell
from reid_done_right.reporting.tables import COLLAPSED, Grid, Sheet, Text, cell_text, listed, spanned

Inspection = Mapping[str, Any]

COLUMNS: Mapping[str, Callable[[Inspection], float | None]] = {
    "clean mAP": lambda found: found["clean"]["mAP"],
    "occluded mAP": lambda found: found["occluded"]["mAP"],
    "heat on the person": lambda found: found["heat"]["inside"],
    "the person's share": lambda found: found["heat"]["person"],
    "mAP of these": lambda found: found["mAP"]["whole"],
    "loss, hottest blanked": lambda found: _loss(found, "hottest"),
    "loss, random blanked": lambda found: _loss(found, "random"),
}


NEEDED = {
    "run": ("dataset", "variant", "draw"),
    **dict.fromkeys(("clean", "occluded"), ("queries",)),
    "heat": ("queries", "without"),
    "tiles": ("blanked", "of"),
}
"""What else a row and the notes say of a run."""


def what_networks_look_at(inspections: Mapping[str, Inspection], settings: Mapping[str, Any]) -> Sheet:
    """Lay out what was measured of each variant, by run; without grids if nothing was.

    Raises InputError naming a planned run that is missing, unless `allow_missing`, and a file that is something else.
    """
    caption = "What the networks look at"
    names = settings.get("inspected", [])
    missing = [name for name in names if name not in inspections]
    if missing and not settings["allow_missing"]:
        raise InputError(f"{missing[0]}.json: nothing measured of this planned run; run `reid inspect` for it")
    found = {name: _checked(name, inspections[name]) for name in names if name in inspections}
    if not found:
        return Sheet("inspection", caption, "", ())
    rows: dict[tuple[str, str], dict[int, Inspection]] = {}
    for each in found.values():
        rows.setdefault((each["run"]["dataset"], each["run"]["variant"]), {})[each["run"]["draw"]] = each
    body = [_row(*key, draws, settings) for key, draws in rows.items()]
    header = ["Benchmark", "Variant", *COLUMNS]
    return Sheet("inspection", caption, "", [Grid("", header, 2, body)], _notes(list(found.values())))


def _checked(name: str, content: Mapping[str, Any]) -> Inspection:
    """Return the content of a file that has everything a row and the notes need. Raises InputError for another."""
    try:
        for value in COLUMNS.values():
            value(content)
        for part, keys in NEEDED.items():
            for key in keys:
                content[part][key]
        return {**content, "collapsed": bool(content["collapsed"]), "above": float(content["above"])}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{name}.json: not what `reid inspect` writes ({error!r}); run it again") from None


def _row(dataset: str, variant: str, draws: Mapping[int, Inspection], settings: Mapping[str, Any]) -> list[Text]:
    collapsed = frozenset(draw for draw, each in draws.items() if each["collapsed"])
    line = [Text(DATASETS.get(dataset, dataset)), Text(variant)]
    for value in COLUMNS.values():
        values = {draw: measured for draw, each in draws.items() if (measured := value(each)) is not None}
        text = cell_text(Cell(values, collapsed & values.keys()), len(settings["draws"]))
        line.append(Text(text, source=f"{dataset}/{variant}"))
    return line


def _loss(found: Inspection, way: str) -> float | None:
    """Return what blanking costs of mAP; None without any heat."""
    whole, blanked = found["mAP"]["whole"], found["mAP"][way]
    return None if whole is None or blanked is None else whole - blanked


def _notes(found: Sequence[Inspection]) -> list[str]:
    counts = {part: spanned([each[part]["queries"] for each in found]) for part in ("clean", "occluded", "heat")}
    share = listed(sorted({f"{100 * each['above']:g}" for each in found}))
    tiles = listed(sorted({f"{each['tiles']['blanked']} of {each['tiles']['of']}" for each in found}))
    notes = [
        f"mAP, shares and losses of mAP in percent; mean ± sample standard deviation over draws. Occluded: an obstacle "
        f"covers more than {share} % of the person in the image ({counts['occluded']} queries; clean: "
        f"{counts['clean']}), as the renderer drew it.",
        "Heat on the person: the share of the joint Grad-CAM map of Figure 6 that lies on visible pixels of the "
        "person, beside their share of the image, which is what heat without aim would have. Maps are coarse, so "
        f"much of it falls beside. Mean over {counts['heat']} queries, evenly spaced.",
        f"Loss: what mAP of these queries loses if the hottest {tiles} tiles of each are filled with its mean "
        "colour, and if as many at random are; the gallery stays as it is.",
    ]
    if without := sum(each["heat"]["without"] for each in found):
        notes.append(f"Queries without any heat are left out: {without}.")
    if any(each["collapsed"] for each in found):
        notes.append(f"{COLLAPSED} Some of these runs collapsed in training; they count.")
    return notes
