"""Inject faults into stage commands: a server that forks a command with a fault, and a list of the faults.

The server imports everything once and computes nothing itself, so that a job costs what it computes and no more. It
lives in a mount namespace of its own where the system allows one: what is mounted there, nobody else sees, and it is
gone when the server is.
"""

import errno
import fcntl
import hashlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from conftest import Checkout
from reid_done_right.artifacts import file_digest, remove
from tiny import changed

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS}
CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime"}
UNSHARE = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
SMALLEST = "experiments/smoke/params.yaml"
SNAKEMAKE = f"snakemake --cores 2 --configfile {SMALLEST}"
DVC = "dvc repro experiments/smoke/dvc.yaml"
ENGINES = {"Snakemake": SNAKEMAKE, "DVC": DVC}
REFUSAL = {"Snakemake": "LockException|cannot be locked|could not be acquired", "DVC": "is busy|Unable to acquire lock"}
SEED = int(os.environ.get("REID_FAULTS_SEED", time.time_ns() % 10**6 if "REID_SOAK_MINUTES" in os.environ else 0))
ORDER = ["dataset", "index", "initialise", "pretrain", "train", "embed", "evaluate", "distract", "retrieve"]
ORDER += ["follow", "inspect", "identify", "tabulate", "illustrate", "draw", "publish"]


# --- what was tried


class Tally:
    """How many faults of each kind were tried, and how many survived."""

    def __init__(self, *counts: Mapping[str, Sequence[int]]) -> None:
        self.counts: dict[str, list[int]] = {}
        for each in counts:
            for kind, (tried, survived) in each.items():
                count = self.counts.setdefault(kind, [0, 0])
                count[0] += tried
                count[1] += survived

    @contextmanager
    def trying(self, kind: str) -> Iterator[None]:
        """Count a fault as tried, and as survived if the block ends well."""
        count = self.counts.setdefault(kind, [0, 0])
        count[0] += 1
        yield
        count[1] += 1

    def lines(self) -> list[str]:
        """Return one line per kind and one for all."""
        tried, survived = (sum(count[side] for count in self.counts.values()) for side in (0, 1))
        rows = [*sorted(self.counts.items()), ("all", [tried, survived])]
        return [f"{kind:44} tried {a:5}  survived {b:5}  lost {a - b:3}" for kind, (a, b) in rows]


# --- the server: one request a line, one answer a line


class Server:
    """Forks jobs: commands of `reid`, in a folder, each perhaps with a fault.

    Where it cannot have a mount namespace of its own, `may_mount` is False.
    """

    def __init__(self, source: Path, log: Path) -> None:
        left_out = ("REID_", "COVERAGE_")  # forked jobs end without writing what they covered
        environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        environment |= {"PYTHONPATH": os.pathsep.join([str(source), str(Path(__file__).parent)])}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a fork keeps only the thread that forked
        allowed = [
            unshare for unshare in UNSHARE if subprocess.run([*unshare, "true"], capture_output=True).returncode == 0
        ]
        self.may_mount = bool(allowed)
        self.process = subprocess.Popen(
            [*(allowed[0] if allowed else []), sys.executable, "-c", "import faults; faults.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("a"),
            text=True,
            env=environment,
        )

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, command: Sequence[str], folder: Path, **options: Any) -> "Started":
        """Fork a job; options as of `work`."""
        return Started(self, self.ask(do="start", command=list(command), folder=str(folder), **options))

    def shell(self, command: str) -> None:
        """Run a command in the server's mount namespace."""
        said = self.ask(do="shell", command=command)
        assert said == "", said

    def seen(self, path: Path) -> Path:
        """Return the path under which this process sees a file of the server's mount namespace."""
        return Path(f"/proc/{self.process.pid}/root{path}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(300)


class Started:
    """A job that the server forked."""

    def __init__(self, server: Server, pid: int) -> None:
        self.server, self.pid = server, pid

    def wait(self) -> int:
        """Return the exit status, negative for a signal."""
        return int(self.server.ask(do="wait", pid=self.pid))

    def kill(self, number: signal.Signals, after: float) -> int:
        """Wait some seconds, kill it if it still runs, give its exit status."""
        time.sleep(after)
        return int(self.server.ask(do="kill", pid=self.pid, signal=int(number)))


def serve() -> None:
    """Answer requests until there are no more."""
    import importlib

    for name in (
        "reid_done_right.cli",
        "reid_done_right.store",
        "pyarrow.parquet",
        "safetensors.torch",
        "threadpoolctl",
        "psutil",
    ):
        importlib.import_module(name)
    import reid_done_right.stages

    for path in Path(reid_done_right.stages.__path__[0]).glob("[a-z]*.py"):
        importlib.import_module(f"reid_done_right.stages.{path.stem}")
    for line in sys.stdin:
        request = json.loads(line)
        match request.pop("do"):
            case "start":
                answer: Any = os.fork()
                if answer == 0:
                    work(**request)
            case "wait":
                answer = os.waitstatus_to_exitcode(os.waitpid(request["pid"], 0)[1])
            case "kill":
                ended, status = os.waitpid(request["pid"], os.WNOHANG)
                if not ended:
                    os.kill(request["pid"], request["signal"])
                    status = os.waitpid(request["pid"], 0)[1]
                answer = os.waitstatus_to_exitcode(status)
            case "shell":
                ran = subprocess.run(request["command"], shell=True, capture_output=True, text=True)
                answer = ran.stderr if ran.returncode else ""
        print(json.dumps(answer), flush=True)


def work(
    command: Sequence[str],
    folder: str,
    said: str,
    environment: Mapping[str, str] | None = None,
    at: int | None = None,
    fault: str = "",
    counted: str = "",
) -> None:
    """Run a command of `reid` in a forked process, and end it.

    said         file for what it prints
    environment  further variables
    at, fault    what happens from the `at`-th change of a file on, counted from 0: "SIGKILL", or an error of `ERRORS`
    counted      file in which to write how many changes there were
    """
    os.chdir(folder)
    printed = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.environ.update(environment or {})
    changes = watch(at, fault)
    from reid_done_right import cli

    sys.argv = list(command)
    status: Any = 70
    try:
        cli.main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if counted:
            Path(counted).write_text(str(changes[0]))
        os._exit(status if isinstance(status, int) else 1)


def watch(at: int | None, fault: str) -> list[int]:
    """Count the changes of files below results, reports and the store that Python makes; let a fault happen at one.

    What compiled libraries write (pyarrow, safetensors, OpenCV) goes unseen until it is flushed and renamed here.
    """
    changes, inside = [0], tuple(str(Path.cwd() / name) for name in ("results", "reports", ".store"))

    def happen(path: str) -> None:
        if at is not None and changes[0] >= at:
            if fault == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]), path)
        changes[0] += 1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
            if path and str(Path.cwd() / path).startswith(inside):
                happen(path)

    flush = os.fsync

    def fsync(handle: int) -> None:
        happen(str(Path(f"/proc/self/fd/{handle}").readlink()))
        flush(handle)

    os.fsync = fsync
    sys.addaudithook(hook)
    return changes


