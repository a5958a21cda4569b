"""Trace an artifact back to the images, and check that everything on the way is unchanged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from reid_done_right.artifacts import DAMAGED, DIGITS, InputError, printable, read_json
from reid_done_right.data.manifest import Images, check_unchanged, make_manifest, portable
from reid_done_right.store.keys import code_key, content_digest
from reid_done_right.store.ledger import COPY, Entry, Ledger

State = Literal["whole", "changed", "missing", "stale", "unknown"]

NOT_ARTIFACTS = ("settings", "logs", "benchmarks")
"""Folders of an experiment that hold no artifacts."""

FEW = 2
"""Largest number of inputs of one name shown in full; of more, only the first is shown."""

WIDTH = 118
"""Width of the output outside a terminal."""

Progress = Callable[[list[Path]], Iterable[Path]]


class Digests:
    """Digests of contents, each read once."""

    def __init__(self) -> None:
        self.seen: dict[Path, str | None] = {}

    def of(self, path: Path) -> str | None:
        """Return the digest of a file or folder; None if there is none."""
        if path not in self.seen:
            self.seen[path] = content_digest(path) if path.is_file() or path.is_dir() else None
        return self.seen[path]


# --- where it came from


@dataclass(frozen=True)
class Origin:
    """A file, the entry that made it, and the origins of its inputs.

    entry     None if no stage wrote it: a file of the user's own, or a changed one
    changed   stages wrote the file, but with other contents
    inputs    name -> origins, in the order of the stage's inputs
    """

    path: Path
    sha256: str
    entry: Entry | None
    changed: bool = False
    inputs: dict[str, list[Origin]] = field(default_factory=dict)


def trace(path: Path) -> Origin:
    """Trace an artifact back to its images and weights.

    Raises InputError if there is no file, or if no experiment has a ledger like this one.
    """
    content = Digests().of(path)
    if content is None:
        raise InputError(f"{path}: no such file; give an artifact, such as a table of a report")
    try:
        return _origin(path, content, Ledger.here(*_copies(path.parent)), {})
    except RecursionError:
        raise InputError(f"{path}: its ledger tells of hundreds of jobs in a row; restore the ledger") from None


def _copies(folder: Path) -> list[Path]:
    """Return the copies of ledgers that lie in a folder or below it."""
    return sorted(folder.rglob(COPY))


def _origin(path: Path, content: str, ledger: Ledger, done: dict[tuple[Path, str], Origin]) -> Origin:
    """Return the origin of a content, which need not be what lies at its path now."""
    if (path, content) in done:
        return done[path, content]
    entry = ledger.made(path, content)
    changed = entry is None and ledger.is_foreign(path, content)
    origin = done[path, content] = Origin(path, content, entry, changed)
    for name, listed in (entry.inputs if entry else {}).items():
        origin.inputs[name] = [_origin(Path(each.path), each.sha256, ledger, done) for each in listed]
    return origin


def show(origin: Origin, every: bool = False, parameters: bool = False, console: Console | None = None) -> None:
    """Print an origin as a tree.

    every: follow all inputs, not only the first of more than `FEW` of one name. parameters: print those of each job.
    Each origin is expanded only once.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(_branch(origin, None, None, every, parameters, set()))


def _branch(
    origin: Origin, parent: Tree | None, by: Origin | None, every: bool, parameters: bool, shown: set[str]
) -> Tree:
    """Add an origin, and what it comes from, below `parent`; `by` read it."""
    again = origin.sha256 in shown and bool(origin.inputs)
    label = _label(origin)
    label.append("  see above" if again else _made(origin, by), style="dim" if again else "")
    branch = parent.add(label) if parent else Tree(label, guide_style="dim")
    if again:
        return branch
    shown.add(origin.sha256)
    if origin.entry and origin.entry.images and origin.path.suffix == ".json":
        branch.add(Text(_images(origin.entry.images)))
    if origin.entry and parameters:
        branch.add(Text(printable(json.dumps(origin.entry.parameters, ensure_ascii=False)), style="dim"))
    for name, inputs in origin.inputs.items():
        followed = inputs if every or len(inputs) <= FEW else inputs[:1]
        for one in followed:
            _branch(one, branch, origin, every, parameters, shown)
        if left := len(inputs) - len(followed):
            branch.add(Text(printable(f"and {left} more {name}: --all follows them"), style="dim"))
    return branch


def _label(origin: Origin) -> Text:
    label = Text(printable(str(origin.path)), style="bold")
    label.append(f"  {origin.sha256[:DIGITS]}", style="dim")
    if origin.changed:
        label.append("  changed: no stage wrote it so", style="bold red")
    elif origin.entry is None:
        kept = "" if os.environ.get("REID_STORE") != "none" else ", as far as is known: REID_STORE=none keeps no ledger"
        label.append(f"  not made here{kept}", style="yellow")
    return label


