"""The package, installed: the wheel without PyTorch scores, its size, other systems, and what is declared."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import ROOT, WITHOUT_CLUSTERS, Checkout, copy_of_the_project
from reid_done_right import extras
from reid_done_right.experiments import Example

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
USED_BY_OTHERS = {"tensorboard"}  # torch.utils.tensorboard imports it
MOST_MB = 450


def names(lines: list[str], *, with_own: bool = True) -> set[str]:
    """Return the packages of some requirements, with those of the extras of this project among them."""
    found: set[str] = set()
    for asked in map(Requirement, lines):
        if asked.name == PROJECT["name"]:
            found |= {name for extra in asked.extras for name in names(EXTRAS[extra])} if with_own else set()
        else:
            found.add(canonicalize_name(asked.name))
    return found


BARE = names(PROJECT["dependencies"])


def closure(packages: set[str]) -> set[str]:
    """Return packages and all that they require here."""
    todo, found = list(packages), set[str]()
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            found.add(name)
            asked = map(Requirement, distribution(name).requires or [])
            todo += [each.name for each in asked if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_import_is_declared_and_every_dependency_imported() -> None:
    provided = packages_distributions()
    ours = {"reid_done_right", "pedestrians"}
    found = {name for path in (ROOT / "src").rglob("*.py") for name in imports(path)}
    packages = {name: set(map(canonicalize_name, provided[name])) for name in found - sys.stdlib_module_names - ours}
    declared = BARE.union(*(names(EXTRAS[extra]) for extra in ("train", "export", "timm", "hub", "approximate")))
    assert {name: of for name, of in packages.items() if not of & declared} == {}
    assert declared - set().union(*packages.values()) == USED_BY_OTHERS


def test_extras_share_one_bound_for_a_package() -> None:
    bounds: dict[str, set[str]] = {}
    for line in [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]:
        asked = Requirement(line)
        if asked.name != PROJECT["name"]:
            bounds.setdefault(asked.name, set()).add(str(asked.specifier))
    assert {name: several for name, several in bounds.items() if len(several) > 1} == {}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it in a new environment; return that.

    Of the packages installed here, those that the bare one requires are linked into it.
    """
    folder = tmp_path_factory.mktemp("bare")
    source, environment, links = copy_of_the_project(folder / "source"), folder / "environment", folder / "links"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source]
    subprocess.run([*pip, *wheel], check=True)
    [built] = folder.glob("*.whl")
    into = ["--python", environment / "bin/python", "install", "--no-deps", "--no-index", "--no-compile", built]
    subprocess.run([*pip, *into], check=True)
    links.mkdir()
    for name in closure(BARE):
        for top in {file.parts[0] for file in distribution(name).files or [] if file.parts[0] != ".."}:
            if not (links / top).exists() and top != "__pycache__":
                (links / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    [site] = environment.glob("lib/*/site-packages")
    (site / "links.pth").write_text(str(links))
    for compiled in [*(ROOT / "src").rglob("*.nbi"), *(ROOT / "src").rglob("*.nbc")]:  # compiling takes half a minute
        module = compiled.parents[1] / f"{compiled.name.partition('.')[0]}.py"
        if module.exists():
            installed = site / module.relative_to(ROOT / "src")
            os.utime(installed, ns=(module.stat().st_atime_ns, module.stat().st_mtime_ns))
            (installed.parent / "__pycache__").mkdir(exist_ok=True)
            (installed.parent / "__pycache__" / compiled.name).write_bytes(compiled.read_bytes())
    return environment


def run(environment: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    return subprocess.run(
        [environment / "bin/reid", *arguments], cwd=folder, env=variables, capture_output=True, text=True
    )


def write_arrays(folder: Path) -> None:
    """Write a query and a gallery file, easy to tell apart."""
    rng = np.random.default_rng(0)
    for name, rows in {"query": 10, "gallery": 40}.items():
        person = np.arange(rows) % 5 + 1
        noise = rng.normal(size=(rows, 8)) / 10 + np.eye(8)[person]
        np.savez(folder / f"{name}.npz", embeddings=noise, person_id=person, camera_id=np.arange(rows) % 3 + 1)


SCORE = ("score", "--query", "query.npz", "--gallery", "gallery.npz", "--out", "scores.json")


@pytest.mark.slow
def test_wheel_without_pytorch_scores_and_names_the_extra_of_what_it_lacks(bare: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path)
    version = run(bare, tmp_path, "--version")
    assert version.stdout == f"reid {PROJECT['version']}\n"
    scored = run(bare, tmp_path, *SCORE)
    assert scored.returncode == 0 and scored.stdout.startswith("mAP 100.00"), scored.stderr
    for command, told in {
        (*SCORE, "--rerank", "k-reciprocal"): "'reid-done-right[rerank]'",
        (*SCORE, "--per-query", "q.parquet"): "this needs pyarrow, which is not installed: pip install",
        ("search", "a.jpg", "--model", "m.safetensors", "--gallery", "g.safetensors"): "'reid-done-right[search]'",
    }.items():
        ended = run(bare, tmp_path, *command)
        assert ended.returncode == 1 and told in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    (tmp_path / "search.py").write_text(SEARCH)
    subprocess.run([bare / "bin/python", "search.py"], cwd=tmp_path, env={"NUMBA_DISABLE_JIT": "1"}, check=True)


SEARCH = """
import sys
import numpy as np
import reid_done_right
unit = np.eye(4, dtype=np.float32)
found = reid_done_right.rank(unit, unit[::-1].copy(), 2)
assert found.items[:, 0].tolist() == [3, 2, 1, 0] and not {"torch", "scipy"} & set(sys.modules)
try:
    reid_done_right.load_embedder
except ModuleNotFoundError as error:
    assert "pip install 'reid-done-right[search]'" in str(error), error
else:
    raise AssertionError("load_embedder loaded without PyTorch")
"""


@pytest.mark.workflow
def test_wheel_brings_the_workflow(bare: Path, tmp_path: Path) -> None:
    """Snakemake is the one that is installed here; what it runs is the wheel's."""
    for path in [*(ROOT / "workflow").rglob("*"), *(ROOT / "profiles").rglob("*"), ROOT / "Snakefile"]:
        if path.is_file() and path.name != "Dockerfile":  # which copies a checkout
            assert (bare / "share/reid-done-right" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    for example in get_args(Example):
        assert run(bare, tmp_path, "new", example, "--from", example).returncode == 0
    [site] = bare.glob("lib/*/site-packages")
    mine = Checkout(tmp_path / "smoke")
    mine.environment["PYTHONPATH"] = os.pathsep.join(map(str, [site, WITHOUT_CLUSTERS]))
    planned = mine.run("snakemake --dry-run --quiet rules")
    assert re.search(r"^total +48$", planned, re.MULTILINE), planned
    assert mine.run("python -c 'import reid_done_right as r; print(r.__file__)'").startswith(str(site))


@pytest.mark.slow
def test_bare_installation_is_small(bare: Path) -> None:
    """By what the packages say that they installed, their compiled Python included."""
    files = [str(file.locate()) for name in closure(BARE) for file in distribution(name).files or []]
    of_others = sum(Path(file).stat().st_size for file in files if Path(file).is_file())
    ours = sum(path.stat().st_size for path in bare.rglob("*") if path.is_file() and not path.is_symlink())
    assert 100 < (of_others + ours) / 1e6 <= MOST_MB


def test_advice_of_unknown_module_is_none() -> None:
    assert extras.advice(ModuleNotFoundError(name="nobody_knows_it")) is None


ELSEWHERE = """
import os, platform, sys
sys.argv = ["reid", *{arguments}]
from pathlib import Path
import numba, numpy, scipy.sparse, typer, psutil, torch, torchvision, pandas, matplotlib.pyplot, cv2  # they have their own ways
import filelock, requests, tensorboard, torch.utils.tensorboard, torch.distributed.elastic, pyarrow.parquet
for name in ("sched_getaffinity", "uname", "fork", "getuid", "geteuid"):
    delattr(os, name)
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
source = Path({source!r})
for path in sorted(source.rglob("*.py")):
    if path.stem != "__main__":
        __import__(".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"))
from reid_done_right import artifacts, cli
assert artifacts.HOST
cli.main()
"""


@pytest.mark.slow
def test_import_and_score_work_without_calls_that_macos_or_windows_lack(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    program = ELSEWHERE.format(arguments=SCORE, source=str(ROOT / "src"))
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.startswith("mAP 100.00"), ended.stderr


def test_metadata_has_no_person_and_covers_tested_pythons() -> None:
    assert PROJECT["authors"] == [{"name": "the reid-done-right authors"}]
    assert re.match(r">=3\.11$", PROJECT["requires-python"]) and PROJECT["urls"]
    known = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert known == {"3.11", "3.12", "3.13"}
