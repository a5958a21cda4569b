"""The parameters of an experiment: one frozen, validated model per section of `params.yaml`.

Nothing else parses YAML. An unknown, missing or mistyped key and an impossible combination are errors of one line
each that name the key and the fix, raised before anything runs.
"""

from __future__ import annotations

import difflib
import json
import math
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
Key = Annotated[str, Field(pattern=r"^[a-z_]+$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Section(BaseModel):
    """A section of the parameters: frozen, strict types, no unknown keys.

    The descriptions of its fields are the only ones: `python docs/parameters.py` generates the documentation and the
    JSON schema from them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Render(Section):
    """A rendered release; the keys beside `world` and `hardness` are those of its writer in `pedestrians`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    world: Natural = Field(description="Seed of the rendered release: its people, their clothes and its cameras.")
    hardness: Fraction = Field(description="Difference between its cameras, from 0 (none) to 1.")


class Archive(Section):
    """An archive of a release: a file, or addresses (mirrors, in order) to fetch it from."""

    path: str | None = Field(default=None, description="Path of the archive. With `urls`, where the download is put.")
    urls: list[str] = Field(
        default=[], description="Addresses to download it from: mirrors, tried in order. http without s needs `sha256`."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        default=None,
        description="SHA-256 of the file. If omitted, the first download is trusted and its digest recorded.",
    )
    bytes: Positive | None = Field(
        default=None, description="Size of the file in bytes. A download may exceed it by 1 %."
    )

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

    render: Render | None = Field(default=None, description="Renders the release instead of reading one.")
    folder: str | None = Field(
        default=None, description="Folder of a release, or of photos of your own. Archives are unpacked to it."
    )
    archives: Annotated[list[Archive], Field(min_length=1)] | Literal["published"] | None = Field(
        default=None,
        description="Archives to unpack to the folder: paths, addresses, or sections with the keys below. "
        "`published` means those that `src/reid_done_right/data/sources.toml` lists, beside the folder.",
    )

    @field_validator(
        "archives",
        mode="before",
        json_schema_input_type=Annotated[list[Archive | str], Field(min_length=1)] | Literal["published"] | None,
    )
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

    pattern: str | None = Field(
        default=None, description="Format folder: pattern of the photos' paths. If omitted, `{person}/{camera}/{name}`."
    )
    table: str | None = Field(default=None, description="Format csv: file name of the table in the folder.")
    unknown: list[str] = Field(
        default=[],
        description="Person labels that identify nobody. Their photos are in the gallery, but never trained on or "
        "queried.",
    )
    train: Fraction = Field(
        default=0.5, description="Fraction of the persons to train on, if the photos come without splits."
    )
    seed: Natural = Field(default=0, description="Seed of the random splits.")


class Protocol(Section):
    """Who counts for whom in one's own data: Market-1501's rule, if nothing else is said."""

    items: Literal["image", "tracklet"] = Field(
        default="image", description="What a query or a match is: one image or a whole tracklet."
    )
    same_camera_is_junk: bool = Field(
        default=True, description="Ignores matches from the query's own camera, as Market-1501 does."
    )
    ap_rule: Literal["trapezoid", "step"] = Field(
        default="trapezoid",
        description="Average precision of the headline: trapezoids (the official code of Market-1501) or steps.",
    )


Format = Literal["market1501", "dukemtmc", "mars", "person-search", "distractors", "folder", "csv"]
OWN = ("folder", "csv")
"""Formats of one's own photos."""


class Dataset(Section):
    """A benchmark: its on-disk format, where it comes from, how many rows each split must have, what is trained."""

    format: Format = Field(
        description="Format on disk: that of a benchmark's release; `folder` and `csv` are for photos of your own "
        "(`docs/own_data.md`).",
    )
    source: Source = Field(description="Where the dataset comes from.")
    read: Read | None = Field(default=None, description="Photos of your own: how to read them.")
    protocol: Protocol | None = Field(
        default=None, description="Photos of your own: the evaluation protocol. If omitted, that of Market-1501."
    )
    counts: dict[str, Natural] | Literal["published"] | None = Field(
        default=None,
        description="Expected counts, checked after reading: `published`, or numbers under the names that "
        "`reid_done_right.data.readers.count` returns.",
    )
    allow_damaged: list[str] = Field(
        default=[],
        description="Damaged images to leave out of the index, by their paths in the folder. Any other damaged image "
        "is an error.",
    )
    variants: list[Name] | Literal["all"] = Field(default=[], description="Variants to train on this dataset.")

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

    family: Literal["densenet121", "densenet161", "inception_v3"] | None = Field(
        default=None,
        description="Network of another family, with a shape of its own. If omitted, a residual network with the "
        "keys below.",
    )
    block: Literal["basic", "bottleneck"] | None = Field(
        default=None, description="Residual block: basic up to ResNet-34, bottleneck from ResNet-50 on."
    )
    blocks: Annotated[list[Positive], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="Number of blocks in each of the four stages."
    )
    width: Positive = Field(
        default=64,
        description="Channels of the first stage. The published networks have 64; ImageNet weights fit no other.",
    )
    last_stride: Literal[1, 2] = Field(
        default=2,
        description="Stride of the last stage: 2 in the published networks, and in the landmark-retrieval code of "
        "the paper's group.",
    )
    groups: Positive = Field(default=1, description="Groups of a bottleneck's 3 × 3 convolution: 32 in ResNeXt.")
    width_per_group: Positive = Field(
        default=64, description="Channels per group in the first stage, at width 64: 4 or 8 in ResNeXt."
    )

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

    world: Natural = Field(description="Seed of the procedural objects.")
    classes: Positive = Field(description="Number of classes.")
    per_class: Positive = Field(description="Images per class.")
    side: Positive = Field(description="Height and width of an image, in pixels.")
    crop: Positive = Field(description="Height and width of the random crops, in pixels.")
    updates: Positive = Field(description="SGD updates.")
    batch: Positive = Field(description="Images per update.")
    learning_rate: Rate = Field(description="Initial learning rate. It decays linearly to a hundredth.")


class Initialise(Section):
    """First weights of each backbone: procedural objects, torchvision's ImageNet V1 files, or the user's own files."""

    objects: Objects | None = Field(
        default=None,
        description="Classification of procedural objects, which replaces ImageNet where nothing can be downloaded.",
    )
    imagenet: Literal["IMAGENET1K_V1"] | None = Field(
        default=None,
        description="ImageNet weights of torchvision. V1 are the ones of the paper's time; V2 come from a newer "
        "recipe.",
    )
    folder: str = Field(
        default="data/weights", description="Folder of the ImageNet weights. They are downloaded to it if missing."
    )
    checkpoints: dict[Name, str] | None = Field(
        default=None, description="Weights of your own: a file for each backbone."
    )
    seed: Natural = Field(default=0, description="Seed of the initial weights.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(kind is not None for kind in (self.objects, self.imagenet, self.checkpoints)) != 1:
            raise ValueError("give one of objects: {...}, imagenet: IMAGENET1K_V1 and checkpoints: {BACKBONE: FILE}")
        return self


class Pretrain(Section):
    """Classification of the training identities (section 4.1 of the paper)."""

    updates: Positive | None = Field(
        default=None,
        description="SGD updates, unless `passes` says how many. Not stated in the paper; 6,000 are 59 passes over "
        "Market-1501, and 1.5 over MARS.",
    )
    passes: Rate | None = Field(
        default=None, description="Length in passes over the training images instead of in `updates`, rounded up."
    )
    batch: Positive = Field(description="Images per update (section 4.1: 128).")
    learning_rate: Rate = Field(description="Initial learning rate (section 4.1: 0.01).")
    final_learning_rate: Rate = Field(description="Final learning rate (section 4.1: 0.0001).")
    decay: Literal["linear", "exponential", "steps"] = Field(
        description="Decay of the rate: linear, exponential, or two equal steps at 1/2 and 3/4 of the updates. The "
        "paper states only the end points.",
    )
    warm_up: Fraction = Field(
        description="Fraction of the updates during which the rate rises linearly from 0. The paper mentions none."
    )
    momentum: Fraction = Field(description="SGD momentum (section 4.1: 0.9).")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="SGD weight decay (section 4.1: 0.00005).")
    pooling: Literal["max", "average"] = Field(
        description="Pooling before the classifier. Neither is part of the ranking network."
    )
    crop_height: Positive = Field(description="Height of the random-size crops, in pixels (section 4.1: 224).")
    crop_width: Positive = Field(description="Width of the random-size crops, in pixels (section 4.1: 224).")
    crop_area: Fraction = Field(
        description="Smallest area of a crop, as a fraction of the image. Not stated in the paper; 0.08 is the usual "
        "value.",
    )
    crop_aspect: Literal["pixels", "image"] = Field(
        default="pixels",
        description="Aspect of a crop: width / height from 3/4 to 4/3 in pixels, as torchvision draws them, or up to "
        "exp(±0.6) times that of the image. Not stated in the paper.",
    )
    flip: bool = Field(description="Mirrors half of the crops. The paper names crops only.")
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        default="float32", description="Arithmetic of matrix products and convolutions; tf32 needs a GPU."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.updates is None) == (self.passes is None):
            raise ValueError("give either updates: NUMBER or passes: NUMBER")
        return self

    def length(self, images: int) -> int:
        """Return the number of updates over so many training images."""
        return self.updates or math.ceil((self.passes or 0) * images / self.batch)


class RankingStage(Section):
    """The ranking stage: architecture, triplet loss, mining, schedule, augmentation (sections 3 and 4.1)."""

    pooling: Literal["max", "average", "gem"] = Field(
        description="Pooling of the feature map: maximum, average, or generalised mean with a trained exponent "
        "(Table 3a; the paper's default is max).",
    )
    embedding: Natural = Field(
        description="D, the dimension of the embedding: outputs of the linear layer (section 4.1: 2,048). 0 omits "
        "the layer; the pooled features are then the embedding.",
    )
    largest_side: Annotated[int, Field(ge=16)] = Field(
        description="M: images are scaled, up or down, so that their longer side has this many pixels (section 3.2; "
        "Table 2: 416 by default).",
    )
    margin: Rate = Field(
        description="m, the margin of the triplet loss, as a difference of dot products of unit vectors (equation 1; "
        "section 4.1: 0.1).",
    )
    updates: Positive = Field(
        description="SGD updates (section 4.1: about 4,096 iterations, which count updates, not triplets)."
    )
    batch: Positive = Field(description="b, the triplets per update, of three images each (section 4.1: 64).")
    at_once: Positive = Field(
        description="Images whose activations are in memory together. Limits memory only; the gradient is the same. "
        "Halved if memory runs out.",
    )
    batching: Literal["padded", "sequential"] = Field(
        default="padded",
        description="Accumulation of gradients: padded batches, or one image at a time, as in section 3.2. The "
        "gradient is the same; padded is faster.",
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        default="float32", description="Arithmetic of matrix products and convolutions; tf32 needs a GPU."
    )
    execution: Literal["eager", "compiled", "cuda-graphs"] = Field(
        default="eager",
        description="How PyTorch runs the network: eager, compiled (takes minutes at the start), or compiled and "
        "replayed as CUDA graphs (for images of few sizes). Results are equal up to rounding.",
    )
    deterministic: bool = Field(
        default=True,
        description="On a GPU, only kernels whose sums have a fixed order, so that runs can be repeated. Otherwise "
        "cuDNN takes the fastest.",
    )
    reduction: Literal["mean", "sum"] = Field(
        description="Loss of a batch: mean or sum over its triplets. Not stated in the paper; the choice scales the "
        "gradient by `batch`.",
    )
    batch_norm: Literal["frozen", "affine"] = Field(
        default="frozen",
        description="Scale and bias of batch norm: frozen, or trained (`affine`). Its statistics are always frozen, "
        "as there is no batch when images go one at a time.",
    )
    bias: bool = Field(default=True, description="Whether the linear layer has a bias.")
    learning_rate: Rate = Field(description="Initial learning rate (section 4.1: 0.001).")
    head_rate: Rate = Field(
        default=1.0,
        description="Learning rate of the linear layer, which starts from random values, as a multiple of that of the "
        "backbone. The paper states one rate.",
    )
    halve_every: Positive = Field(description="Updates after which the rate has halved (section 4.1: 512).")
    decay: Literal["continuous", "steps"] = Field(
        default="continuous",
        description='Decay of the rate: continuous, rate × 0.5^(t / halve_every), which is the reading taken of "a '
        'logarithmic rate" (section 4.1), or in steps.',
    )
    warm_up: Fraction = Field(
        description="Fraction of the updates during which the rate rises linearly from 0. The paper mentions none."
    )
    momentum: Fraction = Field(
        description='SGD momentum. Stated for classification only (section 4.1: 0.9, then "again SGD").'
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        description='SGD weight decay. Stated for classification only (section 4.1: 0.00005, then "again SGD").'
    )
    pool: Annotated[int, Field(ge=3)] = Field(
        description="N, the random images in which triplets are mined (section 4.1: 5,000)."
    )
    pool_of: Literal["images", "identities", "tracklets"] = Field(
        default="images",
        description="Whether the pool is drawn image by image; identity by identity, which suits datasets with two or "
        "three images per person; or one random frame of each tracklet, then another, which suits MARS.",
    )
    mining: Literal["hardest", "random"] = Field(
        default="hardest",
        description="Which triplets of a query are drawn: one of the `hardest`, or any positive with any negative, "
        "whatever their loss.",
    )
    positives: Literal["any", "other-camera"] = Field(
        default="any",
        description="Positives of a query: all images of its person, or those of other cameras only, as the tests "
        "count them. The paper mentions no cameras.",
    )
    hardest: Positive = Field(
        description="Triplets of a query with the largest loss, among which one is drawn (section 3.2: 25)."
    )
    satisfied: Literal["redraw", "keep"] = Field(
        default="redraw",
        description="Mined triplets whose loss is zero: drawn again, as in the journal paper that mining follows "
        "([13] of the paper), or kept, without a gradient.",
    )
    refresh: Positive = Field(description="k, the updates between two minings (section 4.1: 16).")
    flip: bool = Field(description="Mirrors half of the images (Table 1).")
    crop: Fraction = Field(
        description="Smallest side of the random window, as a fraction of the image; 0 disables cropping (Table 1; "
        "the paper states no size).",
    )
    views: Literal["independent", "shared"] = Field(
        default="independent",
        description="Augmentation of an image that occurs more than once in a batch: each time another, as three "
        "streams draw them (Figure 2), or the same, which embeds it once.",
    )
    cutout: Fraction = Field(
        description="Largest side of the noise rectangle, as a fraction of the image; 0 disables cut-out. The limit "
        'grows linearly from 0 (section 3.2, "progressively"; the paper states no size).',
    )
    cutout_growth: Fraction = Field(
        default=0.125,
        description="Fraction of the updates over which that limit grows; 0: none, the noise is of its full size from "
        "the start. Not stated in the paper.",
    )
    cutout_regions: Positive = Field(
        default=1,
        description="Noise rectangles per image. Their sides are divided by the square root of their number, so that "
        "together they cover what one would.",
    )
    cutout_least: Fraction = Field(
        default=0.5,
        description="Smallest side of the noise rectangle, as a fraction of the largest at that update.",
    )


class Train(RankingStage):
    """A variant: what the ranking stage starts from, and how it goes on."""

    backbone: Name = Field(description="Backbone to train: a key of `backbones`.")
    pretrain: dict[Key, Any] | bool = Field(
        description="Whether ranking starts from the backbone that was trained to classify identities (Table 3c), or "
        "from its initial weights; or the keys of section `pretrain` that differ for this variant.",
    )


class QeDba(Section):
    """Query expansion and database augmentation (footnote 2)."""

    query_neighbours: Natural = Field(
        description="Neighbours averaged with a query; 0 disables query expansion (footnote 2: 5)."
    )
    database_neighbours: Natural = Field(
        description="Neighbours averaged with a gallery item; 0 disables database augmentation (footnote 2: 10)."
    )


class KReciprocal(Section):
    """k-reciprocal re-ranking (Zhong et al., 2017)."""

    k1: Positive = Field(description="Size of the neighbourhoods to compare.")
    k2: Positive = Field(description="Neighbours whose encodings are averaged.")
    lambda_value: Fraction = Field(
        description="Weight of the original distance; the rest is the weight of the Jaccard distance."
    )


class Evaluate(Section):
    """Protocol choices and the two re-rankings."""

    multi_query: Literal["mean", "max"] = Field(
        description="Pooling of the embeddings of a multi-query. The official script prints both; mean is the usual "
        "one.",
    )
    tracklets: Literal["mean", "max"] = Field(
        description="Pooling of the frames' embeddings. The official script of MARS takes the maximum, TriNet the mean."
    )
    person_search_gallery: Positive = Field(
        description="Scenes in the gallery of a Person Search query: a size for which the release has a list, such "
        "as 50 or 100.",
    )
    qe_dba: QeDba = Field(
        description="Query expansion and database augmentation: the re-ranking of Table 4, by footnote 2."
    )
    k_reciprocal: KReciprocal = Field(description="k-reciprocal re-ranking, which the text cites; reported beside it.")


class Distract(Section):
    """Figure 7: which runs face how many distractors."""

    dataset: Name = Field(description="Dataset whose queries and gallery are used; its format must be market1501.")
    distractors: Name = Field(description="Dataset to take the distractors from; its format must be distractors.")
    variants: list[Name] = Field(description="Variants to evaluate: the curves of Figure 7.")
    sizes: Annotated[list[Natural], Field(min_length=1)] = Field(
        description="Numbers of distractors, ascending. Smaller sets are subsets of larger ones."
    )
    draws: Positive = Field(description="Random orders of the distractors to average over.")
    shards: Positive = Field(description="Jobs among which the embedding of a run's distractors is divided.")
    seed: Natural = Field(default=0, description="Seed of the random orders.")


class Resources(Section):
    """What one job of a stage asks of the scheduler; `threads` also fixes the order of its sums."""

    threads: Positive = Field(
        default=1, description="CPU threads. They determine the order of sums, and so the last digits of results."
    )
    gpu: Natural = Field(default=0, description="GPUs.")
    mem_mb: Positive = Field(default=1500, description="Memory in MB.")
    runtime: Positive = Field(default=30, description="Time limit in minutes.")


class TableRow(Section):
    """A row of Tables 1-3: a variant, its label here, and the label of the paper's row that it stands beside."""

    variant: Name = Field(description="Variant whose scores are shown.")
    label: str = Field(description="Label of the row.")
    paper: str = Field(description="Label of the paper's row to show beside it, as in `reports/paper.csv`.")
    group: str = Field(default="", description="Heading above the row, in tables that have groups.")

    @field_validator("label", "paper", mode="before", json_schema_input_type=str | bool)
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Take a bare yes or no, which YAML reads as a boolean and `dvc exp run -S` writes, as the text it was."""
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class ContactSheet(Section):
    """How much of the rendered people the report shows."""

    identities: Positive = Field(description="Rows of people.")
    lookalikes: Natural = Field(description="Rows of people who resemble the last one.")


class Shown(Section):
    """Whose ranked lists and heat-maps the report shows: one run of each of some datasets."""

    datasets: Annotated[list[Name], Field(min_length=1)] = Field(
        description="Datasets whose ranked lists can be browsed. Figures 1, 4, 5 and 6 show the first."
    )
    variant: Name = Field(description="Variant to show.")
    seed: Natural = Field(description="Seed of the run to show.")
    images: bool = Field(
        description="Embeds thumbnails of people in the page. Check that the dataset's licence allows it."
    )
    activations: Literal["value", "absolute"] = Field(
        default="value",
        description="The strongest activations of Figures 1 and 6: the greatest values, or absolute values.",
    )
    queries: Positive = Field(
        description="Queries per dataset, evenly spaced from the lowest average precision to the highest."
    )


class Report(Section):
    """Tables as lists of variants; what the report says of itself."""

    title: str = Field(description="Title of the report.")
    synthetic: bool = Field(description="States that the images are rendered.")
    command: str = Field(description="Command that reproduces the report.")
    baseline: Name = Field(description="Variant with which the others are compared.")
    allow_missing: bool = Field(
        description="Prints an em dash for a run without scores. Otherwise a missing run is an error."
    )
    contact_sheet: ContactSheet | None = Field(
        default=None, description="Contact sheet of rendered people. If omitted, there is none."
    )
    shown: Shown | None = Field(
        default=None, description="Queries with ranked lists and heat maps. If omitted, none are shown."
    )
    table1: list[TableRow] = Field(default=[], description="Rows of Table 1: augmentation.")
    table2: list[TableRow] = Field(default=[], description="Rows of Table 2: image size.")
    table3: list[TableRow] = Field(
        default=[], description="Rows of Table 3: pooling, backbone, classification before ranking."
    )
    table4: list[TableRow] = Field(default=[], description="Rows of Table 4: the state of the art.")
    readings: dict[Name, str] = Field(
        default={},
        description="Variants that read the paper otherwise, and how, in words: a table of what each changes.",
    )


class Params(Section):
    """A whole experiment."""

    experiment: Name = Field(description="Name of the experiment: that of its folders in `results/` and `reports/`.")
    numerics: Numerics = Field(
        default="portable",
        description="Arithmetic: the same bits on every x86-64 processor with AVX2, or whatever is fastest here "
        "(`docs/numerics.md`).",
    )
    seeds: Annotated[list[Natural], Field(min_length=1)] = Field(
        description="Seeds of training: one run for each. The paper reports one number per cell and no number of runs."
    )
    datasets: dict[Name, Dataset] = Field(description="The datasets, under names of your choice.")
    backbones: dict[Name, Backbone] = Field(description="The networks, under names of your choice.")
    initialise: Initialise = Field(description="Initial weights of the backbones.")
    pretrain: Pretrain = Field(
        description="Classification of the training identities, which precedes ranking (section 4.1)."
    )
    train: Train = Field(description="The ranking stage of the default variant (sections 3 and 4.1).")
    variants: dict[Name, dict[str, Any]] = Field(
        description="Variants of the ranking stage, under names of your choice: the keys of `train` that differ."
    )
    evaluate: Evaluate = Field(description="Choices of the protocols, and the two re-rankings.")
    distract: Distract | None = Field(
        default=None, description="Figure 7, evaluation with distractors. If omitted, there is no such figure."
    )
    report: Report = Field(description="Contents of the report.")
    resources: dict[str, Resources] = Field(
        default={}, description="What a job of each stage requests from the scheduler."
    )

    def variant(self, name: str) -> Train:
        """Give the ranking stage's parameters for a variant: the default with the variant's differences."""
        return Train.model_validate(self.train.model_dump() | self.variants[name])

    def classification(self, variant: Train) -> Pretrain | None:
        """Return the classification stage that a variant starts from: the default with its differences; None if none.

        Raises ValidationError for differences that make no sense.
        """
        if variant.pretrain is False:
            return None
        differing = variant.pretrain if isinstance(variant.pretrain, dict) else {}
        default = self.pretrain.model_dump()
        if not differing.keys().isdisjoint({"updates", "passes"}):
            del default["updates"], default["passes"]
        return Pretrain.model_validate(default | differing)

    def _large_enough(self, key: str, variant: Train) -> None:
        """Refuse sides that the variant's backbone cannot take; an image's shorter side is known when it is read."""
        family = self.backbones[variant.backbone].family
        if family is None:
            return
        sides = {f"{key}.largest_side": variant.largest_side}
        if (pretrain := self.classification(variant)) is not None:
            sides |= {f"pretrain.{side}": getattr(pretrain, side) for side in ("crop_height", "crop_width")}
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
            try:
                self.classification(variant)
            except ValidationError as error:
                raise ValueError("; ".join(_lines(error, f"variants.{name}.pretrain", Pretrain))) from None
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
        check_known("report.readings", self.report.readings, self.variants)
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
    """Tell pydantic's names of a union's branches, such as list[str] or bool, from keys."""
    return isinstance(part, str) and ("[" in part or part == "bool") and part != "[key]"


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