def _made(origin: Origin, by: Origin | None) -> str:
    """Describe the job that made an artifact, and its environment if that differs from the consumer's."""
    entry = origin.entry
    if entry is None:
        return ""
    made = [f"by reid {entry.stage} {entry.job}, code {entry.code[:DIGITS]}, key {entry.key[:DIGITS]}"]
    with_ = entry.made_with
    if by is None or by.entry is None or by.entry.made_with != with_:
        versions = ", ".join(f"{name} {number}" for name, number in with_.packages.items())
        where = ", ".join(filter(None, (with_.processor, with_.system, f"{with_.numerics} arithmetic")))
        made.append(f"on {with_.device} ({where}), Python {with_.python}, {versions}")
    return "".join(f"\n{printable(line)}" for line in made)


def _images(found: Images) -> str:
    return printable(f"{found.files:,} images below {found.root}, {found.bytes:,} bytes") + f"\nsha256 {found.sha256}"


# --- whether it is as it was


@dataclass(frozen=True)
class Verdict:
    """The state of one artifact.

    state   whole; changed: no stage wrote this content there; missing; stale: whole, but its inputs, settings or code
            have changed since; unknown: no stage wrote it
    told    reason and remedy; empty if whole
    """

    path: Path
    state: State
    told: str = ""


def artifacts(folder: Path) -> list[Path]:
    """Return all files that stages wrote below a folder, and those beside them, sorted; images count by their manifest.

    A file that is gone counts if there are still settings that ask for it. Raises InputError if there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the results of an experiment, as in results/embedded")
    name = portable(folder)
    known: dict[Path, Entry] = {}
    for entry in Ledger.here(*_copies(folder)).entries:
        known |= {Path(path): entry for path in entry.outputs if Path(path).is_relative_to(name)}
    found = {
        path
        for path, entry in known.items()
        if path.is_file() or (not path.exists() and entry.settings and Path(entry.settings).is_file())
    }
    for beside in {path.parent for path in found if path.parent.is_dir()}:
        found |= {path for path in beside.iterdir() if path.is_file() and not _is_aside(path)}
    if not found:
        raise InputError(f"{folder}: holds nothing that the ledger knows; run its experiment first")
    return sorted(path for path in found if not set(NOT_ARTIFACTS) & set(path.relative_to(name).parts[:1]))


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix == DAMAGED or path.name == COPY


def verify(paths: list[Path], images: bool = True, progress: Progress = iter) -> list[Verdict]:
    """Check artifacts against the ledger, and that against today's inputs, settings and code, as far as they are here.

    With `images`, every image of a dataset is read again and compared with its manifest. `progress` wraps the list of
    paths. Order: that of `paths`.
    """
    known = Digests()
    ledger = Ledger.here(*sorted({file for path in paths if (file := path.with_name(COPY)).is_file()}))
    return [_verdict(path, ledger, known, images) for path in progress(paths)]


def _verdict(path: Path, ledger: Ledger, known: Digests, images: bool) -> Verdict:
    content = known.of(path)
    if content is None:
        return Verdict(path, "missing", "run the experiment again; the store may still have it")
    if ledger.is_foreign(path, content):
        return Verdict(path, "changed", "not as a stage wrote it; delete it and run the experiment again")
    entry = ledger.made(path, content)
    if entry is None or portable(path) not in entry.outputs:
        return Verdict(path, "unknown", "the ledger does not know it; move it elsewhere if it is yours")
    if stale := _stale(entry, known):
        return Verdict(path, "stale", f"{stale}; run the experiment again")
    if images and entry.images and path.suffix == ".json":
        return _as_in_manifest(path, entry.images)
    return Verdict(path, "whole")


def _stale(entry: Entry, known: Digests) -> str:
    """Say what has changed since an entry was written; empty if nothing. What is not here tells nothing."""
    for listed in entry.inputs.values():
        for each in listed:
            if known.of(Path(each.path)) not in (None, each.sha256):
                return f"{each.path} is another one since"
    settings = Path(entry.settings) if entry.settings else None
    if settings and settings.parent.parent.is_dir() and not settings.is_file():
        return f"{settings} is gone: the parameters no longer ask for it"
    try:
        if settings and settings.is_file() and read_json(settings).get("parameters") != entry.parameters:
            return f"{settings} has other parameters since"
        if code_key(entry.stage, entry.parameters) != entry.code:
            return f"the code of `reid {entry.stage}` is another one since"
    except InputError as error:  # one artifact's: the others are still to be looked at
        return str(error)
    return ""


def _as_in_manifest(path: Path, manifest: Images) -> Verdict:
    """Read all images of a dataset again."""
    try:
        check_unchanged(manifest.model_dump())  # before all is read, which may be another folder, and have no end
        now = make_manifest(manifest.dataset, manifest.format, Path(manifest.root), os.cpu_count() or 1)
    except InputError as error:
        return Verdict(path, "changed", str(error))
    if now["sha256"] != manifest.sha256:
        mend = "restore them, or delete this file and run the experiment again if it renders them"
        return Verdict(path, "changed", f"images below {manifest.root} are not those of the manifest; {mend}")
    return Verdict(path, "whole")
