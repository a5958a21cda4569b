"""Every parameter is described once, in its model: docs/parameters.md and the JSON schema are generated."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import jsonschema
import pytest
import yaml

from conftest import ROOT
from reid_done_right.params import Params
from reid_done_right.params.section import Section
from test_params import SHIPPED
from tiny import PARAMS, changed

GENERATED = run_path(str(ROOT / "docs/parameters.py"))
SCHEMA = json.loads((ROOT / "workflow/params.schema.json").read_text())
REFRESH = "run: python docs/parameters.py"


def sections(model: type[Section] = Section) -> Iterator[type[Section]]:
    for inner in model.__subclasses__():
        yield inner
        yield from sections(inner)


def test_every_field_has_a_description() -> None:
    fields = {f"{model.__name__}.{name}": field for model in sections() for name, field in model.model_fields.items()}
    assert len(fields) > 100
    assert [name for name, field in fields.items() if not (field.description or "").endswith(".")] == []


def test_page_of_parameters_is_current() -> None:
    assert (ROOT / "docs/parameters.md").read_text() == GENERATED["page"](), REFRESH


def test_schema_is_current() -> None:
    assert (ROOT / "workflow/params.schema.json").read_text() == GENERATED["schema"](), REFRESH


def test_keys_reach_into_sections_lists_and_mappings() -> None:
    found = [key for key, _ in GENERATED["keys"]()]
    assert len(set(found)) == len(found)
    inner = {"datasets.*.source.archives.*.path", "report.table1.*.group", "evaluate.qe_dba.query_neighbours"}
    assert {"draws", "train.margin", "train.backbone", "variants", "resources.*.gpu", *inner} <= set(found)


def test_choices_name_existing_parameters() -> None:
    decisions = (ROOT / "docs/choices.md").read_text()
    known = {key for key, _ in GENERATED["keys"]()}
    named = re.findall(rf"`((?:{'|'.join(Params.model_fields)})\.[\w.*]+)`", decisions)
    assert len(named) > 40
    assert set(named) <= known


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_schema_accepts_shipped_parameters_which_name_it(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), SCHEMA)
    named = path.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == ROOT / "workflow/params.schema.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"variants/deep": {"margin": 0.2}},
        {"datasets/duke/source": {"folder": "data/duke", "archives": ["a.zip", {"urls": ["https://a.org/b.zip"]}]}},
        {"report/table2/0/label": True},
    ],
    ids=", ".join,
)
def test_schema_accepts_valid_parameters(changes: dict[str, Any]) -> None:
    Params.model_validate(changed(changes))
    jsonschema.validate(changed(changes), SCHEMA)


@pytest.mark.parametrize(
    "changes",
    [
        {"trian": {}},
        {"train/halve_evry": 3},
        {"variants/deep": {"halve_evry": 3}},
        {"variants/deep": {"margin": 0}},
        {"train/pooling": "mean"},
        {"datasets/duke/source/folde": "x"},
        {"datasets/duke/source": {"folder": "x", "archives": [3]}},
        {"resources/train/cpus": 2},
    ],
    ids=", ".join,
)
def test_schema_rejects_invalid_parameters(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Params.model_validate(changed(changes))
    jsonschema.validate(PARAMS, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(changes), SCHEMA)
