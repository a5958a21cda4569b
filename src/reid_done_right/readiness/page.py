"""Print the report of `reid check` in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reid_done_right.readiness.checks import Check
from reid_done_right.readiness.survey import Survey

STYLES = {
    "ready": "green",
    "note": "yellow",
    "missing": "bold red",
    "wrong": "bold red",
    "damaged": "bold red",
    "short": "bold red",
}
FILES = 10
"""Number of damaged files listed; --json has all."""

WIDTH = 118
"""Width of the page outside a terminal."""


def show(survey: Survey, console: Console | None = None) -> None:
    """Print datasets, weights, machine, jobs with an estimate of their time, and the verdict."""
    console = terminal(console)
    console.print(Text(f"Experiment {survey.experiment}", style="bold"))
    for section, findings in survey.findings.items():
        console.print(_findings(section, findings))
    console.print(_work(survey))
    console.print(_estimate(survey))
    console.print(_verdict(survey))


def terminal(console: Console | None = None) -> Console:
    """Return where to print: the terminal, or what is asked for; as wide as `WIDTH` if that is no terminal."""
    console = console or Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def plain_table() -> Table:
    """Return a table without columns yet, with no lines but one below its header."""
    return Table(box=box.SIMPLE, header_style="bold", padding=(0, 1), pad_edge=False)


def _findings(section: str, findings: list[Check]) -> Table:
    table = plain_table()
    table.add_column(section.capitalize(), no_wrap=True, min_width=14)
    table.add_column("", no_wrap=True, min_width=8)
    table.add_column("", overflow="fold")
    for finding in findings:
        told = Text(finding.told)
        for file in finding.files[:FILES]:
            told.append(f"\n  {file}")
        if finding.files[FILES:]:
            told.append(f"\n  and {len(finding.files) - FILES} more: --json FILE lists all")
        table.add_row(Text(finding.name), Text(finding.state, style=STYLES[finding.state]), told)
    return table


def _work(survey: Survey) -> Table:
    table = plain_table()
    table.add_column("Jobs", min_width=14)
    for name in ("in all", "done", "to run", "estimate"):
        table.add_column(name, justify="right")
    table.add_column("")
    sources = {"probe": "by the probe", "ran": "by those that ran here", "": ""}
    for work in survey.work:
        if work.jobs:
            left = work.jobs - work.done
            told = "not estimated" if work.seconds is None else duration(work.seconds) if left else ""
            table.add_row(work.group, str(work.jobs), str(work.done), str(left), told, sources[work.source])
    total = [sum(number) for number in zip(*((work.jobs, work.done) for work in survey.work), strict=True)]
    known = sum(work.seconds or 0 for work in survey.work)
    left = total[0] - total[1]
    told = duration(known) if known else ""
    table.add_row(*(Text(text, style="bold") for text in ("all", str(total[0]), str(total[1]), str(left), told, "")))
    return table


def _estimate(survey: Survey) -> Text:
    if survey.probed is None:
        return Text("")
    rates = ", ".join(f"{name} {1 / seconds:.3g}" for name, seconds in survey.probed.items())
    return Text(
        f"Estimate: jobs one after the other on this machine, from a few seconds of the default network here and now "
        f"(images a second: {rates}), scaled by counted arithmetic. Decoding, and what is not estimated, come on top.",
        style="dim",
    )


def _verdict(survey: Survey) -> Text:
    failing = survey.failing
    if not failing:
        return Text("Ready to run.", style="bold green")
    told = []
    for section, findings in survey.findings.items():
        names = [finding.name for finding in findings if finding in failing]
        told += [f"{section}: {', '.join(names)}"] if names else []
    return Text(f"Not ready. Mend first {'; '.join(told)}.", style="bold red")


def duration(seconds: float) -> str:
    """Format a duration in a suitable unit: 42 s, 12 min, 3.5 h, 4.1 days."""
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}" if seconds < 9.95 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"
