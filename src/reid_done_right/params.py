"""The parameters of an experiment: one frozen, validated model per section of `params.yaml`.

Nothing else parses YAML. An unknown, missing or mistyped key and an impossible combination are errors of one line
each that name the key and the fix, raised before anything runs.
"""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reid_done_right.artifacts import InputError
from reid_done_right.numerics import Numerics

Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
MOST_VALUES, DEEPEST = 100_000, 30
"""Of parameters: values in all, each as often as it is referred to, and levels of sections."""
WIDEST = 200
"""Letters of a wrong value that a message shows."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Section(BaseModel):
    """A section of the parameters: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Render(Section):
    """A rendered release; the keys beside `world` and `hardness` are those of its writer in `pedestrians`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    world: Natural
    hardness: Fraction


class Archive(Section):
    """An archive of a release: a file, or addresses (mirrors, in order) to fetch it from."""

    path: str | None = None
    urls: list[str] = []
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    bytes: Positive | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.path is None and not self.urls:
            raise ValueError("give path: FILE, or urls: [https://...]")
        for url in self.urls:
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"urls: {url!r} is not an address; write https://..., or path: for a file")
            if url.startswith("http://") and self.sha256 is None:
                raise ValueError(f"urls: {url} is not https, so anybody on the way can change it; give its sha256 too")
            if self.path is None and not url.rpartition("/")[2]:
                raise ValueError(f"urls: {url} does not end in a file name; give path: FILE, where to put it")
        return self


class Source(Section):
    """Where a dataset comes from: rendered here, a folder of the user's, or archives unpacked to that folder."""

    render: Render | None = None
    folder: str | None = None
    archives: Annotated[list[Archive], Field(min_length=1)] | Literal["published"] | None = None

    @field_validator("archives", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """Take a bare path or address for an archive of which no more is said."""
        if not isinstance(value, list):
            return value
        addresses = ("https://", "http://")
        return [
            entry
            if not isinstance(entry, str)
            else {"urls": [entry]}
            if entry.startswith(addresses)
            else {"path": entry}
            for entry in value
        ]

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.render is None) == (self.folder is None):
            raise ValueError("give either render: {...} or folder: PATH")
        if self.archives is not None and self.folder is None:
            raise ValueError("archives are unpacked to a folder; give folder: PATH too")
        return self


class Read(Section):
    """How photos of one's own are understood: whose they are, and who is trained on."""

    pattern: str | None = None
    table: str | None = None
    unknown: list[str] = []
    train: Fraction = 0.5
    seed: Natural = 0


class Protocol(Section):
    """Who counts for whom in one's own data: Market-1501's rule, if nothing else is said."""

    items: Literal["image", "tracklet"] = "image"
    same_camera_is_junk: bool = True
    ap_rule: Literal["trapezoid", "step"] = "trapezoid"


OWN = ("folder", "csv")
"""Formats of one's own photos."""


class Dataset(Section):
    """A benchmark: its on-disk format, where it comes from, how many rows each split must have, what is trained."""

    format: Literal["market1501", "dukemtmc", "mars", "person-search", "distractors", "folder", "csv"]
    source: Source
    read: Read | None = None
    protocol: Protocol | None = None
    counts: dict[str, Natural] | Literal["published"] | None = None
    allow_damaged: list[str] = []
    variants: list[Name] | Literal["all"] = []

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format not in OWN:
            if self.read is not None or self.protocol is not None:
                raise ValueError(
                    f"read and protocol are for the formats {' and '.join(OWN)}; {self.format} has its own"
                )
            return self
        if self.source.render is not None or self.counts == "published":
            raise ValueError(
                f"format {self.format} is for photos of your own: give source.folder, and no published counts"
            )
        if self.format == "csv" and (self.read is None or self.read.table is None):
            raise ValueError("format csv needs read: {table: FILE}, a CSV file in source.folder")
        if self.read is not None and (self.read.pattern if self.format == "csv" else self.read.table) is not None:
            raise ValueError("read.pattern is for the format folder, read.table for the format csv")
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """Give the arguments of the format's reader beside the folder."""
        if self.format not in OWN:
            return {}
        read = (self.read or Read()).model_dump(exclude_none=True)
        return read | self.rule.model_dump(include={"items", "same_camera_is_junk"})

    @property
    def rule(self) -> Protocol:
        """Give the protocol of one's own data."""
        return self.protocol or Protocol()


