"""The report as GitHub Markdown, and its tables as HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reid_done_right.dag import stem_of
from reid_done_right.reporting.claims import LITTLE, Finding
from reid_done_right.reporting.paper import OF_THE_PAPER, whose
from reid_done_right.reporting.tables import Grid, Sheet, Text, interval_text, signed
from reid_done_right.reporting.templates import render

FIGURES = {
    "forest.svg": "{claims} here: differences with 95 % intervals, verdicts, and the paper's values",
    "figure1.svg": "Figure 1. Dimensions that respond to regions",
    "figure4.svg": "Figure 4. Ranked lists",
    "figure5.svg": "Figure 5. Matching regions",
    "figure6.svg": "Figure 6. Implicit attention",
    "figure7.svg": "Figure 7. Performance in the presence of distractors",
    "similarities.svg": "Similarities of the same and of other people",
    "convergence.svg": "Convergence of the ranking stage",
    "open_set.svg": "Open set: known persons missed, by false alarms",
    "training_curves.svg": "Training of every run",
}
WITH_PEOPLE = ("figure1.svg", "figure4.svg", "figure5.svg", "figure6.svg")


def captions(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures of an experiment with captions.

    There are no verdicts without claims, no Figure 7 without curves, no convergence without followed runs, no open
    set without identified ones, no people without shown ones.

    settings: {"claims", "contact_sheet", "curves", "shown"} and, if there are any, {"followed", "identified"}
    """
    left_out = [] if settings["claims"] else ["forest.svg"]
    left_out += [] if settings["curves"] else ["figure7.svg"]
    left_out += [] if settings.get("followed") else ["convergence.svg"]
    left_out += [] if settings.get("identified") else ["open_set.svg"]
    left_out += [] if settings["shown"] else [*WITH_PEOPLE, "similarities.svg"]
    sheet = {"contact_sheet.png": "The rendered benchmark"} if settings["contact_sheet"] else {}
    claims = begun(whose(settings))
    return sheet | {file: caption.format(claims=claims) for file, caption in FIGURES.items() if file not in left_out}


def begun(words: str) -> str:
    """Return words as they begin a sentence."""
    return words[:1].upper() + words[1:]


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
    "**Supported**: several draws show the difference that the paper claims, with p below 0.05. **Contradicted**: they "
    "show the opposite. **Undecided**: everything else; beside it stands the smallest difference that as many draws "
    "of this spread would have shown in four of five cases. A claim that something adds little is supported if p is "
    f"below 0.05 that the difference is within ±{100 * LITTLE:.1f} points and that of every single draw is; "
    "contradicted if p is below 0.05 that it is outside. **Measured**: nothing is claimed here; the paper's value "
    "beside Figure 7 follows from the one point of it that it prints (69.1 with 500,000 distractors).",
    "A draw is everything that chance decides, decided once more: the training seed and, in a rendered experiment, "
    "the worlds and the first weights. Differences are paired by query, and the draw is the unit: interval (95 %) and "
    "p are those of Student's t over draws. Where draws share their test set, the variance of its persons is added, "
    "so that both speak of other draws and of other persons. p is adjusted by Holm's method for all claims of one "
    "table, on all benchmarks; intervals are not adjusted. A collapsed run counts like any other.",
)


def findings_sheet(found: Sequence[Finding], settings: Mapping[str, Any]) -> Sheet:
    """Lay out a line for every claim and benchmark: verdict, difference with its interval and p, the paper's beside."""
    caption = f"Findings: {whose(settings)} on this experiment"
    if not found:
        return Sheet("findings", caption, "", (), ("No run of this experiment belongs here.",))
    header = [
        "Claim of the paper" if whose(settings) == OF_THE_PAPER else "Claim",
        "Source",
        "Benchmark",
        "Verdict here",
        "Δ mAP here",
        "p",
        "Δ paper",
        "Each draw",
        "",
    ]
    body = [
        [
            Text(f"{finding.claim} ({finding.here})"),
            Text(finding.source),
            Text(finding.benchmark),
            Text(finding.verdict, bold=True),
            *map(Text, finding_texts(finding)),
            Text(finding.paper),
            Text(", ".join(signed(value) for value in finding.by_draw)),
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
    """Print the difference with its interval, and the adjusted p-value; dashes where there is none."""
    p = "—"
    if finding.adjusted is not None:
        p = "<\N{NO-BREAK SPACE}0.001" if finding.adjusted < 0.001 else f"{finding.adjusted:.3f}"
    if finding.mean is None:
        return "—", p
    if finding.low is None or finding.high is None:
        return signed(finding.mean), p
    return interval_text(finding.mean, finding.low, finding.high), p


def lost_runs(about: Mapping[str, Any]) -> list[str]:
    """Say which runs a report lacks, or has but not for every machine; nothing where all trained well and portably.

    about: of report.json, {"runs", "missing", "collapsed", "native"}
    """
    words = {
        "missing": "not run yet",
        "collapsed": "collapsed in training; their scores count, marked †",
        "native": "computed with native arithmetic: run again on another machine, they differ by as much as seeds do",
    }
    return [
        f"**{len(about[kind])} of {len(about['runs'])} runs {told}:** {_of_draws(about[kind], about['runs'])}."
        for kind, told in words.items()
        if about[kind]
    ]


def _of_draws(named: Sequence[str], runs: Sequence[str]) -> str:
    """Name runs, those of several draws at once."""
    drawn = Counter(map(stem_of, runs))
    counted = Counter(map(stem_of, named))
    return ", ".join(f"{stem} ({n} of {drawn[stem]} draws)" if drawn[stem] > 1 else stem for stem, n in counted.items())


def readme_markdown(parts: Sequence[str], about: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Join findings, tables, the figures beside them and the command that makes them into one page.

    about: what report.json says of the report.
    """
    figures = captions(settings)
    return render("readme.md", escape=False, parts=parts, lost=lost_runs(about), settings=settings, figures=figures)
