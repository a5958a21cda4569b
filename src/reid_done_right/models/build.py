"""Build a backbone from its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reid_done_right.models.backbone import Backbone
from reid_done_right.models.families import Family
from reid_done_right.models.libraries import of_timm, of_torchvision
from reid_done_right.models.resnet import ResNet

FOREIGN: dict[str, Callable[[str], Backbone]] = {"timm": of_timm, "torchvision": of_torchvision}
"""Networks of other libraries, by name. A job's key covers only the entry for its parameter `library`."""


def build(description: Mapping[str, Any]) -> Backbone:
    """Build a backbone, with random weights, as `params.networks.Backbone.described` or weights say."""
    library, _, name = description.get("family", "").rpartition(":")
    if library:
        if library not in FOREIGN:
            raise ValueError(f"library {library} is unknown; known: {', '.join(FOREIGN)}")
        return FOREIGN[library](name)
    return Family(description["family"]) if "family" in description else ResNet(**description)