class Backbone(Section):
    """A residual network in torchvision's layout, or one of another family by torchvision's name.

    Width 64 and last_stride 2 make the published residual networks; of these, groups 32 and width_per_group 4 or 8 make
    ResNeXt.
    """

    family: Literal["densenet121", "densenet161", "inception_v3"] | None = None
    block: Literal["basic", "bottleneck"] | None = None
    blocks: Annotated[list[Positive], Field(min_length=4, max_length=4)] | None = None
    width: Positive = 64
    last_stride: Literal[1, 2] = 2
    groups: Positive = 1
    width_per_group: Positive = 64

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.family is not None and self.model_fields_set != {"family"}:
            shaped = ", ".join(sorted(self.model_fields_set - {"family"}))
            raise ValueError(f"{self.family} has a shape of its own; remove {shaped}")
        if self.family is None and (self.block is None or self.blocks is None):
            raise ValueError("give block: and blocks: of a residual network, or family: of another")
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError("groups and width_per_group are for block: bottleneck")
        if self.width * self.width_per_group < 64:
            raise ValueError(
                f"width_per_group {self.width_per_group} leaves no channel at width {self.width}; enlarge one"
            )
        return self

    def described(self) -> dict[str, Any]:
        """Give what the network is built from, as `reid_done_right.models.build.build` takes it."""
        if self.family is not None:
            return {"family": self.family}
        return self.model_dump(exclude={"family"})


SMALLEST = {"densenet121": 29, "densenet161": 29, "inception_v3": 75}
"""Sides in pixels of the smallest image that a family takes; residual networks take any."""


class Objects(Section):
    """Procedural object classification, which stands for ImageNet where nothing can be downloaded."""

    world: Natural
    classes: Positive
    per_class: Positive
    side: Positive
    crop: Positive
    updates: Positive
    batch: Positive
    learning_rate: Rate


class Initialise(Section):
    """First weights of each backbone: procedural objects, torchvision's ImageNet V1 files, or the user's own files."""

    objects: Objects | None = None
    imagenet: Literal["IMAGENET1K_V1"] | None = None
    folder: str = "data/weights"
    checkpoints: dict[Name, str] | None = None
    seed: Natural = 0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(kind is not None for kind in (self.objects, self.imagenet, self.checkpoints)) != 1:
            raise ValueError("give one of objects: {...}, imagenet: IMAGENET1K_V1 and checkpoints: {BACKBONE: FILE}")
        return self


class Pretrain(Section):
    """Classification of the training identities (section 4.1 of the paper)."""

    updates: Positive
    batch: Positive
    learning_rate: Rate
    final_learning_rate: Rate
    decay: Literal["linear", "exponential", "steps"]
    warm_up: Fraction
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    pooling: Literal["max", "average"]
    crop_height: Positive
    crop_width: Positive
    crop_area: Fraction
    flip: bool
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"


class RankingStage(Section):
    """The ranking stage: architecture, triplet loss, mining, schedule, augmentation (sections 3 and 4.1)."""

    pooling: Literal["max", "average", "gem"]
    embedding: Natural
    largest_side: Annotated[int, Field(ge=16)]
    margin: Rate
    updates: Positive
    batch: Positive
    at_once: Positive
    batching: Literal["padded", "sequential"] = "padded"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    execution: Literal["eager", "compiled", "cuda-graphs"] = "eager"
    deterministic: bool = True
    reduction: Literal["mean", "sum"]
    batch_norm: Literal["frozen", "affine"] = "frozen"
    learning_rate: Rate
    halve_every: Positive
    decay: Literal["continuous", "steps"] = "continuous"
    warm_up: Fraction
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    pool: Annotated[int, Field(ge=3)]
    pool_of: Literal["images", "identities"] = "images"
    hardest: Positive
    satisfied: Literal["redraw", "keep"] = "redraw"
    refresh: Positive
    flip: bool
    crop: Fraction
    cutout: Fraction
    cutout_least: Fraction = 0.5


class Train(RankingStage):
    """A variant: what the ranking stage starts from, and how it goes on."""

    backbone: Name
    pretrain: bool


class QeDba(Section):
    """Query expansion and database augmentation (footnote 2)."""

    query_neighbours: Natural
    database_neighbours: Natural


class KReciprocal(Section):
    """k-reciprocal re-ranking (Zhong et al., 2017)."""

    k1: Positive
    k2: Positive
    lambda_value: Fraction


class Evaluate(Section):
    """Protocol choices and the two re-rankings."""

    multi_query: Literal["mean", "max"]
    tracklets: Literal["mean", "max"]
    person_search_gallery: Positive
    qe_dba: QeDba
    k_reciprocal: KReciprocal


class Distract(Section):
    """Figure 7: which runs face how many distractors."""

    dataset: Name
    distractors: Name
    variants: list[Name]
    sizes: Annotated[list[Natural], Field(min_length=1)]
    draws: Positive
    shards: Positive
    seed: Natural = 0


class Resources(Section):
    """What one job of a stage asks of the scheduler; `threads` also fixes the order of its sums."""

    threads: Positive = 1
    gpu: Natural = 0
    mem_mb: Positive = 1500
    runtime: Positive = 30


