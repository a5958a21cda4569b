"""SGD and AdamW against PyTorch's own loops, clipping, rates by layer, and training that resumes with the same bits."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reid_done_right.images.pixels import Pixels
from reid_done_right.models.build import build
from reid_done_right.models.embedder import Embedder
from reid_done_right.params.training import Pretrain, RankingStage
from reid_done_right.training.checkpoints import Checkpoints
from reid_done_right.training.classification import train_classifier
from reid_done_right.training.optimizer import Optimizer, layer_rates
from reid_done_right.training.ranking import train_ranking
from test_training import PEOPLE, backbone, embedder, ignore, images, one_thread, pretraining, ranking, same, state

__all__ = ["images", "one_thread"]

MODERN = {"optimizer": "adamw", "weight_decay": 0.05, "layer_decay": 0.5, "clip": 0.01}


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def loss(network: nn.Module, update: int) -> Tensor:
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(update))
    return network(rows).square().sum()  # type: ignore[no-any-return]


def ours(settings: RankingStage, times: float = 1.0) -> nn.Module:
    """Return the layers after five updates, of which the last layer's rate is `times` that of the first."""
    network = layers()
    optimizer = Optimizer(network.parameters(), dict.fromkeys(network[2].parameters(), times), settings)
    for update in range(5):
        optimizer.zero_grad()
        loss(network, update).backward()  # type: ignore[no-untyped-call]
        optimizer.descend(0.01 / (update + 1))
    return network


def plain(network: nn.Module, optimizer: torch.optim.Optimizer, clip: float = 0.0, times: float = 1.0) -> nn.Module:
    for update in range(5):
        optimizer.zero_grad()
        loss(network, update).backward()  # type: ignore[no-untyped-call]
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        for number, group in enumerate(optimizer.param_groups):
            group["lr"] = 0.01 / (update + 1) * (times if number else 1.0)
        optimizer.step()
    return network


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("times", [1.0, 10.0])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_optimizer_takes_the_steps_of_pytorchs_own(kind: str, times: float, clip: float) -> None:
    network = layers()
    groups: list[dict[str, Any]] = [{"params": network[0].parameters()}, {"params": network[2].parameters()}]
    reference: torch.optim.Optimizer
    if kind == "adamw":
        reference = torch.optim.AdamW(groups, betas=(0.8, 0.999), weight_decay=0.1)
    else:
        reference = torch.optim.SGD(groups, momentum=0.8, weight_decay=0.1)
    expected = state(plain(network, reference, clip, times))
    settings = ranking(optimizer=kind, momentum=0.8, weight_decay=0.1, clip=clip)
    assert same(state(ours(settings, times)), expected) == set(expected)
    assert not same(expected, state(ours(ranking(momentum=0.9, weight_decay=0.1, clip=clip), times)))


def test_clip_of_a_short_gradient_changes_nothing() -> None:
    free, clipped = (state(ours(ranking(clip=clip))) for clip in (0.0, 1e6))
    assert same(free, clipped) == set(free)


def test_layer_rates_of_residual_blocks_decay_from_the_last_to_the_stem() -> None:
    network = build({"block": "basic", "blocks": [2, 1, 1, 1], "width": 4})
    rates = {name: layer_rates(network, 0.5)[parameter] for name, parameter in network.named_parameters()}
    assert rates["layer4.0.conv1.weight"] == 0.5 == rates["layer4.0.downsample.0.weight"]
    assert rates["layer3.0.bn2.bias"] == 0.25
    assert (rates["layer1.1.conv1.weight"], rates["layer1.0.conv1.weight"]) == (2**-4, 2**-5)
    assert rates["conv1.weight"] == rates["bn1.weight"] == 2**-6
    assert set(layer_rates(network, 1.0).values()) == {1.0}


class Named(nn.Module):
    """A module whose parameters have given names."""

    def __init__(self, names: str) -> None:
        super().__init__()
        for name in names.split():
            at: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(at, part):
                    at.add_module(part, nn.Module())
                at = getattr(at, part)
            at.register_parameter(last, nn.Parameter(torch.zeros(1)))


