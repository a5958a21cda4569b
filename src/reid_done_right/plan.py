"""From parameters to jobs: every job of the DAG, its own resolved settings, and the files it reads.

Both engines draw the same DAG from `plan`: Snakemake reads it as JSON when it parses the Snakefile, DVC from the
lists in `plan.yaml`. Each job's settings are a file that holds all its outputs depend on beside its inputs: its own
parameters and a digest of its stage's code. So a changed setting or function re-runs what depends on it, and a
comment or an unrelated setting nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reid_done_right.artifacts import DIGITS, InputError, write_text
from reid_done_right.data.fetch import was_unpacked
from reid_done_right.data.readers import COUNTS
from reid_done_right.data.readers.folder import compile_pattern
from reid_done_right.data.sources import advice, name_of, released_archives
from reid_done_right.params import OWN, STAGES, Backbone, Dataset, Distract, Params, Shown
from reid_done_right.store.keys import code_key, digest

Jobs = dict[str, dict[str, Any]]

CODE = {"shard": "embed"}
"""Groups of jobs that run another group's stage: embedding a shard of distractors is embedding."""

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


def plan(params: Params) -> dict[str, Jobs]:
    """Give every job: group -> job -> {"parameters": its settings, and the paths that differ between jobs}.

    Job names say what they depend on: dataset, variant (or backbone) and seed.
    """
    results = f"results/{params.experiment}"
    benchmarks = {name: dataset for name, dataset in params.datasets.items() if dataset.variants}
    jobs: dict[str, Jobs] = {group: {} for group in ("dataset", "index", "initialise", "pretrain", "train", "embed")}
    jobs |= {group: {} for group in ("evaluate", "shard", "distract", "retrieve", "tabulate")}
    jobs |= {group: {} for group in ("illustrate", "draw", "publish")}

    for name, dataset in params.datasets.items():
        root = dataset.source.folder or f"{results}/dataset/{name}"
        described = {"name": name, "format": dataset.format, "source": _source(name, dataset), "root": root}
        if "pattern" in dataset.reading:
            _check_pattern(name, dataset.reading["pattern"])
        reading = {"read": dataset.reading} if dataset.reading else {}
        jobs["dataset"][name] = {"parameters": described | reading}
        counts = COUNTS[dataset.format] if dataset.counts == "published" else dataset.counts
        allowed = {"allow_damaged": dataset.allow_damaged} if dataset.allow_damaged else {}
        jobs["index"][name] = {"parameters": {"format": dataset.format, "counts": counts} | reading | allowed}

    for name in benchmarks:
        for variant in params.variants_of(name):
            train = params.variant(variant)
            for seed in params.seeds:
                _add_run(params, jobs, name, variant, train.backbone, seed)

    if params.distract is not None:
        _add_curves(params, jobs, params.distract)
    _add_report(params, jobs)
    for members in jobs.values():
        for job in members.values():
            job["parameters"]["numerics"] = params.numerics
    return jobs


def _add_run(params: Params, jobs: dict[str, Jobs], dataset: str, variant: str, backbone: str, seed: int) -> None:
    """Add one training run, its evaluation and what it starts from."""
    results = f"results/{params.experiment}"
    train = params.variant(variant)
    run = f"{dataset}-{variant}-seed{seed}"
    layers = params.backbones[backbone]
    initial = _first_weights(params, backbone)
    jobs["initialise"][backbone] = {
        "parameters": {"backbone": layers.described(), **initial, "threads": _threads(params, "initialise")}
    }
    start = f"{results}/initialise/{backbone}.safetensors"
    if train.pretrain:
        classifier = f"{dataset}-{backbone}-seed{seed}"
        settings = {"pretrain": params.pretrain.model_dump(), "seed": seed, "threads": _threads(params, "pretrain")}
        _add(jobs, "pretrain", classifier, {"parameters": settings, "dataset": dataset, "weights": start})
        start = f"{results}/pretrain/{classifier}.safetensors"
    settings = {"train": train.model_dump(exclude={"backbone", "pretrain"}), "seed": seed}
    settings |= {"threads": _threads(params, "train"), "workers": max(1, params.resources_of("train").gpu)}
    _add(jobs, "train", run, {"parameters": settings, "dataset": dataset, "weights": start})
    jobs["embed"][run] = {"parameters": {"threads": _threads(params, "embed")}, "dataset": dataset}
    settings = {"run": _about(dataset, variant, backbone, seed), **_rule(params, dataset)}
    settings["threads"] = _threads(params, "evaluate")
    jobs["evaluate"][run] = {"parameters": {**settings, **params.evaluate.model_dump()}, "dataset": dataset}


