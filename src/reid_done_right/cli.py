"""The command `reid`: a thin skin over the stages. Both engines call these commands, and so can you, by hand."""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reid_done_right import numerics
from reid_done_right.artifacts import InputError, read_json, write_json, write_text

HELP = """\
Person re-identification done right: from photos to the paper's tables, one command a stage.

Each stage reads its own settings (a file that `reid plan` writes from params.yaml) and the artifacts of earlier
stages, and writes its own. A stage that has been computed before, with the same settings, inputs and code, is taken
from the store (folder .store, or $REID_STORE; REID_STORE=none computes without one).

\b
  snakemake --cores all      runs the whole experiment     (or: dvc repro)
  reid check params.yaml     says whether all is there, and how long it would take
  reid fetch params.yaml     obtains the datasets and weights that it needs, and says what is missing
  reid plan params.yaml      shows its jobs and writes their settings
  reid verify results/...    checks that every artifact is as it was made
  reid why FILE              prints where a file came from, down to the images
  reid train --help          explains one stage
"""

AGAIN = "nothing is lost: put it right, then run the same again"
CURES = {
    errno.ENOSPC: "the disk is full: free some of it, then run the same again; nothing is lost",
    errno.EDQUOT: "your quota of the disk is used up: free some of it, then run the same again; nothing is lost",
    errno.EFBIG: "files may not be that large here (ulimit -f): allow it, then run the same again; nothing is lost",
    errno.EIO: "the disk fails to read or write: look into the system's log, then run the same again",
    errno.EROFS: "nothing can be written there: make it writable, or name another store in REID_STORE",
    errno.EACCES: "you may not use it: change its permissions, or name another store in REID_STORE",
    errno.EMFILE: "too many files are open: allow more (ulimit -n), then run the same again",
}
"""What to do where the system refuses."""

app = typer.Typer(
    name="reid",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
)


def _file(text: str) -> Any:
    return typer.Option(help=text, dir_okay=False)


def _folder(text: str) -> Any:
    return typer.Option(help=text, file_okay=False)


Settings = Annotated[Path, _file("This job's settings, written by `reid plan`: results/<experiment>/settings/...")]
IndexFile = Annotated[Path, _file("The dataset's index, written by `reid index` (.parquet).")]
Log = Annotated[Path, _file("Where to write the training log: a row an update (.csv).")]
Offline = Annotated[
    bool, typer.Option("--offline", envvar="REID_OFFLINE", help="Fetch nothing; say at once what is missing.")
]


def _compute_as(wanted: str) -> str:
    """Choose the arithmetic before anything loads that computes; say so where it is not what was asked for."""
    if numerics.choose(wanted) != wanted:
        typer.echo(f"reid: warning: {numerics.WHY_NATIVE}", err=True)
    return wanted


NumericsSwitch = Annotated[
    Literal["portable", "native"],
    typer.Option(
        "--numerics",
        envvar=numerics.VARIABLE,
        callback=_compute_as,
        help="portable: the same bits on every x86-64 processor with AVX2; native: all that this one has, for speed.",
    ),
]


MEMORY = "REID_MEMORY_MB"
M_ARENA_MAX = -8  # of malloc.h


def _slow_bars_in_logs() -> None:
    """Have a line of progress now and then where there is no terminal for a moving bar; tqdm reads it when imported."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")


def _spare_address_space() -> None:
    """Keep libraries from setting aside what they do not use: Arrow a GiB, the C library 64 MiB a thread."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)


def run(
    stage: str,
    settings: Path,
    inputs: Mapping[str, Path | list[Path]],
    outputs: Mapping[str, Path],
    *,
    passed: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    copy: bool = False,
) -> None:
    """Run a stage through the store.

    inputs go to the stage under their names, and their contents into the store's key; outputs likewise, in the
    folder where the stage is to write. passed: further arguments that do not change the result. folder: the stage
    writes all outputs into one folder, its argument `out`.
    """
    from reid_done_right import store

    _slow_bars_in_logs()
    _spare_address_space()
    described = read_json(settings)
    if described.get("stage") != stage or "parameters" not in described:
        raise InputError(f"{settings}: settings of {described.get('stage')!r}, expected those of {stage!r}")
    wanted = described["parameters"].get("numerics", "portable")
    _compute_as(wanted)
    parameters = described["parameters"] | {"numerics": numerics.in_force()}  # what differs has another key

    def compute(work: Path) -> None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(parameters.get("threads"))  # the order of sums, and so the last digits, depend on it
        gc.disable()  # while importing, which leaves no garbage, collecting it takes an eighth of the time
        function = getattr(importlib.import_module(f"reid_done_right.stages.{stage}"), stage)
        gc.freeze()
        gc.enable()
        places = {name: work / path.name for name, path in outputs.items()} if folder is None else {"out": work}
        function(settings=parameters, **inputs, **places, **(passed or {}))

    start = time.monotonic()
    request = {"parameters": parameters, "inputs": inputs, "outputs": outputs.values(), "copy": copy}
    request |= {"job": described.get("job", ""), "settings": settings}
    computed: bool | None
    if parameters.get("workers", 1) > 1 and "WORLD_SIZE" not in os.environ:
        launch = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={parameters['workers']}")
        os.execv(sys.executable, (sys.executable, *launch, "-m", "--", "reid_done_right", *sys.argv[1:]))
    with _limited_memory(stage):
        if parameters.get("workers", 1) == 1:
            computed = store.make(stage, compute=compute, **request)
        else:
            computed = _make_together(stage, compute, request)
    if computed is None:
        return
    how = f"computed in {time.monotonic() - start:.1f} s" if computed else "found in the store"
    wrote = ", ".join(str(path) for path in outputs.values()) if folder is None else f"{len(outputs)} files in {folder}"
    typer.echo(f"{stage} {described.get('job', '')}: {how}, wrote {wrote}", err=True)


