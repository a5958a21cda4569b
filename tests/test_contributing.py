"""What contributors meet: public checks run our make targets, hooks run the locked tools, links lead somewhere."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

GITHUB = ROOT / ".github"
MAKE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^(\w[\w-]*):", MAKE, re.MULTILINE))


def test_public_checks_run_only_make_targets_on_every_declared_python() -> None:
    [job] = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [
        "make ${{ matrix.run }} PYTHON=python${{ matrix.python }}"
    ]
    runs = job["strategy"]["matrix"]["include"]
    assert {run["run"] for run in runs} == {"static", "coverage", "unit", "wheel", "docs"} <= TARGETS
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line}
    assert {run["python"] for run in runs} == declared


def test_hooks_are_the_locked_tools() -> None:
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    tools = {hook["entry"].split()[0] for hook in local["hooks"]}
    assert tools == {".venv/bin/ruff", ".venv/bin/snakefmt"}
    locked = re.findall(r"^(\w+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {Path(tool).name for tool in tools} <= set(locked)


def test_changelog_has_the_version_and_the_changes_after_it() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert version in headings and headings[0] in (version, "Unreleased")


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.y*ml")), ids=lambda path: path.name)
def test_template_is_complete(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert content["name"]
    if path.parent.name == "ISSUE_TEMPLATE":
        assert content["description"] and all(part["attributes"]["label"] for part in content["body"])


@pytest.mark.parametrize(
    "page",
    [*sorted(GITHUB.glob("*.md")), ROOT / "config/README.md"],
    ids=lambda page: f"{page.parent.name}-{page.name}",
)
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def copied() -> set[str]:
    """Return what the container file copies."""
    lines = re.findall(r"^COPY (.+)$", (ROOT / "workflow/Dockerfile").read_text(), re.MULTILINE)
    return {name for line in lines for name in line.split()[:-1]}


def test_container_copies_what_is_there() -> None:
    assert {"src", "workflow", "requirements.lock"} <= copied()
    assert [name for name in copied() if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_container_installs_from_what_it_copies(tmp_path: Path) -> None:
    """The last command of its file, on its files alone, with every profile."""
    for name in copied():
        place = tmp_path / "context" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, place)
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", tmp_path / "wheel"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "."]
    built = subprocess.run(command, cwd=tmp_path / "context", capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    inside = {name.partition("/share/reid-done-right/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    profiles = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("profiles/*/profile.yaml")}
    assert {name for name in inside if name.startswith("profiles/")} == profiles
    assert "workflow/Snakefile" in inside


def test_draft_of_the_article_names_no_author_and_has_its_references() -> None:
    _, head, text = (ROOT / "docs/joss/paper.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["authors"] == []
    cited = set(re.findall(r"@(\w+)", text))
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "docs/joss/paper.bib").read_text(), re.MULTILINE))
    assert cited == known


def test_make_says_what_wheel_does(tmp_path: Path) -> None:
    shown = subprocess.run(["make", "--dry-run", "wheel"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0 and "--wheel-dir dist" in shown.stdout
