"""Run one job: a stage's function on a command's files, through the store, within its memory and process limits."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from reid_done_right import gpus, numerics, store
from reid_done_right.artifacts import InputError, read_json
from reid_done_right.dag import STAGES, Parameters, Stage, files_written

MEMORY = "REID_MEMORY_MB"
M_ARENA_MAX = -8  # of malloc.h
SHORT = ("allocate memory", "failed to map segment", "launch worker thread", "start new thread", "bad_alloc")
"""Out-of-memory messages of libraries that do not raise MemoryError."""

Function = Callable[..., object]
Inputs = dict[str, Path | list[Path]]


def run(
    name: str,
    load: Callable[[], Function],
    settings: Path,
    places: Mapping[str, Path],
    *,
    threads: int | None = None,
    device: str | None = None,
    offline: bool = False,
) -> str | None:
    """Run a stage through the store; return a one-line summary, or None in a helper process of torchrun.

    load      imports the stage's function; called only if there is something to compute
    settings  the job's settings file
    places    option -> file or folder passed to the command
    threads   number of threads, for stages whose results do not depend on it
    device    PyTorch device, for stages that take one. Rankings computed there have keys of their own, as their scores
              may differ in the last digits
    offline   whether to download nothing
    Raises InputError for settings of another stage, missing or damaged inputs, and insufficient memory.
    """
    _spare_address_space()
    stage, described = STAGES[name], read_json(settings)
    if described.get("stage") != name or "parameters" not in described:
        raise InputError(f"{settings}: settings of {described.get('stage')!r}, expected those of {name!r}")
    given, job = described["parameters"], described.get("job", "")
    if not isinstance(given, dict) or not isinstance(job, str):
        raise InputError(f"{settings}: not the settings of a job; write them again by `reid plan`")
    parameters = given | {"numerics": numerics.in_force()}  # native results get keys of their own
    stated = described.get("gpu", 0)
    if not isinstance(stated, int):
        raise InputError(f"{settings}: gpu is {stated!r}, expected a number of GPUs; write it again by `reid plan`")
    gpu = gpus.wanted(stated, device)
    if stage.device == "scores" and (device or gpu):
        parameters["device"] = device or "cuda"
    inputs = _inputs(stage, places, parameters)
    if stage.fetches and (fetched := fetch_for(parameters, offline)):
        inputs[stage.fetches] = fetched
    outputs = _outputs(stage, places, parameters, settings)

    def compute(work: Path) -> None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(parameters.get("threads"))  # determines the order of sums, and so the last digits
        written = (
            {"out": work} if stage.folder else {key: work / places[key].name for key in stage.writes if key in places}
        )
        with gpus.assigned(gpu):
            load()(settings=parameters, **inputs, **written, **({} if threads is None else {"workers": threads}))

    start = time.monotonic()
    request: dict[str, Any] = {
        "parameters": parameters,
        "inputs": inputs,
        "outputs": outputs,
        "job": job,
        "settings": settings,
    }
    request["of"] = _jobs_of(stage, parameters)
    # people may edit reports, so they are not hard links
    request["copy"] = next(iter(stage.writes.values())).path.startswith("reports/")
    workers = parameters.get("workers", 1)
    if workers > 1 and "WORLD_SIZE" not in os.environ:
        gpus.assign(gpu)
        launch = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}")
        os.execv(sys.executable, (sys.executable, *launch, "-m", "--", "reid_done_right", *sys.argv[1:]))
    with _limited_memory(name, gpu):
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
    """Return the job's input files; files that the parameters allow to be missing are included only if they exist."""
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


def _outputs(stage: Stage, places: Mapping[str, Path], parameters: Parameters, settings: Path) -> list[Path]:
    written = files_written(stage, parameters)
    if stage.folder:
        return [places["out"] / name for name in written]
    if absent := [name for name in written if name not in places]:
        raise InputError(f"--{absent[0]} is not given, but {settings} asks for this file: give its path")
    return [places[name] for name in written]


def is_from_outside(parameters: Parameters) -> bool:
    """Return whether a job needs external data."""
    return bool({"imagenet", "checkpoint"} & set(parameters)) or "folder" in parameters.get("source", {})


def fetch_for(parameters: Parameters, offline: bool) -> Path | None:
    """Obtain a job's external data; return the file on which its result depends, if any."""
    if not is_from_outside(parameters):
        return None
    from reid_done_right.stages.fetch import fetch

    return fetch(settings=parameters, offline=offline)


def _spare_address_space() -> None:
    """Keep libraries from reserving unused memory: a GiB for Arrow, 64 MiB per thread for the C library."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)


@contextmanager
def _limited_memory(stage: str, gpu: int) -> Iterator[None]:
    """Limit this process to the memory in `MEMORY`, in MB; mapped files do not count.

    Not on a GPU, whose driver maps memory that cannot be told apart.

    Raises InputError, saying what to do, if a stage runs out of memory.
    """
    limit = os.environ.get(MEMORY, "")
    if limit and not limit.isdecimal():
        raise InputError(f"{MEMORY}={limit}: expected an integer number of MB")
    if limit and importlib.util.find_spec("resource") is None:  # Windows
        print(f"reid: warning: {MEMORY} has no effect on this system", file=sys.stderr)
    elif limit and not gpu:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(limit) * 10**6,) * 2)
    try:
        yield
    except Exception as error:
        if "CUDA out of memory" in str(error):
            cure = "lower at_once or batch in its section of the parameters, or use a larger GPU"
            raise InputError(f"{stage}: needs more than the GPU's memory; {cure}") from error
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in SHORT):
            raise
        where = f"the {limit} MB that {MEMORY} allows" if limit else "the memory that there is"
        cure = f"raise resources.{stage}.mem_mb in the parameters" if limit else "free some, or run fewer jobs at once"
        raise InputError(f"{stage}: needs more than {where}; {cure}, then run the same command again") from error


def _make_together(stage: str, compute: Callable[[Path], None], request: Mapping[str, Any]) -> bool | None:
    """Run through the store in the first of torchrun's processes; the others only compute and return None."""
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
