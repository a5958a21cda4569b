"""The graph: what each stage reads and writes, and what it does.

The commands of `reid`, the rules of Snakemake, the stages of DVC, the jobs of `reid check` and the pictures of the
pipeline are all derived from `STAGES`. To add an input to a stage, add an entry to its `reads` and an argument to its
function. This module holds only text and small functions, so that `reid --help` starts instantly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from string import Formatter
from typing import Any, Literal

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Read:
    """A file that a job reads, or one file for each of several names.

    path    its path, a template with {experiment}, {job}, the job's own fields, and {each} for the names
    help    description for `--help`
    each    function from the job's parameters to the names; the command then takes the folder of the files
    option  the option for the folder, if several inputs share one
    by      the stages that write it, if the path does not say
    """

    path: str
    help: str
    each: Callable[[Parameters], Iterable[str]] | None = None
    option: str = ""
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Write:
    """A file that a job writes, or one file for each of several names.

    path     its path, as in `Read`
    help     description for `--help`
    when     the dotted parameter without which the file is not written
    each     function from the job's parameters to the names, for which {each} stands in the file's own name, too
    tracked  False for a folder of images, which the engines do not track
    """

    path: str
    help: str = ""
    when: str = ""
    each: Callable[[Parameters], Iterable[str]] | None = None
    tracked: bool = True


@dataclass(frozen=True)
class Stage:
    """A stage: a command of `reid`, a function in `reid_done_right.stages`, a rule of Snakemake, a stage of DVC.

    help         what it does; the first sentence is shown in command lists
    brief        a few words for pictures of the graph
    box          its column and row in these pictures
    environment  name in workflow/envs
    reads        name of the function's argument and of the option -> file
    writes       likewise; for a stage with a `folder`, name of the file -> file
    folder       help of `--out`, if the stage writes all its files into one folder
    job          template of job names; a plain name if there is only one job
    command      the stage whose command it calls, if not its own
    fetches      the argument for external data, if the job needs any
    threads      whether the number of threads is an option, because no result depends on it
    device       scores: ranks on a device that is named; network: uses a GPU that it sees; both are `--device`
    priority     Snakemake starts jobs with higher values first
    """

    help: str
    brief: str
    box: tuple[int, int]
    environment: str
    reads: Mapping[str, Read] = field(default_factory=dict)
    writes: Mapping[str, Write] = field(default_factory=dict)
    folder: str = ""
    job: str = "{job}"
    command: str = ""
    fetches: str = ""
    threads: bool = False
    device: Literal["", "scores", "network"] = ""
    priority: int = 0


@dataclass(frozen=True)
class Option:
    """An option of a stage's command: its help, its path, and whether that is an input, an output or a folder.

    optional: the file is written by some jobs only
    """

    help: str
    path: str
    kind: Literal["input", "output", "folder"]
    optional: bool = False


def _result(stage: str, kind: str, job: str = "{job}") -> str:
    """Return the path of a stage's file. All results follow this pattern."""
    return f"results/{{experiment}}/{stage}/{job}.{kind}"


def _written(stage: str, kind: str, what: str, job: str = "{job}") -> Write:
    return Write(_result(stage, kind, job), f"Where to write {what} (.{kind}).")


def drawn(name: str, draw: int) -> str:
    """Return the name of a dataset's or a backbone's jobs in one draw."""
    return f"{name}-draw{draw}"


def run_stem(dataset: str, variant: str, tested_on: str = "") -> str:
    """Return the common part of the names of the runs of a variant that is trained on `dataset`.

    tested_on: the dataset whose test set it meets, if another.
    """
    return f"{dataset}-{variant}" + (f"-on-{tested_on}" if tested_on not in ("", dataset) else "")


def run_name(dataset: str, variant: str, draw: int, tested_on: str = "") -> str:
    """Return a run's name, as used in file names; arguments as in `run_stem`."""
    return drawn(run_stem(dataset, variant, tested_on), draw)


def stem_of(name: str) -> str:
    """Return a run's name without its draw."""
    return name.rpartition("-draw")[0]


SETTINGS = "results/{experiment}/settings/{stage}/{job}.json"
"""Path of a job's settings, written by `reid plan` and read by every job."""


def _report(*names: str, when: str = "", each: Callable[[Parameters], Iterable[str]] | None = None) -> dict[str, Write]:
    return {name: Write(f"reports/{{experiment}}/{name}", when=when, each=each) for name in names}


def _drawn(*names: str, when: str = "") -> dict[str, Write]:
    return _report(*(f"{name}.{kind}" for name in names for kind in ("svg", "png")), when=when)


