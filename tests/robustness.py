"""Every fault to every artifact, and random lies and bytes to every reader, counted:  python tests/robustness.py

Writes benchmarks/results/robustness.json: faults_tried, survived, lost; inputs_tried, tracebacks, without_end. The
first input of each kind that is lost is printed, with the seed that repeats it.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import damages
import hostile
import schemas
from conftest import ROOT, Checkout, copy_of_the_project
from faults import Server, Tree

RESULT = ROOT / "benchmarks/results/robustness.json"
PATIENCE = 20
"""Seconds after which an input counts as one without end."""
SLOW = {"mars-mat", "mars-names", "train-mat", "testg-mat", "images-mat", "pool-mat", "names", "params-yaml"}
"""Targets that write whole folders, or parse slowly: one in a hundred inputs."""


class EndlessError(Exception):
    """An input took longer than `PATIENCE`."""


def _end(number: int, frame: FrameType | None) -> None:
    raise EndlessError


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few of them changed, left out, repeated or put in."""
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 7)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + chance.randrange(5)] = chance.randbytes(chance.randrange(9))
            case 2:
                del changed[at : at + chance.randrange(1, 17)]
            case 3:
                del changed[at:]
            case _:
                changed[at:at] = changed[: chance.randrange(1, 65)]
    return bytes(changed)


def lies(content: Any, chance: random.Random) -> Any:
    """Return a content with a wrong value in one to three places."""
    changed = content
    for _ in range(chance.randrange(1, 4)):
        changed = schemas.lying(
            changed, chance.choice([*schemas.fields(changed)] or [()]), chance.choice([*schemas.WRONG.values()])
        )
        if not isinstance(changed, dict) or not changed:
            break
    return changed


class Inputs:
    """Counts of inputs, by what they were given to."""

    def __init__(self, seed: int) -> None:
        self.chance, self.seed = random.Random(seed), seed
        self.tried: dict[str, int] = {}
        self.tracebacks: dict[str, int] = {}
        self.without_end: dict[str, int] = {}
        self.seeds: dict[str, list[bytes]] = {}

    def one(self) -> None:
        """Give one random input to a random target, and count what came of it."""
        chance = self.chance
        if chance.random() < 0.2:
            name = chance.choice([*schemas.SCHEMAS])
            content: Any = lies(schemas.SCHEMAS[name].content, chance)
            attempt: Any = schemas.attempt
        else:
            fast = [each for each in hostile.TARGETS if each not in SLOW]
            name = chance.choice([*SLOW] if chance.random() < 0.01 else fast)
            if name not in self.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    self.seeds[name] = hostile.TARGETS[name].seeds(Path(folder))
            content, attempt = mutated(chance.choice(self.seeds[name]), chance), hostile.attempt
        self.tried[name] = self.tried.get(name, 0) + 1
        with tempfile.TemporaryDirectory(
            prefix="reid-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
        ) as folder:
            signal.alarm(PATIENCE)
            try:
                attempt(name, content, Path(folder))
            except EndlessError:
                self._note(self.without_end, name, content, "without end")
            except Exception as error:
                self._note(self.tracebacks, name, content, repr(error)[:300])
            finally:
                signal.alarm(0)

    def _note(self, counts: dict[str, int], name: str, content: Any, told: str) -> None:
        if name not in counts:
            print(f"seed {self.seed}: {name}: {told}: {content!r:.300}", flush=True)
        counts[name] = counts.get(name, 0) + 1


def try_inputs(seconds: float, seed: int, at_once: int) -> dict[str, Any]:
    """Try inputs for some seconds in some processes."""
    signal.signal(signal.SIGALRM, _end)
    warnings.simplefilter("ignore")
    counted: dict[str, dict[str, int]] = {"tried": {}, "tracebacks": {}, "without_end": {}}
    readers = []
    for number in range(at_once):
        reader, writer = os.pipe()
        if os.fork() == 0:
            inputs, end = Inputs(seed + number), time.monotonic() + seconds
            while time.monotonic() < end:
                inputs.one()
            told = {name: getattr(inputs, name) for name in counted}
            os.write(writer, json.dumps(told).encode())
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    for reader in readers:
        with os.fdopen(reader) as opened:
            for name, each in json.loads(opened.read()).items():
                for target, count in each.items():
                    counted[name][target] = counted[name].get(target, 0) + count
    return {
        "inputs_tried": sum(counted["tried"].values()),
        "tracebacks": sum(counted["tracebacks"].values()),
        "without_end": sum(counted["without_end"].values()),
        "inputs": dict(sorted(counted["tried"].items())),
    }


def try_faults(seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Try every artifact that a job reads in every state, in random order, for some seconds at most."""
    server = Server(ROOT / "src", folder / "log.txt")
    tree = Tree(Checkout(copy_of_the_project(folder / "project")), server)
    chance = random.Random(seed)
    cases = [
        (job, name, kind, lost)
        for job, name in damages.inputs(tree)
        for kind in damages.KINDS
        for lost in (False, True)
    ]
    chance.shuffle(cases)
    tried = survived = 0
    kinds: dict[str, int] = {}
    end = time.monotonic() + seconds
    for job, name, kind, lost in cases:
        if time.monotonic() > end:
            break
        tried += 1
        kinds[kind] = kinds.get(kind, 0) + 1
        try:
            damages.check_brought_back(tree, job, name, kind, chance, lost)
            survived += 1
        except AssertionError as error:
            print(
                f"seed {seed}: {job.stage} {job.name}: {name} {kind}, results lost {lost}: {error!s:.400}", flush=True
            )
            for each in tree.jobs:
                tree.run(each)
    server.close()
    states = {"faults": dict(sorted(kinds.items())), "of": len(cases)}
    return {"faults_tried": tried, "survived": survived, "lost": tried - survived, **states}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="for faults, and as many for inputs")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = try_faults(60 * chosen.minutes, chosen.seed, Path(folder))
    found |= try_inputs(60 * chosen.minutes, chosen.seed, os.cpu_count() or 1)
    found = {"seed": chosen.seed, **found}
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    if found["lost"] or found["tracebacks"] or found["without_end"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
