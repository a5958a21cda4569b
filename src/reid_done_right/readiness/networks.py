"""Check the backbones of other libraries before a run: that they are there, and take images of the sizes asked for."""

from __future__ import annotations

from reid_done_right.artifacts import InputError
from reid_done_right.params import Params


def check_networks(params: Params) -> None:
    """Raise InputError for a backbone that its library lacks, or a side that it cannot take, naming the key."""
    for name, layers in params.backbones.items():
        if not layers.library:
            continue
        import torch  # takes seconds, which only these networks need

        from reid_done_right.models.build import build

        try:
            with torch.device("meta"):
                smallest = build(layers.described()).smallest
            for variant in params.variants:
                if (train := params.variant(variant)).backbone == name:
                    params.check_sides(f"variants.{variant}", train, smallest)
        except ValueError as error:
            raise InputError(f"backbones.{name}: {error}") from None