SHORT = ("allocate memory", "failed to map segment", "launch worker thread", "start new thread", "bad_alloc")
"""How libraries say that memory is short where they do not raise MemoryError."""


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
    from reid_done_right import store
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


@app.command()
def plan(
    params: Annotated[
        Path, typer.Argument(help="The experiment's parameters, params.yaml; - reads JSON from standard input.")
    ],
    lists: Annotated[Path | None, _file("Also keep the jobs in this file, for dvc.yaml.")] = None,
    quiet: Annotated[bool, typer.Option(help="Print only how many jobs there are.")] = False,
) -> None:
    """Validate the parameters, write each job's settings where they changed, and print the jobs as JSON.

    With --lists, exits with an error if the file was out of date: the engine that is reading it has drawn an old
    DAG. The file is up to date then, so the same command run again goes on.
    """
    from reid_done_right import params as parameters
    from reid_done_right import plan as planning

    chosen = parameters.load(params)
    jobs = planning.plan(chosen)
    planning.write_settings(jobs, Path("results") / chosen.experiment / "settings")
    if quiet:
        for group, members in jobs.items():
            typer.echo(f"{group:12}{len(members):5}")
    else:
        typer.echo(json.dumps(planning.lists(chosen, jobs)))
    if lists is not None:
        text = planning.lists_text(chosen, jobs)
        if not lists.is_file() or lists.read_text(encoding="utf-8") != text:
            write_text(lists, text)
            raise InputError(f"{lists}: the parameters ask for other jobs; the list is updated, run the same again")


@app.command()
def check(
    params: Annotated[
        Path | None, typer.Argument(help="The experiment's parameters; - reads JSON from standard input.")
    ] = None,
    experiment: Annotated[Path | None, _file("The same, as an option. Default: params.yaml.")] = None,
    probe: Annotated[
        bool, typer.Option(help="Measure a few updates of the real network, for the time estimate.")
    ] = True,
    decode: Annotated[bool, typer.Option(help="Decode every image; else headers and ends of files are read.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at folders, names and counts only, and print nothing but errors.")
    ] = False,
    only: Annotated[str, typer.Option(help="With --quick: datasets to look at, separated by commas.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all that was found (.json).")] = None,
) -> None:
    """Say before anything runs what is there, missing or damaged, and how long the rest would take on this machine.

    One page: each dataset (present, missing and how to get it, damaged files by name, counts against the published
    ones), the first weights, disk and GPU memory needed and there, jobs done and to run with an estimate of their
    time. Nothing is changed. Both engines run the quick part first.

    Exit status: 0 ready, 1 something is missing, wrong or damaged, or the parameters have a mistake.
    """
    from reid_done_right import params as parameters
    from reid_done_right.readiness import survey as surveying

    if params is not None and experiment is not None:
        raise InputError("give the parameters once, as PARAMS or as --experiment")
    chosen = parameters.load(params or experiment or Path("params.yaml"))
    if quick:
        found = surveying.quick_survey(chosen, only.split(",") if only else None)
    else:
        from reid_done_right.readiness.page import show

        found = surveying.survey(chosen, decode=decode, probe=probe)
        show(found)
    if json_file is not None:
        write_json(json_file, found.as_json())
    if quick:
        for finding in found.failing:
            typer.echo(f"reid: error: dataset {finding.name} is {finding.state}: {finding.told}", err=True)
    if not found.ready:
        raise typer.Exit(1)


@app.command()
def fetch(
    params: Annotated[Path, typer.Argument(help="The experiment's parameters, params.yaml.")],
    offline: Offline = False,
) -> None:
    """Fetch, verify and unpack all that an experiment needs from outside, ahead of its run.

    For machines without a network on the nodes that compute. Releases that are not free to fetch, and whatever else
    is missing, are listed with what to obtain where and where to put it. A run fetches by itself what it lacks.
    """
    from reid_done_right import params as parameters
    from reid_done_right import plan as planning

    jobs = planning.plan(parameters.load(params))
    missing = []
    for name, job in [*jobs["dataset"].items(), *jobs["initialise"].items()]:
        if _is_from_outside(job["parameters"]):
            try:
                _fetch(job["parameters"], offline)
                typer.echo(f"{name}: there")
            except InputError as error:
                missing.append(f"{name}: {error}")
    if missing:
        raise InputError("\n".join(["not all is there", *missing]))


