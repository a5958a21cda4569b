"""The ledger records what made every artifact, to trace artifacts and to detect damage.

There is one JSON file per job and place, `.store/ledger/<key>-<digits>.json`. It is written before the outputs are put
in place and never changed, so that outputs of earlier runs stay known. `.store/ledger/contents/<SHA-256 of an
output>/` lists the entries that wrote that content. The part behind a report is committed with it, as `ledger.json`.

If the ledger knows a file's path but not its content, the file is damaged or was changed by hand, and no stage reads
it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from reid_done_right import numerics
from reid_done_right.artifacts import (
    DAMAGED,
    DIGITS,
    InputError,
    file_digest,
    read_json,
    read_regular,
    reason_of,
    set_aside,
    write_text,
)
from reid_done_right.data.manifest import Images, PathText, Sha256, portable
from reid_done_right.store.keys import digest

COPY = "ledger.json"
"""File name of the part of the ledger beside a report."""

PACKAGES = (
    "matplotlib",
    "numba",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pyarrow",
    "reid-done-right",
    "safetensors",
    "scipy",
    "simplejpeg",
    "torch",
    "torchvision",
)
"""Those that results may depend on."""


class Content(BaseModel, frozen=True, extra="forbid"):
    """A file, and the SHA-256 of what was in it."""

    path: PathText
    sha256: Sha256


class MadeWith(BaseModel, frozen=True):
    """The process that computed a result."""

    python: str
    packages: dict[str, str]
    system: str | None = None
    processor: str | None = None
    numerics: str
    device: str


class Entry(BaseModel, frozen=True, extra="forbid"):
    """What made some artifacts.

    key         their key in the store
    settings    path of the job's settings file
    code        digest of the code of its stage (`reid_done_right.store.keys`)
    inputs      name -> files
    outputs     path of a file or folder -> SHA-256
    images      of a dataset only
    seconds     that the computation took, in its last try; None if unknown
    """

    key: Sha256
    stage: str
    job: str
    settings: PathText | None
    parameters: dict[str, Any]
    code: Sha256
    inputs: dict[str, list[Content]]
    outputs: dict[PathText, Sha256]
    images: Images | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    made_with: MadeWith

    @property
    def name(self) -> str:
        """The file's name, which tells whether it is damaged."""
        return f"{self.key}-{digest(self.model_dump(exclude={'made_with', 'seconds'}))[:DIGITS]}.json"


