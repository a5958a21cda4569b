"""An artifact's origin as a tree for a terminal."""

from __future__ import annotations

import json

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from reid_done_right.lineage.origin import Origin

FEW = 2
"""Inputs under one name that are shown in full; of more, the first stands for all."""

DIGITS = 12
WIDTH = 118
"""Of the page where there is no terminal to fit."""


def show(origin: Origin, every: bool = False, parameters: bool = False, console: Console | None = None) -> None:
    """Print the tree.

    every: follow all inputs, not just the first of more than `FEW` under one name. parameters: print those of each job.
    What was shown before is not followed again.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(_branch(origin, None, None, every, parameters, set()))


def _branch(
    origin: Origin, parent: Tree | None, by: Origin | None, every: bool, parameters: bool, shown: set[str]
) -> Tree:
    """Add an origin, and what it comes from, below `parent`; `by` read it."""
    again = origin.sha256 in shown and bool(origin.inputs)
    label = _label(origin)
    label.append("  see above" if again else _made(origin, by), style="dim" if again else "")
    branch = parent.add(label) if parent else Tree(label, guide_style="dim")
    if again:
        return branch
    shown.add(origin.sha256)
    if origin.images:
        branch.add(Text(_images(origin)))
    if origin.record and parameters:
        branch.add(Text(json.dumps(origin.record["parameters"], ensure_ascii=False), style="dim"))
    for name, inputs in origin.inputs.items():
        followed = inputs if every or len(inputs) <= FEW else inputs[:1]
        for one in followed:
            _branch(one, branch, origin, every, parameters, shown)
        if left := len(inputs) - len(followed):
            branch.add(Text(f"and {left} more {name}: --all follows them", style="dim"))
    return branch


def _label(origin: Origin) -> Text:
    label = Text(str(origin.path), style="bold")
    label.append(f"  {origin.sha256[:DIGITS]}", style="dim")
    if origin.changed:
        label.append("  changed: no stage wrote it so", style="bold red")
    elif origin.record is None:
        label.append("  not made here", style="yellow")
    return label


def _made(origin: Origin, by: Origin | None) -> str:
    """Say which job made an artifact, and with what, if with something else than what was made from it."""
    record = origin.record
    if record is None:
        return ""
    made = f"\nby reid {record['stage']} {record['job']}, code {record['code'][:DIGITS]}, key {record['key'][:DIGITS]}"
    with_ = record["made_with"]
    if by is None or by.record is None or by.record["made_with"] != with_:
        versions = ", ".join(f"{name} {number}" for name, number in with_["packages"].items())
        made += (
            f"\non {with_['device']} ({with_['processor']}, {with_['system']}), Python {with_['python']}, {versions}"
        )
    return made


def _images(origin: Origin) -> str:
    found = origin.images
    return f"{found['files']:,} images below {found['root']}, {found['bytes']:,} bytes\nsha256 {found['sha256']}"
