"""Check the backbones of other libraries before a run: that they are there, and take images of the sizes asked for."""

from __future__ import annotations

from reid_done_right.artifacts import InputError
from reid_done_right.params import Params
from reid_done_right.params.networks import SMALLEST, Backbone


def smallest(layers: Backbone) -> int:
    """Return the side in pixels of the smallest image that a backbone takes; another library's is built to know it."""
    if not layers.library:
        return SMALLEST.get(layers.family or "", 1)
    import torch  # takes seconds, which only these networks need

    from reid_done_right.models.build import build

    with torch.device("meta"):
        return build(layers.described()).smallest


def check_networks(params: Params) -> None:
    """Raise InputError for a backbone that its library lacks, or a side that it cannot take, naming the key."""
    for name, layers in params.backbones.items():
        if not layers.library:
            continue
        try:
            least = smallest(layers)
            for variant in params.variants:
                if (train := params.variant(variant)).backbone == name:
                    params.check_sides(f"variants.{variant}", train, least)
        except ValueError as error:
            raise InputError(f"backbones.{name}: {error}") from None
