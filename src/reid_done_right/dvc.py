"""Write `dvc.yaml` from the plan: the same jobs and commands as Snakemake's."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from reid_done_right import dag
from reid_done_right.dag import STAGES
from reid_done_right.params import Params
from reid_done_right.plan import Jobs

HEAD = """\
# Written by `reid plan {params} --dvc`; do not edit. The same jobs and commands as Snakemake's:  dvc repro{file}
# If the parameters ask for other jobs, stage `plan` rewrites this file and stops; run the same command again.
"""
PLOTS = {  # report file -> plot template, title and axis of each column
    "figure7.csv": ({"template": "variants", "x": "distractors", "x_label": "distractors added to the gallery"}, {
        "mAP": ("mAP among distractors", "mAP"),
        "rank1": ("rank-1 among distractors", "rank-1"),
    }),
    "training_curves.csv": ({"template": "trainings", "x": "update", "x_label": "update"}, {
        "loss": ("triplet loss", "loss, mean over draws"),
        "active": ("active triplets", "share of triplets with a loss"),
    }),
}  # fmt: skip
METRICS = "metrics.json"


class _Line(dict[str, Any]):
    """A mapping written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Line, lambda dumper, line: dumper.represent_mapping("tag:yaml.org,2002:map", line, True))


def pipeline(params: Params, jobs: Mapping[str, Jobs], file: Path) -> str:
    """Return the text of dvc.yaml for an experiment with its parameters beside it; paths are relative to the project.

    file: path of params.yaml
    """
    folder = file.parent.as_posix()
    up = os.path.relpath(".", folder)
    where = {} if folder == "." else {"wdir": up}
    quoted = shlex.quote(file.as_posix())
    plan = {
        **where,
        "cmd": f"reid check {quoted} --quick && reid plan {quoted} --dvc --fail-if-changed",
        "always_changed": True,  # it also clears the places of results of what DVC would stop or wait at
        "outs": [{f"results/{params.experiment}/settings": _Line(persist=True)}],  # only changed files are written
    }
    drawn = [path for members in jobs.values() for job in members.values() for path in job.outputs.values()]
    content = {
        "params": [file.name],
        "plots": list(_plots(params.experiment, drawn, PurePosixPath(up))),
        "stages": {"plan": plan} | {name: _stage(params, name, where, jobs[name]) for name in jobs if jobs[name]},
    }
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
    head = HEAD.format(params=file, file="" if folder == "." else f" {folder}/dvc.yaml")
    return head + re.sub(r"^(plots|stages|  \w+):$", r"\n\1:", text, flags=re.MULTILINE)


def _plots(experiment: str, drawn: list[str], up: PurePosixPath) -> Any:
    for name, (how, columns) in PLOTS.items():
        path = f"reports/{experiment}/{name}"
        for column, (title, axis) in columns.items() if path in drawn else ():
            yield {f"{experiment}: {title}": _Line(**how, y={(up / path).as_posix(): column}, y_label=axis)}


def _stage(params: Params, name: str, where: Mapping[str, str], jobs: Jobs) -> dict[str, Any]:
    """Return a stage, or one per job: jobs differ in `key` and in the fields of `item`."""
    stage, first = STAGES[name], next(iter(jobs.values()))
    literal = {"experiment": params.experiment}
    if not dag.fields(stage.job):  # a single job with fixed paths
        return {**where, **_described(params, name, first.places, first.inputs, first.outputs)}
    paths = [*(read.path for read in stage.reads.values()), *(write.path for write in stage.writes.values())]
    used = {key for path in paths for key in dag.fields(path)}
    items = sorted(used - {"experiment", "job", "each"})
    places = literal | {"job": "${key}"} | {key: f"${{item.{key}}}" for key in items}
    inputs = {key: each.path.format(**places) for key, each in dag.options(stage).items() if key in stage.reads}
    outputs = dag.outputs(stage, places, first.parameters)
    listed = {job: _Line({key: each.places[key] for key in items}) for job, each in jobs.items()}
    return {"foreach": listed, "do": {**where, **_described(params, name, places, inputs, outputs)}}


def _described(
    params: Params,
    name: str,
    places: Mapping[str, str],
    inputs: Mapping[str, str | list[str]],
    outputs: Mapping[str, str],
) -> dict[str, Any]:
    """Return command, dependencies and outputs; a folder of results stands for the files read from it."""
    stage = STAGES[name]
    settings = dag.SETTINGS.format(stage=name, **places)
    words = ["reid", stage.command or name, "--settings", settings]
    for key, option in dag.options(stage).items():
        words += [f"--{key}", option.path.format(**places)]
    words += ["--threads", str(params.resources_of(name).threads)] if stage.threads else []
    read = [settings]
    for paths in inputs.values():
        files = [paths] if isinstance(paths, str) else paths
        within = isinstance(paths, list) and paths and paths[0].startswith("results/")
        read += [PurePosixPath(files[0]).parent.as_posix()] if within else files
    cached = all(write.tracked and write.path.startswith("results/") for write in stage.writes.values())
    written = [path if cached else {path: _Line(cache=False)} for path in outputs.values() if not _is_metric(path)]
    metrics = [{path: _Line(cache=False)} for path in outputs.values() if _is_metric(path)]
    found = {"cmd": " ".join(words), "deps": list(dict.fromkeys(read)), "outs": written}
    return found | ({"metrics": metrics} if metrics else {})


def _is_metric(path: str) -> bool:
    return PurePosixPath(path).name == METRICS
