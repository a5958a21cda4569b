"""Shared fixtures: copies of the project, committed files, missing programs, and the cost of a run."""

import atexit
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from hypothesis import settings

from reid_done_right import numerics

numerics.choose()  # before anything loads that computes, so that tests compute as the stages do

# `make test` tries the same examples every time, `make check` the first of them, `make soak` others. What any of them
# finds becomes an @example of its test.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("few", settings.get_profile("same"), max_examples=10)
settings.register_profile("random", database=None, deadline=None, print_blob=True)
settings.register_profile("soak", settings.get_profile("random"), max_examples=20_000)
settings.load_profile("same")

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NOT_IN_SMOKE = {"join"}
"""Stages of which the smoke experiment has no job; test_joint runs it."""
INSTALL = {
    "git": "apt-get install git",
    "a git repository": "git clone",
    "Chromium": "apt-get install chromium",
    "pdflatex": "apt-get install texlive-latex-recommended",
    "g++": "apt-get install g++",
    "a GPU": "make test-gpu, where there is one",
    "dvc-s3": "make test-kubernetes",
    "Slurm": "make test-slurm, where there is apt-get",
}


def _private_home() -> None:
    """Have everything that is started keep its caches and settings in a folder of this run, not in the user's home."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # it has its parent's
    home = tempfile.mkdtemp(prefix="reid-tests-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.environ["REID_DATA"] = "/"  # the folders of tests lie anywhere
    os.environ |= {"HOME": home, "MPLCONFIGDIR": f"{home}/matplotlib", "DVC_NO_ANALYTICS": "1"}
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{home}/inductor"  # by default in a folder of all who use this machine
    os.environ |= {f"DVC_{name}_DIR": f"{home}/dvc" for name in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")}


_private_home()
if "REID_TEST_GPU" not in os.environ:  # a GPU is for the tests that are about it: `make test-gpu`
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("REID_", "PYTEST_"))}


# --- the repository


def git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Ask git about this checkout, whoever owns its folder."""
    return subprocess.run(["git", "-c", "safe.directory=*", *arguments], cwd=ROOT, capture_output=True)


HAS_GIT = shutil.which("git") is not None
IN_REPOSITORY = HAS_GIT and (ROOT / ".git").exists() and git("rev-parse", "--verify", "HEAD").returncode == 0


def needs(what: str, there: bool) -> pytest.MarkDecorator:
    """Skip a test where something is not there; the end of the run says how many, and what installs it."""
    return pytest.mark.skipif(not there, reason=f"needs {what}")


needs_git = needs("git", HAS_GIT)


def committed(path: str) -> bytes:
    """Return a file as of the last commit, or as it lies where there is no repository.

    For comparisons of files that the main job writes with others: between a run and a commit they differ.
    Raises FileNotFoundError.
    """
    if not IN_REPOSITORY:
        return (ROOT / path).read_bytes()
    shown = git("show", f"HEAD:{path}")
    if shown.returncode:
        raise FileNotFoundError(f"{path}: not committed")
    return shown.stdout


def files_of_the_project(repository: bool) -> Iterator[str]:
    """Yield the paths of what git knows or would add; without a repository, of what `.gitignore` leaves."""
    if repository:
        listed = git("ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout.decode()
        yield from (name for name in listed.split("\0") if (ROOT / name).is_file())
        return
    lines = [*_lines(ROOT / ".gitignore"), *(f"/.dvc{line}" for line in _lines(ROOT / ".dvc/.gitignore")), "/.git"]
    for folder, folders, names in os.walk(ROOT):
        there = Path("/") / Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not _ignored(there / name, lines)]
        of_files = [line for line in lines if not line.endswith("/")]
        yield from (str(there / name)[1:] for name in names if not _ignored(there / name, of_files))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _ignored(path: Path, lines: Iterable[str]) -> bool:
    """Return whether the last line of a .gitignore that matches a path, whose root is the project, is without a "!"."""
    matching = [line for line in lines if path.match(line.removeprefix("!").rstrip("/") or "#")]
    return bool(matching) and not matching[-1].startswith("!")


def _compile() -> None:
    """Have numba compile what evaluations use, if it has not, once for all copies: it takes half a minute."""
    import numpy as np

    home, source = Path(os.environ["HOME"]), ROOT / "src"
    with FileLock(home / "compile.lock"):
        if any(source.rglob("reciprocal*.nbc")):
            return
        person, camera = np.arange(40) % 5 + 1, np.arange(40) % 3 + 1
        rows = np.random.default_rng(0).normal(size=(40, 8))
        for name, part in {"few": slice(None, None, 4), "many": slice(None)}.items():
            noise = rows[part] + 0.01 * len(name)  # the same people, other photos
            np.savez(home / f"{name}.npz", embeddings=noise, person_id=person[part], camera_id=camera[part])
        for more in ("k-reciprocal", "qe-dba", "none --distractors few.npz --sizes 0,5"):
            files = f"--query few.npz --gallery many.npz --out scores.json --rerank {more}"
            command = [sys.executable, "-m", "reid_done_right", "score", *files.split()]
            subprocess.run(command, cwd=home, env={**ENVIRONMENT, "PYTHONPATH": str(source)}, check=True)


