"""Turn parameters into jobs: every job of the graph, its resolved settings, and the files it reads and writes.

Both engines get the same graph from `plan`: Snakemake as JSON when it parses the Snakefile, DVC as the `dvc.yaml`
written by `reid_done_right.dvc`. A job's settings file holds everything its outputs depend on apart from its inputs:
its own parameters and a digest of its stage's code. A changed setting or function therefore re-runs what depends on
it, and a comment or an unrelated setting re-runs nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_done_right import dag
from reid_done_right.artifacts import DIGITS, InputError, clear_place, read_text, write_text
from reid_done_right.dag import STAGES
from reid_done_right.data.fetch import was_unpacked
from reid_done_right.data.readers import COUNTS, advice, released_archives
from reid_done_right.data.readers.folder import compile_pattern
from reid_done_right.data.sources import name_of
from reid_done_right.params import Params
from reid_done_right.params.datasets import DRAW, OWN, Dataset
from reid_done_right.params.evaluation import Distract, Identify, Inspect
from reid_done_right.params.messages import check_known
from reid_done_right.params.networks import Backbone
from reid_done_right.params.report import Report, Shown, Table
from reid_done_right.reporting.paper import OF_THE_PAPER, parse_paper
from reid_done_right.store.keys import code_key, digest


@dataclass(frozen=True)
class Job:
    """One run of a stage.

    parameters  everything its outputs depend on apart from its inputs
    places      fields of its paths: experiment, name (job), dataset and so on
    gpu         GPUs that it asks for
    """

    stage: str
    parameters: dict[str, Any]
    places: dict[str, str]
    gpu: int = 0

    @property
    def settings(self) -> str:
        """The path of its settings file."""
        return dag.SETTINGS.format(stage=self.stage, **self.places)

    @property
    def inputs(self) -> dict[str, str | list[str]]:
        """The paths that it reads, by name, apart from its settings."""
        return dag.inputs(STAGES[self.stage], self.places, self.parameters)

    @property
    def outputs(self) -> dict[str, str]:
        """The paths that it writes, by name."""
        return dag.outputs(STAGES[self.stage], self.places, self.parameters)

    @property
    def folders(self) -> list[str]:
        """The folders of images that it writes, which engines do not track."""
        written = dag.files_written(STAGES[self.stage], self.parameters).values()
        return [write.path.format(**self.places) for write in written if not write.tracked]


Jobs = dict[str, Job]

PUBLISHED = {
    ("basic", (2, 2, 2, 2), 1, 64): "resnet18",
    ("basic", (3, 4, 6, 3), 1, 64): "resnet34",
    ("bottleneck", (3, 4, 6, 3), 1, 64): "resnet50",
    ("bottleneck", (3, 4, 23, 3), 1, 64): "resnet101",
    ("bottleneck", (3, 8, 36, 3), 1, 64): "resnet152",
    ("bottleneck", (3, 4, 6, 3), 32, 4): "resnext50_32x4d",
    ("bottleneck", (3, 4, 23, 3), 32, 8): "resnext101_32x8d",
}
"""Residual networks (block, blocks, groups, width per group) whose ImageNet weights torchvision publishes."""


DRAWS_APART = 10_000
"""What separates the worlds of two draws, so that those of the datasets do not meet."""

MOST_JOBS = 20_000
"""More take an engine hours to look through before the first one runs; the paper's experiment has hundreds."""


def plan(params: Params) -> dict[str, Jobs]:
    """Return every job: stage -> name -> job.

    Names state what a job depends on: dataset, variant (or backbone) and draw. Raises InputError for resources of an
    unknown stage, and for contradictory parameters.
    """
    try:
        check_known("resources", params.resources, dag.COMMANDS)
    except ValueError as error:
        raise InputError(str(error)) from None
    jobs = sum(len(params.variants_of(name)) * 2 * (1 + len(params.tests_of(name))) for name in params.training_sets)
    jobs += len(params.curves.variants) * params.curves.shards if params.curves else 0
    if len(params.draws) * jobs > MOST_JOBS:
        raise InputError(
            f"draws, variants, test_on and distract.shards ask for more than {MOST_JOBS:,} jobs; give fewer"
        )
    planned = _Plan(params)
    for name in params.used:
        for draw in params.draws:
            _add_dataset(planned, name, draw)
    for name in params.training_sets:
        for variant in params.variants_of(name):
            for draw in params.draws:
                _add_run(planned, name, variant, draw)
    if params.curves is not None:
        _add_curves(planned, params.curves)
    if params.inspect is not None:
        _add_inspections(planned, params.inspect)
    if params.identify is not None:
        _add_open_sets(planned, params.identify)
    _add_report(planned)
    return planned.jobs


