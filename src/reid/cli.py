"""The command `reid`: a thin skin over the stages. Both engines call these commands, and so can you, by hand."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from reid.artifacts import InputError, read_json, write_text

HELP = """\
Person re-identification done right: from photos to the paper's tables, one command a stage.

Each stage reads its own settings (a file that `reid plan` writes from params.yaml) and the artifacts of earlier
stages, and writes its own. A stage that has been computed before, with the same settings, inputs and code, is taken
from the store (folder .store, or $REID_STORE; REID_STORE=none computes without one).

\b
  snakemake --cores all      runs the whole experiment     (or: dvc repro)
  reid plan params.yaml      shows its jobs and writes their settings
  reid train --help          explains one stage
"""

app = typer.Typer(
    name="reid",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _file(text: str) -> Any:
    return typer.Option(help=text, dir_okay=False)


def _folder(text: str) -> Any:
    return typer.Option(help=text, file_okay=False)


Settings = Annotated[Path, _file("This job's settings, written by `reid plan`: results/<experiment>/settings/...")]
IndexFile = Annotated[Path, _file("The dataset's index, written by `reid index` (.parquet).")]
Log = Annotated[Path, _file("Where to write the training log: a row an update (.csv).")]


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
    from reid import store

    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "10")  # a log wants a line now and then, not a moving bar
    described = read_json(settings)
    if described.get("stage") != stage or "parameters" not in described:
        raise InputError(f"{settings}: settings of {described.get('stage')!r}, expected those of {stage!r}")
    parameters = described["parameters"]

    def compute(work: Path) -> None:
        from threadpoolctl import threadpool_limits

        threadpool_limits(parameters.get("threads"))  # the order of sums, and so the last digits, depend on it
        function = getattr(importlib.import_module(f"reid.stages.{stage}"), stage)
        places = {name: work / path.name for name, path in outputs.items()} if folder is None else {"out": work}
        function(settings=parameters, **inputs, **places, **(passed or {}))

    start = time.monotonic()
    computed = store.make(
        stage, parameters=parameters, inputs=inputs, outputs=outputs.values(), compute=compute, copy=copy
    )
    how = f"computed in {time.monotonic() - start:.1f} s" if computed else "found in the store"
    wrote = ", ".join(str(path) for path in outputs.values()) if folder is None else f"{len(outputs)} files in {folder}"
    typer.echo(f"{stage} {described.get('job', '')}: {how}, wrote {wrote}", err=True)


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
    from reid import params as parameters
    from reid import plan as planning

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
def dataset(
    settings: Settings,
    images: Annotated[Path, _folder("Folder of a rendered release; unused for a folder of your own.")],
    out: Annotated[Path, _file("Where to write the manifest: how many files, their digest (.json).")],
    threads: Annotated[int, typer.Option(help="Processes to render and read with.")] = 1,
) -> None:
    """Put a benchmark on disk in its official layout: render it, or check a folder that you own."""
    rendered = "render" in read_json(settings).get("parameters", {}).get("source", {})
    outputs = {"images": images, "out": out} if rendered else {"out": out}
    passed: dict[str, Any] = {"workers": threads} if rendered else {"workers": threads, "images": images}
    run("dataset", settings, {}, outputs, passed=passed)


@app.command()
def index(
    settings: Settings,
    manifest: Annotated[Path, _file("The dataset's manifest, written by `reid dataset` (.json).")],
    out: Annotated[Path, _file("Where to write the index (.parquet).")],
) -> None:
    """List every image with its person, camera, tracklet and split; check the counts against the published ones."""
    run("index", settings, {"manifest": manifest}, {"out": out})


@app.command()
def initialise(
    settings: Settings, out: Annotated[Path, _file("Where to write the backbone's weights (.safetensors).")]
) -> None:
    """Make a backbone's first weights: procedural object classification, or torchvision's ImageNet V1 file."""
    run("initialise", settings, {}, {"out": out})


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
    settings: Settings,
    index: IndexFile,
    embedder: Annotated[Path, _file("The embedder, written by `reid train`.")],
    out: Annotated[Path, _file("Where to write the embeddings (.safetensors).")],
) -> None:
    """Embed queries, gallery and multi-query boxes, or one shard of the distractors."""
    run("embed", settings, {"index": index, "embedder": embedder}, {"out": out})


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
) -> None:
    """Add more and more random distractors to the gallery: Figure 7's curve, from one pass over the distractors."""
    count = read_json(settings).get("parameters", {}).get("shards", 1)
    files = [shards / f"{shard}.safetensors" for shard in range(count)]
    run("distract", settings, {"index": index, "embeddings": embeddings, "shards": files}, {"out": out})


Scores = Annotated[Path, _folder("Folder of the runs' scores, written by `reid evaluate`.")]
Paper = Annotated[Path, _file("The paper's printed values (reports/paper.csv).")]
TABLES = ("table1.md", "table2.md", "table3.md", "table4.md", "metrics.json", "README.md")
FIGURES = tuple(f"{name}.{kind}" for name in ("figure7", "training_curves") for kind in ("svg", "png"))


@app.command()
def tabulate(
    settings: Settings,
    scores: Scores,
    paper: Paper,
    out: Annotated[Path, _folder("The report's folder, reports/<experiment>.")],
) -> None:
    """Write Tables 1-4 in the paper's shape, our values beside the printed ones, and the report that joins them."""
    runs = read_json(settings).get("parameters", {}).get("runs", [])
    files = [scores / f"{name}.json" for name in runs]
    outputs = {name: out / name for name in TABLES}
    run("tabulate", settings, {"scores": files, "paper": paper}, outputs, folder=out, copy=True)


