"""Tables in LaTeX with booktabs: `\\usepackage{booktabs,amssymb,graphicx}`."""

from __future__ import annotations

import re

import pandas as pd

from reid.reporting.tables import Sheet, Text

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
    "✓": r"\checkmark{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "†": r"\dag{}",
    "—": "---",
    "Δ": r"$\Delta$",
    "“": "``",
    "”": "''",
    "\N{NO-BREAK SPACE}": "~",
}


def tex(text: str) -> str:
    """Write words and signs of our tables as LaTeX; `code` becomes typewriter, **bold** bold."""
    escaped = "".join(SYMBOLS.get(letter, letter) for letter in text)
    escaped = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", escaped)
    return re.sub(r"`(.+?)`", r"\\texttt{\1}", escaped)


def sheet_latex(sheet: Sheet) -> str:
    """Write each grid of a table as a float with booktabs' rules, the notes in the caption of the first."""
    floats = []
    for number, grid in enumerate(sheet.grids):
        width = len(grid.header)
        body = [[_cell(entry) for entry in line] + [""] * (width - len(line)) for line in grid.body]
        frame = pd.DataFrame(body, columns=[tex(name) for name in grid.header])
        caption = " ".join([sheet.caption + ".", sheet.warning, *sheet.notes]) if number == 0 else grid.title
        text = frame.style.hide(axis="index").to_latex(
            hrules=True,
            column_format="l" * grid.labels + "r" * (width - grid.labels),
            position="t",
            position_float="centering",
            caption=tex(re.sub(r"^Table \d\. ", "", caption)),
            label=f"tab:{sheet.name}{'' if number == 0 else '-changes'}",
        )
        text = text.replace(r"\begin{tabular}", r"\resizebox{\linewidth}{!}{%" + "\n" + r"\begin{tabular}")
        floats.append(text.replace(r"\end{tabular}", r"\end{tabular}}"))
    return "% \\usepackage{booktabs,amssymb,graphicx}\n" + "\n".join(floats)


def _cell(entry: Text) -> str:
    return rf"\textbf{{{tex(entry.text)}}}" if entry.bold else tex(entry.text)