@app.command()
def verify(
    folders: Annotated[list[Path], typer.Argument(help="Results of an experiment, as in results/embedded.")],
    images: Annotated[bool, typer.Option(help="Read every image of the datasets again.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all that was found (.json).")] = None,
) -> None:
    """Check that every artifact is as it was made, from the inputs, settings and code that there are now.

    Of results/<experiment>, the tables and figures in reports/<experiment> are checked too. Names each file that
    changed, is missing, is stale or that no stage wrote, and what to do.

    Exit status: 0 if all is whole, else 1.
    """
    _slow_bars_in_logs()
    from tqdm import tqdm

    from reid_done_right.lineage.verification import artifacts
    from reid_done_right.lineage.verification import verify as verify_artifacts

    reports = [Path("reports", folder.name) for folder in folders if folder.parent == Path("results")]
    paths = [path for folder in [*folders, *filter(Path.is_dir, reports)] for path in artifacts(folder)]
    found = verify_artifacts(paths, images, lambda listed: tqdm(listed, "verify", unit=" files"))
    broken = [verdict for verdict in found if verdict.state != "whole"]
    for verdict in broken:
        typer.echo(f"{verdict.state:8}{verdict.path}: {verdict.told}")
    if json_file is not None:
        write_json(json_file, {str(verdict.path): {"state": verdict.state, "told": verdict.told} for verdict in found})
    typer.echo(f"verify: {len(found) - len(broken)} of {len(found)} artifacts are whole", err=True)
    if broken:
        raise typer.Exit(1)


@app.command()
def why(
    file: Annotated[Path, typer.Argument(help="An artifact, such as reports/embedded/table1.md.")],
    every: Annotated[bool, typer.Option("--all", help="Follow every input, not just the first of many alike.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Print the parameters of every job.")] = False,
) -> None:
    """Print where an artifact came from: the jobs behind it, as a tree, down to the images and their digest."""
    from reid_done_right.lineage.origin import trace
    from reid_done_right.lineage.tree import show

    show(trace(file), every=every, parameters=parameters)


def _is_from_outside(parameters: Mapping[str, Any]) -> bool:
    """Tell jobs that need something that nothing here makes."""
    return bool({"imagenet", "checkpoint"} & set(parameters)) or "folder" in parameters.get("source", {})


def _fetch(parameters: Mapping[str, Any], offline: bool) -> Path | None:
    """Obtain what a job needs from outside; give the file that its result depends on, if any."""
    if not _is_from_outside(parameters):
        return None
    _slow_bars_in_logs()
    from reid_done_right.stages.fetch import fetch as fetch_for

    return fetch_for(settings=parameters, offline=offline)


@app.command()
def dataset(
    settings: Settings,
    images: Annotated[Path, _folder("Folder of a rendered release; unused for a folder of your own.")],
    out: Annotated[Path, _file("Where to write the manifest: how many files, their digest (.json).")],
    threads: Annotated[int, typer.Option(help="Processes to render and read with.")] = 1,
    offline: Offline = False,
) -> None:
    """Put a benchmark on disk in its official layout: render it, unpack it, or check a folder that you own."""
    parameters = read_json(settings).get("parameters", {})
    rendered = "render" in parameters.get("source", {})
    receipt = _fetch(parameters, offline)
    inputs: dict[str, Path | list[Path]] = {"receipt": receipt} if receipt else {}
    outputs = {"images": images, "out": out} if rendered else {"out": out}
    passed: dict[str, Any] = {"workers": threads} if rendered else {"workers": threads, "images": images}
    run("dataset", settings, inputs, outputs, passed=passed)


@app.command()
def index(
    settings: Settings,
    manifest: Annotated[Path, _file("The dataset's manifest, written by `reid dataset` (.json).")],
    out: Annotated[Path, _file("Where to write the index (.parquet).")],
    threads: Annotated[int, typer.Option(help="Threads to decode with.")] = 1,
) -> None:
    """List every image with its person, camera, tracklet and split; check the counts, and that all can be decoded."""
    run("index", settings, {"manifest": manifest}, {"out": out}, passed={"workers": threads})


@app.command()
def initialise(
    settings: Settings,
    out: Annotated[Path, _file("Where to write the backbone's weights (.safetensors).")],
    offline: Offline = False,
) -> None:
    """Make a backbone's first weights: procedural object classes, torchvision's ImageNet V1 file, or your own."""
    weights = _fetch(read_json(settings).get("parameters", {}), offline)
    run("initialise", settings, {"weights": weights} if weights else {}, {"out": out})


@app.command()
def pretrain(
    settings: Settings,
    index: IndexFile,
    weights: Annotated[Path, _file("Initial backbone weights, written by `reid initialise`.")],
    out: Annotated[Path, _file("Where to write the backbone's weights (.safetensors).")],
    log: Log,
) -> None:
    """Teach the backbone to classify the training identities."""
    run("pretrain", settings, {"index": index, "weights": weights}, {"out": out, "log": log})


@app.command()
def train(
    settings: Settings,
    index: IndexFile,
    weights: Annotated[Path, _file("Backbone weights to start from, written by `reid pretrain` or `reid initialise`.")],
    out: Annotated[Path, _file("Where to write the embedder (.safetensors).")],
    log: Log,
) -> None:
    """Train an embedder with the triplet loss on mined hard triplets."""
    run("train", settings, {"index": index, "weights": weights}, {"out": out, "log": log})


