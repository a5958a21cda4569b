import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

from reid_done_right import numerics

numerics.choose()  # before anything loads that computes, so that tests compute as the stages do

settings.register_profile("soak", max_examples=20_000)  # pytest --hypothesis-profile soak tests/test_hostile.py
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("REID_", "PYTEST_"))}


def copy_of_the_project(folder: Path) -> Path:
    """Copy what git knows of the project, with a repository of its own, so that a test can change it and run it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for command in ("init -q", "add -A", "-c user.name=test -c user.email=test@localhost commit -qm copy"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


class Checkout:
    """A copy of the project to run commands in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **ENVIRONMENT,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
        }

    def start(self, command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            shell=True,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str, status: int = 0, **environment: str) -> str:
        """Run a command, check its exit status, give what it printed."""
        started = self.start(command, **environment)
        printed, _ = started.communicate(timeout=900)
        assert started.returncode == status, f"{command}: exit status {started.returncode}\n{printed[-6000:]}"
        return printed

    def objects(self) -> set[Path]:
        """Give the folders of finished results in the store: a computation adds one."""
        return set((self.folder / ".store").glob("*/??/*"))

    def computed(self, action: Callable[[], object]) -> list[str]:
        """Do something and give what was computed meanwhile, sorted: "stage job", or "stage" if it has one job only."""
        before = self.objects()
        action()
        return sorted(map(_name, self.objects() - before))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text, which must be there once, in a file."""
        path = self.folder / name
        content = path.read_text()
        assert content.count(old) == 1, f"{name}: {content.count(old)} times {old!r}"
        path.write_text(content.replace(old, new))

    def change(self, name: str, key: str, value: Any) -> None:
        """Give a key such as "train/margin" another value in a YAML file."""
        path = self.folder / name
        content = yaml.safe_load(path.read_text())
        *parents, last = key.split("/")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _name(made: Path) -> str:
    """Name a folder of the store by its stage and, if all its files have one stem, by that."""
    stage, stems = made.parts[-3], {path.stem for path in made.iterdir()}
    return f"{stage} {stems.pop()}" if len(stems) == 1 else stage


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(copy_of_the_project(tmp_path_factory.mktemp("checkout")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many faults were tried, survived and lost, from whichever worker ran the tests."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    counts = [value for report in reports for name, value in report.user_properties if name == "faults"]
    if counts:
        from faults import SEED, Tally

        terminalreporter.section(f"faults (REID_FAULTS_SEED={SEED})")
        for line in Tally(*counts).lines():
            terminalreporter.line(line)
