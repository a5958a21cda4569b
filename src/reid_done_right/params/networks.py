"""Sections of the backbones and of their initial weights."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from reid_done_right.params.section import Name, Natural, Positive, Rate, Section

SMALLEST = {"densenet121": 29, "densenet161": 29, "inception_v3": 75}
"""Sides in pixels of the smallest image that a family takes; residual networks take any."""


def _family(name: str) -> str:
    """Return the name of a family, or of a library and one of its networks. Raises ValueError for another."""
    if name not in SMALLEST and not re.fullmatch(r"[a-z]+:[\w.]+", name):
        raise ValueError(
            f"Input should be {', '.join(map(repr, SMALLEST))}, torchvision:NAME or timm:NAME, not {name!r}"
        )
    return name


class Backbone(Section):
    """A residual network in torchvision's layout, or one of another family by torchvision's name.

    Width 64 and last_stride 2 make the published residual networks; of these, groups 32 and width_per_group 4 or 8 make
    ResNeXt.
    """

    family: Annotated[str, AfterValidator(_family)] | None = Field(
        default=None,
        description="Network of another family, with a shape of its own: densenet121, densenet161 or inception_v3, or "
        "any that maps an image to features, by the name in its library: `torchvision:NAME`, or `timm:NAME` with the "
        "extra `timm`. If omitted, a residual network with the keys below.",
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
        if max(sum(self.blocks or []), self.width, self.groups, self.width_per_group) > 2**14:
            raise ValueError("more than 16,384 blocks, channels or groups, which no network has")
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError("groups and width_per_group are for block: bottleneck")
        if self.width * self.width_per_group < 64:
            raise ValueError(
                f"width_per_group {self.width_per_group} leaves no channel at width {self.width}; enlarge one"
            )
        return self

    @property
    def library(self) -> str:
        """The library that the network is from; none: this one."""
        return (self.family or "").rpartition(":")[0]

    def described(self) -> dict[str, Any]:
        """Return what the network is built from, as `reid_done_right.models.build.build` takes it."""
        if self.family is not None:
            return {"family": self.family}
        return self.model_dump(exclude={"family"})


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
        default=None,
        description="Weights of your own: a file for each backbone, such as what another experiment trained. With "
        "`{draw}` in its path, every draw has its own.",
    )
    seed: Natural = Field(default=0, description="Seed of the initial weights.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(kind is not None for kind in (self.objects, self.imagenet, self.checkpoints)) != 1:
            raise ValueError("give one of objects: {...}, imagenet: IMAGENET1K_V1 and checkpoints: {BACKBONE: FILE}")
        return self