@app.command()
def embed(
    out: Annotated[Path, _file("Where to write the embeddings, or the gallery (.safetensors).")],
    source: Annotated[
        Path | None, typer.Argument(help="Photos of your own: a folder, or a table of them (.csv).", metavar="PHOTOS")
    ] = None,
    model: Annotated[Path | None, _file("Photos: the model that embeds them, written by `reid train`.")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="Photos: what their paths below the folder say of them, as in {person}/{camera}/{name}."),
    ] = None,
    allow_damaged: Annotated[
        bool, typer.Option("--allow-damaged", help="Photos: leave damaged ones out, and list them.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Photos: how many work at once.  [all cores]")] = None,
    settings: Annotated[Path | None, _file("Stage: this job's settings, written by `reid plan`.")] = None,
    index: Annotated[Path | None, _file("Stage: the dataset's index, written by `reid index` (.parquet).")] = None,
    embedder: Annotated[Path | None, _file("Stage: the embedder, written by `reid train`.")] = None,
    numerics: NumericsSwitch = "portable",
) -> None:
    """Turn images into unit vectors: photos of your own into a gallery, or, as a stage, the images of an index.

    \b
      reid embed photos --model market-default-seed0.safetensors --out gallery.safetensors
      reid search anna.jpg --model market-default-seed0.safetensors --gallery gallery.safetensors

    All images in the folder and below it are embedded, or those that a table names: column path (relative to the
    table's folder) and, if you know them, person_id and camera_id. After a kill, the same command goes on where it was.
    A damaged photo is an error that names it; --allow-damaged leaves it out.

    \b
      reid embed --settings S.json --index I.parquet --embedder E.safetensors --out O.safetensors

    is the stage of the pipeline: it embeds queries, gallery and multi-query boxes, or one shard of the distractors.
    """
    photos = {"PHOTOS": source, "--model": model, "--pattern": pattern, "--threads": threads}
    photos["--allow-damaged"] = allow_damaged or None
    stage = {"--settings": settings, "--index": index, "--embedder": embedder}
    given = [[name for name, value in side.items() if value is not None] for side in (photos, stage)]
    if all(given):
        raise InputError(
            f"{given[0][0]} belongs to photos of your own and {given[1][0]} to the stage; give one or other"
        )
    if settings is not None and index is not None and embedder is not None:
        run("embed", settings, {"index": index, "embedder": embedder}, {"out": out})
    elif source is not None and model is not None:
        from reid_done_right.stages.embed_photos import embed_photos

        _slow_bars_in_logs()
        count = embed_photos(source, model, out, pattern=pattern, allow_damaged=allow_damaged, threads=threads)
        typer.echo(f"embed: {count:,} photos in {out}", err=True)
    else:
        side = stage if given[1] else {"PHOTOS": source, "--model": model}
        missing = " and ".join(name for name, value in side.items() if value is None)
        raise InputError(
            f"{missing} missing: give PHOTOS and --model for photos, --settings, --index, --embedder for a stage"
        )


