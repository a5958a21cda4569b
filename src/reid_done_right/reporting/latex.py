"""Tables in LaTeX with booktabs: `\\usepackage{booktabs,amssymb,graphicx}`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from reid_done_right.reporting.tables import ABSENT, Grid, Sheet, Text

SYMBOLS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "✓": r"\checkmark{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "†": r"$\dagger$",
    "—": "---",
    "Δ": r"$\Delta$",
    "“": "``",
    "”": "''",
    "\N{NO-BREAK SPACE}": "~",
}
METRICS = ("mAP", "rank-1", "rank-5", "rank-10")
MANY = 9  # columns of intervals
WIDE = 75  # letters that a column of a two-column page cannot hold
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def tex(text: str) -> str:
    """Write words and signs of our tables as LaTeX; `code` becomes typewriter, **bold** bold."""
    return "".join(_marked(part) for part in re.split(r"(\*\*.+?\*\*|`.+?`)", text))


def _marked(part: str) -> str:
    for mark, command in (("**", "textbf"), ("`", "texttt")):
        if len(part) > 2 * len(mark) and part.startswith(mark) and part.endswith(mark):
            return rf"\{command}{{{_escaped(part[len(mark) : -len(mark)])}}}"
    return _escaped(part)


def _escaped(text: str) -> str:
    return "".join(SYMBOLS.get(letter, letter) for letter in text)


def sheet_latex(sheet: Sheet) -> str:
    """Write each grid of a table as a float with booktabs' rules; the first has the notes in its caption.

    A wide float spans both columns of a page; if it has many columns and few lines, its columns become lines. What is
    too wide all the same is scaled down to the line.
    """
    floats = []
    for number, grid in enumerate(map(_upright, sheet.grids)):
        name = re.sub(r"^Table \w+\. ", "", sheet.caption)
        told = [grid.title, *([sheet.warning, *sheet.notes] if number == 0 else [])]
        label = f"tab:{sheet.name}{('', '-changes', '-steps')[number]}"
        kind = "table*" if _letters(grid) > WIDE else "table"
        lines = [rf"\begin{{{kind}}}[t]", r"\centering"]
        caption = rf"{tex(name)}. \footnotesize {tex(' '.join(filter(None, told)))}"
        lines += [rf"\caption[{tex(name)}]{{{caption}}}", rf"\label{{{label}}}", r"\smallskip"]
        lines += [FIT, *_tabular(grid), rf"\end{{{kind}}}"]
        floats.append("\n".join(lines) + "\n")
    return "% \\usepackage{booktabs,amssymb,graphicx}\n" + "\n".join(floats)


def _upright(grid: Grid) -> Grid:
    """Turn a grid of many columns and few lines on its side: intervals side by side would be too small to read."""
    columns = len(grid.header)
    if columns <= MANY or 3 * len(grid.body) > columns or any(len(line) == 1 for line in grid.body):
        return grid
    names = [
        " ".join(entry.text for entry in line[: grid.labels] if entry.text not in ("", ABSENT)) for line in grid.body
    ]
    body = [[Text(grid.header[c]), *(line[c] for line in grid.body)] for c in range(grid.labels, columns)]
    return Grid(grid.title, ["", *names], 1, body)


def _letters(grid: Grid) -> int:
    lines = [[Text(name) for name in grid.header], *(line for line in grid.body if len(line) > 1)]
    return sum(max(len(entry.text) for entry in column) for column in zip(*lines, strict=True))


def _tabular(grid: Grid) -> Iterator[str]:
    width = len(grid.header)
    yield rf"\begin{{tabular}}{{{'l' * grid.labels + 'r' * (width - grid.labels)}}}"
    yield r"\toprule"
    yield from _header(grid.header)
    yield r"\midrule"
    above: Sequence[Text] = ()
    for line in grid.body:
        if len(line) == 1:
            yield from [r"\midrule"] if above else []
            yield rf"\multicolumn{{{width}}}{{l}}{{{_cell(line[0])}}} \\"
        else:
            grouped = grid.labels > 1 and grid.header[0] == ""  # a label equal to the one above is left out
            same = grouped and len(above) > 1 and above[0].text == line[0].text
            yield from [r"\addlinespace"] if grouped and len(above) > 1 and above[0].text and not same else []
            yield _row(["", *map(_cell, line[1:])] if same else map(_cell, line))
        above = line
    yield r"\bottomrule"
    yield r"\end{tabular}}"


def _header(header: Sequence[str]) -> Iterator[str]:
    """Write one line of headers, or two where neighbours differ in the metric only."""
    parts = [name.rpartition(" ") for name in header]
    split = [
        (first, last) if first and last in METRICS else ("", name)
        for name, (first, _, last) in zip(header, parts, strict=True)
    ]
    if len({first for first, _ in split}) < len(split) // 2:
        over, rules, column = [], [], 1
        for first, members in groupby(first for first, _ in split):
            n = len(list(members))
            over.append(rf"\multicolumn{{{n}}}{{c}}{{{tex(first)}}}" if first else " & " * (n - 1))
            rules += [rf"\cmidrule(lr){{{column}-{column + n - 1}}}"] if first else []
            column += n
        yield _row(over)
        yield "".join(rules)
        yield _row(tex(last) for _, last in split)
    else:
        yield _row(map(tex, header))


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(entry: Text) -> str:
    return rf"\textbf{{{tex(entry.text)}}}" if entry.bold else tex(entry.text)
