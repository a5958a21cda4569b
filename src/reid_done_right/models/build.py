"""Build a backbone from its description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reid_done_right.models.backbone import Backbone
from reid_done_right.models.families import Family
from reid_done_right.models.resnet import ResNet


def build(description: Mapping[str, Any]) -> Backbone:
    """Build a backbone, with random weights, as `params.networks.Backbone.described` or weights say."""
    return Family(description["family"]) if "family" in description else ResNet(**description)