@app.command()
def search(
    queries: Annotated[
        list[Path], typer.Argument(help="Photos of whom to look for, one person each.", metavar="PHOTO")
    ],
    gallery: Annotated[Path, _file("Where to look: a gallery, written by `reid embed PHOTOS --model MODEL`.")],
    model: Annotated[Path, _file("The model that made the gallery.")],
    top: Annotated[int, typer.Option(help="How many places to show.")] = 10,
    rerank: Annotated[
        Literal["none", "qe-dba", "k-reciprocal"],
        typer.Option(help="qe-dba is the paper's re-ranking, k-reciprocal the one of Zhong et al."),
    ] = "none",
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Search a graph of neighbours, made once beside the gallery (faiss).")
    ] = False,
    html: Annotated[Path | None, _file("Also write a page with the pictures (.html).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="How many work at once.  [all cores]")] = None,
    numerics: NumericsSwitch = "portable",
) -> None:
    """Find the photos of a gallery that look most like the person on each of yours.

    Exact: every photo of the gallery is compared. --approximate looks at a few thousand, which pays for
    many queries in millions of photos.
    Similarity is the cosine of two embeddings: 1 is the same, and what is high depends on the model and the photos.
    A place is a likeness, not an identification.
    """
    from reid_done_right.stages.search import search as search_gallery

    _slow_bars_in_logs()
    how: dict[str, Any] = {"top": top, "rerank": rerank, "approximate": approximate}
    found = search_gallery(queries, gallery, model, html=html, threads=threads, **how)
    _print_places(found, rerank != "none")
    if html is not None:
        typer.echo(f"search: wrote {html}", err=True)


def _print_places(found: Any, reranked: bool) -> None:
    """Print a table a query; where there is no terminal, with lines as long as they are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    for each in found:
        labels = [name for name in ("person", "camera") if name in each.hits[0].labels]
        table = Table(box=box.SIMPLE, header_style="bold", padding=(0, 1), pad_edge=False)
        table.add_column("", justify="right")
        table.add_column("similarity", justify="right")
        if reranked:
            table.add_column("re-ranked", justify="right")
        for name in labels:
            table.add_column(name)
        table.add_column("photo", overflow="fold")
        for place, hit in enumerate(each.hits, 1):
            scores = [f"{hit.similarity:.3f}", *([f"{hit.score:.3f}"] if reranked else [])]
            cells = [str(place), *scores, *(hit.labels[name] for name in labels), hit.path]
            table.add_row(*map(Text, cells))
        console.print(Text(each.query, style="bold"))
        console.print(table)


@app.command()
def export(
    model: Annotated[Path, _file("The model, written by `reid train`.")],
    out: Annotated[Path, _file("Where to write it: .onnx, or .pt2 for torch-export. Its card is beside it, .md.")],
    form: Annotated[
        Literal["onnx", "torch-export"], typer.Option("--format", help="onnx runs anywhere, torch-export in PyTorch.")
    ] = "onnx",
    opset: Annotated[int, typer.Option(help="ONNX: version of its operators, 18 to 25.")] = 18,
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far a value of an embedding may be from the module's.")
    ] = 1e-4,
    scores: Annotated[
        Path | None, _file("Scores for the card, written by `reid evaluate`.  [those of the model's run]")
    ] = None,
    data: Annotated[str | None, typer.Option(help="What the card says of the training data.  [from the run]")] = None,
    licence: Annotated[str | None, typer.Option(help="What the card says of the licence.  [from the run]")] = None,
) -> None:
    """Write a model for other programs, with its model card.

    It takes pixels, uint8 (B, 3, H, W) in RGB order, any number of images of any one size, and gives unit vectors
    (B, D); normalisation is inside, scaling to the largest side is yours (the card says how). The file is run on random
    images of three shapes and compared with the module before it is written.
    """
    from reid_done_right.stages.export import export as export_model

    how: dict[str, Any] = {"form": form, "opset": opset, "tolerance": tolerance}
    told: dict[str, Any] = {"scores": scores, "data": data, "licence": licence}
    difference = export_model(model, out, **how, **told)
    typer.echo(
        f"export: differs from the module by at most {difference:.1e} on random images of three shapes", err=True
    )
    typer.echo(f"export: wrote {out} and {out}.md", err=True)


@app.command()
def evaluate(
    settings: Settings,
    index: IndexFile,
    embeddings: Annotated[Path, _file("The test images' embeddings, written by `reid embed`.")],
    out: Annotated[Path, _file("Where to write the scores (.json).")],
    queries: Annotated[Path, _file("Where to write AP and first hit of every query (.parquet).")],
) -> None:
    """Score the embeddings by the benchmark's own protocols: plain, with QE + DBA, with k-reciprocal re-ranking."""
    run("evaluate", settings, {"index": index, "embeddings": embeddings}, {"out": out, "queries": queries})


@app.command()
def distract(
    settings: Settings,
    index: IndexFile,
    embeddings: Annotated[Path, _file("The test images' embeddings, written by `reid embed`.")],
    shards: Annotated[Path, _folder("Folder of the distractors' embeddings, 0.safetensors and so on.")],
    out: Annotated[Path, _file("Where to write the curve (.json).")],
    queries: Annotated[Path, _file("Where to write every query's AP with fewest and most distractors (.parquet).")],
) -> None:
    """Add more and more random distractors to the gallery: Figure 7's curve, from one pass over the distractors."""
    count = read_json(settings).get("parameters", {}).get("shards", 1)
    files = [shards / f"{shard}.safetensors" for shard in range(count)]
    inputs: dict[str, Path | list[Path]] = {"index": index, "embeddings": embeddings, "shards": files}
    run("distract", settings, inputs, {"out": out, "queries": queries})


@app.command()
def retrieve(
    settings: Settings,
    index: IndexFile,
    embeddings: Annotated[Path, _file("The test images' embeddings, written by `reid embed`.")],
    out: Annotated[Path, _file("Where to write the first places of every ranked list (.parquet).")],
    similarities: Annotated[Path, _file("Where to write histograms of the similarities (.json).")],
) -> None:
    """List who comes first for every query, and how similar same and other people are: what the report shows."""
    outputs = {"out": out, "similarities": similarities}
    run("retrieve", settings, {"index": index, "embeddings": embeddings}, outputs)


Scores = Annotated[Path, _folder("Folder of the runs' scores, .json and .parquet, written by `reid evaluate`.")]
Curves = Annotated[Path, _folder("Folder of the distractor curves, .json and .parquet, written by `reid distract`.")]
Report = Annotated[Path, _folder("The report's folder, reports/<experiment>.")]
Paper = Annotated[Path, _file("The paper's printed values (reports/paper.csv).")]
TABLES = tuple(f"table{number}.{kind}" for number in (1, 2, 3, 4) for kind in ("md", "html", "tex", "csv"))
TEXTS = ("findings.md", "findings.html", "metrics.json", "report.json", "README.md")
PICTURES = ("figure1", "figure4", "figure5", "figure6")


def _drawings(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the figures that an experiment's runs are enough for."""
    curves, shown = parameters.get("curves"), parameters.get("shown")
    return (*(("figure7",) if curves else ()), "training_curves", *(("similarities",) if shown else ()))


def _figures(names: tuple[str, ...], *kinds: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in kinds]


def _present(inputs: Mapping[str, Path | list[Path]], parameters: Mapping[str, Any]) -> dict[str, Path | list[Path]]:
    """Leave files that are not there out of the lists, where the parameters allow that runs are missing."""
    if not parameters.get("allow_missing"):
        return dict(inputs)
    return {
        name: [file for file in files if file.is_file()] if isinstance(files, list) else files
        for name, files in inputs.items()
    }


@app.command()
def tabulate(
    settings: Settings,
    scores: Scores,
    curves: Curves,
    paper: Paper,
    out: Report,
) -> None:
    """Write Tables 1-4 as Markdown, LaTeX and CSV, our values beside the printed ones, and judge the paper's claims.

    README.md joins them; report.json holds everything they print, metrics.json the baseline's headline.
    """
    parameters = read_json(settings).get("parameters", {})
    runs, lines = parameters.get("runs", []), parameters.get("curves", [])
    inputs: dict[str, Path | list[Path]] = {
        "scores": [scores / f"{name}.json" for name in runs],
        "queries": [scores / f"{name}.parquet" for name in runs],
        "curves": [curves / f"{name}.json" for name in lines],
        "decays": [curves / f"{name}.parquet" for name in lines],
        "paper": paper,
    }
    outputs = {name: out / name for name in (*TABLES, *TEXTS)}
    run("tabulate", settings, _present(inputs, parameters), outputs, folder=out, copy=True)


@app.command()
def illustrate(
    settings: Settings,
    index: IndexFile,
    embedder: Annotated[Path, _file("The embedder to look into, written by `reid train`.")],
    places: Annotated[Path, _file("Its ranked lists, written by `reid retrieve` (.parquet).")],
    queries: Annotated[Path, _file("AP of its queries, written by `reid evaluate` (.parquet).")],
    out: Report,
) -> None:
    """Draw Figures 1, 4, 5 and 6: ranked lists, and the regions that dimensions and similarities come from."""
    inputs: dict[str, Path | list[Path]] = {"index": index, "embedder": embedder, "places": places, "queries": queries}
    outputs = {name: out / name for name in _figures(PICTURES, "svg", "png")}
    run("illustrate", settings, inputs, outputs, folder=out, copy=True)


@app.command()
def draw(
    settings: Settings,
    curves: Curves,
    logs: Annotated[Path, _folder("Folder of the training logs, written by `reid train`.")],
    scores: Scores,
    similarities: Annotated[Path, _folder("Folder of the histograms of similarities, written by `reid retrieve`.")],
    paper: Paper,
    out: Report,
) -> None:
    """Draw Figure 7, the training curves, the similarities and the contact sheet of the rendered people."""
    parameters = read_json(settings).get("parameters", {})
    names = parameters.get("runs", [])
    inputs: dict[str, Path | list[Path]] = {
        "curves": [curves / f"{name}.json" for name in parameters.get("curves", [])],
        "logs": [logs / f"{name}.csv" for name in names],
        "scores": [scores / f"{name}.json" for name in names],
        "similarities": [similarities / f"{name}.json" for name in parameters.get("shown", [])],
        "paper": paper,
    }
    files = [*_figures(_drawings(parameters), "svg", "png"), "training_curves.csv"]
    files += ["figure7.csv"] if parameters.get("curves") else []
    files += ["contact_sheet.png"] if parameters.get("contact_sheet") else []
    run("draw", settings, _present(inputs, parameters), {name: out / name for name in files}, folder=out, copy=True)


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number]
    except ValueError:
        raise InputError(f"{option} {text!r}: expected numbers separated by commas, as in 0,100000") from None


@app.command()
def publish(
    settings: Settings,
    report: Annotated[Path, _file("What `reid tabulate` wrote (report.json).")],
    figures: Annotated[Path, _folder("Folder of the figures, written by `reid draw` and `reid illustrate`.")],
    indexes: Annotated[Path, _folder("Folder of the indexes, written by `reid index`.")],
    places: Annotated[Path, _folder("Folder of the ranked lists, written by `reid retrieve`.")],
    queries: Annotated[Path, _folder("Folder of the runs' queries, written by `reid evaluate`.")],
    out: Annotated[Path, _file("Where to write the page (.html).")],
) -> None:
    """Put tables, figures and every query's ranked list on one page that needs no network and no server."""
    parameters = read_json(settings).get("parameters", {})
    shown = parameters.get("shown", {})
    runs = dict.fromkeys(run for each in shown.values() for run in each["variants"].values())
    pictures = PICTURES if shown else ()
    sheet = ["contact_sheet.png"] if parameters.get("contact_sheet") else []
    names = [*_figures((*pictures, *_drawings(parameters)), "svg"), *sheet]
    inputs: dict[str, Path | list[Path]] = {
        "report": report,
        "figures": [figures / name for name in names],
        "indexes": [indexes / f"{each['dataset']}.parquet" for each in shown.values()],
        "places": [places / f"{run}.parquet" for run in shown],
        "queries": [queries / f"{run}.parquet" for run in runs],
    }
    run("publish", settings, _present(inputs, parameters), {"out": out}, copy=True)


@app.command()
def compare(
    ours: Annotated[
        str, typer.Argument(help="A file or folder of queries, or a name such as embedded/market-default.")
    ],
    theirs: Annotated[str, typer.Argument(help="What to compare it with, given likewise.")],
    metrics: Annotated[str, typer.Option(help="What to compare: mAP and rank-k, separated by commas.")] = "mAP,rank-1",
    results: Annotated[Path, _folder("Where names are looked up.")] = Path("results"),
    csv: Annotated[Path | None, _file("Also write the numbers, as fractions (.csv).")] = None,
) -> None:
    """Compare two variants, runs, experiments or checkouts query by query: OURS less THEIRS, its interval, its p-value.

    \b
      reid compare embedded/market-default embedded/market-flip      two variants, over the seeds that both have
      reid compare results/embedded ../other/results/embedded      two experiments: all runs of one name
      reid compare a.parquet b.parquet       two files of `reid score --per-query`

    The interval (95 %) and p speak of other queries, not of other seeds; the seeds' own differences stand beside them.
    """
    from reid_done_right.stages.compare import compare as compare_sides

    if wrong := [name for name in metrics.split(",") if name != "mAP" and not name.removeprefix("rank-").isdecimal()]:
        raise InputError(f"--metrics {wrong[0]!r}: expected mAP or rank-k, as in mAP,rank-1,rank-5")
    typer.echo(compare_sides(ours, theirs, metrics=metrics.split(","), results=results, csv=csv))


@app.command()
def score(
    query: Annotated[Path, _file("Embeddings of the queries, .npz or .safetensors.")],
    gallery: Annotated[Path, _file("Embeddings of the gallery, junk and distractors included.")],
    out: Annotated[Path, _file("Where to write the scores (.json), fractions in [0, 1].")],
    protocol: Annotated[
        str, typer.Option(help="market1501, market1501-500k, dukemtmc, dukemtmc-official, mars or person-search.")
    ] = "market1501",
    per_query: Annotated[
        Path | None, _file("Where to write AP by both rules and the rank of the first hit of every query (.parquet).")
    ] = None,
    ranks: Annotated[str, typer.Option(help="CMC at these ranks too, besides 1, 5 and 10; as in 20,50.")] = "",
    multi_query: Annotated[
        Path | None, _file("More images of the queries' people: each query is pooled from those of its camera.")
    ] = None,
    pool: Annotated[Literal["mean", "max"], typer.Option(help="How those, or the frames of mars, are pooled.")] = (
        "mean"
    ),
    normalise_frames: Annotated[
        bool, typer.Option(help="Normalise the frames of mars before pooling; its official code does not.")
    ] = True,
    distractors: Annotated[Path | None, _file("Embeddings of images that show nobody of the benchmark.")] = None,
    sizes: Annotated[str, typer.Option(help="How many of them to add, each scored; as in 0,100000,500000.")] = "",
    draws: Annotated[int, typer.Option(help="How many times to choose them at random.")] = 10,
    seed: Annotated[int, typer.Option(help="Of these draws, and of the confidence interval of mAP.")] = 0,
    rerank: Annotated[
        Literal["none", "qe-dba", "k-reciprocal"],
        typer.Option(help="qe-dba is the paper's re-ranking, k-reciprocal the one of Zhong et al."),
    ] = "none",
    query_neighbours: Annotated[
        int | None, typer.Option(min=0, help="qe-dba: neighbours averaged into a query.  [5]")
    ] = None,
    database_neighbours: Annotated[
        int | None, typer.Option(min=0, help="qe-dba: neighbours averaged into a gallery item.  [10]")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(min=0, help="qe-dba: power of the similarity that weighs a neighbour.  [0: all alike]"),
    ] = None,
    self_counts: Annotated[
        bool | None, typer.Option("--self-counts", help="qe-dba: the item itself is one of its neighbours.")
    ] = None,
    order: Annotated[
        Literal["database-first", "query-first"] | None,
        typer.Option(help="qe-dba: queries are averaged with augmented or with raw items.  [database-first]"),
    ] = None,
    k1: Annotated[int | None, typer.Option(min=1, help="k-reciprocal: size of the neighbourhoods.  [20]")] = None,
    k2: Annotated[int | None, typer.Option(help="k-reciprocal: neighbours averaged afterwards.  [6]")] = None,
    lambda_value: Annotated[
        float | None,
        typer.Option("--lambda", min=0, max=1, help="k-reciprocal: weight of the original distance.  [0.3]"),
    ] = None,
    variant: Annotated[
        Literal["matlab", "python", "squared-twice"] | None,
        typer.Option(help="k-reciprocal: the authors' code or a port of it.  [matlab]"),
    ] = None,
    same_camera_is_junk: Annotated[
        bool | None,
        typer.Option(
            "--same-camera-is-junk/--same-camera-counts",
            help="Rule: delete what a query's own camera saw of its person. For one-camera data: --same-camera-counts.",
        ),
    ] = None,
    junk_id: Annotated[
        str | None, typer.Option(metavar="<int|none>", help="Rule: delete gallery items of this id.")
    ] = None,
    distractor_id: Annotated[
        str | None, typer.Option(metavar="<int|none>", help="Rule: gallery items of this id are nobody.")
    ] = None,
    cut: Annotated[int | None, typer.Option(help="Rule: only so many places of the gallery are ranked.")] = None,
    ap_rule: Annotated[
        Literal["trapezoid", "step"] | None, typer.Option(help="Rule: the AP behind mAP; both are always given.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="How many work at once.  [all cores]")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where PyTorch is to compute, such as cuda.  [compiled loops on the CPU]")
    ] = None,
    numerics: NumericsSwitch = "portable",
) -> None:
    """Score embeddings of any framework by a benchmark's official protocol, exactly and in bounded memory.

    A file holds arrays, a row an image:

    \b
      embeddings   (N, D) floats, normalised if they are not
      person_id    (N,) whole numbers; in the gallery -1 is junk, 0 a distractor
      camera_id    (N,) whole numbers
      tracklet_id  (N,) mars: rows are frames, and the gallery holds the queries
      image_id     (N,) person-search: the photo of each box; in the query file
                   also lists and pointers, each query's gallery of photos

    \b
      np.savez("query.npz", embeddings=features, person_id=ids, camera_id=cams)
      reid score --query query.npz --gallery gallery.npz --out scores.json

    docs/scoring.md has an example of every protocol, and the same as a function on arrays. Options that begin with
    "Rule" change the protocol for a benchmark of your own.
    """
    from reid_done_right.stages.score import score as score_files

    rules = {"same_camera_is_junk": same_camera_is_junk, "cut": cut, "ap_rule": ap_rule}
    changes: dict[str, Any] = {name: value for name, value in rules.items() if value is not None}
    ids = {"junk_id": junk_id, "distractor_id": distractor_id}
    changes |= {name: _id(name, text) for name, text in ids.items() if text is not None}
    options: dict[str, dict[str, Any]] = {
        "qe-dba": {
            "query_neighbours": query_neighbours,
            "database_neighbours": database_neighbours,
            "alpha": alpha,
            "self_counts": self_counts,
            "order": order,
        },
        "k-reciprocal": {"k1": k1, "k2": k2, "lambda_value": lambda_value, "variant": variant},
    }
    score_files(
        query,
        gallery,
        out,
        protocol=protocol,
        changes=changes,
        multi_query=multi_query,
        pool=pool,
        normalise_frames=normalise_frames,
        rerank=rerank,
        options=_chosen(options, rerank),
        distractors=distractors,
        sizes=_whole_numbers("--sizes", sizes),
        draws=draws,
        ranks=_whole_numbers("--ranks", ranks),
        seed=seed,
        per_query=per_query,
        threads=threads,
        device=device,
    )
    _print_scores(read_json(out))
    typer.echo(f"score: wrote {out}" + (f" and {per_query}" if per_query else ""), err=True)


def _id(name: str, text: str) -> int | None:
    try:
        return None if text == "none" else int(text)
    except ValueError:
        raise InputError(f"--{name.replace('_', '-')} {text!r}: expected a whole number or none") from None


def _chosen(options: Mapping[str, Mapping[str, Any]], rerank: str) -> dict[str, Any]:
    """Give the options of the re-ranking that were given; refuse those of another one, which would change nothing."""
    for name, members in options.items():
        given = [option for option, value in members.items() if value is not None]
        if given and name != rerank:
            option = "lambda" if given[0] == "lambda_value" else given[0].replace("_", "-")
            raise InputError(f"--{option} belongs to --rerank {name}, but it is {rerank}")
    return {option: value for option, value in options.get(rerank, {}).items() if value is not None}


def _print_scores(found: Mapping[str, Any]) -> None:
    ranks = [name for name in found if name.removeprefix("rank").isdigit()]
    typer.echo("  ".join(f"{name} {100 * found[name]:.2f}" for name in ("mAP", "mAP_step", *ranks)))
    low, high = found["mAP_interval"]["low"], found["mAP_interval"]["high"]
    sure = "" if low is None else f", 95 % interval over queries {100 * low:.2f} to {100 * high:.2f}"
    typer.echo(f"score: {found['queries']} queries, mAP by the {found['ap_rule']} rule{sure}", err=True)
    if found["queries_without_match"]:
        missing = f"{found['queries_without_match']} of them have no match in the gallery and score 0"
        typer.echo(f"score: {missing} (in the mean, as the official code does)", err=True)
    swept = found.get("distractors", {"sizes": []})
    for i, size in enumerate(swept["sizes"]):
        means = (f"{name} {100 * sum(swept[name][i]) / swept['draws']:.2f}" for name in ("mAP", "mAP_step", "rank1"))
        typer.echo(f"{size:,} distractors: {'  '.join(means)}")


def main() -> None:
    """Run the command line; a mistake in the input is one line on stderr and exit status 1."""
    numerics.choose()
    if "REID_DEBUG" in os.environ:
        app()
    try:
        app()
    except (ValueError, FloatingPointError) as error:  # InputError is a ValueError
        message = str(error)
    except OSError as error:
        message = (
            f"{error.filename2 or error.filename}: {error.strerror or error}; {CURES.get(error.errno or 0, AGAIN)}"
        )
    else:
        return
    typer.echo(f"reid: error: {message}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