class _Plan:
    """The jobs of an experiment, as they are added."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.jobs: dict[str, Jobs] = {stage: {} for stage in STAGES}

    def add(self, stage: str, name: str, parameters: dict[str, Any], **fields: str) -> None:
        """Add a job. Its name joins parts by dashes, which the parts may contain too, so names may collide."""
        parameters = {**parameters, "numerics": self.params.numerics} | self.library(**fields)
        gpu = self.params.resources_of(STAGES[stage].command or stage).gpu
        job = Job(stage, parameters, {"experiment": self.params.experiment, "job": name, **fields}, gpu)
        if self.jobs[stage].setdefault(name, job) != job:
            raise InputError(f"{stage} {name}: two jobs have this name; rename a dataset, a backbone or a variant")

    def library(self, variant: str = "", backbone: str = "", **others: str) -> dict[str, str]:
        """Return the library of a job's network, whose code its key then covers; nothing if the network is ours."""
        if variant:
            backbone = self.params.variants[variant].get("backbone", self.params.train.backbone)
        library = self.params.backbones[backbone].library if backbone else ""
        return {"library": library} if library else {}

    def threads(self, stage: str) -> dict[str, int]:
        return {"threads": self.params.resources_of(stage).threads}


def _add_dataset(planned: _Plan, name: str, draw: int) -> None:
    """Add a dataset as a draw has it, and its index."""
    params, dataset = planned.params, planned.params.datasets[name]
    drawn = dataset_of(params, name, draw)
    root = dataset.source.folder_of(draw) or f"results/{params.experiment}/dataset/{drawn}"
    described = {"name": drawn, "format": dataset.format, "source": _source(name, dataset, draw), "root": root}
    if "pattern" in dataset.reading:
        _check_pattern(name, dataset.reading["pattern"])
    reading = {"read": dataset.reading} if dataset.reading else {}
    planned.add("dataset", drawn, described | reading)
    counts = COUNTS[dataset.format] if dataset.counts == "published" else dataset.counts
    allowed = {"allow_damaged": dataset.allow_damaged} if dataset.allow_damaged else {}
    planned.add("index", drawn, {"format": dataset.format, "counts": counts} | reading | allowed)


def dataset_of(params: Params, name: str, draw: int) -> str:
    """Return the name of a dataset's jobs in a draw: what is rendered, or has a folder a draw, changes."""
    return dag.drawn(name, draw) if params.datasets[name].source.drawn else name


def _add_rows(planned: _Plan, trained_on: str, draw: int) -> str:
    """Return the index of a training, stage/job; add it, if that joins several datasets."""
    params = planned.params
    if trained_on in params.datasets:
        return f"index/{dataset_of(params, trained_on, draw)}"
    parts = params.joint[trained_on].train_on
    drawn = any(params.datasets[part].source.drawn for part in parts)
    name = dag.drawn(trained_on, draw) if drawn else trained_on
    planned.add("join", name, {"indexes": [dataset_of(params, part, draw) for part in parts]})
    return f"join/{name}"


