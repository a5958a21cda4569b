"""What made a file: a record beside every artifact, by which it is known, traced, and found damaged.

The records of `folder/name` are `folder/.records/name/<SHA-256 of its content>.json`, one for each content that a
stage wrote there, so that whatever puts a former version back (git, DVC, a copy with its records) is recognised. A
record (JSON) holds

    stage, job, key   what made it, and under which key the store has it
    settings          path of the job's settings file
    parameters        all that the settings say
    code              digest of the stage's code
    inputs            name -> list of {path, sha256}
    outputs           name of a file or folder -> sha256; all that the job wrote
    made_with         Python, packages, system, processor and device of the process that computed it

A file that has records but whose content is in none of them is damaged, or was changed by hand: no stage reads it as
it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reid_done_right import numerics
from reid_done_right.artifacts import DAMAGED, InputError, read_json, set_aside, write_text

FOLDER = ".records"

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

FIELDS = ("stage", "job", "key", "settings", "parameters", "code", "inputs", "outputs", "made_with")

Record = Mapping[str, Any]


def digest(content: Any) -> str:
    """Give the SHA-256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a file's content. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; run the stage that writes it first") from None


def content_digest(path: Path) -> str:
    """Give the SHA-256 of a file's content, or of the paths and contents of all files below a folder."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def made_with() -> dict[str, Any]:
    """Describe this process: versions of Python and of `PACKAGES`, system, processor, its arithmetic, device."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": numerics.processor().get("model name", platform.processor()),
        "numerics": numerics.in_force(),
        "device": _device(),
    }


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


def place_of(path: Path, sha256: str) -> Path:
    """Give where the record of a file of that content lies."""
    return path.parent / FOLDER / path.name / f"{sha256}.json"


def keep(record: Record, outputs: Iterable[Path]) -> None:
    """Write a job's record beside each of its outputs; before the outputs themselves are put there."""
    text = json.dumps({field: record[field] for field in FIELDS}, indent=1, ensure_ascii=False) + "\n"
    for path in outputs:
        place = place_of(path, record["outputs"][path.name])
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            write_text(place, text)
        os.utime(place)  # `last_record` goes by these times


def read(path: Path) -> dict[str, Any]:
    """Read a record. Raises InputError if the file is missing, damaged or none."""
    record = read_json(path)
    if missing := [field for field in FIELDS if field not in record]:
        raise InputError(f"{path}: not a record, it lacks {', '.join(missing)}; delete it and run its stage again")
    return record


def record_of(path: Path, sha256: str) -> dict[str, Any] | None:
    """Give the record of a file of that content; None if no stage is known to have written it there."""
    place = place_of(path, sha256)
    return read(place) if place.is_file() else None


def last_record(path: Path) -> dict[str, Any] | None:
    """Return the record of what a stage last put at a path; None if no stage is known to have written there."""
    places = sorted((path.parent / FOLDER / path.name).glob("*.json"), key=lambda place: place.stat().st_mtime_ns)
    return read(places[-1]) if places else None


def is_foreign(path: Path, sha256: str) -> bool:
    """Tell a file that stages wrote, but never with this content."""
    return (path.parent / FOLDER / path.name).is_dir() and not place_of(path, sha256).is_file()


def checked(
    inputs: Mapping[str, Path | list[Path]], restore: Callable[[Path], bool] = lambda path: False
) -> dict[str, list[dict[str, str]]]:
    """Return path and digest of every input, by its name, after checking that stages wrote it as it is.

    Files that no stage is known to have written (without records) are the user's own, and taken as they are. A file
    that a stage wrote, and that is damaged, changed or missing, is restored: `restore(path)` returns whether it could.
    If not, what lies there is set aside as `name.damaged`, so that its stage writes it again.

    Raises InputError naming all files that were set aside, or one that is missing.
    """
    digests = {path: _digest_as_written(path, restore) for paths in inputs.values() for path in _listed(paths)}
    damaged = [path for path, sha256 in digests.items() if sha256 is None]
    for path in damaged:
        set_aside(path)
    if damaged:
        raise InputError(
            f"{', '.join(map(str, damaged))}: damaged or changed since a stage wrote it, and the store has no copy; "
            f"set aside with the ending {DAMAGED}: run the same again to regenerate it"
        )
    return {
        name: [{"path": path.as_posix(), "sha256": str(digests[path])} for path in _listed(paths)]
        for name, paths in inputs.items()
    }


def _digest_as_written(path: Path, restore: Callable[[Path], bool]) -> str | None:
    """Return a file's digest; None if it is there, not as a stage wrote it, and cannot be restored."""
    sha256 = file_digest(path) if path.is_file() else ""
    if sha256 and not is_foreign(path, sha256):
        return sha256
    if (path.parent / FOLDER / path.name).is_dir() and restore(path):
        return file_digest(path)
    return None if path.exists() else file_digest(path)


def _listed(paths: Path | list[Path]) -> list[Path]:
    return paths if isinstance(paths, list) else [paths]
