"""Templates beside this module: the pages, the report's README and the model card."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(name: str, escape: bool = True, **content: Any) -> str:
    """Fill a template of this folder, for which a text that it lacks is an error. escape: texts become HTML."""
    environment = Environment(
        loader=PackageLoader("reid_done_right", "reporting"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = marked
    return environment.get_template(name).render(**content) + "\n"


def marked(text: str) -> Markup:
    """Show `code` and **bold** of our notes as HTML; everything else is escaped."""
    bold = re.sub(r"\*\*(.*?)\*\*", r"<strong>\1</strong>", str(Markup.escape(text)))
    return Markup(re.sub(r"`(.*?)`", r"<code>\1</code>", bold))
