"""The page parameters.md and the JSON schema of `params.yaml`, from the models:  python docs/parameters.py

Both follow from `reid_done_right.params`: what a key means, what it may be and its default. The values beside them are
those of the shipped experiments.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from reid_done_right.params import Params, load

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/parameters.md"
SCHEMA = ROOT / "workflow/params.schema.json"
EXPERIMENTS = {"paper": ROOT / "experiments/paper/params.yaml", "embedded": ROOT / "params.yaml"}
DIGEST = "^[0-9a-fA-F]{64}$"
HEAD = """\
# Every parameter

What each key of a `params.yaml` means and what it may be, with its values in the paper's experiment
(`experiments/paper/params.yaml`) and in the embedded one (`params.yaml`). `*` stands for a name of your choice, or a
place in a list. Sections in brackets are those of the paper. What differs between the two columns without a reason
among the [choices](choices.md) is smaller because the embedded networks, images and budget are;
[benchmark.md](benchmark.md#the-recipe) says how those values were found.

This page is generated from the descriptions in `src/reid_done_right/params/` by `python docs/parameters.py`, as is
[workflow/params.schema.json](../workflow/params.schema.json): editors complete and check the keys of a `params.yaml`
whose first line names that file.
"""
Schema = dict[str, Any]


def schema() -> str:
    """Return the JSON schema, by which editors complete and check a `params.yaml`."""
    return json.dumps(_schema(), indent=1) + "\n"


def _schema() -> Schema:
    """Return the models' schema, in which a variant may have any key of `train`; the models check variants by hand."""
    whole = Params.model_json_schema()
    keys = {key: {"$ref": f"#/$defs/Train/properties/{key}"} for key in whole["$defs"]["Train"]["properties"]}
    whole["$defs"]["Variant"] = {"type": "object", "properties": keys, "additionalProperties": False}
    variants = whole["properties"]["variants"]["patternProperties"]
    variants |= {names: {"$ref": "#/$defs/Variant"} for names in variants}
    return whole


def page() -> str:
    """Return parameters.md: the tables of all keys, one of those without a section, then one per section."""
    values = {name: load(path).model_dump() for name, path in EXPERIMENTS.items()}
    head = ["", f"| key | meaning | value | {' | '.join(values)} |", f"|---|---|---|{'---|' * len(values)}"]
    sections = groupby(keys(), lambda entry: entry[0].partition(".")[0])
    plain, lines = list(head), []
    for section, group in sections:
        (_, field), *entries = group
        if not entries and not list(_sections(field, "")):
            plain.append(_row(section, field, values))
            continue
        lines += ["", f"## {section}", "", field["description"]]
        if entries:
            lines += [*head, *(_row(key, entry, values) for key, entry in entries)]
    return "\n".join([HEAD.rstrip(), *plain, *lines, ""])


def keys() -> Iterator[tuple[str, Schema]]:
    """Yield every key of the parameters, dotted, with its schema; `*` stands for a name or a place in a list.

    A section that occurs twice, such as the rows of the report's tables, is entered where it occurs first.
    """
    whole = _schema()
    sections: dict[str, Schema] = whole.pop("$defs")
    del sections["Variant"]  # its keys are those of train

    def walk(properties: Schema, prefix: str) -> Iterator[tuple[str, Schema]]:
        for name, field in properties.items():
            yield f"{prefix}{name}", field
            for section, path in _sections(field, f"{prefix}{name}."):
                if section in sections:
                    yield from walk(sections.pop(section)["properties"], path)

    return walk(whole["properties"], "")


def _row(key: str, field: Schema, values: dict[str, Any]) -> str:
    default = field.get("default")
    kind = _kind(field)
    if default not in (None, [], {}, ""):
        kind += f"; default {_written(default)}"
    elif "default" in field:
        kind += "; optional" if kind else "optional"
    cells = [f"`{key}`", field["description"], kind, *(_written(_at(value, key)) for value in values.values())]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(field: Schema) -> str:
    """Say what a value may be."""
    if "anyOf" in field:
        kinds = [_kind(kind) for kind in field["anyOf"] if kind != {"type": "null"}]
        return " or ".join(kind for kind in kinds if kind)
    if "enum" in field or "const" in field:
        *others, last = [f"`{value}`" for value in field.get("enum", [field.get("const")])]
        return f"{', '.join(others)} or {last}" if others else last
    match field.get("type"):
        case "integer" | "number" as kind:
            if "maximum" in field:
                return f"{kind} from {field['minimum']} to {field['maximum']}"
            if "exclusiveMaximum" in field:
                return f"{kind} between {field['exclusiveMinimum']} and {field['exclusiveMaximum']}"
            if "minimum" in field:
                return f"{kind} ≥ {field['minimum']}"
            return f"{kind} > {field['exclusiveMinimum']}" if "exclusiveMinimum" in field else kind
        case "boolean":
            return "`true` or `false`"
        case "string":
            return {None: "string", DIGEST: "64 hexadecimal digits"}.get(field.get("pattern"), "name")
        case "array":
            size = f"{field['minItems']} " if field.get("minItems") == field.get("maxItems", 0) else ""
            return f"list of {size}{_plural(_kind(field['items']) or 'section')}"
        case "object":
            inner = _inner(field)
            return f"mapping of names to {_plural(_kind(inner) or ('section' if inner else 'value'))}"
        case _:
            return ""  # a section


def _plural(kind: str) -> str:
    if kind.startswith("`"):  # values themselves
        return kind
    noun, *rest = kind.split(" ")
    return " ".join([f"{noun}s", *rest])


def _sections(field: Schema, path: str) -> Iterator[tuple[str, str]]:
    """Yield the names of the sections inside a field, and the path of their keys."""
    if "$ref" in field:
        yield field["$ref"].removeprefix("#/$defs/"), path
    for kind in field.get("anyOf", []):
        yield from _sections(kind, path)
    if "items" in field or field.get("type") == "object":
        yield from _sections(_inner(field), f"{path}*.")


def _inner(field: Schema) -> Schema:
    """Return the schema of the values of a list or of a mapping."""
    if "items" in field:
        return dict(field["items"])
    (inner,) = field["patternProperties"].values() if "patternProperties" in field else [field["additionalProperties"]]
    return dict(inner)


def _at(content: Any, key: str) -> Any:
    """Return the value of a dotted key; None if there is none, or one for each name."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    nested = isinstance(content, dict) or (
        isinstance(content, list) and any(isinstance(each, dict) for each in content)
    )
    return None if nested else content


def _written(value: Any) -> str:
    """Write a value as YAML, in a line."""
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


if __name__ == "__main__":
    SCHEMA.write_text(schema(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