def _add_run(planned: _Plan, dataset: str, variant: str, draw: int) -> None:
    """Add one training run, its initial weights, and its evaluation on every dataset that it is tested on.

    dataset: one, or the name of several that are joined.
    """
    params, threads = planned.params, planned.threads
    train, rows = params.variant(variant), _add_rows(planned, dataset, draw)
    run, backbone = dag.run_name(dataset, variant, draw), train.backbone
    if train.initial == "random":
        first: dict[str, Any] = {"seed": params.initialise.seed + draw}
        initial = dag.drawn(f"{backbone}-random", draw)
    else:
        first = _first_weights(params, backbone, draw)
        drawn = "objects" in first or DRAW in (params.initialise.checkpoints or {}).get(backbone, "")
        initial = dag.drawn(backbone, draw) if drawn else backbone
    planned.add(
        "initialise",
        initial,
        {"backbone": params.backbones[backbone].described(), **first} | threads("initialise"),
        backbone=backbone,
    )
    start = f"initialise/{initial}"
    if (pretrain := params.classification(train)) is not None:
        usual = pretrain == params.pretrain and train.initial == "given"
        classifier = dag.run_name(dataset, backbone if usual else variant, draw)
        settings = {"pretrain": pretrain.model_dump(), "seed": draw, **threads("pretrain")}
        planned.add("pretrain", classifier, settings, dataset=dataset, rows=rows, backbone=backbone, initial=initial)
        start = f"pretrain/{classifier}"
    kept = {"snapshots": params.follow.snapshots} if params.followed and params.follow else {}
    settings = {
        "train": train.model_dump(exclude={"backbone", "initial", "pretrain"}),
        "seed": draw,
        **threads("train"),
    }
    workers = max(1, params.resources_of("train").gpu)
    planned.add(
        "train",
        run,
        settings | kept | {"workers": workers},
        rows=rows,
        variant=variant,
        weights=start,
        dataset=dataset,
    )
    about = _about(dataset, variant, backbone, draw)
    for tested in params.tests_of(dataset):
        name, met = dag.run_name(dataset, variant, draw, tested), dataset_of(params, tested, draw)
        planned.add("embed", name, threads("embed"), index=met, variant=variant, dataset=tested, run=run)
        of = about if tested == dataset else about | {"dataset": tested, "trained_on": dataset}
        settings = {"run": of, **_rule(params, tested), **threads("evaluate"), **params.evaluate.model_dump()}
        planned.add("evaluate", name, settings, index=met)
    if params.follow and dataset == params.follow.dataset and variant in params.followed:
        index = dataset_of(params, dataset, draw)
        settings = {"run": about, **_rule(params, dataset), **threads("follow")}
        protocols = params.evaluate.model_dump(include={"multi_query", "tracklets", "person_search_gallery"})
        planned.add("follow", run, settings | protocols, index=index, variant=variant, dataset=dataset)


def _add_curves(planned: _Plan, distract: Distract) -> None:
    """Add the curves of Figure 7 and the embeddings of the distractors, one job per shard."""
    params, threads = planned.params, planned.threads
    for variant in distract.variants:
        for draw in params.draws:
            run = dag.run_name(distract.dataset, variant, draw)
            crowd = dataset_of(params, distract.distractors, draw)
            for shard in range(distract.shards):
                settings = {**threads("embed"), "shard": shard, "shards": distract.shards}
                fields = {
                    "dataset": distract.distractors,
                    "index": crowd,
                    "variant": variant,
                    "run": run,
                    "shard": str(shard),
                }
                planned.add("embed_distractors", f"{run}-{shard}", settings, **fields)
            about = _about(distract.dataset, variant, params.variant(variant).backbone, draw)
            orders = distract.model_dump(include={"sizes", "orders", "seed", "shards"})
            planned.add(
                "distract",
                run,
                {"run": about, "format": "market1501-500k", **orders, **threads("distract")},
                index=dataset_of(params, distract.dataset, draw),
            )


def _add_inspections(planned: _Plan, inspect: Inspect) -> None:
    """Add what the networks of some variants look at in the queries of one rendered dataset."""
    params, name = planned.params, inspect.dataset
    shown = params.report.shown
    how = inspect.model_dump(exclude={"dataset", "variants"}) | planned.threads("inspect")
    how |= {"activations": shown.activations if shown else Shown.model_fields["activations"].default}
    for variant in params.inspected:
        for draw in params.draws:
            about = _about(name, variant, params.variant(variant).backbone, draw)
            settings = {"run": about, **_rule(params, name), **how, **planned.library(variant)}
            settings["render"] = _source(name, params.datasets[name], draw)["render"]
            planned.add("inspect", dag.run_name(name, variant, draw), settings, index=dataset_of(params, name, draw))


def _add_open_sets(planned: _Plan, identify: Identify) -> None:
    """Add the open sets that are made of one dataset's test set, for some variants."""
    params, name = planned.params, identify.dataset
    how = identify.model_dump(include={"unknown", "fpir"}) | params.evaluate.model_dump(include={"tracklets"})
    for variant in params.identified:
        for draw in params.draws:
            about = _about(name, variant, params.variant(variant).backbone, draw)
            settings = {"run": about, **_rule(params, name), **how, **planned.threads("identify")}
            planned.add("identify", dag.run_name(name, variant, draw), settings, index=dataset_of(params, name, draw))


