"""Images into networks: sizes, fractions and noise within their limits; mixed sizes equal one image at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reid.functional.transforms import (
    MEAN,
    STD,
    apply_by_size,
    augment,
    by_size,
    normalise,
    random_crops,
    resize,
)
from reid.models.backbone import freeze_statistics
from reid.models.embedder import Embedder, embed
from reid.models.resnet import ResNet

torch.set_num_threads(1)
SIZES = [(32, 16), (32, 20), (32, 16), (24, 32), (32, 20), (32, 16), (40, 16)]


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def ramp(height: int, width: int) -> Tensor:
    """Give an image whose every pixel differs from its neighbours: red counts columns, green rows."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, 99)]).to(torch.uint8)


# --- resize


@pytest.mark.parametrize(
    ("size", "largest", "expected"),
    [
        ((128, 64), 64, (64, 32)),
        ((64, 128), 64, (32, 64)),
        ((10, 5), 40, (40, 20)),  # upwards too
        ((100, 33), 64, (64, 21)),  # 21.12
        ((100, 34), 64, (64, 22)),  # 21.76
        ((300, 1), 64, (64, 1)),  # never nothing
        ((64, 20), 64, (64, 20)),
    ],
)
def test_the_largest_side_becomes_m_and_the_aspect_stays(
    size: tuple[int, int], largest: int, expected: tuple[int, int]
) -> None:
    scaled = resize([np.zeros((*size, 3), np.uint8)], largest)[0]
    assert (tuple(scaled.shape), scaled.dtype) == ((3, *expected), torch.uint8)


def test_resizing_keeps_order_and_colours() -> None:
    images = [np.full((20 + k % 3, 10, 3), (k, 100 + k, 200), np.uint8) for k in range(9)]
    for k, scaled in enumerate(resize(images, 30)):
        assert scaled.amax((1, 2)).tolist() == scaled.amin((1, 2)).tolist() == [k, 100 + k, 200]


def test_an_image_of_the_right_size_is_untouched() -> None:
    original = image(32, 16)
    assert torch.equal(resize([original.permute(1, 2, 0).numpy()], 32)[0], original)


def test_scaling_down_averages() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    grey = resize([np.repeat(checks[:, :, None], 3, 2).astype(np.uint8)], 16)[0]
    assert grey[:, 2:-2, 2:-2].float().sub(127.5).abs().max() < 3  # antialiased: no stripes


def test_an_image_is_resized_the_same_alone_and_among_others() -> None:
    images = [image(*size, seed).permute(1, 2, 0).numpy() for seed, size in enumerate(SIZES)]
    for alone, among in zip([resize([one], 20)[0] for one in images], resize(images, 20), strict=True):
        assert torch.equal(alone, among)


# --- same sizes together


def test_places_are_grouped_by_size_in_order() -> None:
    assert by_size([image(*size) for size in SIZES]) == [[0, 2, 5], [1, 4], [3], [6]]
    assert by_size([]) == []


def network(dtype: torch.dtype = torch.float64) -> Embedder:
    torch.manual_seed(0)
    made = Embedder(ResNet("basic", [1, 1, 1, 1], width=4), 6, "max").to(dtype)
    freeze_statistics(made)
    return made


def embeddings_and_gradient(made: Embedder, run: Callable[[nn.Module], Tensor]) -> tuple[Tensor, list[Tensor]]:
    made.zero_grad()
    rows = run(made)
    (rows * torch.linspace(-1, 1, rows.numel()).view_as(rows)).sum().backward()
    return rows.detach(), [p.grad for p in made.parameters() if p.grad is not None]


@pytest.mark.parametrize("batch", [1, 2, 256])
def test_by_size_equals_one_by_one_with_its_gradient(batch: int) -> None:
    made, images = network(), [image(*size, seed) for seed, size in enumerate(SIZES)]
    rows, gradient = embeddings_and_gradient(made, lambda net: apply_by_size(lambda x: net(x.double()), images, batch))
    alone, alone_gradient = embeddings_and_gradient(
        made, lambda net: torch.cat([net(normalise(one[None]).double()) for one in images])
    )
    assert torch.allclose(rows, alone, rtol=1e-10, atol=1e-14)
    assert len(gradient) == len(alone_gradient) > 5
    for mine, oracle in zip(gradient, alone_gradient, strict=True):
        assert (mine - oracle).norm() <= 1e-10 * oracle.norm()


