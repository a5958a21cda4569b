"""The report as GitHub Markdown, and its tables as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reid_done_right.reporting.claims import Finding
from reid_done_right.reporting.tables import Grid, Sheet, Text, interval_text, signed
from reid_done_right.reporting.templates import render

FIGURES = {
    "figure1.svg": "Figure 1. Dimensions that respond to regions",
    "figure4.svg": "Figure 4. Ranked lists",
    "figure5.svg": "Figure 5. Matching regions",
    "figure6.svg": "Figure 6. Implicit attention",
    "figure7.svg": "Figure 7. Performance in the presence of distractors",
    "similarities.svg": "Similarities of the same and of other people",
    "training_curves.svg": "Training of every run",
}
WITH_PEOPLE = ("figure1.svg", "figure4.svg", "figure5.svg", "figure6.svg")


def captions(settings: Mapping[str, Any], contact_sheet: bool) -> dict[str, str]:
    """Return the figures of an experiment with captions: no Figure 7 without curves, no people without shown runs.

    settings: {"curves", "shown"}
    """
    left_out = [] if settings["curves"] else ["figure7.svg"]
    left_out += [] if settings["shown"] else [*WITH_PEOPLE, "similarities.svg"]
    sheet = {"contact_sheet.png": "The rendered benchmark"} if contact_sheet else {}
    return sheet | {file: caption for file, caption in FIGURES.items() if file not in left_out}


def sheet_markdown(sheet: Sheet) -> str:
    """Write a table: heading, warning, grids, notes."""
    parts = [f"### {sheet.caption}"]
    parts += [f"> {sheet.warning}"] if sheet.warning else []
    for grid in sheet.grids:
        parts += [grid.title, grid_markdown(grid)] if grid.title else [grid_markdown(grid)]
    parts.append("\n".join(f"- {note}" for note in sheet.notes))
    return "\n\n".join(parts) + "\n"


def sheet_html(sheet: Sheet) -> str:
    """Write a table as a page of its own, for Snakemake's report, which shows no Markdown."""
    return render("sheet.html", sheet=sheet)


def grid_markdown(grid: Grid) -> str:
    """Write a grid as a pipe table; a label equal to the one above is left out, a heading stands in the first cell."""
    width = len(grid.header)
    body = [[_emphasised(entry) for entry in line] + [""] * (width - len(line)) for line in grid.body]
    if grid.labels > 1 and grid.header[0] == "":
        body = [["" if i and body[i - 1][0] == line[0] else line[0], *line[1:]] for i, line in enumerate(body)]
    return _pipes(grid.header, body, grid.labels)


def _emphasised(entry: Text) -> str:
    return f"**{entry.text}**" if entry.bold else entry.text


def _pipes(header: Sequence[str], body: Sequence[Sequence[str]], labels: int) -> str:
    frame = pd.DataFrame(body).map(lambda text: text.replace("|", r"\|"))
    align = ["left"] * labels + ["right"] * (len(header) - labels)
    return str(frame.to_markdown(index=False, headers=header, tablefmt="pipe", colalign=align, disable_numparse=True))


METHOD = (
    "**Supported**: the 95 % interval of the paired difference lies on the claim's side of 0, p is below 0.05 and "
    "every seed agrees. **Contradicted**: the same on the other side. **Undecided**: everything else, collapsed runs "
    "included. A claim that something adds little is supported if the whole interval lies within ±1 point, "
    "contradicted if it lies outside. A decay is graceful if a doubling of the gallery costs at most as much mAP as in "
    "the paper's Figure 7, of which it prints one point (69.1 with 500,000 distractors); p is against that cost.",
    "Intervals: 2,000 bootstrap samples of the queries; p: 9,999 random flips of the signs of their differences, "
    "two-sided. Both are of the mean over the seeds that both sides have, so that they speak of other queries, not of "
    "other seeds; each seed's own difference stands in the last column. Queries of one person depend on each other, "
    "which makes intervals somewhat too narrow, and nothing is corrected for the number of claims.",
)


def findings_sheet(found: Sequence[Finding], settings: Mapping[str, Any]) -> Sheet:
    """Lay out a line for every claim and benchmark: verdict, difference with its interval and p, the paper's beside."""
    caption = "Findings: the paper's claims on this experiment"
    if not found:
        return Sheet("findings", caption, "", (), ("No run of this experiment belongs here.",))
    header = ["Claim of the paper", "Source", "Benchmark", "Verdict here", "Δ mAP here", "p", "Δ paper", "Seeds", ""]
    body = [
        [
            Text(f"{finding.claim} ({finding.here})"),
            Text(finding.source),
            Text(finding.benchmark),
            Text(finding.verdict, bold=True),
            *map(Text, finding_texts(finding)),
            Text(finding.paper),
            Text(", ".join(signed(value) for value in finding.by_seed)),
            Text(finding.why),
        ]
        for finding in found
    ]
    warning = (
        f"**The {settings['experiment']} benchmark is rendered.** What it supports or contradicts is no verdict "
        "on the paper, whose claims are about real images."
    )
    origin = f"Digest of the parameters: {settings['parameters_digest']}."
    grid = Grid("", header, 4, body)
    return Sheet("findings", caption, warning if settings["synthetic"] else "", (grid,), (*METHOD, origin))


def finding_texts(finding: Finding) -> tuple[str, str]:
    """Print the difference with its interval, and the p-value; dashes where there is none."""
    if finding.mean is None or finding.low is None or finding.high is None or finding.p is None:
        return "—", "—"
    p = "< 0.001" if finding.p < 0.001 else f"{finding.p:.3f}"
    return interval_text(finding.mean, finding.low, finding.high), p.replace(" ", "\N{NO-BREAK SPACE}")


def lost_runs(about: Mapping[str, Any]) -> list[str]:
    """Say which runs a report lacks, or has but not for every machine; nothing where all trained well and portably.

    about: of report.json, {"runs", "missing", "collapsed", "native"}
    """
    words = {
        "missing": "not run yet",
        "collapsed": "collapsed in training, so in no mean and no finding",
        "native": "computed with native arithmetic: run again on another machine, they differ by as much as seeds do",
    }
    return [
        f"**{len(about[kind])} of {len(about['runs'])} runs {told}:** {', '.join(about[kind])}."
        for kind, told in words.items()
        if about[kind]
    ]


def readme_markdown(parts: Sequence[str], about: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Join findings, tables, the figures beside them and the command that makes them into one page.

    about: what report.json says of the report.
    """
    figures = captions(settings, settings["synthetic"])
    return render("readme.md", escape=False, parts=parts, lost=lost_runs(about), settings=settings, figures=figures)
