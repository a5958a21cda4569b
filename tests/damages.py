"""Everything that can lie in the place of an artifact but itself, and a job that is to read it all the same."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults import Engine, Job, Tree, damage, digest
from reid_done_right.artifacts import remove


def _missing(path: Path, chance: random.Random) -> None:
    remove(path)


def _empty(path: Path, chance: random.Random) -> None:
    remove(path)
    path.touch()


def _damaged(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    remove(path)  # the store's copy stays whole
    path.write_bytes(content)
    damage(path, chance)


def _folder(path: Path, chance: random.Random) -> None:
    remove(path)
    path.mkdir()
    (path / "inside").touch()


def _link(path: Path, chance: random.Random) -> None:
    """A link to a file of another content, which must stay as it is."""
    remove(path)
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("not to be touched")
    path.symlink_to(elsewhere.name)


def _dangling(path: Path, chance: random.Random) -> None:
    remove(path)
    path.symlink_to("nowhere")


def _pipe(path: Path, chance: random.Random) -> None:
    remove(path)
    os.mkfifo(path)


def _future(path: Path, chance: random.Random) -> None:
    ahead = time.time() + chance.uniform(60, 10 * 365 * 86400)
    os.utime(path, (ahead, ahead))


def _foreign(path: Path, chance: random.Random) -> None:
    """Another artifact of the same kind, whole."""
    others = [each for each in path.parents[1].rglob(f"*{path.suffix}") if each.is_file() and each != path]
    content = (others and chance.choice(others).read_bytes()) or b"another"  # some may be empty already
    remove(path)
    path.write_bytes(content)


PATIENCE = 300
"""Seconds after which an engine that has not ended waits for something that never comes."""

KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "missing": _missing,
    "empty": _empty,
    "damaged": _damaged,
    "folder": _folder,
    "link": _link,
    "dangling link": _dangling,
    "pipe": _pipe,
    "future": _future,
    "foreign": _foreign,
}


def inputs(tree: Tree) -> Iterator[tuple[Job, str]]:
    """Yield every job with each artifact that it reads."""
    for job in tree.jobs:
        yield from ((job, name) for name in job.reads if name in tree.bytes)


def check_brought_back(tree: Tree, job: Job, name: str, kind: str, chance: random.Random, also_lost: bool) -> None:
    """Put something in the place of a job's input; one run of the job ends with both as they were.

    also_lost: the job's own results are gone too, as when a report is missing
    """
    path = tree.folder / name
    if also_lost:
        for written in job.writes:
            remove(tree.folder / written)
    KINDS[kind](path, chance)
    try:
        status, said = tree.run(job)
        assert status == 0, said
        tree.check_whole(*(each for each in tree.jobs if each is job or name in each.writes))
        assert path.lstat().st_mtime <= time.time(), f"{name} is of the future"
        elsewhere = path.with_name("elsewhere")
        assert not elsewhere.exists() or elsewhere.read_text() == "not to be touched"
    finally:
        for left in (path.with_name("elsewhere"), path.with_name(f"{path.name}.damaged")):
            remove(left)


@dataclass
class Outcome:
    """What became of a round of faults.

    failed  path -> why it counts as lost
    unread  what no job of the run had to read, and the first that did read it brought back
    """

    failed: dict[str, str]
    unread: list[str]


def try_round(engine: Engine, changed: Mapping[str, str], lost: Sequence[str], chance: random.Random) -> Outcome:
    """Put something in the place of many artifacts, lose some reports, run an engine once; see what stayed so, and why.

    changed: each artifact's path, and what is put there, of `KINDS`
    """
    tree, elsewhere = engine.tree, {(engine.tree.folder / name).with_name("elsewhere") for name in changed}
    for name in lost:
        remove(tree.folder / name)
    for name, kind in changed.items():
        KINDS[kind](tree.folder / name, chance)
    started = engine.start()
    try:
        status = started.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        engine.kill(started, signal.SIGKILL)
        status = -signal.SIGKILL
    said, found = engine.printed.read_text(errors="replace"), Outcome({}, [])
    for name in (*changed, *lost):
        path = tree.folder / name
        if status:
            found.failed[name] = f"exit status {status}: {said[-1000:]}"
        elif not _is_whole(tree, name):
            if name in changed and _is_brought_back(tree, name):
                found.unread.append(name)
            else:
                found.failed[name] = f"it is not what it was; {said[-1000:]}"
        elif path.lstat().st_mtime > time.time() and engine.name != "DVC":  # which goes by digests alone
            found.failed[name] = "it is of the future"
    for path in elsewhere:
        if path.exists() and path.read_text() != "not to be touched":
            found.failed[str(path.relative_to(tree.folder))] = "a link's target was written to"
        remove(path)
    for name in changed:
        remove(tree.folder / f"{name}.damaged")
    return found


def _is_whole(tree: Tree, name: str) -> bool:
    path = tree.folder / name
    return path.exists() and not path.is_symlink() and digest(path) == tree.bytes[name]


def _is_brought_back(tree: Tree, name: str) -> bool:
    job = next(job for job in tree.jobs if name in job.reads)
    return tree.run(job)[0] == 0 and _is_whole(tree, name)