def _named(key: str) -> Callable[[Parameters], Iterable[str]]:
    """Return a function from parameters to the names under a key."""

    def names(parameters: Parameters) -> Iterable[str]:
        found: Iterable[str] = parameters.get(key, ())
        return found

    return names


def _shards(parameters: Parameters) -> Iterable[str]:
    return map(str, range(parameters.get("shards", 1)))


def _browsed(parameters: Parameters) -> Iterable[str]:
    """Return the indexes of the runs shown on the page."""
    return (about["index"] for about in parameters.get("shown", {}).values())


def _compared(parameters: Parameters) -> Iterable[str]:
    """Return the distinct runs that the page compares query by query."""
    return dict.fromkeys(run for about in parameters.get("shown", {}).values() for run in about["variants"].values())


def _figures(parameters: Parameters) -> Iterable[str]:
    """Return the pictures that the page shows, of those that are drawn."""
    for name in ("tabulate", "illustrate", "draw") if parameters.get("shown") else ("tabulate", "draw"):
        for file, write in STAGES[name].writes.items():
            if is_written(write, parameters) and (file.endswith(".svg") or file == "contact_sheet.png"):
                yield file


INDEX = Read(_result("index", "parquet", "{index}"), "The dataset's index, written by `reid index` (.parquet).")
TRAINING = replace(
    INDEX,
    path="results/{experiment}/{rows}.parquet",
    help="The images to train on: an index, written by `reid index` or `reid join` (.parquet).",
    by=("index", "join"),
)
EMBEDDER = Read(_result("train", "safetensors"), "The embedder, written by `reid train`.")
EMBEDDINGS = Read(_result("embed", "safetensors"), "The test images' embeddings, written by `reid embed`.")
QUERIES = Read(_result("evaluate", "parquet"), "AP of its queries, written by `reid evaluate` (.parquet).")
PAPER = Read("reports/paper.csv", "The paper's printed values (reports/paper.csv).")
SCORES = Read(
    _result("evaluate", "json", "{each}"),
    "Folder of the runs' scores, .json and .parquet, written by `reid evaluate`.",
    _named("runs"),
)
CURVES = Read(
    _result("distract", "json", "{each}"),
    "Folder of the distractor curves, .json and .parquet, written by `reid distract`.",
    _named("curves"),
)
IDENTIFIED = Read(
    _result("identify", "json", "{each}"), "Folder of the open sets, written by `reid identify`.", _named("identified")
)
LOG = "the training log, one row per update"
REPORT = "The report's folder, reports/<experiment>."

EMBED = Stage(
    help="""Embed the images of an index as unit vectors.

    Embeds queries, gallery and multi-query boxes at the size the model was trained for or, depending on the settings,
    one shard of the distractors. For your own photos, use `reid embed-photos`.""",
    brief="images to unit vectors",
    box=(2, 1),
    environment="torch",
    reads={"index": INDEX, "embedder": replace(EMBEDDER, path=_result("train", "safetensors", "{run}"))},
    writes={"out": _written("embed", "safetensors", "the embeddings")},
    device="network",
)

