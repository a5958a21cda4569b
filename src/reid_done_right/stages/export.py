"""Export a trained model for other programs, verified against the original, with a model card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from reid_done_right import hub
from reid_done_right.artifacts import (
    DIGITS,
    InputError,
    file_digest,
    read_json,
    read_parquet,
    replacing,
    write_json,
    write_text,
)
from reid_done_right.dag import drawn, run_name
from reid_done_right.data.readers import RELEASES
from reid_done_right.evaluation.ranking import Rerank
from reid_done_right.evaluation.statistics import mean_interval
from reid_done_right.models.export import OPSET, Form, Size, largest_difference
from reid_done_right.models.export import export as to_bytes
from reid_done_right.models.libraries import Foreign
from reid_done_right.params.messages import validated
from reid_done_right.params.section import Name, Natural, Positive
from reid_done_right.photos import PhotoEmbedder, load_embedder
from reid_done_right.reporting.card import Card, write_card

SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
PLAIN = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""A licence by its name on the hub, such as cc-by-4.0."""
TOLERANCE = 1e-4
"""Per value of an embedding: far below what changes a rank, far above rounding errors."""


def export(
    model: Path,
    out: Path,
    *,
    form: Form | Literal["hub"] = "onnx",
    opset: int = OPSET,
    size: Size | None = None,
    tolerance: float = TOLERANCE,
    scores: Path | None = None,
    data: str | None = None,
    licence: str | None = None,
) -> float:
    """Export a model and its card; return the largest difference from the module.

    model      written by `reid train`
    form       onnx, torch-export, or hub: a folder with the weights as they are, config.json, and the card as README.md
    out        .onnx or .pt2; the card is written beside it, with .md appended to the name; a folder for the hub
    opset      ONNX operator set
    size       height and width of all images, given as normalised floats; None for any size, as uint8
    tolerance  a larger difference on random images of three shapes is an error
    scores     written by `reid evaluate` (.json, with the .parquet beside it); None for those of the model's run
    data, licence  for a model without its run beside it
    Raises InputError, and writes nothing, if the model is of another kind, if the opset is not supported, or if the
    exported network computes something else.
    """
    if form == "hub" and (out.is_file() or size is not None):
        raise InputError("--size belongs to onnx and torch-export" if size else f"{out}: a file; give a folder")
    if form != "hub" and (out.suffix != SUFFIXES[form] or out.is_dir()):
        raise InputError(f"{out}: expected a file name ending in {SUFFIXES[form]} for --format {form}")
    model = hub.local(model)
    embedder = load_embedder(model, device="cpu")
    found = scores or _beside(model, "evaluate")
    results = scores_of(found, model) if found else []
    origin = _origin(model, results)
    card = Card(
        file=out.absolute().name,
        form=form,
        model=model.name,
        digest=embedder.digest,
        about=embedder.about,
        dimension=embedder.dimension,
        smallest=embedder.module.backbone.smallest,
        size=size,
        difference=0.0,
        data=[data] if data else origin.data,
        datasets=[] if data else origin.datasets,
        licence=[licence] if licence else origin.licence,
        terms=(licence if PLAIN.fullmatch(licence) else "other") if licence else origin.terms,
        digests=origin.digests if form == "hub" else {},
        scores=results,
        multiple=backbone.patch if isinstance(backbone := embedder.module.backbone, Foreign) else 1,
        scored=f"`{found.name}`, SHA-256 `{file_digest(found)[:DIGITS]}`" if found else "",
    )
    if form == "hub":
        write_text(out / hub.CARD, write_card(card))
        write_json(out / hub.CONFIG, _config(embedder, origin))
        with replacing(out / hub.WEIGHTS) as temporary:
            shutil.copyfile(model, temporary)
        return 0.0
    content, difference = _converted(embedder, form, opset, size)
    if not difference <= tolerance:
        raise InputError(
            f"{out}: not written, as the exported network differs from the module by {difference:.1e}, more than "
            f"--tolerance {tolerance:.1e}; try another format or opset"
        )
    with replacing(out) as temporary, replacing(out.with_name(f"{out.name}.md")) as beside:
        beside.write_text(write_card(replace(card, difference=difference)), encoding="utf-8")
        temporary.write_bytes(content)
    return difference


