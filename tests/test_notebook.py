"""The notebook: its cells run in their order, on rendered people and a model where the main job puts one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from conftest import ROOT
from models import write_model

NOTEBOOK = ROOT / "examples/people.ipynb"


def test_notebook_is_valid_and_holds_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
def test_cells_of_the_notebook_run_in_their_order(tmp_path: Path) -> None:
    """As a script, where the last expression of a cell is not shown."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    script = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    write_model(tmp_path / "results/embedded/train/market-default-draw0.safetensors")
    (tmp_path / "examples").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint(len(plt.get_fignums()), 'figures')"],
        cwd=tmp_path / "examples",
        env={**os.environ, "MPLBACKEND": "Agg", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    said = re.fullmatch(
        r"\d+ queries, \d+ photos in the gallery\ncolours: mAP ([\d.]+), rank-1 [\d.]+\n"
        r"network: mAP ([\d.]+), rank-1 [\d.]+\n2 figures\n",
        ended.stdout,
    )
    assert said and float(said[1]) > 30 and 0 < float(said[2]) < 100, ended.stdout