STAGES = {
    "dataset": Stage(
        help="""Put a benchmark on disk in its official layout.

        It is rendered, unpacked from archives, or a folder of your own, which is only checked. The manifest records the
        number of files and their digest.""",
        brief="render, or check yours",
        box=(0, 0),
        environment="numeric",
        writes={
            "images": Write(
                "results/{experiment}/dataset/{job}",
                "Folder for a rendered release; unused for a folder of your own.",
                when="source.render",
                tracked=False,
            ),
            "out": _written("dataset", "json", "the manifest"),
        },
        fetches="receipt",
        threads=True,
    ),
    "index": Stage(
        help="""List every image with its person, camera, tracklet and split.

        Checks the counts against the published ones, and decodes every image once, so that all damaged files are
        reported before training.""",
        brief="who, camera, split",
        box=(1, 0),
        environment="numeric",
        reads={
            "manifest": Read(_result("dataset", "json"), "The dataset's manifest, written by `reid dataset` (.json).")
        },
        writes={"out": _written("index", "parquet", "the index")},
        threads=True,
    ),
    "join": Stage(
        help="""Join the training images of several datasets into one index.

        Persons, cameras and tracklets are numbered anew, so that those of two datasets never meet. An image that is in
        two datasets is an error, as its person would be two.""",
        brief="several to train on",
        box=(1, 1),
        environment="numeric",
        reads={
            "indexes": Read(
                _result("index", "parquet", "{each}"),
                "Folder of the indexes, written by `reid index`.",
                _named("indexes"),
            )
        },
        writes={"out": _written("join", "parquet", "the index of their training images")},
    ),
    "initialise": Stage(
        help="""Make a backbone's initial weights.

        They are trained on procedural object classes, or are torchvision's ImageNet weights, or come from your own
        file.""",
        brief="first weights",
        box=(0, 2),
        environment="torch",
        writes={"out": _written("initialise", "safetensors", "the backbone's weights")},
        fetches="weights",
        priority=100,
    ),
    "pretrain": Stage(
        help="""Train the backbone to classify the training identities.

        The first of the paper's two trainings, with cross-entropy on crops of one size. The classifier is discarded
        and the backbone kept.""",
        brief="classify identities",
        box=(1, 2),
        environment="torch",
        reads={
            "index": TRAINING,
            "weights": Read(
                _result("initialise", "safetensors", "{initial}"),
                "Initial backbone weights, written by `reid initialise`.",
            ),
        },
        writes={
            "out": _written("pretrain", "safetensors", "the backbone's weights"),
            "log": _written("pretrain", "csv", LOG),
        },
        priority=50,
    ),
    "train": Stage(
        help="""Train an embedder with the triplet loss on mined hard triplets.

        The second of the paper's two trainings: images keep their aspect ratio, and triplets are mined from a pool of
        images every few updates. A killed training resumes from its last checkpoint and ends with the same bits. With
        more than one GPU in `resources.train.gpu`, as many processes share each batch.""",
        brief="triplet loss, hard triplets",
        box=(2, 2),
        environment="torch",
        reads={
            "index": TRAINING,
            "weights": Read(
                "results/{experiment}/{weights}.safetensors",
                "Backbone weights to start from, written by `reid pretrain` or `reid initialise`.",
                by=("initialise", "pretrain"),
            ),
        },
        writes={
            "out": _written("train", "safetensors", "the embedder"),
            "log": _written("train", "csv", LOG),
            "snapshots": replace(
                _written("train", "snapshots.safetensors", "models from along the training"), when="snapshots"
            ),
        },
        priority=20,
    ),
    "embed": EMBED,
    "embed_distractors": replace(
        EMBED,
        brief="a shard at a time",
        box=(3, 2),
        writes={"out": _written("distractors/{run}", "safetensors", "the embeddings", "{shard}")},
        job="{run}-{shard}",
        command="embed",
    ),
    "evaluate": Stage(
        help="""Score the embeddings by the benchmark's own protocols.

        Without re-ranking, with QE + DBA as in the paper, and with k-reciprocal re-ranking; AP by the benchmark's
        official rule and by the other one.""",
        brief="official protocols",
        box=(3, 1),
        environment="numeric",
        reads={"index": INDEX, "embeddings": EMBEDDINGS},
        writes={
            "out": _written("evaluate", "json", "the scores"),
            "queries": _written("evaluate", "parquet", "AP and first hit of every query"),
        },
        device="scores",
    ),
    "follow": Stage(
        help="""Score a model at several points of its training.

        Computes mAP without re-ranking on the test images, and on the training images, which shows over-fitting.""",
        brief="convergence",
        box=(4, 3),
        environment="torch",
        reads={
            "index": INDEX,
            "snapshots": Read(
                _result("train", "snapshots.safetensors"), "Models from along the training, written by `reid train`."
            ),
            "embedder": replace(EMBEDDER, help="The embedder that it ended with."),
        },
        writes={"out": _written("follow", "json", "mAP after several numbers of updates")},
        device="network",
    ),
    "distract": Stage(
        help="""Score growing galleries with random distractors.

        Computes the curve of Figure 7: every size and order in one pass over the distractors.""",
        brief="every gallery size",
        box=(4, 2),
        environment="numeric",
        reads={
            "index": INDEX,
            "embeddings": EMBEDDINGS,
            "shards": Read(
                _result("distractors/{job}", "safetensors", "{each}"),
                "Folder of the distractors' embeddings, 0.safetensors and so on.",
                _shards,
            ),
        },
        writes={
            "out": _written("distract", "json", "the curve"),
            "queries": _written("distract", "parquet", "every query's AP with the fewest and the most distractors"),
        },
        device="scores",
    ),
    "retrieve": Stage(
        help="""List the first ten results of every query, for the report.

        Also writes histograms of the similarities between images of the same and of different persons.""",
        brief="the first ten places",
        box=(3, 0),
        environment="numeric",
        reads={"index": INDEX, "embeddings": EMBEDDINGS},
        writes={
            "out": _written("retrieve", "parquet", "the first ten results of every query"),
            "similarities": _written("retrieve", "json", "histograms of the similarities"),
        },
        device="scores",
    ),
    "inspect": Stage(
        help="""Measure what a network looks at in rendered queries, whose outlines the renderer knows.

        Scores of occluded and of clean queries, the share of the heat of Figure 6 that lies on the person, and what
        blanking the hottest parts of a query costs.""",
        brief="heat, blanking",
        box=(4, 1),
        environment="torch",
        reads={
            "index": INDEX,
            "embedder": EMBEDDER,
            "embeddings": EMBEDDINGS,
            "queries": QUERIES,
        },
        writes={
            "out": _written("inspect", "json", "the means"),
            "measured": _written("inspect", "parquet", "what was measured of every query"),
        },
        device="network",
    ),
    "identify": Stage(
        help="""Search for persons whom the gallery does not hold, too.

        Leaves a share of the test persons out of the gallery and computes, in the terms of ISO/IEC 19795, FNIR at FPIR,
        thresholds with their intervals, and the whole curve.""",
        brief="open set",
        box=(3, 3),
        environment="numeric",
        reads={"index": INDEX, "embeddings": EMBEDDINGS},
        writes={"out": _written("identify", "json", "the error rates")},
    ),
    "tabulate": Stage(
        help="""Write the tables with our values and the paper's, and judge the paper's claims.

        Each table is written as Markdown, HTML, LaTeX and CSV, the verdicts also as a picture. README.md combines them;
        report.json holds everything they print, metrics.json the baseline's headline numbers.""",
        brief="tables, findings",
        box=(5, 1),
        environment="report",
        reads={
            "scores": SCORES,
            "queries": replace(SCORES, path=_result("evaluate", "parquet", "{each}"), option="scores"),
            "curves": CURVES,
            "decays": replace(CURVES, path=_result("distract", "parquet", "{each}"), option="curves"),
            "inspections": Read(
                _result("inspect", "json", "{each}"),
                "Folder of what was measured of the networks, written by `reid inspect`.",
                _named("inspected"),
            ),
            "identified": IDENTIFIED,
            "paper": PAPER,
        },
        writes=_report("{each}.md", "{each}.html", "{each}.tex", "{each}.csv", each=_named("tables"))
        | _report("findings.md", "findings.html", "metrics.json", "report.json", "README.md")
        | _drawn("forest", when="claims"),
        folder=REPORT,
        job="tables",
    ),
    "illustrate": Stage(
        help="""Draw Figures 1, 4, 5 and 6.

        These are ranked lists, and heat maps of the image regions behind dimensions and similarities.""",
        brief="Figures 1, 4, 5, 6",
        box=(4, 0),
        environment="torch",
        reads={
            "index": INDEX,
            "embedder": replace(EMBEDDER, help="The embedder to visualise, written by `reid train`."),
            "places": Read(_result("retrieve", "parquet"), "Its ranked lists, written by `reid retrieve` (.parquet)."),
            "queries": QUERIES,
        },
        writes=_drawn("figure1", "figure4", "figure5", "figure6"),
        folder=REPORT,
    ),
    "draw": Stage(
        help="""Draw Figure 7, the training curves and the similarities.

        Also draws the contact sheet of rendered people, if the experiment has any.""",
        brief="Figure 7, curves",
        box=(5, 2),
        environment="report",
        reads={
            "curves": CURVES,
            "logs": Read(
                _result("train", "csv", "{each}"),
                "Folder of the training logs, written by `reid train`.",
                _named("runs"),
            ),
            "scores": replace(SCORES, each=_named("scored")),
            "similarities": Read(
                _result("retrieve", "json", "{each}"),
                "Folder of the similarity histograms, written by `reid retrieve`.",
                _named("shown"),
            ),
            "followed": Read(
                _result("follow", "json", "{each}"),
                "Folder of convergence, written by `reid follow`.",
                _named("followed"),
            ),
            "identified": IDENTIFIED,
            "paper": PAPER,
        },
        writes=_drawn("figure7", when="curves")
        | _drawn("convergence", when="followed")
        | _report("convergence.csv", when="followed")
        | _drawn("open_set", when="identified")
        | _report("open_set.csv", when="identified")
        | _drawn("training_curves")
        | _drawn("similarities", when="shown")
        | _report("training_curves.csv")
        | _report("figure7.csv", when="curves")
        | _report("contact_sheet.png", when="contact_sheet"),
        folder=REPORT,
        job="figures",
    ),
    "publish": Stage(
        help="""Put tables, figures and ranked lists of queries on one page.

        The page works offline and needs no server.""",
        brief="one page",
        box=(6, 1),
        environment="report",
        reads={
            "report": Read(
                "reports/{experiment}/report.json", "The report's numbers, written by `reid tabulate` (report.json)."
            ),
            "figures": Read(
                "reports/{experiment}/{each}",
                "Folder of the figures, written by `reid tabulate`, `reid draw` and `reid illustrate`.",
                _figures,
                by=("tabulate", "illustrate", "draw"),
            ),
            "indexes": Read(
                _result("index", "parquet", "{each}"), "Folder of the indexes, written by `reid index`.", _browsed
            ),
            "places": Read(
                _result("retrieve", "parquet", "{each}"),
                "Folder of the ranked lists, written by `reid retrieve`.",
                _named("shown"),
            ),
            "queries": Read(
                _result("evaluate", "parquet", "{each}"),
                "Folder of the runs' queries, written by `reid evaluate`.",
                _compared,
            ),
        },
        writes={"out": Write("reports/{experiment}/report.html", "Where to write the page (.html).")},
        job="page",
    ),
}
"""Every stage, in an order in which they can run."""

