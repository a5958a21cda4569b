"""Images of mixed sizes in one batch: embeddings and gradients equal those of single images."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_done_right.images.pixels import Pixels
from reid_done_right.models import padding, resnet
from reid_done_right.models.backbone import Backbone, set_batch_norm
from reid_done_right.models.build import build
from reid_done_right.models.embedder import PIXELS, Embedder, embed
from reid_done_right.models.padding import WASTE, batches, halve, mask_of, zero_
from reid_done_right.models.resnet import ResNet

torch.set_num_threads(1)
CPU = torch.device("cpu")
SIZES = [
    (64, 32),
    (64, 30),
    (61, 33),
    (50, 64),
    (33, 29),
    (47, 47),
    (64, 32),
    (31, 63),
]  # odd, even, portrait, landscape

FAMILIES: dict[str, tuple[ModuleType, Callable[[], Backbone]]] = {
    "resnet-basic": (resnet, lambda: ResNet("basic", [1, 2, 1, 1], width=4)),
    "resnet-basic-stride-1": (resnet, lambda: ResNet("basic", [1, 1, 1, 1], width=4, last_stride=1)),
    "resnet-bottleneck": (resnet, lambda: ResNet("bottleneck", [1, 2, 1, 1], width=4)),
    "resnet-bottleneck-stride-1": (resnet, lambda: ResNet("bottleneck", [1, 1, 1, 1], width=4, last_stride=1)),
    "resnext": (resnet, lambda: ResNet("bottleneck", [1, 1, 1, 1], width=8, groups=2, width_per_group=32)),
}


def embedder(family: str, pooling: str = "max", batch_norm: str = "frozen") -> Embedder:
    """Return a small network of a family in float64; batch norm has statistics, scales and biases as after training."""
    torch.manual_seed(0)
    made = Embedder(FAMILIES[family][1](), 6, pooling).double()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)  # so that padding, if forgotten, is not zero
    set_batch_norm(made, batch_norm)
    return made


def images(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in sizes]


def grid(some: Sequence[Tensor], margin: int = 0, noise: float = 0) -> tuple[Tensor, Tensor]:
    """Put images into a grid, `margin` pixels larger than needed, with noise beside them."""
    extent = torch.tensor([image.shape[1:] for image in some])
    height, width = (extent.amax(0) + margin).tolist()
    generator = torch.Generator().manual_seed(2)
    made = noise * torch.randn(len(some), 3, height, width, generator=generator, dtype=torch.float64)
    for place, image in zip(made, some, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return made, extent


def gradients(made: Embedder, rows: Tensor) -> dict[str, Tensor]:
    """Return the gradient of a loss of the embeddings by all parameters that train."""
    made.zero_grad()
    (rows * torch.linspace(-1, 1, rows.numel(), dtype=rows.dtype).view_as(rows)).sum().backward()
    return {name: parameter.grad for name, parameter in made.named_parameters() if parameter.requires_grad}


def error(found: dict[str, Tensor], oracle: dict[str, Tensor]) -> float:
    """Return the relative L2 distance of two gradients."""
    assert found.keys() == oracle.keys()
    apart = sum((found[name] - oracle[name]).square().sum() for name in oracle)
    return float((apart / sum(tensor.square().sum() for tensor in oracle.values())) ** 0.5)


def one_by_one(made: Embedder, some: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    rows = torch.cat([made(image[None]) for image in some])
    return rows.detach(), gradients(made, rows)


# --- exact


@pytest.mark.parametrize("batch_norm", ["frozen", "affine"])
@pytest.mark.parametrize("pooling", ["max", "average", "gem"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padded_batch_is_one_image_at_a_time(family: str, pooling: str, batch_norm: str) -> None:
    made = embedder(family, pooling, batch_norm)
    expected, oracle = one_by_one(made, images())
    trained = {name for name, _ in made.named_parameters()}
    norms = {f"{name}.weight" for name, module in made.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert (norms <= oracle.keys()) is (batch_norm == "affine")
    assert ("pool.p" in oracle) is (pooling == "gem")
    assert oracle.keys() == (trained if batch_norm == "affine" else oracle.keys())
    for margin, noise in ((0, 0.0), (3, 0.0), (32, 100.0)):
        rows = made(*grid(images(), margin, noise))
        assert (rows - expected).norm() <= 1e-12 * expected.norm()
        assert error(gradients(made, rows), oracle) <= 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_each_weight_gets_its_own_gradient(family: str) -> None:
    made = embedder(family, "gem", "affine")
    _, oracle = one_by_one(made, images())
    found = gradients(made, made(*grid(images())))
    for name, gradient in oracle.items():
        assert (found[name] - gradient).norm() <= 1e-9 * gradient.norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_mask_forgotten_anywhere_is_seen(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = embedder(family, "average")
    _, oracle = one_by_one(made, images())
    module, calls, forgotten = FAMILIES[family][0], 0, -1

    def counted(maps: Tensor, mask: Tensor | None) -> Tensor:
        nonlocal calls
        calls += 1
        return maps if calls - 1 == forgotten else zero_(maps, mask)

    monkeypatch.setattr(module, "zero_", counted)
    assert error(gradients(made, made(*grid(images(), 32))), oracle) <= 1e-10
    # a basic block's output is masked for the next block's kernel; after the last there is none
    places, last = range(calls), calls - 1 if "basic" in family else calls
    assert len(places) > 4
    for forgotten in places:
        calls = 0
        wrong = error(gradients(made, made(*grid(images(), 32))), oracle)
        assert (wrong > 1e-4) is (forgotten != last), forgotten


def test_noise_beside_an_image_reaches_no_parameter() -> None:
    made = embedder("resnet-basic", "max")
    some, extent = grid(images(), 8, 1e3)
    some.requires_grad_()
    made(some, extent).sum().backward()
    inside = mask_of(extent, *some.shape[2:]).expand_as(some)
    assert some.grad is not None
    assert some.grad[~inside].abs().max() == 0
    assert some.grad[inside].abs().max() > 0


def test_forward_without_extent_masks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padding, "mask_of", None)
    made = embedder("resnet-bottleneck")
    same = torch.stack(images([(40, 20)] * 3))
    rows = made(same)
    extent = torch.tensor([[40, 20]] * 3)
    torch.testing.assert_close(rows, made(same, extent), rtol=1e-12, atol=1e-14)


def test_padding_has_no_place_in_training_mode_or_where_sizes_cannot_mix() -> None:
    made = embedder("resnet-basic")
    with pytest.raises(ValueError, match="images of mixed sizes cannot share a batch in training mode; batch images"):
        made.train()(*grid(images()))
    made.eval().backbone.pads = False
    with pytest.raises(ValueError, match="images of mixed sizes cannot share a batch with this backbone; batch images"):
        made(*grid(images()))


# --- masks


def test_mask_marks_the_top_left_corner() -> None:
    mask = mask_of(torch.tensor([[2, 3], [1, 1]]), 3, 4)
    assert mask.shape == (2, 1, 3, 4)
    assert mask[0, 0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert mask[1].sum() == mask[1, 0, 0, 0] == 1


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
def test_masks_shrink_as_the_maps_of_an_image_alone(height: int, width: int, margin: int) -> None:
    mask = mask_of(torch.tensor([[height, width]]), height + margin, width + margin)
    for layer in (nn.Conv2d(1, 1, 3, 2, 1), nn.MaxPool2d(3, 2, 1)):
        shrunk = halve(mask)
        assert shrunk is not None
        alone = layer(torch.zeros(1, 1, height, width)).shape[2:]
        assert torch.equal(shrunk, mask_of(torch.tensor([alone]), *layer(mask.float()).shape[2:]))
    assert halve(None) is None


# --- which images go together


sizes_of_people = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), max_size=40)


@given(sizes_of_people, st.integers(1, 9), st.booleans())
@settings(max_examples=200, deadline=None)
def test_batches_hold_each_image_once_and_little_padding(
    sizes: list[tuple[int, int]], at_once: int, pads: bool
) -> None:
    table = np.array(sizes, np.int64).reshape(-1, 2)
    made = batches(table, at_once, pads)
    assert sorted(place for batch in made for place in batch) == list(range(len(sizes)))
    for batch in made:
        assert 1 <= len(batch) <= at_once
        pixels = table[batch].prod(1).sum()
        padded = len(batch) * table[batch].max(0).prod()
        assert padded <= (1 + WASTE) * pixels if pads else padded == pixels
        assert pads or len(np.unique(table[batch], axis=0)) == 1


def test_batches_are_full_where_sizes_allow() -> None:
    people = np.array([(64, 20), (64, 40), (64, 21), (64, 39), (64, 20)])
    assert [batch.tolist() for batch in batches(people, 4, pads=True)] == [[0, 4, 2], [3, 1]]
    assert [batch.tolist() for batch in batches(people, 4, pads=False)] == [[0, 4], [2], [3], [1]]
    assert [len(batch) for batch in batches(np.array([(64, 32)] * 10), 4, pads=False)] == [4, 4, 2]
    assert batches(np.empty((0, 2), np.int64), 4, pads=True) == []


def test_image_too_small_for_the_backbone_is_reported() -> None:
    with pytest.raises(ValueError, match="an image is 64 x 28 pixels, this backbone takes 29 x 29 or more; enlarge"):
        batches(np.array([(64, 32), (64, 28), (31, 31)]), 4, pads=True, smallest=29)


# --- embedding


def pixels(sizes: Sequence[tuple[int, int]]) -> Pixels:
    generator = np.random.default_rng(3)
    return Pixels.of([generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes], CPU)


def embedded(made: Embedder, some: Pixels, places: Sequence[int]) -> NDArray[np.float32]:
    return embed(made, some, np.array(places), 80)


@pytest.mark.parametrize("at_once", [1, 3, 256])
@pytest.mark.parametrize("family", FAMILIES)
def test_embedding_many_is_embedding_each(family: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, some = embedder(family).float(), pixels([(64, 30 + k % 5) for k in range(12)] + SIZES)
    everyone = range(len(some))
    alone = np.concatenate([embedded(made, some, [place]) for place in everyone])
    monkeypatch.setitem(PIXELS, "cpu", at_once * 80 * 80)
    seen: list[int] = []
    made.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    np.testing.assert_allclose(embedded(made, some, everyone), alone, atol=2e-6)
    assert max(seen) <= at_once and sum(seen) == len(some)
    np.testing.assert_allclose(embedded(made, some, everyone[::-1]), alone[::-1], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["densenet121", "inception_v3"])
def test_family_of_torchvision_takes_one_size_at_a_time_exactly(family: str) -> None:
    torch.manual_seed(0)
    made = Embedder(build({"family": family}), 6, "max")
    set_batch_norm(made)
    seen: list[Any] = []
    made.register_forward_pre_hook(lambda _, inputs: seen.append((tuple(inputs[0].shape), inputs[1])))
    some = pixels([(80, 75), (76, 79), (80, 75)])
    together = embedded(made, some, range(3))
    assert seen == [((1, 3, 77, 80), None), ((2, 3, 80, 75), None)]
    seen.clear()
    np.testing.assert_allclose(
        together, np.concatenate([embedded(made, some, [place]) for place in range(3)]), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["densenet121", "inception_v3"])
def test_family_of_torchvision_has_the_gradient_of_one_image_at_a_time(family: str) -> None:
    torch.manual_seed(0)
    made = Embedder(build({"family": family}), 6, "max").double()
    set_batch_norm(made)
    some = images([(75, 75)] * 2)
    expected, oracle = one_by_one(made, some)
    rows = made(torch.stack(some))
    assert (rows - expected).norm() <= 1e-12 * expected.norm()
    assert error(gradients(made, rows), oracle) <= 1e-10