def copy_of_the_project(folder: Path) -> Path:
    """Copy the project, with a repository of its own where there is git, so that a test can change it and run it."""
    for name in files_of_the_project(IN_REPOSITORY):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    _compile()
    for compiled in (ROOT / "src").rglob("__pycache__/*"):
        copy = folder / compiled.relative_to(ROOT)
        if not copy.parents[1].is_dir():  # of a package that is no more
            continue
        copy.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another worker may be writing it
            shutil.copy2(compiled, copy)
    if not HAS_GIT:
        (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
        return folder
    for command in ("init -q", "add -A", "-c user.name=test -c user.email=test@localhost commit -qm copy"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


WITHOUT_CLUSTERS = Path(__file__).parent / "without_clusters"


def contents(root: Path) -> dict[str, bytes]:
    """Return path -> bytes of all files of a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


class Checkout:
    """A copy of the project to run commands in; Snakemake has the plugins for clusters only if asked for."""

    def __init__(self, folder: Path, clusters: bool = False) -> None:
        self.folder = folder
        self.environment = {  # without coverage's: what runs in copies runs elsewhere too, in less time
            **{name: value for name, value in ENVIRONMENT.items() if not name.startswith("COVERAGE_")},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, [folder / "src", *([] if clusters else [WITHOUT_CLUSTERS])])),
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
        printed, _ = started.communicate(timeout=1800)
        assert started.returncode == status, f"{command}: exit status {started.returncode}\n{printed[-6000:]}"
        return printed

    def objects(self) -> set[Path]:
        """Return the folders of finished results in the store: a computation adds one."""
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
        """Set a key such as "train/margin" to another value in a YAML file."""
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
    stage, stems = made.parts[-3], {path.name.split(".")[0] for path in made.iterdir()}
    return f"{stage} {stems.pop()}" if len(stems) == 1 else stage


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the project for tests that leave it as it is, but for what git ignores or does not know."""
    return Checkout(copy_of_the_project(tmp_path_factory.mktemp("checkout")))


@pytest.fixture(scope="session")
def checkout_with_clusters(checkout: Checkout) -> Checkout:
    """The same where Snakemake has the plugins for clusters, whose import takes it a second."""
    return Checkout(checkout.folder, clusters=True)


Reid = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def reid(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reid:
    """Run a command of `reid` as a process would, in this one: to start one takes seconds."""
    from reid_done_right import cli

    def run(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        capsys.readouterr()
        status: Any = 0
        with monkeypatch.context() as patched:
            patched.chdir(folder)
            patched.setattr(sys, "argv", ["reid", *arguments])
            for name, value in environment.items():
                patched.setenv(name, value)
            try:
                cli.main()
            except SystemExit as ended:
                status = ended.code or 0
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run


# --- of tests that inject faults


@pytest.fixture
def tally(record_property: "pytest.RecordProperty") -> Any:
    """Counts the faults of a test, for the summary at the end of the run."""
    from faults import Tally

    counted = Tally()
    record_property("faults", counted.counts)
    return counted


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Choose what differs from run to run, the same for the same seed and test."""
    from faults import SEED

    return random.Random(f"{SEED} {request.node.name}")


FIRST = ("workflow", "faults", "readme", "engines", "resume", "export", "compiling", "dag")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest, so that no worker is left with one at the end."""
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(_module(item.path), len(ranks)))


def _module(path: Path | str) -> str:
    return Path(path).stem.removeprefix("test_")


# --- at the end of a run


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


BEGIN = pytest.StashKey[float]()
START = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin to count what a test costs."""
    item.stash[BEGIN] = _cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Iterator[None]:
    """Report it, to whichever process prints the end."""
    report: Any = yield
    if call.when == "teardown" and BEGIN in item.stash:
        report.user_properties.append(("cpu", _cpu_seconds() - item.stash[BEGIN]))
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print faults tried, survived and lost, what was skipped, and what the run cost, from whichever worker."""
    reports = [report for name in ("passed", "failed", "") for report in terminalreporter.getreports(name)]
    told = [(report, *each) for report in reports for each in getattr(report, "user_properties", ())]
    if counts := [value for report, name, value in told if name == "faults" and report.when == "call"]:
        from faults import SEED, Tally

        terminalreporter.section(f"faults (REID_FAULTS_SEED={SEED})")
        for line in Tally(*counts).lines():
            terminalreporter.line(line)
    terminalreporter.section("cost and skips")
    modules: Counter[str] = Counter()
    for report, name, value in told:
        if name == "cpu":
            modules[_module(report.fspath)] += value
    minutes, wall = _cpu_seconds() / 60, (time.monotonic() - START) / 60
    most = "".join(f", {name} {seconds:.0f} s" for name, seconds in modules.most_common(12))
    terminalreporter.line(f"{minutes:.1f} minutes of CPU time in {wall:.1f} minutes{most}")
    skipped = [report.longrepr[2] for report in terminalreporter.getreports("skipped")]
    terminalreporter.line(skips(reason.removeprefix("Skipped: ") for reason in skipped))


def skips(reasons: Iterable[str]) -> str:
    """Say in a line what was skipped, why, and what to install."""
    counts = Counter(reasons).items()
    parts = []
    for reason, count in counts:
        what = reason.removeprefix("needs ")
        verb = ("needs" if count == 1 else "need") if what != reason else "because"
        parts.append(f"{count} {verb} {what}" + (f" ({INSTALL[what]})" if what in INSTALL else ""))
    return f"skipped: {'; '.join(parts)}" if parts else "skipped: none"
