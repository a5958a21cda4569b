"""Templates beside this module, of the page, the search page and the model card."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template(name: str, escape: bool = True, **filters: Callable[[str], str]) -> Template:
    """Give a template of this folder, for which a text that it lacks is an error. escape: texts become HTML."""
    environment = Environment(
        loader=PackageLoader("reid_done_right", "reporting"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)
