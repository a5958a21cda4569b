"""Check everything that a run needs: the report of `reid check`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reid_done_right.artifacts import Index, InputError
from reid_done_right.dag import STAGES
from reid_done_right.data.readers import COUNTS
from reid_done_right.params import Params
from reid_done_right.params.datasets import Dataset
from reid_done_right.params.training import Pretrain
from reid_done_right.plan import Jobs, dataset_of, plan
from reid_done_right.readiness.checks import FAILING, Check
from reid_done_right.readiness.datasets import Depth, examine, examine_joint
from reid_done_right.readiness.jobs import done, measured

GIB = 2**30
NETWORKS = ("initialise", "pretrain", "train", "embed", "embed_distractors")
"""Groups of jobs whose time is spent in a network."""


@dataclass(frozen=True)
class Work:
    """One group of jobs: their number, how many are done, and seconds for the remaining ones, None if unknown.

    source   origin of the time: "probe" of the network here, "ran" (mean of such jobs in this tree) or ""
    """

    group: str
    jobs: int
    done: int
    seconds: float | None
    source: str


@dataclass(frozen=True)
class Survey:
    """The report: findings by section, jobs, and the probe's result (seconds per image; None without it)."""

    experiment: str
    findings: Mapping[str, list[Check]]
    work: list[Work]
    probed: Mapping[str, float] | None

    @property
    def ready(self) -> bool:
        """Whether nothing is missing, wrong or damaged."""
        return not self.failing

    @property
    def failing(self) -> list[Check]:
        """Return the findings that prevent a run."""
        return [finding for part in self.findings.values() for finding in part if finding.state in FAILING]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {
            "experiment": self.experiment,
            "ready": self.ready,
            **{part: [asdict(finding) for finding in found] for part, found in self.findings.items()},
            "jobs": [asdict(work) for work in self.work],
            "seconds_an_image": dict(self.probed) if self.probed is not None else None,
        }


def quick_survey(params: Params, datasets: list[str] | None = None) -> Survey:
    """Run the checks that take seconds: folders, names and counts of all datasets, or of those named."""
    wanted = params.used if datasets is None else datasets
    unknown = [name for name in wanted if name not in params.used]
    if unknown:
        raise InputError(f"no dataset is called {unknown[0]}; the experiment reads {', '.join(params.used)}")
    jobs = plan(params)
    found = [examine(*asked, "names")[0] for name in wanted for asked in _examined(params, jobs, name)]
    return Survey(params.experiment, {"datasets": found}, [], None)


def survey(params: Params, *, decode: bool = False, probe: bool = True, tell: Callable[[str], object] = str) -> Survey:
    """Check datasets, weights, disk, GPU and jobs, and estimate the time of the remaining ones.

    decode  decode every image, as stage `index` does, instead of reading headers and ends
    probe   measure the device
    tell    called with the name of each part as it begins
    """
    tell("jobs")
    from reid_done_right.readiness.weights import examine_weights

    jobs = plan(params)
    depth: Depth = "pixels" if decode else "headers"
    found: list[Check] = []
    indexes: dict[str, Index | None] = {}
    for name in params.used:
        progress = partial(tqdm, desc=f"check {name}", unit="file", leave=False, disable=None)
        for asked in _examined(params, jobs, name):
            tell(f"dataset {asked[0]}")
            finding, index = examine(*asked, depth, os.cpu_count() or 1, progress)
            found.append(finding)
            indexes.setdefault(name, index)
    for name in filter(params.variants_of, params.joint):
        found.append(examine_joint(name, {part: indexes[part] for part in params.joint[name].train_on}))
    tell("finished jobs")
    finished = done(jobs)
    tested = {name: _tested(params, name, indexes[name]) for name in indexes}
    tell("weights")
    findings = {"datasets": found, "weights": examine_weights(jobs)}
    tell("disk and memory")
    findings["machine"] = [_disk(params, jobs, finished, tested), _gpu(params, jobs)]
    timed = probe and any(jobs[group].keys() - finished[group] for group in NETWORKS)
    slow = _too_slow(params) if timed else None
    if slow is not None:
        findings["machine"].append(slow)
    if noise := _noise(params, jobs):
        findings["training"] = [noise]
    trained = {name: _trained(params, name, index) for name, index in indexes.items()}
    for name, joint in params.joint.items():
        parts = [trained.get(part) for part in joint.train_on]
        trained[name] = None if None in parts else sum(filter(None, parts))
    tell("time")
    work, probed = _work(params, jobs, finished, tested, trained, timed and slow is None)
    return Survey(params.experiment, findings, work, probed)