def _add_report(planned: _Plan) -> None:
    """Add the jobs of the report: ranked lists, tables, figures, the page."""
    params, jobs = planned.params, planned.jobs
    shown = params.report.shown
    browsed = {} if shown is None else _add_shown(planned, shown)
    runs = {"runs": list(jobs["evaluate"]), "curves": list(jobs["distract"]), "shown": list(jobs["retrieve"])}
    followed = {"followed": list(jobs["follow"])} if jobs["follow"] else {}
    tables = params.report.all_tables
    _check_paper(params.report, tables)
    own = [name for name in params.report.tables if tables[name].claims]
    claims = "claims" if own else OF_THE_PAPER if any(params.report.of_the_paper.values()) else ""
    report: dict[str, Any] = {"experiment": params.experiment, "draws": params.draws, "claims": claims}
    report |= params.report.model_dump(exclude={"contact_sheet", "shown", "tables", *params.report.of_the_paper})
    report["contact_sheet"] = params.report.contact_sheet is not None
    report["tables"] = {name: table.model_dump() for name, table in tables.items()}
    unused = {name: {"test_on"} for name, dataset in params.datasets.items() if not dataset.test_on}
    left_out = [name for name in ("identify", "joint") if not getattr(params, name)]
    computed = params.model_dump(exclude=dict.fromkeys(("report", "resources", *left_out), True) | {"datasets": unused})
    report["parameters_digest"] = digest(computed)[:DIGITS]
    inspected = {"inspected": list(jobs["inspect"])} if jobs["inspect"] else {}
    identified = {"identified": list(jobs["identify"])} if jobs["identify"] else {}
    planned.add("tabulate", STAGES["tabulate"].job, report | runs | inspected | followed | identified)
    figures = {"experiment": params.experiment, "synthetic": params.report.synthetic, "margin": params.train.margin}
    figures |= {
        **runs,
        "runs": list(jobs["train"]),
        "scored": _scored(params),
        **followed,
        **identified,
        "allow_missing": params.report.allow_missing,
    }
    sheet = params.report.contact_sheet
    rendered = params.datasets[params.curves.dataset].source.render if params.curves is not None else None
    if sheet is not None and rendered is not None:
        people = rendered.model_dump(include={"cameras", "hardness"})
        people["world"] = _world(rendered.world, params.draws[0])
        figures["contact_sheet"] = {**people, **sheet.model_dump()}
    planned.add("draw", STAGES["draw"].job, figures)
    page = {
        "claims": claims,
        "contact_sheet": report["contact_sheet"],
        "curves": list(jobs["distract"]),
        **followed,
        **identified,
        "shown": browsed,
    }
    page["allow_missing"] = params.report.allow_missing
    page |= shown.model_dump(include={"images", "queries"}) if shown else {"images": False, "queries": 0}
    page["pipeline"] = dag.drawing({name: len(members) for name, members in jobs.items()} | {"publish": 1})
    planned.add("publish", STAGES["publish"].job, page)


def _scored(params: Params) -> list[str]:
    """Return a scored run of each training, in order: on its own dataset or, if it is of several, on the first."""
    return [
        dag.run_name(name, variant, draw, params.tests_of(name)[0])
        for name in params.training_sets
        for variant in params.variants_of(name)
        for draw in params.draws
    ]


def _check_paper(report: Report, tables: Mapping[str, Table]) -> None:
    """Refuse rows and columns that the paper's tables do not have; an engine misses the paper's values themselves."""
    file = Path(dag.PAPER.path)
    if not file.is_file():
        return
    paper = parse_paper(file, read_text(file))
    for name, table in tables.items():
        key = f"report.{name}" if name in report.of_the_paper else f"report.tables.{name}"
        rows = dict.fromkeys(row for number, row in paper.types if number == table.paper)
        columns = dict.fromkeys(dataset for number, _, dataset, _ in paper.values if number == table.paper)
        for part, entries, known in (("rows", table.rows, rows), ("columns", table.columns, columns)):
            named = [each.paper for each in entries if each.paper]
            if named and not known:
                raise InputError(f"{key}.paper: {file} has no table {table.paper!r}; give the number of one")
            try:
                check_known(f"{key}.{part}.paper, table {table.paper} of {file}", named, known)
            except ValueError as error:
                raise InputError(str(error)) from None


