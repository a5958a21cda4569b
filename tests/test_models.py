"""Networks: torchvision's, key for key and number for number; unit-norm embeddings; weights that do not fit."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from reid.artifacts import InputError, Weights
from reid.data.pixels import Pixels
from reid.models.backbone import Backbone, freeze_statistics, load_state, pool, set_up
from reid.models.embedder import Embedder, backbone_of, embed, embedder_of

torch.set_num_threads(1)
NARROW = {"block": "basic", "blocks": [1, 1, 1, 1], "width": 4, "last_stride": 2}
PUBLISHED = [("resnet18", "basic", (2, 2, 2, 2)), ("resnet50", "bottleneck", (3, 4, 6, 3))]


def narrow() -> Embedder:
    return Embedder(Backbone(**NARROW), 6, "max")


def saved(about: dict[str, object] | None = None) -> Weights:
    return Weights(narrow().state_dict(), {"backbone": NARROW, "embedding": 6, "pooling": "max", **(about or {})})


# --- torchvision's networks


@pytest.mark.parametrize(("name", "block", "blocks"), PUBLISHED)
def test_a_backbone_is_torchvisions_without_its_classifier(name: str, block: str, blocks: Sequence[int]) -> None:
    theirs, ours = torchvision.models.get_model(name).double(), Backbone(block, blocks).double()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [(k, v.shape) for k, v in state.items()]
    assert ours.features == theirs.fc.in_features

    load_state(ours, state, name)
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 96, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # first batch statistics, which change the running ones, then those: the second as if trained, then frozen
    for train in (True, False):
        with torch.inference_mode():
            expected = theirs.train(train)(images)
            maps = ours.train(train)(images)
        assert maps.shape == (2, ours.features, 3, 2)
        torch.testing.assert_close(pool(maps, "average"), expected, rtol=1e-9, atol=1e-9)
    for key, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_folding_frozen_batch_norm_leaves_the_gradient_as_it_is(block: str) -> None:
    kind = {"basic": BasicBlock, "bottleneck": Bottleneck}[block]
    theirs, ours = torchvision.models.ResNet(kind, [1, 1, 1, 1]).double(), Backbone(block, [1, 1, 1, 1]).double()
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs.fc = nn.Identity()
    theirs(images)  # makes the running statistics other than 0 and 1
    load_state(ours, theirs.state_dict(), block)
    for network in (theirs, ours):
        freeze_statistics(network)
    theirs(images).square().sum().backward()
    pool(ours(images), "average").square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    assert len(gradients) > 8
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients.pop(name), rtol=1e-9, atol=1e-12)
    assert gradients == {}


@pytest.mark.parametrize(
    ("block", "last_stride", "shape"),
    [("basic", 2, (32, 3, 2)), ("basic", 1, (32, 6, 4)), ("bottleneck", 1, (128, 6, 4))],
)
def test_width_and_last_stride_shape_the_maps(block: str, last_stride: int, shape: tuple[int, ...]) -> None:
    backbone = Backbone(block, [1, 1, 1, 1], width=4, last_stride=last_stride)
    with torch.inference_mode():
        maps = backbone.eval()(torch.zeros(1, 3, 96, 64))
    assert maps.shape[1:] == shape
    assert backbone.features == shape[0]


def test_first_weights_depend_on_the_seed_alone() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(Backbone(**NARROW).state_dict()["layer4.0.conv1.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_pooling_is_max_or_average_over_space() -> None:
    maps = torch.tensor([[[[1.0, 2], [3, 6]], [[-1, -1], [-1, -9]]]])
    assert pool(maps, "max").tolist() == [[6, -1]]
    assert pool(maps, "average").tolist() == [[3, -3]]


# --- embeddings


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_embeddings_have_unit_norm(pooling: str) -> None:
    embedder = Embedder(Backbone(**NARROW), 6, pooling).eval()
    with torch.inference_mode():
        rows = embedder(torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0)))
    assert rows.shape == (3, 6)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))


def test_embedding_needs_no_training_mode_and_leaves_no_gradient() -> None:
    network = narrow().train()
    images = Pixels.of([np.full((32, 16, 3), value, np.uint8) for value in (10, 200)], torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = (embed(network, images, np.arange(2), 32) for _ in range(2))
    np.testing.assert_array_equal(first, second)  # evaluation mode: batch norm learns nothing from it
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


# --- weights


def test_weights_build_the_network_they_describe() -> None:
    weights = saved()
    embedder = embedder_of(weights, "w")
    assert embedder.pooling == "max"
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in embedder.state_dict().items())
    state = {name.removeprefix("backbone."): tensor for name, tensor in weights.state.items() if "fc." not in name}
    backbone = backbone_of(Weights(state, {"backbone": NARROW}), "w")
    assert torch.equal(backbone.conv1.weight, weights.state["backbone.conv1.weight"])


def test_every_key_that_does_not_fit_is_listed() -> None:
    network = Backbone(**NARROW)
    state = network.state_dict()
    state["bn1.weight"] = torch.zeros(5)
    state["fc.bias"] = torch.zeros(3)
    del state["conv1.weight"]
    before = network.bn1.bias.clone()
    state["bn1.bias"] = before + 1
    with pytest.raises(InputError) as raised:
        load_state(network, state, "weights.safetensors")
    assert str(raised.value) == (
        "weights.safetensors: weights do not fit the network: missing conv1.weight; unexpected fc.bias; "
        "bn1.weight is (5,), expected (4,)"
    )
    assert torch.equal(network.bn1.bias, before)  # nothing was loaded


def test_another_network_does_not_fit() -> None:
    wide = {**NARROW, "width": 8}
    with pytest.raises(InputError, match=r"w.safetensors: weights do not fit the network: backbone.conv1.weight is"):
        embedder_of(saved({"backbone": wide}), "w.safetensors")


def test_a_backbone_is_no_embedder() -> None:
    with pytest.raises(InputError, match=r"w.safetensors: weights of a backbone, not of an embedder"):
        embedder_of(Weights(Backbone(**NARROW).state_dict(), {"backbone": NARROW}), "w.safetensors")


# --- batch norm and device


def test_frozen_statistics_leave_convolutions_free() -> None:
    network = narrow()
    freeze_statistics(network)
    free = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    norms = {f"{name}." for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert not network.training
    assert {"fc.weight", "fc.bias", "backbone.conv1.weight"} <= free
    assert not [name for name in free if name.startswith(tuple(norms))]
    assert len(free) + 2 * len(norms) == len(list(network.parameters()))


def test_setting_up_fixes_the_threads() -> None:
    assert set_up(2).type in ("cpu", "cuda")
    assert torch.get_num_threads() == 2
    set_up(1)
    assert torch.get_num_threads() == 1