def _examined(
    params: Params, jobs: Mapping[str, Jobs], name: str
) -> Iterator[tuple[str, Dataset, dict[str, Any], Path]]:
    """Yield the first arguments of `examine`: for every draw's folder of a dataset, or its first draw if rendered."""
    dataset = params.datasets[name]
    rendered = dataset.source.folder is None
    for job in dict.fromkeys(dataset_of(params, name, draw) for draw in params.draws[: 1 if rendered else None]):
        made = Path(jobs["index"][job].outputs["out"])
        yield name if rendered else job, dataset, jobs["dataset"][job].parameters, made


def _tested(params: Params, name: str, index: Index | None) -> int | None:
    """Return the number of images to embed: counted, published, or needed by the curves; None if unknown."""
    dataset, distract = params.datasets[name], params.distract
    if index is not None:
        return len(index) - len(index.train)
    if distract is not None and name == distract.distractors:
        return distract.sizes[-1]
    published = COUNTS.get(dataset.format, {})
    if dataset.source.render is None and "gallery" in published:
        return published["gallery"] + published.get("query", 0)
    return None


def _trained(params: Params, name: str, index: Index | None) -> int | None:
    """Return the number of training images: counted, or published; None if unknown."""
    dataset = params.datasets[name]
    if index is not None:
        return len(index.train)
    return None if dataset.source.render is not None else COUNTS.get(dataset.format, {}).get("train")


def _noise(params: Params, jobs: Mapping[str, Jobs]) -> Check | None:
    """Say how much of an image the cut-out covers while the network learns; None if no variant has a cut-out."""
    from reid_done_right.training.schedules import noise_share

    shares: dict[str, list[str]] = {}
    for name in sorted({job.places["variant"] for job in jobs["train"].values()}):
        if (variant := params.variant(name)).cutout:
            shares.setdefault(f"{100 * noise_share(variant):.1f} %", []).append(name)
    told = "; ".join(f"{share} ({', '.join(names)})" for share, names in shares.items())
    why = "noise covers of an image, on average, weighted by the learning rate"
    return Check("cut-out", "ready", f"{why}: {told}") if shares else None


