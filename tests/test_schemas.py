"""No lie of a file about itself gets further than its reader: one line, whichever field, whatever value."""

import re
from pathlib import Path

import pytest

from conftest import ROOT
from schemas import SCHEMAS, WRONG, attempt, fields, lying


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_sound_content_is_taken(name: str, tmp_path: Path) -> None:
    assert attempt(name, SCHEMAS[name].content, tmp_path)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_any_field_with_any_wrong_value_is_taken_or_told(name: str, wrong: str, tmp_path: Path) -> None:
    refused = 0
    for number, place in enumerate(fields(SCHEMAS[name].content)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        refused += not attempt(name, lying(SCHEMAS[name].content, place, WRONG[wrong]), folder)
    assert refused or name == "ledger entry"  # a damaged entry is as good as none


@pytest.mark.parametrize("name", [name for name in SCHEMAS if not name.startswith("ledger")])
def test_page_of_file_formats_has_every_field(name: str) -> None:
    assert [key for key in SCHEMAS[name].content if f"`{key}`" not in told("formats", "scoring")] == []


@pytest.mark.parametrize("path", sorted((ROOT / "reports/study").glob("*.csv")), ids=lambda path: path.name)
def test_page_of_file_formats_has_every_column_of_a_report(path: Path) -> None:
    columns = re.sub("_(min|max)", "", path.read_text(encoding="utf-8").partition("\n")[0]).split(",")
    assert [column for column in columns if f"`{column}`" not in told("formats")] == []


def told(*pages: str) -> str:
    return "".join((ROOT / f"docs/{page}.md").read_text(encoding="utf-8") for page in pages)
