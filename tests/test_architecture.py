"""A directory is a layer and imports only downwards; files are opened at the edges only."""

import ast
import re
from pathlib import Path

import pytest

from conftest import ROOT
from reid import params
from reid.params import Section

SOURCE = ROOT / "src/reid"
MODULES = sorted(SOURCE.rglob("*.py"))

ALLOWED = {  # layer -> layers it may import, besides its own
    "functional": set(),
    "artifacts": set(),
    "params": {"artifacts"},
    "data": {"artifacts", "params", "functional"},
    "models": {"artifacts", "params", "functional"},
    "training": {"artifacts", "params", "functional", "data", "models"},
    "reporting": {"artifacts", "functional"},
    "store": {"artifacts"},
    "plan": {"artifacts", "params", "store", "data"},
    "stages": {"artifacts", "params", "functional", "data", "models", "training", "reporting"},
    "cli": {"artifacts", "params", "store", "plan", "stages"},
    "__main__": {"cli"},
    "__init__": set(),
}


def layer(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def ours(path: Path) -> set[str]:
    """Give the modules of ours that a file imports, anywhere in it, below `reid`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("reid.") for name in found if name.startswith("reid.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downwards(path: Path) -> None:
    own = layer(path)
    for name in ours(path):
        target = name.split(".")[0]
        assert target == own or target in ALLOWED[own], f"{path} imports reid.{name}"
        if own == "stages" and target == "stages":
            raise AssertionError(f"{path}: a stage never calls a stage")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_opened_at_the_edges(path: Path) -> None:
    edges = {"artifacts", "store", "params", "plan", "cli", "data", "stages"}
    if layer(path) not in edges:
        opens = re.findall(
            r"\bopen\(|\.read_text\(|\.read_bytes\(|\.write_text\(|np\.load\(|np\.save", path.read_text()
        )
        assert not opens, f"{path}: {opens}"


def test_only_params_parses_yaml() -> None:
    parsing = [path.name for path in MODULES if re.search(r"yaml\.(safe_)?load|YAML\(", path.read_text())]
    assert parsing == ["params.py"]


def test_the_workflow_knows_only_the_command() -> None:
    for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        assert not re.search(r"^\s*(from|import) reid\b", path.read_text(), re.MULTILINE), path


def test_no_drawers() -> None:
    forbidden = {"utils", "util", "common", "base", "engine", "registry", "helpers", "misc", "manager"}
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & forbidden


def test_one_public_function_a_stage_named_as_the_file() -> None:
    for path in (SOURCE / "stages").glob("[!_]*.py"):
        functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert path.stem in functions, path


def test_no_setting_is_called_what_dvc_drops() -> None:
    """DVC leaves keys of these names out when it hashes parameters, so that changes of them would go unseen."""
    sections = [kind for kind in vars(params).values() if isinstance(kind, type) and issubclass(kind, Section)]
    assert len(sections) > 10
    assert not {name for section in sections for name in section.model_fields} & {"size", "nfiles"}
