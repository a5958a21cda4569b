"""The content-addressed store that makes every stage idempotent, whichever engine calls it.

key = SHA-256 of (stage, its parameters, the contents of its inputs, its code). A key that the store holds is
hard-linked to where it is asked for, if it still has the content that was computed; anything else is computed in a
folder of its own under the store, flushed, made read-only and renamed in, so that a kill at any moment leaves nothing
that looks finished. Beside each output lies a record of what made it (`reid_done_right.records`). `REID_STORE` names
the store's folder (default `.store`); `REID_STORE=none` computes without one.
"""

from __future__ import annotations

import ast
import errno
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from reid_done_right import records
from reid_done_right.artifacts import InputError, beside, provenance, read_json, set_aside, sweep, write_json
from reid_done_right.records import content_digest, digest, file_digest

SOURCE = Path(__file__).parents[1]
PACKAGES = ("reid_done_right", "pedestrians")
DIGITS = 16  # of a digest, where people read it
WARNING = "reid: warning: "
"""Begins a line that the workflow shows on the terminal, too."""


def code_digest(module: str) -> str:
    """Give the SHA-256 of the syntax trees of a module of ours and of everything of ours that it imports.

    Comments, docstrings and formatting change nothing; a changed constant, function or import does, and so does a file
    of the module's name beside it, such as a template.
    """
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen[name], imports = _tree(name)
            waiting.extend(imports)
    return digest(seen)


@cache
def _tree(module: str) -> tuple[str, tuple[str, ...]]:
    """Give the digest of one module's syntax tree and the modules of ours that it imports."""
    source = _source(module)
    if source is None:
        raise InputError(f"module {module}: no such file in {SOURCE}; is the package installed whole?")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    imports = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imports |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [statement for statement in node.body if not _is_docstring(statement)]
    ours = tuple(sorted(name for name in imports if name.split(".")[0] in PACKAGES and _source(name) is not None))
    code = hashlib.sha256(ast.dump(tree).encode())
    for path in sorted(source.parent.glob(f"{source.stem}.*")):
        if path.suffix != ".py":
            code.update(path.read_bytes())
    return code.hexdigest(), ours


def _is_docstring(statement: ast.stmt) -> bool:
    """Tell text that documents what it stands in or after."""
    return isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str)


def _source(module: str) -> Path | None:
    """Find the file of a module of ours, without importing anything."""
    path = SOURCE.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def make(
    stage: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Path | list[Path]],
    outputs: Iterable[Path],
    compute: Callable[[Path], None],
    copy: bool = False,
    job: str = "",
    settings: Path | None = None,
) -> bool:
    """Put `outputs` in place, from the store if it holds them, else by `compute`; True if it had to compute.

    stage        name; the module `reid_done_right.stages.<stage>` is its code
    parameters   JSON-able, everything but the inputs that the outputs depend on
    inputs       name -> file or files, known by their contents
    outputs      where files or folders are wanted; all have different names
    compute      writes files and folders of those names into the folder it is given; what it leaves there under
                 other names survives a kill, so that a checkpoint can be taken up again
    copy         copy instead of hard-linking, for files that people may edit
    job          its name, and settings its settings file, for the records beside the outputs
    Raises InputError if an input is missing, or not as a stage wrote it, and the store has no copy.
    """
    outputs = list(outputs)
    store = os.environ.get("REID_STORE", ".store")
    found = records.checked(inputs, lambda path: store != "none" and restore(path, Path(store)))
    _bring_back(
        [*(Path(entry["path"]) for entries in found.values() for entry in entries), *([settings] if settings else [])]
    )
    contents = {name: [entry["sha256"] for entry in entries] for name, entries in found.items()}
    stamp = {
        "stage": stage,
        "parameters": digest(parameters),
        "code": code_digest(f"reid_done_right.stages.{stage}"),
        "inputs": {
            name: contents[name] if isinstance(paths, list) else contents[name][0] for name, paths in inputs.items()
        },
    }
    key = digest(stamp)
    record: dict[str, Any] = {"stage": stage, "job": job, "key": key, "settings": settings and settings.as_posix()}
    record |= {"parameters": parameters, "code": stamp["code"], "inputs": found}
    if store == "none":
        with tempfile.TemporaryDirectory(prefix="reid-") as folder:
            _compute(compute, Path(folder), outputs, stamp)
            records.keep(record | _seen(Path(folder), outputs), outputs)
            _warn_of_changes(Path(folder), outputs)
            _place(Path(folder), outputs, copy=True)
        return True
    made, seen = _object(Path(store), record), Path(store) / "records" / f"{key}.json"
    computed = False
    if not _is_whole(made, seen, outputs):
        partial = Path(store) / "partial" / key
        partial.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial.with_suffix(".lock")):
            if not _is_whole(made, seen, outputs):  # nobody else made it while this process waited
                partial.mkdir(exist_ok=True)
                _compute(compute, partial, outputs, stamp)
                _seal(partial, outputs)
                write_json(seen, _seen(partial, outputs))
                made.parent.mkdir(parents=True, exist_ok=True)
                _remove(made)
                partial.rename(made)
                computed = True
    records.keep(record | read_json(seen), outputs)
    _warn_of_changes(made, outputs)
    _place(made, outputs, copy)
    return computed


