"""No lie of a file about itself gets further than its reader: one line, whichever field, whatever value."""

from pathlib import Path

import pytest

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
