"""Sections of the two stages of training: classification, then ranking."""

from typing import Annotated, Literal

from pydantic import Field

from reid_done_right.params.section import Fraction, Name, Natural, Positive, Rate, Section


class Pretrain(Section):
    """Classification of the training identities (section 4.1 of the paper)."""

    updates: Positive = Field(
        description="SGD updates. Not stated in the paper; 6,000 are about 60 epochs of Market-1501."
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
    flip: bool = Field(description="Mirrors half of the crops.")
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        default="float32", description="Arithmetic of matrix products and convolutions; tf32 needs a GPU."
    )


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
    learning_rate: Rate = Field(description="Initial learning rate (section 4.1: 0.001), also of the linear layer.")
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
    pool_of: Literal["images", "identities"] = Field(
        default="images",
        description="Whether the pool is drawn image by image, or identity by identity, which suits datasets with "
        "two or three images per person.",
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
    cutout: Fraction = Field(
        description="Largest side of the noise rectangle at the end of training, as a fraction of the image; 0 "
        'disables cut-out. The limit grows linearly from 0 (section 3.2, "progressively"; the paper '
        "states no size).",
    )
    cutout_least: Fraction = Field(
        default=0.5,
        description="Smallest side of the noise rectangle, as a fraction of the largest (`cutout` at the end).",
    )


class Train(RankingStage):
    """A variant: what the ranking stage starts from, and how it goes on."""

    backbone: Name = Field(description="Backbone to train: a key of `backbones`.")
    pretrain: bool = Field(
        description="Whether ranking starts from the backbone that was trained to classify identities (Table 3c), or "
        "from its initial weights.",
    )
