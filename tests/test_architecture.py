"""Layers import only downwards, and only the edges open files."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from inspect import signature
from pathlib import Path

import pytest

from conftest import ROOT
from reid_done_right.params import Params
from reid_done_right.stages.dataset import WRITERS

SOURCE = ROOT / "src/reid_done_right"
MODULES = sorted((ROOT / "src").rglob("*.py"))

ALLOWED = {  # layer -> layers it may import, besides its own
    "extras": set(),
    "numerics": set(),
    "artifacts": set(),
    "evaluation": set(),
    "params": {"artifacts", "numerics"},
    "pedestrians": set(),
    "images": {"artifacts"},
    "data": {"artifacts", "params", "evaluation", "images"},
    "models": {"numerics", "artifacts", "params", "images"},
    "training": {"artifacts", "params", "images", "models"},
    "reporting": {"artifacts", "dag", "params", "evaluation"},
    "store": {"artifacts", "data", "numerics"},
    "dag": set(),
    "plan": {"artifacts", "dag", "params", "store", "data", "reporting"},
    "experiments": {"artifacts"},
    "dvc": {"dag", "params", "plan"},
    "readiness": {"artifacts", "dag", "params", "images", "data", "models", "training", "store", "plan"},
    "hub": {"artifacts"},
    "photos": {"artifacts", "images", "data", "models", "hub"},
    "stages": {
        *("numerics", "artifacts", "dag", "params", "evaluation", "images", "data", "models", "training", "reporting"),
        *("photos", "hub", "pedestrians"),
    },
    "gpus": {"artifacts"},
    "running": {"artifacts", "numerics", "dag", "gpus", "store", "stages", "training"},
    "cli": {
        *("extras", "experiments", "numerics", "artifacts", "dag", "params", "plan", "dvc", "running"),
        *("readiness", "store", "stages"),
    },
    "__main__": {"cli"},
    "__init__": {"evaluation", "photos", "numerics", "extras"},
}


def layer(path: Path) -> str:
    package, *parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return parts[0] if package == SOURCE.name else package


def dotted(path: Path) -> str:
    """Return a module's name as `ours` gives it."""
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts).removeprefix("reid_done_right.").removesuffix(".__init__")


def ours(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, anywhere in it, below `reid_done_right`; the renderer's whole."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = (name for name in found if name.split(".")[0] in ("reid_done_right", "pedestrians"))
    return {name.removeprefix("reid_done_right.") for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_imports_go_downwards(path: Path) -> None:
    own = layer(path)
    for name in ours(path):
        target = name.split(".")[0]
        assert target == own or target in ALLOWED[own], f"{path} imports {name}"
        if own == "stages" and target == "stages":
            raise AssertionError(f"{path}: a stage never calls a stage")


def test_no_layer_reaches_itself_through_others() -> None:
    """`ALLOWED` has no circle, so that "below" means something."""
    assert tuple(TopologicalSorter(ALLOWED).static_order())


def test_no_modules_import_each_other() -> None:
    """Neither directly nor through others, nor inside a function or for type checking only."""
    names = {dotted(path): path for path in MODULES}
    graph = {}
    for name, path in names.items():
        imported = {each if each in names else each.rpartition(".")[0] for each in ours(path)}
        graph[name] = imported & set(names) - {"__init__"}
    assert sum(map(len, graph.values())) > 300
    assert tuple(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", ["evaluation"])
def test_package_is_importable_alone(package: str) -> None:
    """Its modules import nothing of ours but each other, and PyTorch only where a device is asked for."""
    modules = [dotted(path) for path in (SOURCE / package).glob("*.py") if path.stem != "torch_backend"]
    code = "\n".join(["import sys", *(f"import reid_done_right.{name}" for name in modules if name != package)])
    code += "\nours = {name for name in sys.modules if name.startswith('reid_done_right.')}"
    code += f"\nassert all(name.startswith('reid_done_right.{package}') for name in ours), ours"
    code += "\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_import_is_relative() -> None:
    """The store follows imports by their full names to know a stage's code; a relative one would go unseen."""
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level], path


def test_command_line_imports_stages_when_it_runs_them() -> None:
    files = [SOURCE / "dag.py", SOURCE / "__main__.py", *(SOURCE / "cli").glob("*.py")]
    top = {
        node.module for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)
    }
    ours = {name for name in top if name and name.startswith("reid")} - {"reid_done_right"}
    assert ours == {"reid_done_right.cli", "reid_done_right.cli.options"}


def test_nothing_is_pickled() -> None:
    for path in MODULES:
        assert not re.search(r"import pickle|torch\.save\(|allow_pickle=True", path.read_text()), path


def test_weights_of_others_are_loaded_without_executing_code() -> None:
    calls = [
        ast.unparse(node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and re.search(r"\bload(_state_dict_from_\w+)?$", ast.unparse(node.func))
    ]
    ours = "torch.export.load(BytesIO(content))"  # what was just exported, on its way to be checked
    calls = [call for call in calls if call.startswith(("torch.", "pickle.", "joblib.")) and call != ours]
    assert len(calls) == 1 and all("weights_only=True" in call for call in calls), calls


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_files_are_opened_at_the_edges(path: Path) -> None:
    edges = {"pedestrians", "artifacts", "store", "params", "plan", "readiness", "cli", "images", "data"}
    edges |= {"stages", "numerics", "experiments", "gpus"}  # gpus: locks
    if layer(path) not in edges:
        opens = re.findall(
            r"\bopen\((?!BytesIO)|\.read_text\(|\.read_bytes\(|\.write_text\(|np\.load\(|np\.save", path.read_text()
        )
        assert not opens, f"{path}: {opens}"


def test_only_params_parses_yaml() -> None:
    parsing = [
        dotted(path) for path in MODULES if re.search(r"yaml\.(safe_)?load|YAML\(|yaml\.SafeLoader", path.read_text())
    ]
    assert parsing == ["params.reading"]


def test_workflow_knows_only_the_command() -> None:
    for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        assert not re.search(r"^\s*(from|import) reid_done_right\b", path.read_text(), re.MULTILINE), path


def test_no_drawers() -> None:
    forbidden = {"utils", "util", "common", "base", "engine", "registry", "helpers", "misc", "manager"}
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & forbidden


def test_one_public_function_a_stage_named_as_the_file() -> None:
    for path in (SOURCE / "stages").glob("[!_]*.py"):
        functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert path.stem in functions, path


def test_no_setting_has_name_dropped_by_dvc() -> None:
    """DVC leaves keys of these names out when it hashes parameters, so that changes of them would go unseen."""
    whole = Params.model_json_schema()
    assert len(sections := [whole, *whole["$defs"].values()]) > 10
    rendering = {name for writer in WRITERS.values() for name in signature(writer).parameters}
    assert not (rendering | {name for section in sections for name in section["properties"]}) & {"size", "nfiles"}
