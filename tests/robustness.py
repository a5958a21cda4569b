"""Every fault to every artifact, and random lies and bytes to every reader, counted:  python tests/robustness.py

Adds to benchmarks/results/robustness.json while the package's code is the same; of other code only the totals stay. A
fault or an input that is lost is printed, with the seed that repeats it; the exit status is then 1.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import damages
import hostile
import schemas
from conftest import ROOT, Checkout, copy_of_the_project
from faults import ENGINES, Engine, Server, Tree, digest
from reid_done_right import numerics
from reid_done_right.artifacts import remove

RESULT = ROOT / "benchmarks/results/robustness.json"
PATIENCE = 20
"""Seconds after which an input counts as one without end."""
SHARE, SLOW = 0.25, 0.06
"""Seconds of the processor that each reader gets in turn, and those that take fewer than a thousand inputs a second."""
MEMORY = 4 << 30
"""Bytes that an input may take; more ends in a MemoryError, which no reader may raise."""
SHARED = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


# --- what is counted

TOTALS = ("faults_tried", "survived", "lost", "inputs_tried", "tracebacks", "without_end")


class Counts:
    """The file of results: totals, and each engine's and reader's own; of earlier code, the totals."""

    def __init__(self, path: Path) -> None:
        code = digest(ROOT / "src")
        self.path = path
        self.content: dict[str, Any] = {"code": code[:12], "earlier": [], "faults": {}, "inputs": {}}
        with suppress(FileNotFoundError):
            kept = json.loads(path.read_text())
            if kept["code"] == code[:12]:
                self.content = kept
            else:
                self.content["earlier"] = [*kept["earlier"], {name: kept[name] for name in ("code", *TOTALS)}]

    def add(self, section: str, names: tuple[str, ...], **counts: int) -> None:
        """Add to the counts at a place."""
        place = self.content[section]
        for name in names:
            place = place.setdefault(name, {})
        for name, count in counts.items():
            place[name] = place.get(name, 0) + count

    def write(self) -> dict[str, Any]:
        """Write the file; return its totals."""
        with_, flags = numerics.processor(), {"avx2", "fma", "avx512f", "amx_tile"}
        faults = [each for states in self.content["faults"].values() for each in states.values()]
        inputs = list(self.content["inputs"].values())
        tried, survived = (sum(each[name] for each in faults) for name in ("tried", "survived"))
        read = (sum(each[name] for each in inputs) for name in ("tried", "tracebacks", "without_end"))
        totals = dict(zip(TOTALS, (tried, survived, tried - survived, *read), strict=True))
        machine = {
            "processor": with_.get("model name", ""),
            "flags": sorted(flags & set(with_.get("flags", "").split())),
        }
        ordered = {name: dict(sorted(self.content[name].items())) for name in ("faults", "inputs")}
        whole = {"code": self.content["code"], **machine, **totals, "earlier": self.content["earlier"], **ordered}
        self.path.write_text(json.dumps(whole, indent=1) + "\n")
        return totals


# --- inputs


class EndlessError(Exception):
    """An input took longer than `PATIENCE`."""


def _end(number: int, frame: FrameType | None) -> None:
    raise EndlessError


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few of them changed, left out, repeated or put in; seldom many, so that some stay readable."""
    changed = bytearray(content)
    for _ in range(min(chance.randrange(1, 7), chance.randrange(1, 7))):
        at = chance.randrange(len(changed) + 1)
        match chance.choices(("bit", "bytes", "drop", "cut", "copy"), (8, 4, 2, 1, 2))[0]:
            case "bit" if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case "bytes":
                changed[at : at + chance.randrange(5)] = chance.randbytes(chance.randrange(9))
            case "drop":
                del changed[at : at + chance.randrange(1, 17)]
            case "cut":
                del changed[at:]
            case "copy":
                changed[at:at] = changed[: chance.randrange(1, 65)]
    return bytes(changed)


