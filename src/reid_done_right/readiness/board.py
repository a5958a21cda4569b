"""Print the state of a running experiment in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reid_done_right.artifacts import printable
from reid_done_right.readiness.page import duration, plain_table
from reid_done_right.readiness.status import Progress, Status

BAR = 24
"""Letters of the bar of a stage whose jobs are all done."""


def board(found: Status) -> RenderableType:
    """Return what `reid status` prints: the whole, a line a stage, a line a running job, and two a failed one."""
    parts: list[RenderableType] = [_whole(found), _stages(found.stages)]
    if found.running:
        parts.append(_running(found))
    for job in found.failed:
        parts.append(Text(f"failed  {job.stage} {job.job}: {job.log}\n        {job.told}", style="red"))
    return Group(*parts)


def _whole(found: Status) -> Text:
    total, done, failed = (sum(getattr(each, key) for each in found.stages) for key in ("jobs", "done", "failed"))
    running = len(found.running)
    told = f"{done} of {total} jobs done, {running} running, {failed} failed, {total - done - running - failed} left"
    text = Text(f"Experiment {found.experiment}: {told}", style="bold")
    if found.seconds:
        text.append(f"\nabout {duration(found.seconds)} to go with {max(1, running)} at a time")
        text.append(f", not counting {', '.join(found.unmeasured)}" if found.unmeasured else "")
    elif found.unmeasured:
        text.append("\nhow long it takes is known when jobs have ended here; until then ask reid check")
    return text


def _stages(stages: list[Progress]) -> Table:
    table = plain_table()
    table.add_column("Stage", min_width=17)
    table.add_column("", no_wrap=True)
    for name in ("done", "of", "running", "failed", "left", "time left"):
        table.add_column(name, justify="right")
    for stage in stages:
        counts = [str(number) if number else "" for number in (stage.running, stage.failed, stage.left)]
        told = "unknown" if stage.seconds is None else duration(stage.seconds) if stage.done < stage.jobs else ""
        table.add_row(stage.stage, _bar(stage), str(stage.done), str(stage.jobs), *counts, told)
    return table


def _bar(stage: Progress) -> Text:
    done = BAR * stage.done // stage.jobs
    begun = min(BAR - done, -(-BAR * stage.running // stage.jobs))
    bar = Text("█" * done, style="green")
    bar.append("▒" * begun, style="yellow")
    return bar.append("░" * (BAR - done - begun), style="dim")


def _running(found: Status) -> Table:
    table = plain_table()
    for name in ("Running", "where", "for", ""):
        table.add_column(name, overflow="fold")
    for job in found.running:
        since = "" if job.seconds is None else duration(job.seconds)
        share = "" if job.share is None else f"{100 * job.share:.0f} %"
        table.add_row(f"{job.stage} {job.job}", printable(job.where), since, share)
    return table
