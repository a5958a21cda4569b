"""One job: a stage's function on a command's files, through the store, in the memory and processes that it may use."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from reid_done_right import numerics, store
from reid_done_right.artifacts import InputError, read_json
from reid_done_right.dag import STAGES, Parameters, Stage, is_written

MEMORY = "REID_MEMORY_MB"
M_ARENA_MAX = -8  # of malloc.h
SHORT = ("allocate memory", "failed to map segment", "launch worker thread", "start new thread", "bad_alloc")
"""How libraries say that memory is short where they do not raise MemoryError."""

Function = Callable[..., object]
Inputs = dict[str, Path | list[Path]]


def run(
    name: str,
    load: Callable[[], Function],
    settings: Path,
    places: Mapping[str, Path],
    *,
    threads: int | None = None,
    offline: bool = False,
) -> str | None:
    """Run a stage through the store; return a line that says how, None in a process that only helped another.

    load      imports the stage's function; only called if there is something to compute
    settings  the job's settings file
    places    the files and folders that the command was given, by option
    threads   how many the stage may use, where no result depends on it
    offline   whether to fetch nothing from outside
    Raises InputError for settings of another stage, missing or damaged inputs, and memory that does not suffice.
    """
    _spare_address_space()
    stage, described = STAGES[name], read_json(settings)
    if described.get("stage") != name or "parameters" not in described:
        raise InputError(f"{settings}: settings of {described.get('stage')!r}, expected those of {name!r}")
    given, job = described["parameters"], described.get("job", "")
    if not isinstance(given, dict) or not isinstance(job, str):
        raise InputError(f"{settings}: not the settings of a job; write them again by `reid plan`")
    parameters = given | {"numerics": numerics.in_force()}  # what differs has another key
    inputs = _inputs(stage, places, parameters)
    if stage.fetches and (fetched := fetch_for(parameters, offline)):
        inputs[stage.fetches] = fetched
    outputs = _outputs(stage, places, parameters)

    def compute(work: Path) -> None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(parameters.get("threads"))  # the order of sums, and so the last digits, depend on it
        written = {"out": work} if stage.folder else {name: work / places[name].name for name in stage.writes}
        load()(settings=parameters, **inputs, **written, **({} if threads is None else {"workers": threads}))

    start = time.monotonic()
    request = {"parameters": parameters, "inputs": inputs, "outputs": outputs, "job": job, "settings": settings}
    request["of"] = _jobs_of(stage, parameters)
    request["copy"] = next(iter(stage.writes.values())).path.startswith("reports/")  # which people may edit
    workers = parameters.get("workers", 1)
    if workers > 1 and "WORLD_SIZE" not in os.environ:
        launch = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}")
        os.execv(sys.executable, (sys.executable, *launch, "-m", "--", "reid_done_right", *sys.argv[1:]))
    with _limited_memory(name):
        if workers == 1:
            computed: bool | None = store.make(name, compute=compute, **request)
        else:
            computed = _make_together(name, compute, request)
    if computed is None:
        return None
    how = f"computed in {time.monotonic() - start:.1f} s" if computed else "found in the store"
    wrote = f"{len(outputs)} files in {places['out']}" if stage.folder else ", ".join(map(str, outputs))
    return f"{name} {job}: {how}, wrote {wrote}"


def _inputs(stage: Stage, places: Mapping[str, Path], parameters: Parameters) -> Inputs:
    """Return the files that a job reads; of those it may lack, as the parameters allow, the ones that are there."""
    found: Inputs = {}
    for name, read in stage.reads.items():
        place = places[read.option or name]
        if read.each is None:
            found[name] = place
            continue
        files = [place / PurePosixPath(read.path).name.format(each=each) for each in read.each(parameters)]
        found[name] = [file for file in files if file.is_file() or not parameters.get("allow_missing")]
    return found


def _jobs_of(stage: Stage, parameters: Parameters) -> dict[str, Literal["same", "part"]]:
    """Return for each input that one certain job writes how that job's name is to this one's.

    same  the run's own, such as its embeddings
    part  the beginning of its name, as that of its dataset
    """
    found: dict[str, Literal["same", "part"]] = {}
    of_run = "shard" not in parameters  # the job of a shard is named after its run, and reads the distractors' index
    for name, read in stage.reads.items():
        if read.each is None and "{job}" in read.path:
            found[name] = "same" if of_run else "part"
        elif read.each is None and "{dataset}" in read.path and of_run:
            found[name] = "part"
    return found


def _outputs(stage: Stage, places: Mapping[str, Path], parameters: Parameters) -> list[Path]:
    return [
        places["out"] / name if stage.folder else places[name]
        for name, write in stage.writes.items()
        if is_written(write, parameters)
    ]


def is_from_outside(parameters: Parameters) -> bool:
    """Tell jobs that need something that nothing here makes."""
    return bool({"imagenet", "checkpoint"} & set(parameters)) or "folder" in parameters.get("source", {})


def fetch_for(parameters: Parameters, offline: bool) -> Path | None:
    """Obtain what a job needs from outside; return the file that its result depends on, if any."""
    if not is_from_outside(parameters):
        return None
    from reid_done_right.stages.fetch import fetch

    return fetch(settings=parameters, offline=offline)


def _spare_address_space() -> None:
    """Keep libraries from setting aside what they do not use: Arrow a GiB, the C library 64 MiB a thread."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)


@contextmanager
def _limited_memory(stage: str) -> Iterator[None]:
    """Have the system refuse this process more memory of its own than `MEMORY` says, in MB; files mapped are free.

    Raises InputError, saying what to do, where a stage runs out of memory.
    """
    limit = os.environ.get(MEMORY, "")
    if limit and not limit.isdecimal():
        raise InputError(f"{MEMORY}={limit}: expected a whole number of MB")
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit) * 10**6,) * 2)
    try:
        yield
    except Exception as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in SHORT):
            raise
        where = f"the {limit} MB that {MEMORY} allows" if limit else "the memory that there is"
        cure = f"raise resources.{stage}.mem_mb in the parameters" if limit else "free some, or run fewer jobs at once"
        raise InputError(f"{stage}: needs more than {where}; {cure}, then run the same again") from error


def _make_together(stage: str, compute: Callable[[Path], None], request: Mapping[str, Any]) -> bool | None:
    """Let the first of torchrun's processes go through the store, the others only compute with it: None for those."""
    from reid_done_right.training.workers import Workers

    workers = Workers()
    if workers.rank:
        if workers.agree(None):
            with tempfile.TemporaryDirectory(prefix="reid-") as folder:
                compute(Path(folder))
        workers.part()
        return None

    def compute_together(folder: Path) -> None:
        workers.agree(True)
        compute(folder)

    computed = store.make(stage, compute=compute_together, **request)
    if not computed:
        workers.agree(False)
    workers.part()
    return computed