COMMANDS = tuple(name for name, stage in STAGES.items() if not stage.command)
"""The stages that have a command and a function of their own."""


def is_written(write: Write, parameters: Parameters) -> bool:
    """Return whether a job with these parameters writes the file."""
    value: Any = parameters
    for key in write.when.split(".") if write.when else ():
        value = value.get(key, None) if isinstance(value, Mapping) else None
    return bool(value) or not write.when


def inputs(stage: Stage, places: Mapping[str, str], parameters: Parameters) -> dict[str, str | list[str]]:
    """Return the paths of a job's inputs by name. `places` are its experiment, its name and its fields."""
    return {
        name: (
            read.path.format(**places)
            if read.each is None
            else [read.path.format(**places, each=each) for each in read.each(parameters)]
        )
        for name, read in stage.reads.items()
    }


def files_written(stage: Stage, parameters: Parameters) -> dict[str, Write]:
    """Return what a job with these parameters writes, by name; a file for each of several names is one of them."""
    found: dict[str, Write] = {}
    for name, write in stage.writes.items():
        if write.each is not None:
            for each in write.each(parameters):
                found[name.replace("{each}", each)] = replace(write, path=write.path.replace("{each}", each))
        elif is_written(write, parameters):
            found[name] = write
    return found


def outputs(stage: Stage, places: Mapping[str, str], parameters: Parameters) -> dict[str, str]:
    """Return the paths, by name, of the job's outputs that engines track."""
    return {
        name: write.path.format(**places) for name, write in files_written(stage, parameters).items() if write.tracked
    }


