"""The content-addressed store, which makes every stage idempotent under either engine.

key = SHA-256 of (stage, its parameters, the contents of its inputs, its code). If the store holds a key with intact
content, its files are hard-linked into place. Otherwise the outputs are computed in a separate folder of the store,
flushed, made read-only and renamed, so that a kill at any moment leaves nothing that looks finished. `REID_STORE` sets
the store's folder (default `.store`); `REID_STORE=none` computes without a store and without a ledger.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from reid_done_right.artifacts import InputError, beside, clear_place, file_digest, printable, remove, sweep
from reid_done_right.data.manifest import Images, portable, read_manifest
from reid_done_right.store.keys import code_key, content_digest, digest
from reid_done_right.store.ledger import Entry, Ledger, made_with
from reid_done_right.store.notes import note

WARNING = "reid: warning: "
"""Prefix of lines that the workflow also shows on the terminal."""


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
    of: Mapping[str, Literal["same", "part"]] | None = None,
) -> bool:
    """Put `outputs` in place, from the store or by calling `compute`; return True if it computed them.

    stage        name; the function `reid_done_right.stages.<stage>.<stage>` is its code
    parameters   JSON-able, everything but the inputs that the outputs depend on
    inputs       name -> file or files, known by their contents
    outputs      where files or folders are wanted; all have different names
    compute      writes files and folders of those names into the folder it is given; what it leaves there under
                 other names survives a kill, so that a checkpoint can be taken up again
    copy         copy instead of hard-linking, as people may edit a report; the part of the ledger that the report
                 rests on is written beside it
    job          its name, and settings its settings file, for the ledger
    of           input -> whether the job that wrote it must have the same name, or the beginning of it
    Raises InputError if an input is missing, or not as a stage wrote it, and the store has no copy.
    """
    outputs = list(outputs)
    ledger = Ledger.here()
    store = ledger.folder and ledger.folder.parent
    found = ledger.checked(inputs, lambda entry: store is not None and _restore(entry, store))
    for name, how in (of or {}).items():
        _check_job(ledger, Path(found[name][0].path), found[name][0].sha256, job, how == "same")
    _bring_back([*(Path(each.path) for listed in found.values() for each in listed), *([settings] if settings else [])])
    contents = {
        name: [each.sha256 for each in found[name]] if isinstance(paths, list) else found[name][0].sha256
        for name, paths in inputs.items()
    }
    known = {"stage": stage, "parameters": dict(parameters), "code": code_key(stage, parameters)}
    key = digest(known | {"inputs": contents})
    if store is None:
        with tempfile.TemporaryDirectory(prefix="reid-") as folder:
            _compute(stage, compute, Path(folder), outputs)
            _place(Path(folder), outputs, copy=True)
        return True
    about: dict[str, Any] = {
        "key": key,
        **known,
        "job": job,
        "settings": settings and portable(settings),
        "inputs": found,
    }
    made, partial = _object(store, stage, key), store / "partial" / key
    entry, computed = _whole(ledger, key, made, outputs), False
    if entry is None:
        with alone(partial.with_suffix(".lock")):
            entry = _whole(ledger, key, made, outputs)  # another process may have made it meanwhile
            if entry is None:
                partial.mkdir(exist_ok=True)
                if settings is not None:
                    note(partial, portable(settings))
                start = time.monotonic()
                _compute(stage, compute, partial, outputs)
                about["seconds"] = round(time.monotonic() - start, 3)
                _seal(partial, outputs)
                entry = _describe(about, partial, outputs)
                ledger.add(entry)
                made.parent.mkdir(parents=True, exist_ok=True)
                remove(made)
                partial.rename(made)
                computed = True
    else:
        partial.with_suffix(".lock").unlink(missing_ok=True)  # left by a process that was killed after finishing
    if not computed:
        named = {Path(path).name: content for path, content in entry.outputs.items()}
        ledger.add(entry.model_copy(update=about | {"outputs": {portable(path): named[path.name] for path in outputs}}))
    changed = [path for path in outputs if path.is_file() and not path.samefile(made / path.name)]
    _warn([path for path in changed if not ledger.knows(path, file_digest(path))], "not as a stage wrote it; replaced")
    _place(made, outputs, copy)
    if copy:
        with alone(store / "partial" / "report.lock"):
            ledger.write_copy(outputs[0].parent)
    return computed


def _check_job(ledger: Ledger, path: Path, content: str, job: str, same: bool) -> None:
    """Raise InputError for a file that stages wrote, but never for the run of this job."""
    writers = [entry.job for entry in ledger.of(content)]
    if writers and not any(job == each or (not same and job.startswith(f"{each}-")) for each in writers):
        raise InputError(f"{path}: made for {writers[0]}, but the settings are of {job}; give the file of that run")


def _restore(entry: Entry, store: Path) -> bool:
    """Restore the missing or changed outputs of a job from the store; return False if it has no copy.

    One line on stderr names the restored files. They are copies, because damage to a file affects all its hard links.
    """
    made = _object(store, entry.stage, entry.key)
    lost = [path for path, content in entry.outputs.items() if not _holds(Path(path), content)]
    if not all(_holds(made / Path(path).name, entry.outputs[path]) for path in lost):
        return False
    _place(made, list(map(Path, lost)), copy=True)
    _warn(lost, "missing or not as a stage wrote it; restored from the store")
    return True


def _holds(path: Path, content: str) -> bool:
    return (path.is_file() or path.is_dir()) and content_digest(path) == content


def _object(store: Path, stage: str, key: str) -> Path:
    """Return the store's folder of a job's results."""
    return store / stage / key[:2] / key


def _warn(files: Collection[Path | str], told: str) -> None:
    if files:
        print(printable(f"{WARNING}{', '.join(map(str, files))}: {told}"), file=sys.stderr)


def _describe(about: Mapping[str, Any], folder: Path, outputs: list[Path]) -> Entry:
    """Add the computed outputs to the ledger; for a dataset, also the digest of its images from the manifest."""
    contents = {portable(output): content_digest(folder / output.name) for output in outputs}
    manifests = [output.name for output in outputs if output.suffix == ".json" and about["stage"] == "dataset"]
    images = Images.model_validate(read_manifest(folder / manifests[0])) if manifests else None
    return Entry(**about, outputs=contents, images=images, made_with=made_with())


def _whole(ledger: Ledger, key: str, made: Path, outputs: list[Path]) -> Entry | None:
    """Return the entry of a result if its copy in the store is intact; hard links share damage."""
    if not all((made / output.name).exists() for output in outputs):
        return None
    contents = {output.name: content_digest(made / output.name) for output in outputs}
    for entry in ledger.of(contents[outputs[0].name]):
        if entry.key == key and {Path(path).name: content for path, content in entry.outputs.items()} == contents:
            return entry
    return None


def _bring_back(paths: Iterable[Path]) -> None:
    """Reset modification times in the future (clock skew) to the current time.

    Snakemake fails every job with such an input.
    """
    for path in paths:
        if path.stat().st_mtime_ns > time.time_ns():
            with suppress(PermissionError):
                os.utime(path)


def _compute(stage: str, compute: Callable[[Path], None], folder: Path, outputs: list[Path]) -> None:
    for output in outputs:
        remove(folder / output.name)
    try:
        compute(folder)
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise
    for output in outputs:
        if not (folder / output.name).exists():
            raise RuntimeError(f"stage {stage} did not write {output.name}")


def _seal(folder: Path, outputs: list[Path]) -> None:
    """Remove everything except the outputs, make them read-only and flush the folder."""
    wanted = {output.name for output in outputs}
    for entry in folder.iterdir():
        if entry.name not in wanted:
            remove(entry)
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
                remove(output)
            else:
                clear_place(output)
                (_copy if copy else _link)(source, temporary)
            temporary.rename(output)
        finally:
            remove(temporary)
        os.utime(output)  # newer than the inputs, as engines based on modification times expect


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the store is on another file system, where links are impossible
            raise
        _copy(source, target)


def _copy(source: str | Path, target: str | Path) -> None:
    shutil.copyfile(source, target)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock file while one process works; remove it on success.

    Raises InputError if the file system has no locks.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, fallback_to_soft=False)
    try:
        held.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        raise InputError(
            f"{lock}: no locks on this file system ({error.strerror}); "
            "set REID_STORE to a folder on another, or to none"
        ) from None
    try:
        yield
        lock.unlink(missing_ok=True)
    finally:
        held.release()
