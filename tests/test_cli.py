"""The command line: help that names every option, mistakes in one line, no heavy imports."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from reid.cli import app

COMMANDS = dict(get_command(app).commands)  # type: ignore[attr-defined]


def reid(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "reid", *arguments], cwd=cwd, capture_output=True, text=True)


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
    code = "import sys, reid.cli; print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy', 'numba') if m in sys.modules])"
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
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path: Path, arguments: list[str], line: str) -> None:
    (tmp_path / "other.json").write_text('{"stage": "train", "parameters": {}}')
    (tmp_path / "index.json").write_text('{"stage": "index", "parameters": {"counts": null}}')
    before = sorted(path.name for path in tmp_path.iterdir())
    result = reid(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"reid: error: {line}")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