def _add_curves(params: Params, jobs: dict[str, Jobs], distract: Distract) -> None:
    """Add the curves of Figure 7 and the embeddings of the distractors, shard by shard."""
    results = f"results/{params.experiment}"
    for variant in distract.variants:
        for seed in params.seeds:
            run = f"{distract.dataset}-{variant}-seed{seed}"
            for shard in range(distract.shards):
                jobs["shard"][f"{run}-{shard}"] = {
                    "parameters": {"threads": _threads(params, "embed"), "shard": shard, "shards": distract.shards},
                    "dataset": distract.distractors,
                    "embedder": f"{results}/train/{run}.safetensors",
                    "out": f"{results}/distractors/{run}/{shard}.safetensors",
                }
            about = _about(distract.dataset, variant, params.variant(variant).backbone, seed)
            draws = distract.model_dump(include={"sizes", "draws", "seed", "shards"})
            jobs["distract"][run] = {
                "parameters": {"run": about, **draws, "threads": _threads(params, "distract")},
                "dataset": distract.dataset,
            }


def _add_report(params: Params, jobs: dict[str, Jobs]) -> None:
    """Add what makes the report of the runs: ranked lists, tables, figures, the page."""
    if params.report.shown is not None:
        _add_shown(params, jobs, params.report.shown)
    tables = params.report.model_dump(exclude={"contact_sheet", "shown"})
    report = {"experiment": params.experiment, "seeds": params.seeds, **tables}
    report["parameters_digest"] = digest(params.model_dump(exclude={"report", "resources"}))[:DIGITS]
    report |= {"runs": list(jobs["evaluate"]), "curves": list(jobs["distract"]), "shown": list(jobs["retrieve"])}
    jobs["tabulate"]["tables"] = {"parameters": report}
    figures = {"experiment": params.experiment, "synthetic": params.report.synthetic, "margin": params.train.margin}
    figures |= {"runs": list(jobs["evaluate"]), "curves": list(jobs["distract"]), "shown": list(jobs["retrieve"])}
    figures["allow_missing"] = params.report.allow_missing
    sheet = params.report.contact_sheet
    rendered = params.datasets[params.distract.dataset].source.render if params.distract is not None else None
    if sheet is not None and rendered is not None:
        people = rendered.model_dump(include={"world", "cameras", "hardness"})
        figures["contact_sheet"] = {**people, **sheet.model_dump()}
    jobs["draw"]["figures"] = {"parameters": figures}
    browsed = {}
    shown = params.report.shown
    if shown is not None:
        for run, job in jobs["retrieve"].items():
            name = job["dataset"]
            variants = {variant: f"{name}-{variant}-seed{shown.seed}" for variant in params.variants_of(name)}
            browsed[run] = {"dataset": name, **_rule(params, name), "variants": variants}
    page = {"contact_sheet": sheet is not None, "curves": list(jobs["distract"]), "shown": browsed}
    page["allow_missing"] = params.report.allow_missing
    page |= shown.model_dump(include={"images", "queries"}) if shown else {"images": False, "queries": 0}
    counts = {group: len(members) for group, members in jobs.items()} | {"publish": 1}
    counts["embed_distractors"] = counts.pop("shard")
    jobs["publish"]["page"] = {"parameters": {**page, "jobs": counts}}


def _add_shown(params: Params, jobs: dict[str, Jobs], shown: Shown) -> None:
    """Add the ranked lists of the runs that the report shows, and the pictures of the first of them."""
    for name in params.shown:
        run = f"{name}-{shown.variant}-seed{shown.seed}"
        about = _about(name, shown.variant, params.variant(shown.variant).backbone, shown.seed)
        settings = {"run": about, **_rule(params, name)}
        settings["person_search_gallery"] = params.evaluate.person_search_gallery
        jobs["retrieve"][run] = {"parameters": settings, "dataset": name}
        if not jobs["illustrate"]:
            settings = {"experiment": params.experiment, "synthetic": params.report.synthetic}
            settings |= {**_rule(params, name), "threads": _threads(params, "illustrate")}
            jobs["illustrate"][run] = {"parameters": settings, "dataset": name}


def _rule(params: Params, dataset: str) -> dict[str, Any]:
    """Say what decides over a dataset's ranked lists: its format, and the protocol of one's own."""
    tested = params.datasets[dataset]
    own = {"protocol": tested.rule.model_dump()} if tested.format in OWN else {}
    return {"format": tested.format, **own}