class TableRow(Section):
    """A row of Tables 1-3: a variant, its label here, and the label of the paper's row that it stands beside."""

    variant: Name
    label: str
    paper: str
    group: str = ""

    @field_validator("label", "paper", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Take a bare yes or no, which YAML reads as a boolean and `dvc exp run -S` writes, as the text it was."""
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class ContactSheet(Section):
    """How much of the rendered people the report shows."""

    identities: Positive
    lookalikes: Natural


class Shown(Section):
    """Whose ranked lists and heat-maps the report shows: one run of each of some datasets."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    variant: Name
    seed: Natural
    images: bool
    queries: Positive


class Report(Section):
    """Tables as lists of variants; what the report says of itself."""

    title: str
    synthetic: bool
    command: str
    baseline: Name
    allow_missing: bool
    contact_sheet: ContactSheet | None = None
    shown: Shown | None = None
    table1: list[TableRow] = []
    table2: list[TableRow] = []
    table3: list[TableRow] = []
    table4: list[TableRow] = []


class Params(Section):
    """A whole experiment."""

    experiment: Name
    numerics: Numerics = "portable"
    seeds: Annotated[list[Natural], Field(min_length=1)]
    datasets: dict[Name, Dataset]
    backbones: dict[Name, Backbone]
    initialise: Initialise
    pretrain: Pretrain
    train: Train
    variants: dict[Name, dict[str, Any]]
    evaluate: Evaluate
    distract: Distract | None = None
    report: Report
    resources: dict[str, Resources] = {}

    def variant(self, name: str) -> Train:
        """Give the ranking stage's parameters for a variant: the default with the variant's differences."""
        return Train.model_validate(self.train.model_dump() | self.variants[name])

    def _large_enough(self, key: str, variant: Train) -> None:
        """Refuse sides that the variant's backbone cannot take; an image's shorter side is known when it is read."""
        family = self.backbones[variant.backbone].family
        if family is None:
            return
        sides = {f"{key}.largest_side": variant.largest_side}
        if variant.pretrain:
            sides |= {f"pretrain.{side}": getattr(self.pretrain, side) for side in ("crop_height", "crop_width")}
        if self.initialise.objects is not None:
            sides["initialise.objects.crop"] = self.initialise.objects.crop
        for side, pixels in sides.items():
            if pixels < SMALLEST[family]:
                raise ValueError(f"{side}: {pixels} pixels are too few for {family}; give {SMALLEST[family]} or more")

    def variants_of(self, dataset: str) -> list[str]:
        """Give the names of the variants that are trained on a dataset."""
        names = self.datasets[dataset].variants
        return list(self.variants) if names == "all" else list(names)

    @property
    def shown(self) -> list[str]:
        """The datasets that the report shows queries of: of those asked for, the ones with the variant asked for."""
        shown = self.report.shown
        return [] if shown is None else [name for name in shown.datasets if shown.variant in self.variants_of(name)]

    def resources_of(self, stage: str) -> Resources:
        """Give what a job of a stage asks for."""
        return self.resources.get(stage, Resources())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} repeats a seed; list each once")
        for name in self.variants:
            try:
                variant = self.variant(name)
            except ValidationError as error:
                raise ValueError("; ".join(_lines(error, f"variants.{name}", Train))) from None
            check_known(f"variants.{name}.backbone", [variant.backbone], self.backbones)
            if variant.refresh > variant.updates:
                raise ValueError(f"variants.{name}.refresh: {variant.refresh} exceeds updates {variant.updates}")
            self._large_enough(f"variants.{name}", variant)
        check_known("initialise.checkpoints", self.initialise.checkpoints or {}, self.backbones)
        for name, dataset in self.datasets.items():
            if dataset.variants != "all":
                check_known(f"datasets.{name}.variants", dataset.variants, self.variants)
            if dataset.format == "distractors" and dataset.variants:
                raise ValueError(f"datasets.{name}.variants: distractors have no identities to train on; give []")
        rendered = None
        if self.distract is not None:
            self._check_distract(self.distract)
            rendered = self.datasets[self.distract.dataset].source.render
        if self.report.contact_sheet is not None and rendered is None:
            raise ValueError("report.contact_sheet: shows rendered people only; remove it, as these images are real")
        check_known("report.baseline", [self.report.baseline], self.variants)
        if self.report.shown is not None:
            self._check_shown(self.report.shown)
        for table in ("table1", "table2", "table3", "table4"):
            for row in getattr(self.report, table):
                check_known(f"report.{table}.variant", [row.variant], self.variants)
        return self

    def _check_shown(self, shown: Shown) -> None:
        check_known("report.shown.datasets", shown.datasets, self.datasets)
        check_known("report.shown.variant", [shown.variant], self.variants)
        if shown.seed not in self.seeds:
            raise ValueError(f"report.shown.seed: no run has seed {shown.seed}; give one of {self.seeds}")
        for name in shown.datasets:
            dataset = self.datasets[name]
            if dataset.format == "mars" or (dataset.format in OWN and dataset.rule.items == "tracklet"):
                raise ValueError(f"report.shown.datasets: the gallery of {name} is tracklets, which no one image shows")
        if not self.shown:
            raise ValueError(
                f"report.shown.datasets: variant {shown.variant} is trained on none of them; give one it is"
            )

    def _check_distract(self, distract: Distract) -> None:
        check_known("distract.dataset", [distract.dataset], self.datasets)
        if self.datasets[distract.dataset].format != "market1501":
            raise ValueError(f"distract.dataset: {distract.dataset} is not of the format market1501")
        check_known("distract.distractors", [distract.distractors], self.datasets)
        if self.datasets[distract.distractors].format != "distractors":
            raise ValueError(f"distract.distractors: {distract.distractors} is not of the format distractors")
        check_known("distract.variants", distract.variants, self.variants_of(distract.dataset))
        if distract.sizes != sorted(set(distract.sizes)):
            raise ValueError(f"distract.sizes: {distract.sizes} must be ascending, each size once")


