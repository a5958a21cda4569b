"""Sections of the two stages of training: classification, then ranking."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from reid_done_right.params.section import Fraction, Key, Name, Natural, Positive, Rate, Section


class Descent(Section):
    """How the weights of a stage follow the gradient, besides their rate and its decay."""

    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd",
        description="SGD with momentum, as in the paper, or AdamW, for transformers. AdamW takes `momentum` for the "
        "decay of its mean (0.9 is usual), 0.999 for that of the squares, and `weight_decay` apart from the gradient.",
    )
    momentum: Fraction = Field(description="Momentum of SGD.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(description="Weight decay.")
    layer_decay: Fraction = Field(
        default=1.0,
        description="Learning rate of each block of the backbone as a multiple of that of the next one; that of the "
        "last block as a multiple of that of the layers after the backbone. 0.65 to 0.8 is usual for transformers; "
        "1: one rate, as in the paper; 0: the backbone stays as it is.",
    )
    clip: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Largest joint norm of the gradient; a larger one is scaled down to it. 0: no limit, as in the "
        "paper.",
    )

    @model_validator(mode="after")
    def _mean(self) -> Self:
        if self.optimizer == "adamw" and self.momentum == 1:
            raise ValueError("momentum: with optimizer: adamw, it is less than 1; 0.9 is usual")
        return self


class Pretrain(Descent):
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
    cutout: Fraction = Field(
        default=0.0,
        description="Largest side of a noise rectangle in each crop, as a fraction of the crop; the smallest is half "
        "of it. 0 disables cut-out. The paper names cut-out for ranking only.",
    )
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


class RankingStage(Descent):
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
    aspect: Literal["kept", "square"] = Field(
        default="kept",
        description="Images keep their aspect ratio (section 3.2), or both sides are scaled to M, as the paper says of "
        "others.",
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
    batch_norm: Literal["frozen", "affine", "statistics"] = Field(
        default="frozen",
        description="What batch norm learns: nothing, scale and bias (`affine`), or these and its statistics. The "
        "latter are then of one image at a time, as that is what passes through the network in section 3.2, and need "
        "`batching: sequential` and `execution: eager`.",
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
    average: Fraction = Field(
        default=0.0,
        description="Fraction of the updates, the last ones, after each of which the model counts once for a mean, "
        "which replaces it at the end; 0: the last model. The paper mentions no average.",
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

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.batch_norm == "statistics" and (self.batching, self.execution) != ("sequential", "eager"):
            raise ValueError(
                "batch_norm: statistics are of one image at a time: set batching: sequential and execution: eager"
            )
        return self

    @property
    def averaged(self) -> int:
        """The number of last updates whose models are averaged; 0: none."""
        return max(1, round(self.average * self.updates)) if self.average else 0


class Train(RankingStage):
    """A variant: what the ranking stage starts from, and how it goes on."""

    backbone: Name = Field(description="Backbone to train: a key of `backbones`.")
    initial: Literal["given", "random"] = Field(
        default="given", description="Initial weights of the backbone: those of section `initialise`, or random ones."
    )
    pretrain: dict[Key, Any] | bool = Field(
        description="Whether ranking starts from the backbone that was trained to classify identities (Table 3c), or "
        "from its initial weights; or the keys of section `pretrain` that differ for this variant.",
    )
