"""The graph, written once: what each stage reads and writes, and what it is for.

The commands of `reid`, the rules of Snakemake, the stages of DVC, the jobs of `reid check` and the pictures of the
pipeline all follow from `STAGES`. A new input of a stage is an entry under its `reads` and an argument of its function.
Texts and small functions only, so that `reid --help` is there at once.
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

    path    its path; {experiment}, {job} and the job's own fields are filled in, and {each} by the names
    help    what it is
    each    gives the names from the job's parameters; the command is then given the folder of the files
    option  the option that names the folder, where several inputs share one
    by      the stages that write it, where the path alone does not tell
    """

    path: str
    help: str
    each: Callable[[Parameters], Iterable[str]] | None = None
    option: str = ""
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Write:
    """A file that a job writes.

    path     its path, as in `Read`
    help     what it is
    when     the parameter, with dots between its keys, without which the file is not written
    tracked  False for a folder of images, which no engine looks at
    """

    path: str
    help: str = ""
    when: str = ""
    tracked: bool = True


@dataclass(frozen=True)
class Stage:
    """A stage: a command of `reid`, a function in `reid_done_right.stages`, a rule of Snakemake, a stage of DVC.

    help         what it does; the first sentence stands in lists of commands
    brief        the same in a few words, and box its column and row, for pictures
    environment  of workflow/envs
    reads        name of the function's argument, and of the option -> file
    writes       likewise; of a stage with a `folder`, name of the file -> file
    folder       what `--out` is, if the stage writes all its files into that folder
    job          how its jobs are called; a plain name if there is only one
    command      the stage whose command it calls, if not its own
    fetches      the argument for what its job needs from outside, if any
    threads      whether the number of its threads is an option, as no result depends on it
    priority     which jobs Snakemake starts first
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
    priority: int = 0


@dataclass(frozen=True)
class Option:
    """An option of a stage's command: what it is, its path, and whether that is a file of a job or a folder."""

    help: str
    path: str
    kind: Literal["input", "output", "folder"]


def _result(stage: str, kind: str, job: str = "{job}") -> str:
    """Return the path of a stage's file: the one pattern of all of them."""
    return f"results/{{experiment}}/{stage}/{job}.{kind}"


def _written(stage: str, kind: str, what: str, job: str = "{job}") -> Write:
    return Write(_result(stage, kind, job), f"Where to write {what} (.{kind}).")


SETTINGS = "results/{experiment}/settings/{stage}/{job}.json"
"""Where the plan writes the settings of a job, which every job reads."""


def _report(*names: str, when: str = "") -> dict[str, Write]:
    return {name: Write(f"reports/{{experiment}}/{name}", when=when) for name in names}


def _drawn(*names: str, when: str = "") -> dict[str, Write]:
    return _report(*(f"{name}.{kind}" for name in names for kind in ("svg", "png")), when=when)


def _named(key: str) -> Callable[[Parameters], Iterable[str]]:
    """Return what gives the names under a key of the parameters."""

    def names(parameters: Parameters) -> Iterable[str]:
        found: Iterable[str] = parameters.get(key, ())
        return found

    return names


def _shards(parameters: Parameters) -> Iterable[str]:
    return map(str, range(parameters.get("shards", 1)))


def _browsed(parameters: Parameters) -> Iterable[str]:
    """Return the datasets of the runs that the page shows."""
    return (about["dataset"] for about in parameters.get("shown", {}).values())


def _compared(parameters: Parameters) -> Iterable[str]:
    """Return the runs that the page compares query by query, each once."""
    return dict.fromkeys(run for about in parameters.get("shown", {}).values() for run in about["variants"].values())


def _figures(parameters: Parameters) -> Iterable[str]:
    """Return the pictures that the page shows, of those that are drawn."""
    for name in ("illustrate", "draw") if parameters.get("shown") else ("draw",):
        for file, write in STAGES[name].writes.items():
            if is_written(write, parameters) and (file.endswith(".svg") or file == "contact_sheet.png"):
                yield file


INDEX = Read(_result("index", "parquet", "{dataset}"), "The dataset's index, written by `reid index` (.parquet).")
EMBEDDINGS = Read(_result("embed", "safetensors"), "The test images' embeddings, written by `reid embed`.")
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
LOG = "the training log, a row an update"
REPORT = "The report's folder, reports/<experiment>."

EMBED = Stage(
    help="""Turn the images of an index into unit vectors.

    Queries, gallery and multi-query boxes are embedded, at the size that the model was trained for; or, as the
    settings say, one shard of the distractors. For photos of your own, use `reid embed-photos`.""",
    brief="images to unit vectors",
    box=(2, 1),
    environment="torch",
    reads={"index": INDEX, "embedder": Read(_result("train", "safetensors"), "The embedder, written by `reid train`.")},
    writes={"out": _written("embed", "safetensors", "the embeddings")},
)