def _check_pattern(name: str, pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except InputError as error:
        raise InputError(f"datasets.{name}: {error}") from None


def _source(name: str, dataset: Dataset) -> dict[str, Any]:
    """Describe where a dataset comes from: what renders it, or its folder, and the archives to make that from.

    A folder of the user's own is known by its fingerprint; one that is unpacked here, by the receipt in it.
    """
    source = dataset.source.model_dump(exclude_none=True)
    if dataset.source.folder is None:
        return source
    folder = Path(dataset.source.folder)
    if dataset.source.archives is None:
        return {"folder": source["folder"], "fingerprint": fingerprint(folder)}
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
    return {"folder": source["folder"], "archives": archives, "fingerprint": "" if made else fingerprint(folder)}


def _first_weights(params: Params, backbone: str) -> dict[str, Any]:
    """Describe where a backbone's first weights come from."""
    initial, layers = params.initialise, params.backbones[backbone]
    if initial.checkpoints is not None:
        if backbone not in initial.checkpoints:
            raise InputError(f"initialise.checkpoints: no file for the backbone {backbone}; add it")
        file = Path(initial.checkpoints[backbone])
        return {"checkpoint": str(file), "fingerprint": fingerprint(file), "seed": initial.seed}
    if initial.imagenet is None:
        return {"objects": initial.model_dump()["objects"], "seed": initial.seed}
    return {
        "imagenet": initial.imagenet,
        "architecture": architecture(backbone, layers),
        "folder": initial.folder,
        "seed": initial.seed,
    }


def architecture(name: str, backbone: Backbone) -> str:
    """Give torchvision's name of a published network. Raises InputError, naming the backbone, if it is none."""
    if backbone.family is not None:
        return backbone.family
    shape = (backbone.block, tuple(backbone.blocks or ()), backbone.groups, backbone.width_per_group)
    if shape not in PUBLISHED or backbone.width != 64:
        raise InputError(f"backbones.{name}: torchvision publishes no ImageNet weights for it; use objects")
    return PUBLISHED[shape]


def _add(jobs: dict[str, Jobs], group: str, name: str, job: dict[str, Any]) -> None:
    """Add a job; names join their parts with dashes, which the parts may hold too."""
    if jobs[group].setdefault(name, job) != job:
        raise InputError(f"{group} {name}: two jobs of this name; rename a dataset, a backbone or a variant")


def _about(dataset: str, variant: str, backbone: str, seed: int) -> dict[str, Any]:
    return {"dataset": dataset, "variant": variant, "backbone": backbone, "seed": seed}


def _threads(params: Params, stage: str) -> int:
    return params.resources_of(stage).threads


def fingerprint(folder: Path) -> str:
    """Digest the names, sizes and modification times of all files under a folder, or of a file; "absent" if none."""
    if folder.is_file():
        return digest([folder.stat().st_size, folder.stat().st_mtime_ns])
    if not folder.is_dir():
        return "absent"
    return digest(sorted(_listed(str(folder))))


def _listed(folder: str, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Give path, size and modification time of all files under a folder; a million take seconds."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _listed(entry.path, f"{prefix}{entry.name}/")
            else:
                found = entry.stat()
                yield prefix + entry.name, found.st_size, found.st_mtime_ns


def write_settings(jobs: Mapping[str, Jobs], folder: Path) -> list[Path]:
    """Write each job's settings to `folder/<group>/<job>.json` where they changed; give the files written.

    Files of jobs that no longer exist are removed.
    """
    written = []
    wanted = set()
    for group, members in jobs.items():
        stage = CODE.get(group, group)
        for job, described in members.items():
            path, parameters = folder / group / f"{job}.json", described["parameters"]
            code = code_key(stage, parameters)
            settings = {"stage": stage, "job": job, "code": code, "parameters": parameters}
            text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
            wanted.add(path)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
                written.append(path)
    for path in folder.glob("*/*.json"):
        if path not in wanted:
            path.unlink()
    return written


def lists(params: Params, jobs: Mapping[str, Jobs]) -> dict[str, Any]:
    """Give what an engine needs to draw the DAG: per group the jobs with their paths, without their settings."""
    described = {
        group: {
            job: {key: value for key, value in fields.items() if key != "parameters"} for job, fields in members.items()
        }
        for group, members in jobs.items()
    }
    resources = {stage: params.resources_of(stage).model_dump() for stage in STAGES}
    head = {"experiment": params.experiment, "resources": resources}
    return {**head, "contact_sheet": params.report.contact_sheet is not None, **described}


def lists_text(params: Params, jobs: Mapping[str, Jobs]) -> str:
    """Give the lists as the YAML that dvc.yaml iterates over."""
    head = "# Written by `reid plan` from the parameters: the jobs that dvc.yaml iterates over. Do not edit.\n"
    return head + yaml.safe_dump({"plan": lists(params, jobs)}, sort_keys=False, width=118)
