"""A table as a small HTML page of its own, for Snakemake's report, which shows no Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from reid_done_right.reporting.tables import Grid, Sheet, Text

STYLE = Markup(
    "body{font:14px/1.5 system-ui,sans-serif;margin:1.5rem;color:#1d2126;background:#fff}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:1rem 0}"
    "th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #d9dde2}"
    "thead th{border-bottom:2px solid #59616a}"
    ".number{text-align:right;white-space:nowrap}.warning{background:#fff4df;padding:.5rem .8rem}"
    "@media(prefers-color-scheme:dark){body{color:#e6e8ea;background:#15181c}.warning{background:#33291a}"
    "th,td{border-color:#353b43}}"
)


def marked(text: str) -> Markup:
    """Show `code` and **bold** of our notes as HTML; everything else is escaped."""
    escaped = str(Markup.escape(text))
    for sign, tag in (("**", "strong"), ("`", "code")):
        parts = escaped.split(sign)
        escaped = parts[0] + "".join(
            f"<{tag}>{part}" if i % 2 == 0 else f"</{tag}>{part}" for i, part in enumerate(parts[1:])
        )
    return Markup(escaped)


def sheet_html(sheet: Sheet) -> str:
    """Write a table: heading, warning, grids, notes."""
    parts = [Markup("<h1>{}</h1>").format(sheet.caption)]
    parts += [Markup('<p class="warning">{}</p>').format(marked(sheet.warning))] if sheet.warning else []
    for grid in sheet.grids:
        parts += [Markup("<p>{}</p>").format(marked(grid.title))] if grid.title else []
        parts.append(_table(grid))
    parts.append(Markup("<ul>{}</ul>").format(_joined(Markup("<li>{}</li>").format(marked(n)) for n in sheet.notes)))
    head = Markup('<!doctype html><html lang="en"><meta charset="utf-8"><title>{}</title><style>{}</style>')
    return str(head.format(sheet.caption, STYLE) + "\n" + Markup("\n").join(parts)) + "</html>\n"


def _table(grid: Grid) -> Markup:
    header = _joined(_cell("th", name, c >= grid.labels) for c, name in enumerate(grid.header))
    body = []
    for line in grid.body:
        if len(line) == 1:
            body.append(Markup('<tr><th colspan="{}">{}</th></tr>').format(len(grid.header), line[0].text))
        else:
            cells = _joined(_cell("td", _entry(entry), c >= grid.labels) for c, entry in enumerate(line))
            body.append(Markup("<tr>{}</tr>").format(cells))
    lines = Markup("\n").join(body)
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(header, lines)


def _entry(entry: Text) -> Markup:
    return Markup("<b>{}</b>").format(entry.text) if entry.bold else marked(entry.text)


def _cell(tag: str, content: str, number: bool) -> Markup:
    kind = Markup(' class="number"') if number else ""
    return Markup("<{}{}>{}</{}>").format(Markup(tag), kind, content, Markup(tag))


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