def test_batches_are_filled_to_multiples_of_eight_and_no_larger_than_asked() -> None:
    seen: list[int] = []

    def count(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return batch.mean((2, 3))

    images = [image(8, 8, seed) for seed in range(21)]
    rows = apply_by_size(count, images, batch=16)
    assert seen == [16, 8]
    assert torch.allclose(rows, torch.stack([normalise(one[None])[0].mean((1, 2)) for one in images]), atol=1e-6)


def test_one_image_and_eight_have_the_same_embedding() -> None:
    made, device = network(torch.float32), torch.device("cpu")
    images = [image(32, 16, seed) for seed in range(8)]
    together = embed(made, images, device)
    alone = np.concatenate([embed(made, [one], device) for one in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_normalisation_is_imagenets() -> None:
    white = normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    for channel in range(3):
        assert white[0, channel].unique().item() == pytest.approx((1 - MEAN[channel]) / STD[channel], rel=1e-6)


# --- augmentation


def changed(before: Tensor, after: Tensor) -> tuple[int, int]:
    """Give height and width of the smallest window that holds every changed pixel; 0, 0 if none."""
    rows, columns = np.nonzero((before != after).any(0).numpy())
    return (0, 0) if len(rows) == 0 else (np.ptp(rows) + 1, np.ptp(columns) + 1)


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_noise_stays_within_its_fraction_of_each_side(seed: int, cutout: float, height: int, width: int) -> None:
    original = image(height, width)
    before = original.clone()
    after = augment(original, False, 0, cutout, np.random.default_rng(seed))
    h, w = changed(before, after)
    assert h <= cutout * height
    assert w <= cutout * width
    assert (tuple(after.shape), after.dtype) == ((3, height, width), torch.uint8)
    assert torch.equal(original, before)  # the image kept for the next updates


def test_noise_uses_the_whole_of_its_limit() -> None:
    original = image(100, 50)
    windows = [changed(original, augment(original, False, 0, 0.5, np.random.default_rng(k))) for k in range(300)]
    height, width = np.array(windows).T
    assert 45 < height.max() <= 50
    assert 22 < width.max() <= 25
    assert abs(height.mean() - 25) < 2.5  # uniform sides


def test_without_noise_flip_and_crop_nothing_changes() -> None:
    original = image(30, 20)
    for seed in range(20):
        assert torch.equal(augment(original, False, 0, 0, np.random.default_rng(seed)), original)


def test_flipping_mirrors_half_of_the_time() -> None:
    original, mirrored = ramp(8, 6), ramp(8, 6).flip(2)
    flipped = 0
    for seed in range(200):
        after = augment(original, True, 0, 0, np.random.default_rng(seed))
        assert torch.equal(after, original) or torch.equal(after, mirrored)
        flipped += torch.equal(after, mirrored)
    assert 70 <= flipped <= 130


@given(st.integers(0, 2**32), st.floats(0.05, 1))
@settings(max_examples=50, deadline=None)
def test_a_crop_shows_a_window_no_smaller_than_asked(seed: int, crop: float) -> None:
    after = augment(ramp(60, 40), False, crop, 0, np.random.default_rng(seed)).float()
    assert after.shape == (3, 60, 40)
    shown = after[1].max() - after[1].min() + 1, after[0].max() - after[0].min() + 1  # rows, columns of the original
    assert shown[0] >= np.floor(crop * 60) - 1
    assert shown[1] >= np.floor(crop * 40) - 1
    assert (after[2] == 99).all()


def test_augmentation_depends_on_the_generator_alone() -> None:
    original = image(40, 20)

    def several(seed: int) -> Tensor:
        generator = np.random.default_rng(seed)
        return torch.stack([augment(original, True, 0.7, 0.5, generator) for _ in range(5)])

    assert torch.equal(several(1), several(1))
    assert not torch.equal(several(1), several(2))


# --- crops of the classification stage


def test_crops_have_the_size_asked_for_whatever_the_images() -> None:
    images = [image(*size, seed) for seed, size in enumerate(SIZES)]
    crops = random_crops(images, (24, 12), 0.4, True, np.random.default_rng(0))
    assert (tuple(crops.shape), crops.dtype) == ((len(SIZES), 3, 24, 12), torch.uint8)


def test_crops_depend_on_the_generator_alone() -> None:
    images = [image(30, 20, seed) for seed in range(4)]
    first, same, other = (random_crops(images, (24, 12), 0.4, True, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_crops_differ_and_keep_to_their_image() -> None:
    crops = random_crops([ramp(60, 40)] * 50, (60, 40), 0.4, False, np.random.default_rng(0)).float()
    height = crops[:, 1].amax((1, 2)) - crops[:, 1].amin((1, 2)) + 1
    width = crops[:, 0].amax((1, 2)) - crops[:, 0].amin((1, 2)) + 1
    area = height * width / (60 * 40)
    assert 0.3 < area.min() < 0.5
    assert 0.8 < area.max() <= 1
    assert (crops[:, 2] == 99).all()


def test_half_of_the_crops_are_mirrored() -> None:
    crops = random_crops([ramp(30, 30)] * 200, (30, 30), 1.0, True, np.random.default_rng(0)).float()
    mirrored = (crops[:, 0, 15, -1] < crops[:, 0, 15, 0]).sum().item()
    assert 70 <= mirrored <= 130