# --- an experiment to disturb


@dataclass(frozen=True)
class Job:
    """A job of the experiment: its command, the files that it reads and writes."""

    stage: str
    name: str
    command: list[str]
    reads: list[str]
    writes: list[str]
    seconds: float = 0.0
    changes: int = 0


class Tree:
    """A checkout in which the smallest experiment that has every stage has run undisturbed."""

    def __init__(self, checkout: Checkout, server: Server) -> None:
        self.checkout, self.folder, self.server = checkout, checkout.folder, server
        self.said = self.folder.with_suffix(".said")
        (self.folder / SMALLEST).write_text(yaml.safe_dump(smallest(), sort_keys=False))
        checkout.run(f"reid plan {SMALLEST} --dvc")
        self.jobs = [self._undisturbed(job) for job in planned(checkout)]
        self.bytes = {name: digest(self.folder / name) for job in self.jobs for name in job.writes}

    def _undisturbed(self, job: Job) -> Job:
        start, counted = time.monotonic(), self.folder.with_suffix(".counted")
        status, said = self.run(job, counted=str(counted))
        assert status == 0, said
        return replace(job, seconds=time.monotonic() - start, changes=int(counted.read_text()))

    def start(self, job: Job, **options: Any) -> Started:
        return self.server.start(job.command, self.folder, **{"said": str(self.said), **options})

    def run(self, job: Job, **options: Any) -> tuple[int, str]:
        """Run a job; return its exit status and what it said."""
        status = self.start(job, **options).wait()
        return status, self.said.read_text(errors="replace")

    def lose(self, job: Job) -> None:
        """Forget the results of a job, and of its stage in the store."""
        for name in map(Path, job.writes):
            remove(self.folder / name)
        remove(self.folder / ".store" / job.stage)

    def pages(self, job: Job) -> int:
        """Return how many pages of memory the results of a job take."""
        made = [self.folder / name for name in job.writes]
        files = [file for path in made for file in (path.rglob("*") if path.is_dir() else [path])]
        return sum(-(-file.stat().st_size // 4096) if file.is_file() else 1 for file in files)

    def check_nothing_half_done(self, job: Job) -> None:
        """Whatever is under the name of a result is whole."""
        for name in job.writes:
            there = self.folder / name
            assert not there.exists() or digest(there) == self.bytes[name], f"{name} is not whole"

    def check_whole(self, *jobs: Job) -> None:
        """The results are those of the undisturbed run, byte for byte, and nothing is left over."""
        for name in [name for job in jobs for name in job.writes]:
            assert digest(self.folder / name) == self.bytes[name], f"{name} differs"
        left = [path for top in ("results", "reports", ".store") for path in (self.folder / top).rglob(".*.tmp")]
        left += [path for path in (self.folder / ".store/partial").glob("*") if path.suffix != ".lock"]
        assert left == [], f"left over: {left}"

    def check_again(self, job: Job) -> None:
        """The same command again makes the same results."""
        status, said = self.run(job)
        assert status == 0, said
        self.check_whole(job)


def damage(path: Path, chance: random.Random) -> str:
    """Flip a bit of a file, or cut its end off; say which."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    how = chance.choice(["a flipped bit", "a truncated file"])
    if how == "a flipped bit":
        content[place] ^= 1 << chance.randrange(8)
    mode = path.stat().st_mode
    path.chmod(0o644)
    with path.open("r+b") as opened:  # the same file, so that its hard links share the damage
        opened.write(content)
        opened.truncate(len(content) if how == "a flipped bit" else place)
    path.chmod(mode)
    return how


class Engine:
    """Snakemake or DVC over a tree."""

    def __init__(self, name: str, tree: Tree) -> None:
        self.name, self.tree, self.command = name, tree, ENGINES[name]
        self.printed = tree.folder.with_suffix(f".{name}")

    def start(self) -> "subprocess.Popen[str]":
        return self.tree.checkout.start(f"exec {self.command} > {self.printed} 2>&1")

    def lose(self, job: Job) -> None:
        """Forget the results of a job, also in DVC's cache, which holds the same files by hard links."""
        cache = self.tree.folder / ".dvc/cache"
        made = [self.tree.folder / name for name in job.writes]
        same = {file.stat().st_ino for path in made for file in [path, *path.rglob("*")] if file.is_file()}
        for kept in cache.glob("files/md5/??/*"):
            if kept.stat().st_ino in same:
                kept.unlink()
        remove(cache / "runs")
        self.tree.lose(job)

    def wait_for_a_job(self, started: "subprocess.Popen[str]") -> None:
        """Wait until some job computes, or the engine has ended."""
        partial = self.tree.folder / ".store/partial"
        deadline = time.monotonic() + 600
        while not list(partial.glob("*.lock")) and started.poll() is None:
            assert time.monotonic() < deadline, f"no job within ten minutes\n{self.printed.read_text()}"
            time.sleep(0.01)

    def kill(self, started: "subprocess.Popen[str]", number: signal.Signals) -> None:
        """Send a signal to an engine and all its jobs; wait until the last of them has ended."""
        with suppress(ProcessLookupError):
            os.killpg(started.pid, number)
        started.wait(300)
        deadline = time.monotonic() + 300
        for lock in (self.tree.folder / ".store/partial").glob("*.lock"):
            with lock.open() as opened:
                while not _free(opened.fileno()):
                    assert time.monotonic() < deadline, "a job outlived its engine"
                    time.sleep(0.01)

    def check_again(self) -> None:
        """The same command again, unlocked where the engine asks for that, ends with the undisturbed results."""
        status, said = self.finish()
        if status and "--unlock" in said:
            self.unlock()
            status, said = self.finish()
        assert status == 0, said[-6000:]
        self.tree.check_whole(*self.tree.jobs)

    def unlock(self) -> None:
        """Do what Snakemake asks for where it was killed."""
        self.tree.checkout.run(f"{self.command} --unlock")

    def finish(self) -> tuple[int, str]:
        """Run the engine to its end; return its exit status and what it printed."""
        status = self.start().wait(1800)
        return status, self.printed.read_text(errors="replace")


def _free(handle: int) -> bool:
    """Return whether no process holds the open lock file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def smallest() -> dict[str, Any]:
    """Return the smallest parameters that have every stage; under the name `smoke`."""
    content = changed({"experiment": "smoke", "draws": [0], "variants": {"default": {}}, "resources": {}})
    del content["datasets"]["duke"]
    content["datasets"]["market"]["variants"] = ["default"]
    content["backbones"] = {"shallow": content["backbones"]["shallow"]}
    content["distract"] |= {"variants": ["default"], "shards": 2}
    content |= {section: {"dataset": "market", "variants": ["default"]} for section in ("inspect", "identify")}
    content["report"]["shown"]["datasets"] = ["market"]
    content["report"] |= {"table1": [{"variant": "default", "label": "- - ✓", "paper": "- - ✓"}], "table3": []}
    return content


def planned(checkout: Checkout) -> list[Job]:
    """Return the jobs that Snakemake would run, in an order in which each finds what it reads."""
    printed = checkout.run(f"{SNAKEMAKE} --dry-run --printshellcmds")
    pattern = r"^ +input: (.*)\n +output: (.*)\n(?: +.*\n)*?Shell command: .*?(reid .*?) > .*$"
    jobs = []
    for read, written, line in re.findall(pattern, printed, re.MULTILINE):
        command, writes = shlex.split(line), written.split(", ")
        if "--images" in command:
            writes.insert(0, command[command.index("--images") + 1])
        jobs.append(Job(command[1], Path(writes[-1]).stem, command, read.split(", "), writes))
    return sorted(jobs, key=lambda job: ORDER.index(job.stage))


def digest(path: Path) -> str:
    """Digest a file, or the names and contents of all files of a folder but those that Python and Numba compile."""
    files = [file for file in sorted(path.rglob("*")) if "__pycache__" not in file.parts] if path.is_dir() else [path]
    told = [(str(file.relative_to(path)), file_digest(file)) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
