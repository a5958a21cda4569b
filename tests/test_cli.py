"""The command line: help that names every option, mistakes in one line, no heavy imports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from conftest import Reid
from reid_done_right.cli import app

COMMANDS = dict(get_command(app).commands)  # type: ignore[attr-defined]


def test_help_lists_every_command() -> None:
    printed = CliRunner().invoke(app, ["--help"]).output
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_names_every_option(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], terminal_width=200)
    assert result.exit_code == 0
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in result.output
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


def test_the_command_line_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, reid_done_right.cli; print([m for m in ('numpy', 'torch', 'pandas', 'matplotlib', 'scipy', 'numba') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan", "none.yaml"], "none.yaml: No such file or directory; give the path of a params.yaml"),
        (["index", "--settings", "none.json", "--manifest", "m.json", "--out", "i.parquet"], "none.json: no such file"),
        (["index", "--settings", "other.json", "--manifest", "m.json", "--out", "i.parquet"], "other.json: settings of 'train'"),
        (["index", "--settings", "index.json", "--manifest", "m.json", "--out", "i.parquet"], "m.json: No such file"),
        (["score", "--query", "q.npz", "--gallery", "g.npz", "--out", "s.json"], "q.npz: no such file"),
        (["score", "--query", "q.npz", "--gallery", "g.npz", "--out", "s.json", "--sizes", "1,x"], "--sizes '1,x'"),
        (["score", "--query", "q.npz", "--gallery", "g.npz", "--out", "s.json", "--lambda", "1"], "--lambda belongs to --rerank k-reciprocal"),
        (["score", "--query", "q.npz", "--gallery", "g.npz", "--out", "s.json", "--junk-id", "x"], "--junk-id 'x': expected a whole number or none"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(reid: Reid, tmp_path: Path, arguments: list[str], line: str) -> None:
    (tmp_path / "other.json").write_text('{"stage": "train", "parameters": {}}')
    (tmp_path / "index.json").write_text('{"stage": "index", "parameters": {"counts": null}}')
    before = sorted(path.name for path in tmp_path.iterdir())
    result = reid(tmp_path, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(f"reid: error: {line}")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_scores_are_printed_with_what_was_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    person, camera = np.arange(20) % 5 + 1, np.arange(20) % 3 + 1
    gallery = {"embeddings": rng.normal(size=(20, 4)), "person_id": person, "camera_id": camera}
    np.savez(tmp_path / "g.npz", **gallery)
    query = {"embeddings": rng.normal(size=(6, 4)), "person_id": [1, 2, 3, 4, 5, 9], "camera_id": [1] * 6}
    np.savez(tmp_path / "q.npz", **query)
    rules = ["--same-camera-counts", "--junk-id", "none", "--ap-rule", "step", "--ranks", "2"]
    extra = ["--distractors", "g.npz", "--sizes", "0,20", "--draws", "2"]
    files = ["--query", "q.npz", "--gallery", "g.npz", "--out", "s.json", "--per-query", "r.parquet"]
    command = [sys.executable, "-m", "reid_done_right", "score", *files, *rules, *extra]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["rule"]["junk_id"] is None and not found["rule"]["same_camera_is_junk"]
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"mAP {100 * found['mAP']:.2f}  mAP_step {100 * found['mAP']:.2f}  rank1")
    assert f"rank2 {100 * found['rank2']:.2f}" in lines[0]
    assert lines[2].startswith(f"20 distractors: mAP {100 * np.mean(found['distractors']['mAP'][1]):.2f}")
    assert "1 of them have no match" in result.stderr and "wrote s.json and r.parquet" in result.stderr