@pytest.mark.parametrize(
    ("names", "depths"),
    [
        (
            "pos patch.w blocks.0.a.w blocks.0.b.w blocks.0.c.w blocks.1.a.w blocks.1.b.w blocks.1.c.w norm.w",
            "0011122 2 2",
        ),
        (
            "stem.0.w stem.1.w s.0.blocks.0.a s.0.blocks.0.b s.0.blocks.0.c s.1.down.0 s.1.down.1 s.1.blocks.0.a s.1.blocks.0.b s.1.blocks.0.c",
            "00 111 11 222",
        ),
        (
            "features.0.0.w features.1.0.block.0.w features.1.0.block.1.w features.1.0.c features.1.1.a features.1.1.b features.1.1.c",
            "0 111 222",
        ),
    ],
)
def test_layer_rates_follow_the_numbers_in_names(names: str, depths: str) -> None:
    network = Named(names)
    rates = layer_rates(network, 0.5)
    found = [rates[parameter] for name in names.split() for parameter in [network.get_parameter(name)]]
    steps = [int(depth) for depth in depths.replace(" ", "")]
    assert found == [0.5 ** (max(steps) + 1 - depth) for depth in steps]


def test_layer_decay_of_zero_leaves_the_backbone_and_trains_the_rest(images: Pixels) -> None:
    network = embedder()
    before = state(network)
    train_ranking(network, images, PEOPLE, ranking(layer_decay=0.0, margin=0.5), 0, ignore)
    assert same(before, state(network)) == {name for name in before if not name.startswith("fc.")}


def test_gradient_in_the_log_is_that_before_it_is_clipped(images: Pixels) -> None:
    logs = [
        train_ranking(embedder(), images, PEOPLE, ranking(updates=1, refresh=1, margin=0.5, clip=clip), 0, ignore)
        for clip in (0.0, 1e-3)
    ]
    assert logs[0] == logs[1] and logs[0][0]["gradient"] > 1e-3


def kill(row: Mapping[str, float], images: int) -> None:
    if row["update"] == 4:
        raise KeyboardInterrupt


def whole_and_resumed(
    started: Callable[[], Embedder], images: Pixels, settings: RankingStage, kept: Path
) -> tuple[Embedder, Embedder]:
    """Train a network, and another that is killed and taken up again; they have one log."""
    whole, resumed = started(), started()
    log = train_ranking(whole, images, PEOPLE, settings, 0, ignore)
    with pytest.raises(KeyboardInterrupt):
        train_ranking(started(), images, PEOPLE, settings, 0, kill, Checkpoints(kept, every=1))
    assert train_ranking(resumed, images, PEOPLE, settings, 0, ignore, Checkpoints(kept)) == log
    return whole, resumed


def test_killed_ranking_with_adamw_ends_with_the_bits_of_one_that_was_not(images: Pixels, tmp_path: Path) -> None:
    start = state(embedder())
    whole, resumed = whole_and_resumed(embedder, images, ranking(**MODERN), tmp_path / "checkpoint.safetensors")
    assert same(state(whole), state(resumed)) == set(start)
    assert "backbone.conv1.weight" not in same(state(whole), start)


def test_killed_classifier_with_adamw_ends_with_the_bits_of_one_that_was_not(images: Pixels, tmp_path: Path) -> None:
    settings, kept = pretraining(**MODERN, updates=8, passes=None), tmp_path / "checkpoint.safetensors"
    whole, resumed = backbone(), backbone()
    log = train_classifier(whole, images, PEOPLE, settings, 0, ignore)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(backbone(), images, PEOPLE, settings, 0, kill, Checkpoints(kept, every=1))
    assert train_classifier(resumed, images, PEOPLE, settings, 0, ignore, Checkpoints(kept)) == log
    assert same(state(whole), state(resumed)) == set(state(whole))


@pytest.mark.parametrize("changes", [{"optimizer": "adam"}, {"layer_decay": 1.5}, {"clip": -1.0}])
def test_settings_of_no_optimizer_are_refused(changes: dict[str, Any]) -> None:
    for section, complete in ((RankingStage, ranking()), (Pretrain, pretraining())):
        with pytest.raises(ValueError, match=next(iter(changes))):
            section.model_validate(deepcopy(complete.model_dump()) | changes)
