"""Docstrings to Markdown: their lists of names, `name  meaning` or `name: meaning`, become lists of a page."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

ENTRY = re.compile(r"^([a-z][\w*]*(?:, [a-z][\w*]*)*)(?:  +|: )(?=\S)")


class NameLists(griffe.Extension):
    """Lists of arguments, attributes and columns, wherever a docstring has them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring:
            obj.docstring.value = "\n".join(_listed(obj.docstring.value.splitlines()))


def _listed(lines: list[str]) -> Iterator[str]:
    """Yield the lines with each entry as an item, what it goes on with indented, and a blank line around each list."""
    within = False
    for line in lines:
        entry = ENTRY.match(line)
        if entry:
            if not within:
                yield ""
            names = ", ".join(f"`{name}`" for name in entry[1].split(", "))
            yield f"- {names}: {line[entry.end() :]}"
        elif within and line.startswith(" "):
            yield f"    {line.strip()}"
        else:
            if within and line:
                yield ""
            yield line
        within = bool(entry) or (within and line.startswith(" "))