def options(stage: Stage) -> dict[str, Option]:
    """Return the command's file and folder options, in order."""
    found: dict[str, Option] = {}
    for name, read in stage.reads.items():
        if read.each is None:
            found[name] = Option(read.help, read.path, "input")
        else:
            found.setdefault(read.option or name, Option(read.help, _folder(read.path), "folder"))
    if stage.folder:
        return found | {"out": Option(stage.folder, _folder(next(iter(stage.writes.values())).path), "folder")}
    for name, write in stage.writes.items():
        kind: Literal["output", "folder"] = "output" if write.tracked else "folder"
        found[name] = Option(write.help, write.path, kind, write.tracked and bool(write.when))
    return found


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def fields(text: str) -> list[str]:
    """Return the distinct names in braces in a template."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(text) if name))


def edges() -> list[tuple[str, str]]:
    """Return the edges (producer, consumer) of the graph."""

    def shape(path: str) -> str:
        return re.sub(r"\{\w+\}", "*", path)

    writers = {shape(write.path): name for name, stage in STAGES.items() for write in stage.writes.values()}
    found: dict[tuple[str, str], None] = {}
    for name, stage in STAGES.items():
        for read in stage.reads.values():
            by = read.by or filter(None, [writers.get(shape(read.path))])
            found |= dict.fromkeys((writer, name) for writer in by)
    return list(found)


def drawing(jobs: Mapping[str, int]) -> dict[str, Any]:
    """Return the picture of the pipeline as JSON-able values: the stages that have jobs.

    `jobs` is the number of jobs of each stage.
    """
    boxes = [
        {"rule": name, "at": list(stage.box), "does": stage.brief, "jobs": jobs[name]}
        for name, stage in STAGES.items()
        if jobs[name]
    ]
    return {"boxes": boxes, "arrows": [[start, end] for start, end in edges() if jobs[start] and jobs[end]]}