def _add_shown(planned: _Plan, shown: Shown) -> dict[str, Any]:
    """Add the ranked lists of the runs shown in the report, and the figures of the first of them.

    Returns run -> its dataset, the rule of its lists, and the runs that its queries are compared with.
    """
    params, browsed = planned.params, {}
    for name in params.shown:
        run = dag.run_name(name, shown.variant, shown.draw)
        index = dataset_of(params, name, shown.draw)
        about = _about(name, shown.variant, params.variant(shown.variant).backbone, shown.draw)
        settings = {"run": about, **_rule(params, name)}
        settings["person_search_gallery"] = params.evaluate.person_search_gallery
        planned.add("retrieve", run, settings, index=index)
        if not planned.jobs["illustrate"]:
            settings = {"experiment": params.experiment, "synthetic": params.report.synthetic}
            settings |= {"activations": shown.activations}
            settings |= {**_rule(params, name), **planned.threads("illustrate"), **planned.library(shown.variant)}
            planned.add("illustrate", run, settings, index=index)
        variants = {variant: dag.run_name(name, variant, shown.draw) for variant in params.variants_of(name)}
        browsed[run] = {"dataset": name, "index": index, **_rule(params, name), "variants": variants}
    return browsed


def _rule(params: Params, dataset: str) -> dict[str, Any]:
    """Return what determines a dataset's rule: its format and, for own data, its protocol."""
    tested = params.datasets[dataset]
    own = {"protocol": tested.rule.model_dump()} if tested.format in OWN else {}
    return {"format": tested.format, **own}