def load(source: Path) -> Params:
    """Read and validate an experiment's parameters from a YAML file; `-` reads JSON from standard input.

    Raises InputError with one line per mistake, each naming the key and the fix.
    """
    name = "params" if str(source) == "-" else source
    try:
        content = json.load(sys.stdin) if name == "params" else yaml.safe_load(source.read_text(encoding="utf-8"))
        _check_extent(content)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}; give the path of a params.yaml") from None
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError) as error:  # also of its types
        raise InputError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{name}: expected the sections of an experiment, found {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        lines = _lines(error, "", Params)
        told = [f"{name}: {line}".replace("\n", "\\n") for line in lines]  # a key may be any text
        raise InputError("\n".join(told)) from None


def _check_extent(content: Any) -> None:
    """Raise ValueError for what aliases in a few lines of YAML make huge or endless, and for endless nesting."""
    todo, seen = [(content, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if seen > MOST_VALUES or depth > DEEPEST:
            raise ValueError(f"more than {MOST_VALUES} values, or {DEEPEST} levels; write them out without aliases")
        inner = [*value.values(), *value] if isinstance(value, dict) else value if isinstance(value, list | set) else []
        todo += [(each, depth + 1) for each in inner]


def check_known(key: str, names: Any, known: Any) -> None:
    """Raise ValueError for a name that is not among the known ones, with the one that is nearest."""
    for name in names:
        if name not in known:
            raise ValueError(f"{key}: unknown name {name!r}{_nearest(name, known)}")


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _lines(error: ValidationError, prefix: str, model: type[BaseModel]) -> list[str]:
    """Turn each of pydantic's errors into a line `key: what is wrong; the fix`."""
    lines = []
    places = {tuple(part for part in item["loc"] if not _is_branch(part)): item for item in error.errors()}
    for place, item in places.items():
        if any(other[: len(place)] == place for other in places if other != place):
            continue  # another branch of the same union got further
        location = [part for part in place if part != "[key]"]
        key = ".".join([prefix] * bool(prefix) + [str(part) for part in location])
        match item["type"]:
            case "extra_forbidden":
                fields = _fields(model, location[:-1])
                lines.append(f"{key}: unknown key{_nearest(str(location[-1]), fields)}")
            case "missing":
                lines.append(f"{key}: missing; add it")
            case "value_error":
                message = str(item["ctx"]["error"]) if "ctx" in item else item["msg"]
                lines.append(f"{key}: {message}" if key else message)
            case "float_type" if isinstance(item["input"], str) and "e" in item["input"]:
                lines.append(f"{key}: {item['input']!r} is text in YAML; write a point, as in 1.0e-3")
            case _:
                lines.append(f"{key}: {item['msg']}, not {_shown(item['input'])}")
    return lines


def _shown(value: Any) -> str:
    """Give a value as it is written, as far as that fits into a line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= WIDEST else f"{text[:WIDEST]}..."


def _is_branch(part: str | int) -> bool:
    """Tell pydantic's names of a union's branches, such as list[str], from keys."""
    return isinstance(part, str) and "[" in part and part != "[key]"


def _fields(model: type[BaseModel], location: list[Any]) -> list[str]:
    """Give the keys that the section at a location may have."""
    for part in location:
        field = model.model_fields.get(str(part))
        candidates = _models(field.annotation) if field is not None else [model]
        if candidates:
            model = candidates[0]
    return list(model.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Find the section models inside an annotation such as dict[str, Dataset] or Render | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models(argument)]
