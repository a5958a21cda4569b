"""Every installed package is locked by digest, and its licence is known."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import BIN, ROOT

LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = {
    canonicalize_name(requirement.name): requirement
    for line in re.findall(r"^[^\s#].*$", LOCK, re.MULTILINE)
    for requirement in [Requirement(line.removesuffix("\\"))]
}
HERE = {name: locked for name, locked in LOCKED.items() if locked.marker is None or locked.marker.evaluate()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [
    asked
    for asked in map(Requirement, [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())])
    if asked.name != PROJECT["name"]
]
PAGE = ROOT / "docs/licences.md"
LISTED = dict(re.findall(r"^\| (\S+) \| \d\S* \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
FREE = r"\b(MIT|BSD|0BSD|ISC|Apache|PSF|Python Software Foundation|Zope|Zlib|CC0|MPL|Mozilla|EPL)"
EXPLAINED = {
    "grandalf": "GNU General Public License v2 (GPLv2)",
    "pygit2": "GPLv2 with linking exception",
}  # on the page


def test_every_locked_package_has_a_digest() -> None:
    blocks = re.split(r"^(?=[^\s#])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(LOCKED) > 200
    for block in blocks:
        assert re.fullmatch(r"\S+==\S+.*(\\\n    --hash=sha256:[0-9a-f]{64}\s*)+", block), block


@pytest.mark.parametrize("name", ["requirements.lock", "dvc-s3.lock"])
def test_lock_names_no_host(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|@ ", (ROOT / name).read_text())


def test_dependencies_are_locked_within_bounds() -> None:
    for asked in DIRECT:
        locked = str(LOCKED[canonicalize_name(asked.name)].specifier).removeprefix("==")
        assert asked.specifier.contains(locked), f"{asked} is locked at {locked}"


@pytest.mark.slow
def test_pip_reads_the_lock_and_finds_it_installed() -> None:
    """It checks digests where it downloads; here everything is there already."""
    options = ["install", "--dry-run", "--no-deps", "--no-index", "--require-hashes", "--quiet", "--quiet"]
    pip = subprocess.run(
        [BIN / "python", "-m", "pip", *options, "--requirement", ROOT / "requirements.lock"],
        capture_output=True,
        text=True,
    )
    assert pip.returncode == 0, pip.stderr


def test_locked_package_has_a_licence_that_we_may_depend_on() -> None:
    licences = {canonicalize_name(listed): licence for listed, licence in LISTED.items()}
    assert HERE.keys() == licences.keys()
    for name, licence in licences.items():
        assert not re.search("AGPL|Affero|UNKNOWN", licence), name
        free = re.search(FREE, licence) or "NVIDIA" in licence or name.startswith("nvidia-")
        assert free or licence == EXPLAINED[name], f"{name}: {licence}"


@pytest.mark.slow
def test_list_of_licences_is_that_of_the_environment(tmp_path: Path) -> None:
    if any(version(name) != str(locked.specifier).removeprefix("==") for name, locked in HERE.items()):
        pytest.skip("this environment is not the locked one")
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, 'docs'); import licences; print(licences.page(), end='')",
        ],
        cwd=ROOT,
        check=True,
        stdout=(tmp_path / "page").open("w"),
    )
    assert (tmp_path / "page").read_text() == PAGE.read_text()


def test_package_named_reid_and_ours_work_side_by_side(tmp_path: Path) -> None:
    """The import name belongs to another project; the command is ours."""
    (tmp_path / "reid").mkdir()
    (tmp_path / "reid/__init__.py").write_text("WHOSE = 'theirs'\n")
    path = f"{tmp_path}{os.pathsep}{ROOT / 'src'}"
    code = "import reid, reid_done_right; print(reid.WHOSE, reid_done_right.RULES['mars'].queries_in_gallery)"
    for command, printed in (
        ([sys.executable, "-c", code], "theirs True"),
        ([str(BIN / "reid"), "--version"], "reid "),
    ):
        ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        assert ended.returncode == 0 and ended.stdout.startswith(printed), ended.stderr


def test_nothing_but_the_two_packages_is_at_top_level() -> None:
    assert {path.parent.name for path in (ROOT / "src").glob("*/__init__.py")} == {"reid_done_right", "pedestrians"}