def _check_pattern(name: str, pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except InputError as error:
        raise InputError(f"datasets.{name}: {error}") from None


def _source(name: str, dataset: Dataset, draw: int) -> dict[str, Any]:
    """Describe where a dataset comes from: how it is rendered, or its folder and the archives to unpack into it.

    A user's folder is identified by its fingerprint; an unpacked one by its receipt.
    """
    source = dataset.source.model_dump(exclude_none=True)
    if dataset.source.render is not None:
        source["render"]["world"] = _world(dataset.source.render.world, draw)
    root = dataset.source.folder_of(draw)
    if root is None:
        return source
    folder = Path(root)
    if dataset.source.archives is None:
        return {"folder": root, "fingerprint": fingerprint(folder)}
    if dataset.source.archives == "published":
        archives = released_archives(dataset.format, folder)
        if not archives:
            raise InputError(
                f"datasets.{name}.source.archives: {dataset.format} is not published as archives to unpack; "
                f"{advice(dataset.format)} and give its folder without archives"
            )
    else:
        archives = [
            {"path": (folder.parent / name_of(entry["urls"][0])).as_posix(), **entry} if entry["urls"] else entry
            for entry in source["archives"]
        ]
    made = was_unpacked(folder) or not folder.exists()
    return {"folder": root, "archives": archives, "fingerprint": "" if made else fingerprint(folder)}


def _world(first: int, draw: int) -> int:
    """Return the world of a draw; the first draw has the one of the parameters."""
    return first + DRAWS_APART * draw


def _first_weights(params: Params, backbone: str, draw: int) -> dict[str, Any]:
    """Describe where a backbone's initial weights come from; those learnt from objects are drawn anew."""
    initial, layers = params.initialise, params.backbones[backbone]
    if initial.checkpoints is not None:
        if backbone not in initial.checkpoints:
            raise InputError(f"initialise.checkpoints: no file for the backbone {backbone}; add it")
        file = Path(initial.checkpoints[backbone].replace(DRAW, str(draw)))
        return {"checkpoint": str(file), "fingerprint": fingerprint(file), "seed": initial.seed}
    if initial.imagenet is None:
        objects = initial.model_dump()["objects"]
        objects["world"] = _world(objects["world"], draw)
        return {"objects": objects, "seed": initial.seed + draw}
    return {
        "imagenet": initial.imagenet,
        "architecture": architecture(backbone, layers),
        "folder": initial.folder,
        "seed": initial.seed,
    }


def architecture(name: str, backbone: Backbone) -> str:
    """Return torchvision's name of a published network. Raises InputError, naming the backbone, if there is none."""
    if backbone.library:
        advice = f"give initialise.checkpoints: {{{name}: FILE}}, or objects"
        raise InputError(f"backbones.{name}: no ImageNet weights are known for {backbone.family}; {advice}")
    if backbone.family is not None:
        return backbone.family
    shape = (backbone.block, tuple(backbone.blocks or ()), backbone.groups, backbone.width_per_group)
    if shape not in PUBLISHED or backbone.width != 64:
        raise InputError(f"backbones.{name}: torchvision publishes no ImageNet weights for it; use objects")
    return PUBLISHED[shape]


def _about(dataset: str, variant: str, backbone: str, draw: int) -> dict[str, Any]:
    return {"dataset": dataset, "variant": variant, "backbone": backbone, "draw": draw}


def fingerprint(folder: Path) -> str:
    """Return a digest of names, sizes and times of all files in a folder, or of a file; "absent" if there is none."""
    if folder.is_file():
        return digest([folder.stat().st_size, folder.stat().st_mtime_ns])
    if not folder.is_dir():
        return "absent"
    return digest(sorted(_listed(str(folder))))


def _listed(folder: str, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield path, size and modification time of all files under a folder; a million take seconds."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _listed(entry.path, f"{prefix}{entry.name}/")
            else:
                found = entry.stat()
                yield prefix + entry.name, found.st_size, found.st_mtime_ns


def write_settings(jobs: Mapping[str, Jobs], folder: Path) -> list[Path]:
    """Write changed settings of jobs to `folder/<stage>/<job>.json`; return the files written.

    Files of jobs that no longer exist are removed.
    """
    written = []
    wanted = set()
    for name, members in jobs.items():
        stage = STAGES[name].command or name
        for job, described in members.items():
            path, parameters = folder / name / f"{job}.json", described.parameters
            code = code_key(stage, parameters)
            settings: dict[str, Any] = {"stage": stage, "job": job, "code": code, "parameters": parameters}
            settings |= {"gpu": described.gpu} if described.gpu else {}
            text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
            wanted.add(path)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
                written.append(path)
    for path in folder.glob("*/*.json"):
        if path not in wanted:
            path.unlink()
    return written


def clear_places(jobs: Mapping[str, Jobs]) -> Iterator[str]:
    """Clear the places of results before an engine looks; yield what was cleared, one line each.

    Engines stop at a link to nowhere, wait at a pipe, and miss a folder of images, without which its manifest goes too.
    """
    for job in (job for members in jobs.values() for job in members.values()):
        places = [Path(path) for path in job.outputs.values()]
        for path in places:
            if found := clear_place(path):
                yield f"{path}: in its place was {found}"
        for folder in job.folders:
            if not Path(folder).is_dir():
                for path in filter(Path.exists, places):
                    path.unlink()
                    yield f"{path}: {folder} is missing; both are made again"


def rules(params: Params, jobs: Mapping[str, Jobs]) -> dict[str, Any]:
    """Return the rules for Snakemake as JSON-able values, for each stage that has jobs.

    Also returns the experiment's name, and targets: all files that its jobs write. A rule has
    command      its words; options -> the values that fill them: input.<name>, output.<name>, params.<option>, threads
    folders      option -> folder, or file that these jobs do not write
    outputs      paths, by name
    job          the name of its jobs, with one wildcard per field
    wildcards    field -> its values
    jobs         name of the job -> its inputs
    """
    return {
        "experiment": params.experiment,
        "targets": [path for members in jobs.values() for job in members.values() for path in job.outputs.values()],
        "rules": {name: _rule_of(params, name, members) for name, members in jobs.items() if members},
    }


def _rule_of(params: Params, name: str, members: Jobs) -> dict[str, Any]:
    stage, any_job = STAGES[name], next(iter(members.values()))
    varying = [key for key in dag.fields(stage.job) if any(key in dag.fields(w.path) for w in stage.writes.values())]
    wild = {"experiment": params.experiment} | {key: f"{{{key}}}" for key in varying}
    written = dag.outputs(stage, wild, any_job.parameters)
    words, folders = {"--settings": "input.settings"}, {}
    for key, option in dag.options(stage).items():
        untracked = option.kind == "folder" or (option.kind == "output" and key not in written)
        words[f"--{key}"] = f"{'params' if untracked else option.kind}.{key}"
        if untracked:
            folders[key] = option.path.format(**wild)
    return {
        "command": f"reid {stage.command or name}",
        "options": words | ({"--threads": "threads"} if stage.threads else {}),
        "folders": folders,
        "outputs": written,
        "job": stage.job if varying else any_job.places["job"],
        "wildcards": {key: list(dict.fromkeys(job.places[key] for job in members.values())) for key in varying},
        "jobs": {job: {"settings": each.settings, **each.inputs} for job, each in members.items()},
        "environment": stage.environment,
        "priority": stage.priority,
        "resources": params.resources_of(stage.command or name).model_dump(),
    }
