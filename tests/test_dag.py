"""The graph: stage functions match it, and additions reach both engines."""

from inspect import signature
from pathlib import Path

import pytest
import yaml

from conftest import Checkout, copy_of_the_project
from reid_done_right import dag
from reid_done_right.artifacts import read_index
from reid_done_right.cli.stages import LOADERS
from reid_done_right.dag import COMMANDS, STAGES
from tiny import changed

INDEX = "results/tiny/index/market-draw0.parquet"


def test_every_stage_has_a_function() -> None:
    assert tuple(LOADERS) == COMMANDS
    assert [load().__name__ for load in LOADERS.values()] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_stage_function_arguments_match_graph(name: str) -> None:
    stage = STAGES[name]
    given = {"settings", *stage.reads, *(["out"] if stage.folder else stage.writes)}
    given |= {argument for argument in (stage.fetches, stage.threads and "workers") if argument}
    assert set(signature(LOADERS[name]()).parameters) == given


def test_every_input_is_written_before_it_is_read() -> None:
    order = list(STAGES)
    assert all(order.index(writer) < order.index(reader) for writer, reader in dag.edges())
    fed = {reader for _, reader in dag.edges()}
    assert set(order) - fed == {"dataset", "initialise"}


def test_no_two_boxes_of_the_picture_are_in_one_place() -> None:
    assert len({stage.box for stage in STAGES.values()}) == len(STAGES)


@pytest.mark.workflow
def test_an_input_more_is_one_entry_and_an_argument(tmp_path: Path) -> None:
    """Of `index`, say: both engines pass it, both go by its content, and the job runs."""
    checkout = Checkout(copy_of_the_project(tmp_path))
    checkout.edit(
        "src/reid_done_right/dag.py",
        '"The dataset\'s manifest, written by `reid dataset` (.json).")\n',
        '"The dataset\'s manifest, written by `reid dataset` (.json)."),\n'
        '            "licence": Read("LICENSE", "What else to read."),\n',
    )
    checkout.edit("src/reid_done_right/stages/index.py", "manifest: Path, out:", "manifest: Path, licence: Path, out:")
    checkout.edit(
        "src/reid_done_right/stages/index.py",
        "    described = read_manifest(manifest)\n",
        "    print(licence.read_text())\n    described = read_manifest(manifest)\n",
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed({"resources": {}})))
    assert "--licence" in checkout.run("reid index --help")
    checkout.run("reid plan params.yaml --dvc")
    index = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]["index"]["do"]
    assert "LICENSE" in index["deps"] and " --licence LICENSE --out " in index["cmd"]
    log = tmp_path / "results/tiny/logs/index/market-draw0.log"
    checkout.run(f"snakemake --cores 2 {INDEX}")
    assert "MIT License" in log.read_text() and len(read_index(tmp_path / INDEX))
    assert checkout.computed(lambda: checkout.run("dvc repro index@market-draw0")) == []
    checkout.edit("LICENSE", "MIT License", "Another licence")
    assert checkout.computed(lambda: checkout.run(f"snakemake --cores 2 {INDEX}")) == ["index market-draw0"]
    assert "Another licence" in log.read_text()
    assert checkout.computed(lambda: checkout.run("dvc repro index@market-draw0")) == []