def _embedded(jobs: Mapping[str, Jobs], tested: Mapping[str, int | None], group: str, job: str) -> int | None:
    """Return the number of images that an embed or embed_distractors job embeds."""
    planned = jobs[group][job]
    count = tested.get(planned.places["dataset"])
    return count if count is None or group == "embed" else -(-count // planned.parameters["shards"])


def _disk(
    params: Params, jobs: Mapping[str, Jobs], finished: Mapping[str, set[str]], tested: Mapping[str, int | None]
) -> Check:
    """Compare the size of the remaining outputs with the free disk space."""
    from reid_done_right.readiness.probe import dimension, weights_bytes

    size = 0
    for job in jobs["initialise"].keys() - finished["initialise"]:
        size += weights_bytes(params.backbones[jobs["initialise"][job].places["backbone"]])
    for job in jobs["pretrain"].keys() - finished["pretrain"]:
        size += weights_bytes(params.backbones[jobs["pretrain"][job].places["backbone"]])
    for group in ("train", "embed", "embed_distractors"):
        for job in jobs[group].keys() - finished[group]:
            variant = params.variant(jobs[group][job].places["variant"])
            layers = params.backbones[variant.backbone]
            if group == "train":
                size += weights_bytes(layers, variant.embedding)
            else:
                size += (_embedded(jobs, tested, group, job) or 0) * (4 * dimension(layers, variant.embedding) + 8)
    free = shutil.disk_usage(".").free
    told = f"at least {_gib(size)} for weights and embeddings still to come, {_gib(free)} free in {Path.cwd()}"
    if size < free:
        return Check("disk", "ready", told)
    return Check("disk", "short", f"{told}; free some, or run fewer variants or draws")


def _on_gpu(params: Params) -> bool:
    """Return whether jobs that run networks ask for a GPU."""
    return any(params.resources_of(STAGES[stage].command or stage).gpu for stage in NETWORKS)


def _gpu(params: Params, jobs: Mapping[str, Jobs]) -> Check:
    """Compare the memory needed by the largest update with the GPU's."""
    from reid_done_right.readiness.probe import classification_memory, device_memory, ranking_memory

    sizes: dict[str, int] = {}
    counted: list[tuple[str, Pretrain]] = []
    asked = max(1, params.resources_of("train").gpu)
    for name in sorted({job.places["variant"] for job in jobs["train"].values()}):
        variant = params.variant(name)
        sizes[f"train, variant {name}"] = ranking_memory(params.backbones[variant.backbone], variant, asked)
    for name, job in sorted(jobs["pretrain"].items()):
        pretrain = Pretrain.model_validate(job.parameters["pretrain"])
        if (settings := (job.places["backbone"], pretrain)) not in counted:
            counted.append(settings)
            sizes[f"pretrain, {name}"] = classification_memory(params.backbones[settings[0]], pretrain)
    most = max(sizes, key=lambda what: sizes[what])
    told = f"at least {_gib(sizes[most])} of memory for {most}"
    if not _on_gpu(params):
        return Check("GPU", "note", f"{told}; no job asks for a GPU in resources, so everything runs on the CPU")
    there = device_memory()
    if there is None:
        return Check("GPU", "note", f"{told}; there is no CUDA device here, without which jobs that ask for one fail")
    name, free, whole, count = there
    told = f"{told}; {name} has {_gib(whole)}, {_gib(free)} of it free"
    if count < asked:
        return Check("GPU", "short", f"{told}; resources.train.gpu asks for {asked}, but there are {count}; lower it")
    if sizes[most] < free:
        return Check("GPU", "ready", told)
    return Check("GPU", "short", f"{told}; lower train.at_once or pretrain.batch, or use a larger GPU")


def _too_slow(params: Params) -> Check | None:
    """Say that an update of the default network is too much for this CPU to be timed; None if it is not."""
    from reid_done_right.readiness.probe import is_affordable

    backbone = params.train.backbone
    if is_affordable(params.backbones[backbone], params.train):
        return None
    told = f"not estimated: {backbone} at {params.train.largest_side} pixels is no work for a CPU; check where a GPU is"
    return Check("time", "note", f"{told}, or take a smaller network (experiments/own-cpu)")


def _work(
    params: Params,
    jobs: Mapping[str, Jobs],
    finished: Mapping[str, set[str]],
    tested: Mapping[str, int | None],
    trained: Mapping[str, int | None],
    probe: bool,
) -> tuple[list[Work], dict[str, float] | None]:
    """Estimate the remaining time: networks from the probe, scaled by FLOPs; other jobs from earlier runs."""
    from reid_done_right.readiness import probe as network

    left = {group: sorted(members.keys() - finished[group]) for group, members in jobs.items()}
    speed = None
    if probe:
        threads = min(os.cpu_count() or 1, params.resources_of("train").threads)
        speed = network.probe(
            params.backbones[params.train.backbone], params.pretrain, params.train, threads, _on_gpu(params)
        )
    work = []
    for group, members in jobs.items():
        seconds: float | None = 0.0
        source = ""
        if speed is not None and group in NETWORKS:
            each = [_seconds(params, jobs, tested, trained, speed, group, job) for job in left[group]]
            seconds = None if None in each else sum(one for one in each if one is not None)
            source = "" if seconds is None else "probe"
        elif left[group]:
            before = measured(params.experiment, group)
            seconds = None if before is None else before * len(left[group])
            source = "" if before is None else "ran"
        work.append(Work(group, len(members), len(members) - len(left[group]), seconds, source if left[group] else ""))
    return work, None if speed is None else asdict(speed)


def _seconds(
    params: Params,
    jobs: Mapping[str, Jobs],
    tested: Mapping[str, int | None],
    trained: Mapping[str, int | None],
    speed: Any,
    group: str,
    job: str,
) -> float | None:
    """Estimate a job that runs a network, from its number of images and the FLOPs of the network at their size."""
    from reid_done_right.readiness.probe import arithmetic, sides

    base, crop = params.train, (params.pretrain.crop_height, params.pretrain.crop_width)
    if group == "pretrain":
        layers = params.backbones[jobs[group][job].places["backbone"]]
        pretrain = Pretrain.model_validate(jobs[group][job].parameters["pretrain"])
        own = arithmetic(layers, pretrain.crop_height, pretrain.crop_width)
        share = own / arithmetic(params.backbones[base.backbone], *crop)
        there = trained.get(jobs[group][job].places["dataset"])
        if there is None and pretrain.updates is None:
            return None
        return float(pretrain.length(there or 0) * pretrain.batch * speed.classify * share)
    if group == "initialise":
        objects = params.initialise.objects
        if objects is None:
            return 0.0  # read from a file
        share = arithmetic(params.backbones[jobs[group][job].places["backbone"]], objects.crop, objects.crop)
        share /= arithmetic(params.backbones[base.backbone], *crop)
        return float(objects.updates * objects.batch * speed.classify * share)
    variant = params.variant(jobs[group][job].places["variant"])
    layers, default = params.backbones[variant.backbone], params.backbones[base.backbone]
    share = arithmetic(layers, *sides(layers, variant.largest_side))
    share /= arithmetic(default, *sides(default, base.largest_side))
    if group == "train":
        images = 3 * variant.batch * variant.updates
        pools = -(-variant.updates // variant.refresh) * variant.pool
        workers = jobs[group][job].parameters["workers"]
        twice = variant.batching == "padded" and variant.at_once < 3 * -(-variant.batch // workers)
        once = speed.rank + twice * speed.embed  # images beyond `at_once` are first embedded without activations
        return float(share * (images * once + pools * speed.embed) / workers)
    count = _embedded(jobs, tested, group, job)
    return None if count is None else float(share * count * speed.embed)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{max(size, 2**20) / 2**20:.0f} MiB"
