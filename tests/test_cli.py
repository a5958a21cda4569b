"""The command line: every option has help, mistakes are one line, no heavy imports."""

import json
import subprocess
import sys
from inspect import Parameter, signature
from itertools import chain
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from typer.main import get_command
from typer.models import ArgumentInfo
from typer.testing import CliRunner

from conftest import Reid
from reid_done_right.artifacts import InputError
from reid_done_right.cli import PANELS, app
from reid_done_right.cli.options import _note_output

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


def test_command_line_imports_nothing_heavy(tmp_path: Path) -> None:
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
        (["score", "--query", "q.npz", "--gallery", "g.npz", "--out", "s.json", "--junk-id", "x"], "--junk-id 'x': expected an integer or none"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_writes_nothing(reid: Reid, tmp_path: Path, arguments: list[str], line: str) -> None:
    (tmp_path / "other.json").write_text('{"stage": "train", "parameters": {}}')
    (tmp_path / "index.json").write_text('{"stage": "index", "parameters": {"counts": null}}')
    before = sorted(path.name for path in tmp_path.iterdir())
    result = reid(tmp_path, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(f"reid: error: {line}")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serch"], "No such command 'serch'. Did you mean 'search'"),
        (["scores"], "No such command 'scores'. Did you mean 'score'"),
        (["score", "--protocl", "mars"], "No such option: --protocl (Possible options: --pool, --protocol)"),
        (["score", "--query", "q.npz", "--gallery", "g.npz"], "Missing option '--out'."),
        (["score", "--rerank", "kreciprocal"], "'--rerank': 'kreciprocal' is not one of 'none', 'qe-dba', 'k-reciprocal'."),
        (["score", "--threads", "0"], "'--threads': Input should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_mistake_in_the_options_ends_in_a_line_that_helps(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and told in result.output.splitlines()[-1]


def test_missing_file_is_told_with_one_of_like_name(reid: Reid, tmp_path: Path) -> None:
    (tmp_path / "query.npz").touch()
    result = reid(tmp_path, "score", "--query", "qurey.npz", "--gallery", "g.npz", "--out", "s.json")
    assert result.stderr == "reid: error: qurey.npz: no such file; did you mean query.npz?\n"


@pytest.mark.slow
def test_scores_are_printed_with_what_was_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    person, camera = np.arange(20) % 5 + 1, np.arange(20) % 3 + 1
    gallery = {"embeddings": rng.normal(size=(20, 4)), "person_id": person, "camera_id": camera}
    np.savez(tmp_path / "g.npz", **gallery)
    query = {"embeddings": rng.normal(size=(6, 4)), "person_id": [1, 2, 3, 4, 5, 9], "camera_id": [1] * 6}
    np.savez(tmp_path / "q.npz", **query)
    rules = ["--same-camera-counts", "--junk-id", "none", "--ap-rule", "step", "--ranks", "2"]
    extra = ["--distractors", "g.npz", "--sizes", "0,20", "--orders", "2"]
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


FUNCTIONS = {each.__name__.replace("_", "-"): each for each in chain.from_iterable(PANELS.values())}


def _given(name: str) -> dict[str, tuple[Any, Any]]:
    """Return the options and arguments of a command: what they may be, and how they are described to typer."""
    hints = get_type_hints(FUNCTIONS[name], include_extras=True)
    return {key: get_args(hint)[:2] for key, hint in hints.items() if hasattr(hint, "__metadata__")}


def _is_path(kind: Any) -> bool:
    return kind is Path or Path in get_args(kind)


def _is_output(described: Any) -> bool:
    return described.callback is _note_output


PAIRS = [
    (name, first, output)
    for name in FUNCTIONS
    for given in [{key: each for key, each in _given(name).items() if _is_path(each[0])}]
    for output, (_, described) in given.items()
    for first in given
    if _is_output(described) and first != output and given[first][1].file_okay
]


@pytest.mark.parametrize(("name", "first", "output"), PAIRS)
def test_output_that_is_another_file_of_the_command_is_rejected(
    name: str, first: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every pair of a file that a command reads or writes and one that it writes."""
    monkeypatch.chdir(tmp_path)
    Path("same").write_text("content")
    Path("link").symlink_to("same")
    required = signature(FUNCTIONS[name]).parameters
    words = [name]
    for key, (kind, described) in _given(name).items():
        value = {first: "same", output: "link"}.get(key)
        if value is None and required[key].default is Parameter.empty:
            value = key if _is_path(kind) else "x"
        if value is not None:
            (option,) = (each.opts[0] for each in COMMANDS[name].params if each.name == key)
            words += [value] if isinstance(described, ArgumentInfo) else [option, value]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    assert " would overwrite what is given as " in str(result.exception)
    assert Path("same").read_text() == "content"


def test_pairs_of_files_are_of_every_command_that_writes_one() -> None:
    assert {name for name, *_ in PAIRS} >= {"embed-photos", "search", "export", "score", "verify", "check", "train"}
    assert len(PAIRS) > 40