class Ledger:
    """The entries of a folder, none if there is none, and of copies beside reports."""

    def __init__(self, folder: Path | None, copies: Iterable[Path] = ()) -> None:
        self.folder = folder
        self.copied = [entry for path in copies for entry in read_copy(path)]

    @classmethod
    def here(cls, *copies: Path) -> Ledger:
        """Return the ledger of the current store; without a store, only copies beside reports."""
        store = os.environ.get("REID_STORE", ".store")
        return cls(None if store == "none" else Path(store) / "ledger", copies)

    def add(self, entry: Entry) -> None:
        """Write an entry, then index it by its contents; the last one added is found first."""
        assert self.folder is not None
        file, text = self.folder / entry.name, entry.model_dump_json(indent=1) + "\n"
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            os.utime(file)
        else:
            write_text(file, text)
        for content in set(entry.outputs.values()):
            names = self.folder / "contents" / content
            names.mkdir(parents=True, exist_ok=True)
            (names / entry.name).touch()

    @cached_property
    def entries(self) -> list[Entry]:
        """All that are not damaged."""
        files = self.folder.glob("*.json") if self.folder else []
        return [*self._read(file.name for file in files), *self.copied]

    def of(self, content: str) -> list[Entry]:
        """Return the entries that wrote a content, the last first."""
        named = self.folder.glob(f"contents/{content}/*.json") if self.folder else []
        return [
            *self._read(file.name for file in named),
            *(entry for entry in self.copied if content in entry.outputs.values()),
        ]

    def made(self, path: Path, content: str) -> Entry | None:
        """Return the entry that made a file of this content, wherever it is now, or None."""
        found = self.of(content)
        return next((entry for entry in found if entry.outputs.get(portable(path)) == content), next(iter(found), None))

    def knows(self, path: Path, content: str) -> bool:
        """Return whether a stage wrote this content to this path."""
        return any(entry.outputs.get(portable(path)) == content for entry in self.of(content))

    def is_foreign(self, path: Path, content: str) -> bool:
        """Return whether stages wrote this file, but never with this content."""
        return not self.knows(path, content) and self.last(path) is not None

    def last(self, path: Path) -> Entry | None:
        """Return the last entry that wrote to a path, or None."""
        return next((entry for entry in self.entries if portable(path) in entry.outputs), None)

    def checked(
        self, inputs: Mapping[str, Path | list[Path]], restore: Callable[[Entry], bool] = lambda entry: False
    ) -> dict[str, list[Content]]:
        """Return path and digest of every input, by name, after checking them against the ledger.

        Files that no stage wrote are the user's own and are used as they are. A file that a stage wrote, and that is
        damaged, changed or missing, is restored: `restore` takes the last entry that wrote it, and returns whether it
        succeeded. If not, the file is set aside as `name.damaged`, so that its stage writes it again.

        Raises InputError naming all files that were set aside, or a missing one.
        """
        listed = {name: paths if isinstance(paths, list) else [paths] for name, paths in inputs.items()}
        contents = {path: self._as_written(path, restore) for paths in listed.values() for path in paths}
        damaged = [path for path, content in contents.items() if content is None]
        for path in damaged:
            set_aside(path)
        if damaged:
            raise InputError(
                f"{', '.join(map(str, damaged))}: damaged or changed since a stage wrote it, and the store has no "
                f"copy; set aside with the ending {DAMAGED}: run the same command again to regenerate it"
            )
        return {
            name: [Content(path=portable(path), sha256=str(contents[path])) for path in paths]
            for name, paths in listed.items()
        }

    def _as_written(self, path: Path, restore: Callable[[Entry], bool]) -> str | None:
        """Return a file's digest; None if it exists, differs from what a stage wrote, and cannot be restored."""
        content = _digest(path) if path.is_file() else ""
        if content and not self.is_foreign(path, content):
            return content
        last = self.last(path)
        if (last is not None and restore(last)) or not path.exists():
            return _digest(path)
        return None

    def write_copy(self, folder: Path) -> None:
        """Write the part of the ledger behind a report's files beside them."""
        entries: dict[str, Entry] = {}
        waiting: list[tuple[Path, str]] = []
        for path in sorted(folder.glob("[!.]*")):
            if path.is_file() and path.name != COPY:
                with suppress(FileNotFoundError):  # another job is about to write it, and this copy after it
                    waiting.append((path, file_digest(path)))
        while waiting:
            entry = self.made(*waiting.pop())
            if entry is not None and entry.name not in entries:
                entries[entry.name] = entry
                waiting += [(Path(each.path), each.sha256) for listed in entry.inputs.values() for each in listed]
        write_text(folder / COPY, _copy_text(sorted(entries.values(), key=lambda entry: (entry.stage, entry.name))))

    def _read(self, names: Iterable[str]) -> list[Entry]:
        """Read entries, the last written first; a damaged one is as good as none."""
        found: list[tuple[int, str, Entry]] = []
        for name in names:
            try:
                file = self.folder / name  # type: ignore[operator]
                entry = Entry.model_validate_json(read_regular(file))
                if entry.name == name:
                    found.append((file.stat().st_mtime_ns, name, entry))
            except (OSError, ValidationError):
                continue
        return [entry for *_, entry in sorted(found, key=lambda each: each[:2], reverse=True)]


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; run the stage that writes it first") from None


def _copy_text(entries: list[Entry]) -> str:
    """Write entries as JSON, one per line; contents and `made_with` are stored once and referenced by number."""
    contents: dict[tuple[str, str], int] = {}
    machines: list[dict[str, Any]] = []
    lines = []
    for entry in entries:
        with_ = entry.made_with.model_dump(exclude={"processor", "system"})  # so that every machine writes the same
        machines += [] if with_ in machines else [with_]
        described = entry.model_dump(exclude={"seconds"}) | {"made_with": machines.index(with_)}
        described["inputs"] = {
            name: [contents.setdefault((each.path, each.sha256), len(contents)) for each in listed]
            for name, listed in entry.inputs.items()
        }
        described["outputs"] = [contents.setdefault(each, len(contents)) for each in entry.outputs.items()]
        lines.append(json.dumps(described, ensure_ascii=False))
    parts = {"contents": map(json.dumps, contents), "made_with": map(json.dumps, machines), "jobs": lines}
    return "{" + ",".join(f'\n"{name}": [\n' + ",\n".join(part) + "\n]" for name, part in parts.items()) + "\n}\n"


def read_copy(path: Path) -> list[Entry]:
    """Read the part of the ledger beside a report. Raises InputError if the file is not one."""
    copy = read_json(path)
    try:
        contents = [Content(path=name, sha256=content) for name, content in copy["contents"]]
        return [
            Entry.model_validate(
                described
                | {"inputs": {name: [contents[i] for i in listed] for name, listed in described["inputs"].items()}}
                | {"outputs": {contents[i].path: contents[i].sha256 for i in described["outputs"]}}
                | {"made_with": copy["made_with"][described["made_with"]]}
            )
            for described in copy["jobs"]
        ]
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # ValidationError is a ValueError
        raise InputError(
            f"{path}: not a ledger ({reason_of(error):.500}); restore it, or run the report's stages again"
        ) from None


def made_with() -> MadeWith:
    """Describe this process."""
    return MadeWith(
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
        system=f"{platform.system()} {platform.machine()}",
        processor=numerics.processor().get("model name", platform.processor()),
        numerics=numerics.in_force(),
        device=_device(),
    )


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return "cpu"
