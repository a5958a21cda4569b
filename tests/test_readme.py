"""The README's commands run, its tables are the report's, its links lead somewhere, its picture is the workflow."""

import re
from pathlib import Path

import pytest

from conftest import ROOT, Checkout

README = (ROOT / "README.md").read_text()
ELSEWHERE = {  # run by the CI itself, by tests/test_workflow.py, or a full run
    "make",
    "make test",
    "source .venv/bin/activate",
    "snakemake --cores all --use-conda --configfile experiments/paper/params.yaml",
    "snakemake --cores all --configfile experiments/smoke/params.yaml",
    "dvc repro",
}
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - ELSEWHERE))
def test_a_command_runs(checkout: Checkout, command: str) -> None:
    assert checkout.run(command)


def test_commands_run_elsewhere_are_still_there() -> None:
    assert set(COMMANDS) >= ELSEWHERE


@pytest.mark.parametrize("table", ["table3"])
def test_a_table_is_the_reports(table: str) -> None:
    section = re.search(rf"<!-- {table} -->\n(.*?)\n?<!-- /{table} -->", README, re.DOTALL)
    assert section
    written = (ROOT / f"reports/embedded/{table}.md").read_text()
    rows = [line for line in section[1].splitlines() if line.startswith("|")]
    assert len(rows) > 3
    assert "\n".join(rows) in written


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_picture_shows_the_rules() -> None:
    drawn = re.search(r"```mermaid\n(.*?)```", README, re.DOTALL)
    assert drawn
    nodes = set(re.findall(r"\b[a-z_]{4,}\b", drawn[1])) - {"flowchart"}
    rules = {
        name
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE)
    }
    assert nodes == rules


def test_every_training_setting_is_explained() -> None:
    from reid.params import Evaluate, Pretrain, Train

    known = (ROOT / "docs/choices.md").read_text() + (ROOT / "params.yaml").read_text()
    for section in (Train, Pretrain, Evaluate):
        for name in section.model_fields:
            assert re.search(rf"\b{name}\b", known), name