STAGES = {
    "dataset": Stage(
        help="""Put a benchmark on disk in its official layout.

        It is rendered, or unpacked from archives, or is a folder of yours, which is only checked. The manifest says
        how many files it has and their digest.""",
        brief="render, or check yours",
        box=(0, 0),
        environment="numeric",
        writes={
            "images": Write(
                "results/{experiment}/dataset/{job}",
                "Folder of a rendered release; unused for a folder of your own.",
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

        The counts are checked against the published ones, and every image is decoded once, so that damaged files are
        named together before anything trains.""",
        brief="who, camera, split",
        box=(1, 0),
        environment="numeric",
        reads={
            "manifest": Read(_result("dataset", "json"), "The dataset's manifest, written by `reid dataset` (.json).")
        },
        writes={"out": _written("index", "parquet", "the index")},
        threads=True,
    ),
    "initialise": Stage(
        help="""Make a backbone's first weights.

        They are learned from procedural object classes, or are torchvision's ImageNet weights, or those of a file of
        yours.""",
        brief="first weights",
        box=(0, 2),
        environment="torch",
        writes={"out": _written("initialise", "safetensors", "the backbone's weights")},
        fetches="weights",
        priority=100,
    ),
    "pretrain": Stage(
        help="""Teach the backbone to classify the training identities.

        The first of the paper's two trainings, with cross entropy on crops of one size. The classifier is thrown away,
        the backbone kept.""",
        brief="classify identities",
        box=(1, 2),
        environment="torch",
        reads={
            "index": INDEX,
            "weights": Read(
                _result("initialise", "safetensors", "{backbone}"),
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

        The second of the paper's two trainings: images keep their aspect ratio, and triplets are mined anew from a pool
        of images every few updates. A training that was killed goes on from its last checkpoint, to the same bits.
        With more than one GPU in `resources.train.gpu`, that many processes share each batch.""",
        brief="triplet loss, hard triplets",
        box=(2, 2),
        environment="torch",
        reads={
            "index": INDEX,
            "weights": Read(
                "results/{experiment}/{weights}.safetensors",
                "Backbone weights to start from, written by `reid pretrain` or `reid initialise`.",
                by=("initialise", "pretrain"),
            ),
        },
        writes={"out": _written("train", "safetensors", "the embedder"), "log": _written("train", "csv", LOG)},
        priority=20,
    ),
    "embed": EMBED,
    "embed_distractors": replace(
        EMBED,
        brief="a shard at a time",
        box=(3, 2),
        reads={
            **EMBED.reads,
            "embedder": replace(EMBED.reads["embedder"], path=_result("train", "safetensors", "{run}")),
        },
        writes={"out": _written("distractors/{run}", "safetensors", "the embeddings", "{shard}")},
        job="{run}-{shard}",
        command="embed",
    ),
    "evaluate": Stage(
        help="""Score the embeddings by the benchmark's own protocols.

        Plainly ranked, re-ranked with QE + DBA as in the paper, and with k-reciprocal re-ranking; AP by the benchmark's
        official rule, and the other rule beside it.""",
        brief="official protocols",
        box=(3, 1),
        environment="numeric",
        reads={"index": INDEX, "embeddings": EMBEDDINGS},
        writes={
            "out": _written("evaluate", "json", "the scores"),
            "queries": _written("evaluate", "parquet", "AP and first hit of every query"),
        },
    ),
    "distract": Stage(
        help="""Add more and more random distractors to the gallery.

        This is Figure 7's curve: every size and every draw from one pass over the distractors.""",
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
            "queries": _written("distract", "parquet", "every query's AP with fewest and most distractors"),
        },
    ),
    "retrieve": Stage(
        help="""List who comes first for every query, for the report to show.

        And how similar images of the same and of other people are.""",
        brief="the first ten places",
        box=(3, 0),
        environment="numeric",
        reads={"index": INDEX, "embeddings": EMBEDDINGS},
        writes={
            "out": _written("retrieve", "parquet", "the first places of every ranked list"),
            "similarities": _written("retrieve", "json", "histograms of the similarities"),
        },
    ),
    "tabulate": Stage(
        help="""Write Tables 1-4, our values beside the printed ones, and judge the paper's claims.

        Each table is written as Markdown, HTML, LaTeX and CSV. README.md joins them; report.json holds everything they
        print, metrics.json the baseline's headline.""",
        brief="Tables 1-4, findings",
        box=(4, 1),
        environment="report",
        reads={
            "scores": SCORES,
            "queries": replace(SCORES, path=_result("evaluate", "parquet", "{each}"), option="scores"),
            "curves": CURVES,
            "decays": replace(CURVES, path=_result("distract", "parquet", "{each}"), option="curves"),
            "paper": PAPER,
        },
        writes=_report(
            *(f"table{number}.{kind}" for number in (1, 2, 3, 4) for kind in ("md", "html", "tex", "csv")),
            *("findings.md", "findings.html", "metrics.json", "report.json", "README.md"),
        ),
        folder=REPORT,
        job="tables",
    ),
    "illustrate": Stage(
        help="""Draw Figures 1, 4, 5 and 6.

        Ranked lists, and the regions of images that dimensions and similarities come from.""",
        brief="Figures 1, 4, 5, 6",
        box=(4, 0),
        environment="torch",
        reads={
            "index": INDEX,
            "embedder": replace(EMBED.reads["embedder"], help="The embedder to look into, written by `reid train`."),
            "places": Read(_result("retrieve", "parquet"), "Its ranked lists, written by `reid retrieve` (.parquet)."),
            "queries": Read(
                _result("evaluate", "parquet"), "AP of its queries, written by `reid evaluate` (.parquet)."
            ),
        },
        writes=_drawn("figure1", "figure4", "figure5", "figure6"),
        folder=REPORT,
    ),
    "draw": Stage(
        help="""Draw Figure 7, the training curves and the similarities.

        And the contact sheet of the rendered people, where there are any.""",
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
            "scores": SCORES,
            "similarities": Read(
                _result("retrieve", "json", "{each}"),
                "Folder of the histograms of similarities, written by `reid retrieve`.",
                _named("shown"),
            ),
            "paper": PAPER,
        },
        writes=_drawn("figure7", when="curves")
        | _drawn("training_curves")
        | _drawn("similarities", when="shown")
        | _report("training_curves.csv")
        | _report("figure7.csv", when="curves")
        | _report("contact_sheet.png", when="contact_sheet"),
        folder=REPORT,
        job="figures",
    ),
    "publish": Stage(
        help="""Put tables, figures and every query's ranked list on one page.

        The page needs no network and no server.""",
        brief="one page",
        box=(5, 0),
        environment="report",
        reads={
            "report": Read("reports/{experiment}/report.json", "What `reid tabulate` wrote (report.json)."),
            "figures": Read(
                "reports/{experiment}/{each}",
                "Folder of the figures, written by `reid draw` and `reid illustrate`.",
                _figures,
                by=("illustrate", "draw"),
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
"""The stages that are a command and a function of their own."""


def is_written(write: Write, parameters: Parameters) -> bool:
    """Tell whether a job with these parameters writes a file."""
    value: Any = parameters
    for key in write.when.split(".") if write.when else ():
        value = value.get(key, None) if isinstance(value, Mapping) else None
    return bool(value) or not write.when


def inputs(stage: Stage, places: Mapping[str, str], parameters: Parameters) -> dict[str, str | list[str]]:
    """Return the paths of a job's inputs by name; places are its experiment, its name and its fields."""
    return {
        name: (
            read.path.format(**places)
            if read.each is None
            else [read.path.format(**places, each=each) for each in read.each(parameters)]
        )
        for name, read in stage.reads.items()
    }


def outputs(stage: Stage, places: Mapping[str, str], parameters: Parameters) -> dict[str, str]:
    """Return the paths by name of what a job writes and engines know."""
    return {
        name: write.path.format(**places)
        for name, write in stage.writes.items()
        if write.tracked and is_written(write, parameters)
    }


def options(stage: Stage) -> dict[str, Option]:
    """Return the command's options that name files, in their order."""
    found: dict[str, Option] = {}
    for name, read in stage.reads.items():
        if read.each is None:
            found[name] = Option(read.help, read.path, "input")
        else:
            found.setdefault(read.option or name, Option(read.help, _folder(read.path), "folder"))
    if stage.folder:
        return found | {"out": Option(stage.folder, _folder(next(iter(stage.writes.values())).path), "folder")}
    for name, write in stage.writes.items():
        found[name] = Option(write.help, write.path, "output" if write.tracked else "folder")
    return found


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def fields(text: str) -> list[str]:
    """Return the names in braces of a path or a name of jobs, each once."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(text) if name))


def edges() -> list[tuple[str, str]]:
    """Return which stage feeds which."""

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
    """Return what the picture of the pipeline shows, as JSON-able values; jobs is how many each stage has."""
    boxes = [
        {"rule": name, "at": list(stage.box), "does": stage.brief, "jobs": jobs[name]} for name, stage in STAGES.items()
    ]
    return {"boxes": boxes, "arrows": [list(edge) for edge in edges()]}