def _converted(embedder: PhotoEmbedder, form: Form, opset: int, size: Size | None) -> tuple[bytes, float]:
    """Return the file of a network, and its largest difference from the module."""
    least, side = embedder.module.backbone.smallest, embedder.largest_side
    if size is not None and min(size) < least:
        raise InputError(f"--size {size[0]}x{size[1]}: too small for the network; give sides of {least} or more")
    scaled = "both sides" if embedder.module.square else "longer side"
    taken = f"pixels: uint8 (B, 3, H, W), RGB, {scaled} scaled to largest_side; normalised inside"
    if size is not None:
        taken = f"images: float32 (B, 3, {size[0]}, {size[1]}), RGB in [0, 1], less ImageNet's mean, by its deviation"
    about = {
        "input": taken,
        "largest_side": embedder.largest_side,
        "dimension": embedder.dimension,
        "model": embedder.digest,
    }
    content = to_bytes(embedder.module, form, about, opset, size)
    sizes = [(1, side, side // 2), (2, 3 * side // 4, side), (3, side + 1, side + 5)]
    sizes = [(batch, max(least, height), max(least, width)) for batch, height, width in sizes]
    if size is not None:
        sizes = [(batch, *size) for batch in (1, 2, 3)]
    return content, largest_difference(embedder.module, content, form, sizes, size is not None)


def _config(embedder: PhotoEmbedder, origin: Origin) -> dict[str, Any]:
    """Return what the hub shows of a model, with the digest by which `load_embedder` knows its weights."""
    return {
        "library_name": hub.LIBRARY,
        "library_version": version(hub.LIBRARY),
        "sha256": embedder.digest,
        "dimension": embedder.dimension,
        "network": embedder.about,
        "training": origin.parameters,
    }


def _beside(model: Path, stage: str) -> Path | None:
    """Return the scores of a model's run where the pipeline writes them, or None.

    Of a run that is only tested on other datasets than its own, those on the first of them.
    """
    folder = model.parent.parent / stage
    stem, _, draw = model.stem.rpartition("-draw")
    found = [folder / f"{model.stem}.json", *sorted(folder.glob(f"{stem}-on-*-draw{draw}.json"))]
    return next((path for path in found if path.is_file()), None) if model.parent.name == "train" else None


class Result(BaseModel, strict=True):
    """What of a protocol's scores goes onto the card."""

    protocol: Name
    rerank: Rerank
    ap_rule: Literal["trapezoid", "step"]
    queries: Positive


class Run(BaseModel, strict=True):
    """What was trained and what it was scored on, under the names of the experiment.

    trained_on: a dataset or the name of several, if not the one that it was scored on
    """

    dataset: Name
    variant: Name
    backbone: Name
    draw: Natural
    trained_on: Name | None = None


class Scores(BaseModel, strict=True):
    """What `reid evaluate` wrote of a run."""

    run: Run
    results: list[Result]


def scores_of(path: Path, model: Path | None = None) -> list[dict[str, Any]]:
    """Return the scores of a run with their intervals.

    Raises InputError if a file is missing, of another kind, or of another run than a model that lies in its experiment.
    """
    content = validated(Scores, read_json(path), path.as_posix(), "give the .json that `reid evaluate` wrote")
    run = content.run
    name = run_name(run.trained_on or run.dataset, run.variant, run.draw)
    if model is not None and model.parent.name == "train" and model.stem != name:
        raise InputError(f"{path}: scores of {name}, but {model} is another run's; give the scores of {model.stem}")
    queries = _queries(path.with_suffix(".parquet"))
    found = []
    for each in content.results:
        mine = (queries["protocol"] == each.protocol) & (queries["rerank"] == each.rerank)
        if mine.sum() != each.queries:
            raise InputError(f"{path}: says {each.queries} queries, its .parquet {mine.sum()}")
        precision = queries["ap" if each.ap_rule == "trapezoid" else "ap_step"][mine]
        first = queries["first_hit_rank"][mine] == 1
        scored = {"run": run.model_dump(exclude_none=True), "mAP": _interval(precision), "rank1": _interval(first)}
        found.append({**each.model_dump(), **scored})
    return found


def _queries(path: Path) -> Mapping[str, NDArray[Any]]:
    import pyarrow as pa

    try:
        table = read_parquet(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not readable"
        raise InputError(f"{path}: {reason}, which has the queries of the scores; run `reid evaluate` again") from None
    return {name: np.asarray(table[name].to_pylist()) for name in table.column_names}


def _interval(values: NDArray[Any]) -> tuple[float, float, float]:
    found = mean_interval(values.astype(float), np.random.default_rng(0))
    return found.mean, found.low, found.high


def _of_draw(folder: Path, name: str, draw: int) -> Path:
    """Return the path of a job's file: the draw's, where each draw has its own."""
    own = folder / f"{drawn(name, draw)}.json"
    return own if own.is_file() else folder / f"{name}.json"


@dataclass(frozen=True)
class Origin:
    """Where a model of the pipeline comes from; nothing for one that lies elsewhere.

    data, licence  lines of the card; datasets: short names of the data; terms: the licence in the hub's words
    parameters     of the training; digests: of its code and of its images
    """

    data: Sequence[str] = ()
    licence: Sequence[str] = ()
    datasets: Sequence[str] = ()
    terms: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


def _origin(model: Path, results: Sequence[Mapping[str, Any]]) -> Origin:
    """Return training data and licence terms of a pipeline model, from the files beside it."""
    if not results or model.parent.name != "train":
        return Origin()
    results_of, run = model.parent.parent, results[0]["run"]
    first = _of_draw(results_of / "settings" / "initialise", run["backbone"], run["draw"])
    parts = _trained_on(results_of, run)
    if not (first.is_file() and all(file.is_file() for files in parts.values() for file in files)):
        return Origin()
    start = read_json(first)["parameters"]
    data: list[str] = []
    licence: list[str] = []
    datasets: list[str] = []
    digests: dict[str, str] = {}
    for name, (manifest, made) in parts.items():
        held, source = read_json(manifest), read_json(made)["parameters"]["source"]
        counted = f"{held['files']:,} files, SHA-256 `{held['sha256'][:DIGITS]}`"
        data.append(f"Training images: those of `{name}` (format {held['format']}; {counted}); draw {run['draw']}")
        release = RELEASES.get(held["format"])
        if "render" in source:
            data.append("**Rendered people**, drawn from random numbers: of no use on photos of real ones")
            licence.append("MIT, as the rendered images")
            datasets.append(f"rendered-{held['format']}")
        elif release is not None:
            data.append(f"{release['title']}: {release['page']}")
            licence.append(f"{release['title']}: {release['licence']}; the terms bind the model too")
            datasets.append(held["format"])
        else:
            licence.append("Photos of the trainer's own: their owner's terms, and the rights of those whom they show")
            datasets.append("own-photos")
        digests["training images" if len(parts) == 1 else f"training images of {name}"] = held["sha256"]
    terms = "mit" if all(name.startswith("rendered-") for name in datasets) else "other"
    if "objects" in start:
        data.append("First weights: procedural classes of objects")
    elif "imagenet" in start:
        data.append("First weights: torchvision's, trained on ImageNet")
        licence.append("First weights: the terms of ImageNet (research)")
        datasets, terms = [*datasets, "imagenet-1k"], "other"
    else:
        data.append("First weights: the trainer's own file")
        terms = "other"
    trained = results_of / "settings/train" / f"{model.stem}.json"
    settings = read_json(trained) if trained.is_file() else {}
    digests |= {"training code": settings["code"]} if settings else {}
    data, licence, datasets = (list(dict.fromkeys(lines)) for lines in (data, licence, datasets))
    return Origin(data, licence, datasets, terms, settings.get("parameters", {}), digests)


def _trained_on(results_of: Path, run: Mapping[str, Any]) -> dict[str, tuple[Path, Path]]:
    """Return manifest and settings of each dataset that a run was trained on, by name."""
    trained_on, draw = run.get("trained_on", run["dataset"]), run["draw"]
    manifests, settings = results_of / "dataset", results_of / "settings" / "dataset"
    joined = _of_draw(results_of / "settings" / "join", trained_on, draw)
    if not joined.is_file():
        return {trained_on: (_of_draw(manifests, trained_on, draw), _of_draw(settings, trained_on, draw))}
    jobs: list[str] = read_json(joined)["parameters"]["indexes"]
    names = {job: job.removesuffix(f"-draw{draw}") for job in jobs}
    return {names[job]: (manifests / f"{job}.json", settings / f"{job}.json") for job in jobs}