def restore(path: Path, store: Path) -> bool:
    """Put back what a job last wrote at a path, with all that it wrote beside it; False if the store cannot.

    One line on stderr names what was put back. These are copies: damage to a file is damage to all hard links to it.
    """
    record = records.last_record(path)
    if record is None:
        return False
    made = _object(store, record)
    lost = {
        path.with_name(name): sha256
        for name, sha256 in record["outputs"].items()
        if records.place_of(path.with_name(name), sha256).is_file() and not _holds(path.parent, {name: sha256})
    }
    if not _holds(made, {file.name: sha256 for file, sha256 in lost.items()}):
        return False
    _place(made, list(lost), copy=True)
    _warn(lost, "missing or not as a stage wrote it; restored from the store")
    return True


def _warn_of_changes(made: Path, outputs: Iterable[Path]) -> None:
    """Name the files that are about to be replaced and that no stage wrote: people or git may have changed them."""
    changed = [
        output
        for output in outputs
        if output.is_file()
        and not output.samefile(made / output.name)
        and not records.place_of(output, file_digest(output)).is_file()
    ]
    _warn(changed, "not as a stage wrote it; replaced")


def _warn(files: Collection[Path], told: str) -> None:
    if files:
        print(f"{WARNING}{', '.join(map(str, files))}: {told}", file=sys.stderr)


def _object(store: Path, record: Mapping[str, Any]) -> Path:
    """Return the store's folder of a job's results."""
    return Path(store, record["stage"], record["key"][:2], record["key"])


def _seen(folder: Path, outputs: list[Path]) -> dict[str, Any]:
    """Describe what was computed into a folder, and by what."""
    contents = {output.name: content_digest(folder / output.name) for output in outputs}
    return {"outputs": contents, "made_with": records.made_with()}


def _is_whole(made: Path, seen: Path, outputs: list[Path]) -> bool:
    """Tell whether the store has a result, with the content that was computed: hard links share damage, too."""
    if not made.is_dir() or not seen.is_file():
        return False
    try:
        expected = read_json(seen)["outputs"]
        return _holds(made, {output.name: expected[output.name] for output in outputs})
    except (InputError, KeyError):
        return False


def _holds(folder: Path, contents: Mapping[str, str]) -> bool:
    """Return whether a folder has files and folders of these names and digests."""
    return all(
        (folder / name).exists() and content_digest(folder / name) == sha256 for name, sha256 in contents.items()
    )


def _bring_back(paths: Iterable[Path]) -> None:
    """Give files from the future, as a clock that ran ahead leaves them, the present time.

    Snakemake fails every job that has one for an input.
    """
    for path in paths:
        if path.stat().st_mtime_ns > time.time_ns():
            with suppress(PermissionError):
                os.utime(path)


def _compute(compute: Callable[[Path], None], folder: Path, outputs: list[Path], stamp: Mapping[str, Any]) -> None:
    for output in outputs:
        _remove(folder / output.name)
    short = {name: value[:DIGITS] if isinstance(value, str) else value for name, value in stamp.items()}
    token = provenance.set({**short, "inputs": digest(stamp["inputs"])[:DIGITS]})
    try:
        compute(folder)
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise
    finally:
        provenance.reset(token)
    for output in outputs:
        if not (folder / output.name).exists():
            raise RuntimeError(f"stage {stamp['stage']} did not write {output.name}")


def _seal(folder: Path, outputs: list[Path]) -> None:
    """Drop everything but the outputs, make them read-only and flush the folder."""
    wanted = {output.name for output in outputs}
    for entry in folder.iterdir():
        if entry.name not in wanted:
            _remove(entry)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _place(made: Path, outputs: list[Path], copy: bool) -> None:
    for output in outputs:
        source = made / output.name
        if not copy and source.is_file() and output.is_file() and output.samefile(source):
            os.utime(output)
            continue
        output.parent.mkdir(parents=True, exist_ok=True)
        sweep(output)
        temporary = beside(output)
        try:
            if source.is_dir():
                shutil.copytree(source, temporary, copy_function=_copy if copy else _link)
                _remove(output)
            else:
                if output.is_dir():
                    set_aside(output)
                (_copy if copy else _link)(source, temporary)
            temporary.rename(output)
        finally:
            _remove(temporary)
        os.utime(output)  # newer than the inputs, as engines that go by modification times expect


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the store on another file system: nothing to link to
            raise
        _copy(source, target)


def _copy(source: str | Path, target: str | Path) -> None:
    shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock file while one process computes; others wait here, then find the key made, so it may go.

    Raises InputError where the file system has no locks.
    """
    handle = os.open(lock, os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
            raise InputError(
                f"{lock}: no locks on this file system ({error.strerror}); "
                "set REID_STORE to a folder on another, or to none"
            ) from None
        yield
        lock.unlink(missing_ok=True)
    finally:
        os.close(handle)