def lies(content: Any, chance: random.Random) -> Any:
    """Return a content with a wrong value in one to three places."""
    changed = content
    for _ in range(chance.randrange(1, 4)):
        places = [*schemas.fields(changed)] or [()]
        changed = schemas.lying(changed, chance.choice(places), chance.choice([*schemas.WRONG.values()]))
        if not isinstance(changed, dict) or not changed:
            break
    return changed


@cache
def _seeds(name: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return hostile.TARGETS[name].seeds(Path(folder))


Attempt = Callable[[random.Random, Path], tuple[Any, Callable[[], bool]]]
"""Draws an input; returns it, and what gives it to its reader and tells whether that took it."""


def _fields(name: str) -> Attempt:
    def draw(chance: random.Random, folder: Path) -> tuple[Any, Callable[[], bool]]:
        content = lies(schemas.SCHEMAS[name].content, chance)
        return content, lambda: schemas.attempt(name, content, folder)

    return draw


def _bytes(name: str) -> Attempt:
    def draw(chance: random.Random, folder: Path) -> tuple[Any, Callable[[], bool]]:
        content = mutated(chance.choice(_seeds(name)), chance)
        return content, lambda: hostile.attempt(name, content, folder)

    return draw


READERS: dict[str, Attempt] = {f"{name}, fields": _fields(name) for name in schemas.SCHEMAS}
READERS |= {name: _bytes(name) for name in hostile.TARGETS}


def _one(name: str, chance: random.Random, counts: dict[str, int], seed: int, memory: str) -> None:
    """Give one random input to a reader, and count what came of it."""
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        content, attempt = READERS[name](chance, Path(folder))
        counts["tried"] += 1
        try:
            signal.alarm(PATIENCE)
            try:
                counts["taken"] += attempt()
            finally:
                signal.alarm(0)
        except EndlessError:
            counts["without_end"] += 1
            print(f"seed {seed}: {name}: without end: {content!r:.1000}", flush=True)
        except Exception as error:
            counts["tracebacks"] += 1
            print(f"seed {seed}: {name}: {error!r:.300}: {content!r:.1000}", flush=True)


def _work(told: Connection, seed: int, memory: str) -> None:
    """Give inputs to all readers in turn, each for its share, for ever; tell the name of each, then its counts."""
    signal.signal(signal.SIGALRM, _end)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    os.sync = lambda: None  # what is lost with the power is not what is counted here
    os.fsync = lambda handle: None
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff warns there, of every second image
    chance, slow = random.Random(seed), set(READERS)
    while True:
        for name in READERS:
            told.send(name)
            counts = dict.fromkeys(COUNTED, 0)
            share = SLOW if name in slow else SHARE
            end = time.process_time() + share
            while not counts["tried"] or time.process_time() < end:
                _one(name, chance, counts, seed, memory)
            told.send(counts)
            if counts["tried"] > 1000 * share:
                slow.discard(name)
            else:
                slow.add(name)


def try_inputs(seconds: float, seed: int, at_once: int, counts: Counts) -> None:
    """Try inputs for some seconds in some processes; one that dies, or is silent, counts against its reader."""
    import torch

    torch.set_num_threads(1)  # a fork keeps only the thread that forked
    for name in hostile.TARGETS:
        _seeds(name)
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="reid-", dir=SHARED) as memory:
        working: dict[Connection, tuple[multiprocessing.process.BaseProcess, str]] = {}
        while time.monotonic() < end:
            while len(working) < at_once:
                heard, process = _started(seed, memory)
                working[heard] = process, ""
                seed += 1
            ready = wait(list(working), timeout=10 * PATIENCE)
            for heard in ready or list(working):
                process, name = working[heard]
                said = _said(heard) if ready else "without_end"
                if isinstance(said, dict):
                    counts.add("inputs", (name,), **said)
                elif said in ("tracebacks", "without_end"):
                    print(f"{name}: a process ended or stands still, {said}", flush=True)
                    process.kill()
                    del working[heard]
                    counts.add("inputs", (name,), **{**dict.fromkeys(COUNTED, 0), "tried": 1, said: 1})
                else:
                    working[heard] = process, said
            counts.write()
        for process, _ in working.values():
            process.kill()
            process.join()