@app.command()
def draw(
    settings: Settings,
    curves: Annotated[Path, _folder("Folder of the distractor curves, written by `reid distract`.")],
    logs: Annotated[Path, _folder("Folder of the training logs, written by `reid train`.")],
    scores: Scores,
    paper: Paper,
    out: Annotated[Path, _folder("The report's folder, reports/<experiment>.")],
) -> None:
    """Draw Figure 7, the training curves and the contact sheet of the rendered people."""
    parameters = read_json(settings).get("parameters", {})
    names = parameters.get("runs", [])
    inputs: dict[str, Path | list[Path]] = {
        "curves": [curves / f"{name}.json" for name in parameters.get("curves", [])],
        "logs": [logs / f"{name}.csv" for name in names],
        "scores": [scores / f"{name}.json" for name in names],
        "paper": paper,
    }
    files = (*FIGURES, "figure7.csv", *(["contact_sheet.png"] if parameters.get("contact_sheet") else []))
    run("draw", settings, inputs, {name: out / name for name in files}, folder=out, copy=True)


@app.command()
def score(
    query: Annotated[Path, _file("Embeddings of the queries (.npz or .safetensors): see below.")],
    gallery: Annotated[Path, _file("Embeddings of the gallery, junk and distractors included.")],
    out: Annotated[Path, _file("Where to write the scores (.json).")],
    protocol: Annotated[
        str, typer.Option(help="market1501, market1501-500k, dukemtmc, dukemtmc-official, mars or person-search.")
    ] = "market1501",
    multi_query: Annotated[
        Path | None, _file("More images of the queries' people, pooled by person and camera.")
    ] = None,
    pool: Annotated[str, typer.Option(help="Pool those, or the frames of tracklets, by mean or max.")] = "mean",
    normalise_frames: Annotated[bool, typer.Option(help="Normalise the frames of a tracklet before pooling.")] = True,
    rerank: Annotated[str, typer.Option(help="none, qe-dba (the paper's) or k-reciprocal.")] = "none",
    distractors: Annotated[Path | None, _file("Embeddings of images that are nobody in the gallery.")] = None,
    sizes: Annotated[str, typer.Option(help="How many of them to add, as in 0,100000,500000.")] = "",
    draws: Annotated[int, typer.Option(help="Random orders of the distractors.")] = 10,
    seed: Annotated[int, typer.Option(help="Of these orders.")] = 0,
    per_query: Annotated[Path | None, _file("Where to write AP and first hit of every query (.parquet).")] = None,
    same_camera_is_junk: Annotated[
        bool | None,
        typer.Option(
            "--same-camera-is-junk/--same-camera-counts",
            help="Delete what the query's own camera saw of its person; --same-camera-counts for one-camera data.",
        ),
    ] = None,
    junk_id: Annotated[int | None, typer.Option(help="Delete gallery items of this id.")] = None,
    distractor_id: Annotated[int | None, typer.Option(help="Gallery items of this id are nobody.")] = None,
    cut: Annotated[int | None, typer.Option(help="Ranks beyond this place add nothing.")] = None,
    ap_rule: Annotated[str | None, typer.Option(help="Rule of the headline mAP: trapezoid or step.")] = None,
) -> None:
    """Score embeddings of any framework by a benchmark's official protocol, exactly and in bounded memory.

    The files hold the arrays embeddings (N, D), person_id (N,), camera_id (N,); for mars also tracklet_id (N,), a
    row a frame; for person-search image_id (N,) in the gallery and lists, pointers in the query file. Junk has
    person_id -1, a distractor 0. The last options change single rules of the protocol, for a benchmark of your own.
    """
    from reid.stages.score import score as score_files

    rules = {
        "same_camera_is_junk": same_camera_is_junk,
        "junk_id": junk_id,
        "distractor_id": distractor_id,
        "cut": cut,
        "ap_rule": ap_rule,
    }
    try:
        numbers = [int(number) for number in sizes.split(",") if number]
    except ValueError:
        raise InputError(f"--sizes {sizes!r}: expected numbers separated by commas, as in 0,100000") from None
    score_files(
        query,
        gallery,
        out,
        protocol=protocol,
        changes={name: value for name, value in rules.items() if value is not None},
        multi_query=multi_query,
        pool=pool,  # type: ignore[arg-type]
        normalise_frames=normalise_frames,
        rerank=rerank,  # type: ignore[arg-type]
        distractors=distractors,
        sizes=numbers,
        draws=draws,
        seed=seed,
        per_query=per_query,
    )
    found = read_json(out)
    shown = ("mAP", "mAP_step", "rank1", "rank5", "rank10")
    typer.echo("  ".join(f"{name} {100 * found[name]:.2f}" for name in shown))
    typer.echo(f"score: {found['queries']} queries, wrote {out}", err=True)


def main() -> None:
    """Run the command line; a mistake in the input is one line on stderr and exit status 1."""
    if "REID_DEBUG" in os.environ:
        app()
    try:
        app()
    except (ValueError, FloatingPointError) as error:  # InputError is a ValueError
        typer.echo(f"reid: error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