COUNTED = ("tried", "taken", "tracebacks", "without_end")


def _started(seed: int, memory: str) -> tuple[Connection, multiprocessing.process.BaseProcess]:
    fork = multiprocessing.get_context("fork")
    heard, told = fork.Pipe(duplex=False)
    process = fork.Process(target=_work, args=(told, seed, memory), daemon=True)
    process.start()
    told.close()
    return heard, process


def _said(heard: Connection) -> Any:
    """Return what a process says: a reader's name, its counts, or "tracebacks" if it died."""
    try:
        return heard.recv()
    except EOFError:
        return "tracebacks"


# --- faults


def try_faults(seconds: float, seed: int, counts: Counts) -> None:
    """Try every artifact that a job reads in every state, by hand of the job and under both engines, in random order."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(ROOT / "src", Path(folder) / "log.txt")
        tree = Tree(Checkout(copy_of_the_project(Path(folder) / "project")), server)
        engines = [Engine(name, tree) for name in ENGINES]
        for engine in engines:
            engine.check_again()
        end, chance = time.monotonic() + seconds, random.Random(seed)
        jobs, rounds = _by_job(tree, chance), _by_round(tree, chance)
        while time.monotonic() < end:
            engine = chance.choice(engines)
            changed, lost = next(rounds)
            states = ", reports there" if not lost else ", a report missing"
            found = damages.try_round(engine, changed, lost, chance)
            for name, kind in changed.items():
                unread = {"unread": 1} if name in found.unread else {}
                counts.add("faults", (engine.name, kind + states), tried=1, survived=name not in found.failed, **unread)
            for name, reason in found.failed.items():
                print(f"seed {seed}: {engine.name}, {name} {changed.get(name)}{states}: {reason:.1500}", flush=True)
            if found.failed:
                counts.write()
                for name in changed:
                    remove(tree.folder / name)
                engine.check_again()
            by_hand = time.monotonic() + seconds / 20
            for job, name, kind, also in jobs:
                try:
                    damages.check_brought_back(tree, job, name, kind, chance, also)
                except AssertionError as error:
                    print(f"seed {seed}: {job.stage} {job.name}: {name} {kind}: {error!s:.400}", flush=True)
                    counts.add("faults", ("by hand", kind), tried=1, survived=0)
                    for each in tree.jobs:
                        tree.run(each)
                else:
                    counts.add("faults", ("by hand", kind), tried=1, survived=1)
                if time.monotonic() > by_hand:
                    break
            counts.write()
        server.close()


def _by_job(tree: Tree, chance: random.Random) -> Iterator[Any]:
    """Yield every job, what it reads, what is in its place, and whether the job's results are lost too; again and again."""
    pairs = [*damages.inputs(tree)]
    cases = [(job, name, kind, lost) for job, name in pairs for kind in damages.KINDS for lost in (False, True)]
    while True:
        yield from chance.sample(cases, len(cases))


def _by_round(tree: Tree, chance: random.Random) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Yield what to put in the place of artifacts, all of them at once, until each was each; and a report to lose."""
    names = sorted({name for _, name in damages.inputs(tree)})
    reports = sorted({name for job in tree.jobs for name in job.writes if name not in names})
    while True:
        shift = {name: chance.sample([*damages.KINDS], len(damages.KINDS)) for name in names}
        for turn in range(len(damages.KINDS)):
            for lost in ([], [chance.choice(reports)]):
                yield {name: kinds[turn] for name, kinds in shift.items()}, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="for faults, and as many for inputs")
    parser.add_argument("--only", choices=["faults", "inputs"], help="not both")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="for inputs")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    counts = Counts(chosen.out)
    if chosen.only != "inputs":
        try_faults(60 * chosen.minutes, chosen.seed, counts)
    if chosen.only != "faults":
        try_inputs(60 * chosen.minutes, chosen.seed, chosen.processes, counts)
    totals = counts.write()
    print(json.dumps(totals, indent=1))
    if totals["lost"] or totals["tracebacks"] or totals["without_end"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
