"""Transforms: sizes, windows and noise within limits; equal pixels in any batch and on both code paths."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from conftest import needs
from reid_done_right.images import transforms
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import (
    MEAN,
    STD,
    Views,
    _by_kernel,
    _by_matrices,
    augmented,
    random_crops,
    render,
    resample,
    resized,
    whole,
)

torch.set_num_threads(1)
CPU = torch.device("cpu")
SIZES = [(32, 16), (32, 20), (32, 16), (24, 32), (32, 20), (32, 16), (40, 16)]


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """Return an image whose every pixel differs from its neighbours: red counts columns, green rows."""
    rows, columns = np.indices((height, width))
    return np.stack([columns, rows, np.full_like(rows, 99)], 2).astype(np.uint8)


def mixed() -> Pixels:
    return Pixels.of([picture(*size, seed) for seed, size in enumerate(SIZES)], CPU)


def grey(images: Pixels, views: Views, places: Sequence[int] | None = None) -> list[NDArray[np.uint8]]:
    """Render, and give the grey levels (h, w, 3) that the network's numbers stand for."""
    at = np.arange(len(images)) if places is None else np.array(places)
    shown, _ = render(images, at, views)
    levels = (shown * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    assert all(
        (one[:, :h, :w] - one[:, :h, :w].round()).abs().max() < 1e-3
        for one, (h, w) in zip(levels, views.size, strict=True)
    )
    return [
        one[:, :h, :w].round().to(torch.uint8).permute(1, 2, 0).numpy()
        for one, (h, w) in zip(levels, views.size.tolist(), strict=True)
    ]


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
def test_largest_side_becomes_m_and_the_aspect_stays(
    size: tuple[int, int], largest: int, expected: tuple[int, int]
) -> None:
    assert resized(np.array([size]), largest).tolist() == [list(expected)]
    shown, extent = render(Pixels.of([picture(*size)], CPU), np.array([0]), whole(np.array([size]), largest))
    assert (tuple(shown.shape), shown.dtype, extent) == ((1, 3, *expected), torch.float32, None)


def test_squares_are_distorted_to_m_by_m() -> None:
    sizes = np.array([(128, 64), (30, 90)])
    assert resized(sizes, 48, square=True).tolist() == [[48, 48]] * 2
    pictures = Pixels.of([picture(*size) for size in sizes.tolist()], CPU)
    views = augmented(sizes, 48, False, 0.0, 0.0, 0.0, 0, 0, np.arange(2), square=True)
    shown, extent = render(pictures, np.arange(2), views)
    clean, _ = render(pictures, np.arange(2), whole(sizes, 48, square=True))
    assert (tuple(shown.shape), extent) == ((2, 3, 48, 48), None)
    assert torch.equal(shown, clean)


@st.composite
def windows(draw: Any) -> tuple[Tensor, Views]:
    """Draw a padded batch of three images and a view of each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    images = torch.from_numpy(rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    sides = np.stack([rng.integers(1, height + 1, 3), rng.integers(1, width + 1, 3)], 1)
    corner = rng.integers(0, [height, width] - sides + 1)
    size = rng.integers(1, draw(st.integers(2, 120)), (3, 2))
    views = Views(
        np.hstack([corner, sides]), size, rng.random(3) < 0.5, np.zeros((3, 1, 4), np.int64), np.zeros(3, np.uint64)
    )
    return images, views


def shown(way: Callable[..., Tensor], images: Tensor, views: Views) -> list[Tensor]:
    grid = tuple(views.size.max(0).tolist())
    return [one[:, :h, :w] for one, (h, w) in zip(way(images, views, grid), views.size.tolist(), strict=True)]


@given(windows())
@settings(max_examples=150, deadline=None)
def test_kernel_and_matrices_agree_to_the_bit_and_with_float_to_a_level(drawn: tuple[Tensor, Views]) -> None:
    images, views = drawn
    by_kernel, by_matrices = shown(_by_kernel, images, views), shown(_by_matrices, images, views)
    for at, (top, left, height, width) in enumerate(views.window.tolist()):
        assert torch.equal(by_kernel[at], by_matrices[at])
        window = images[at : at + 1, :, top : top + height, left : left + width].float()
        oracle = F.interpolate(window, tuple(views.size[at].tolist()), mode="bilinear", antialias=True)[0].round()
        oracle = oracle.flip(2) if views.mirrored[at] else oracle
        assert (by_kernel[at] - oracle).abs().max() <= 1


def test_most_grey_levels_are_those_of_float() -> None:
    smooth = Pixels.of([np.minimum(ramp(128, 64) * 2, 255).astype(np.uint8)], CPU)
    for largest in (64, 200, 416):
        views = whole(smooth.sizes, largest)
        oracle = F.interpolate(
            smooth.batch(np.array([0])).float(), tuple(views.size[0].tolist()), mode="bilinear", antialias=True
        )
        levels = torch.from_numpy(grey(smooth, views)[0]).permute(2, 0, 1)
        assert (levels == oracle[0].round()).float().mean() > 0.75
    noise = Pixels.of([picture(128, 64)], CPU)
    oracle = F.interpolate(noise.batch(np.array([0])).float(), (416, 208), mode="bilinear", antialias=True)
    levels = torch.from_numpy(grey(noise, whole(noise.sizes, 416))[0]).permute(2, 0, 1)
    assert (levels == oracle[0].round()).float().mean() > 0.75


def test_matrices_need_no_float32_settings() -> None:
    images = mixed()
    views = whole(images.sizes, 50)
    batch, grid = images.batch(np.arange(7)), (50, 50)
    before = shown(_by_matrices, batch, views)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu"):
            assert all(map(torch.equal, before, shown(_by_matrices, batch, views)))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert resample(batch, views, grid).dtype == torch.uint8


def test_image_of_the_right_size_is_untouched() -> None:
    original = picture(32, 16)
    assert np.array_equal(grey(Pixels.of([original], CPU), whole(np.array([[32, 16]]), 32))[0], original)


def test_scaling_down_averages() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    images = Pixels.of([np.repeat(checks[:, :, None], 3, 2).astype(np.uint8)], CPU)
    level = grey(images, whole(images.sizes, 16))[0][2:-2, 2:-2].astype(float)
    assert np.abs(level - 127.5).max() < 3  # antialiased: no stripes


# --- rendering


def test_render_pads_with_exact_zeros_outside_extent() -> None:
    images = mixed()
    views = augmented(images.sizes, 20, True, 0.8, 0.5, 0.0, 0, 1, np.arange(7))
    numbers, extent = render(images, np.arange(7), views)
    assert numbers.shape == (7, 3, 20, 20)
    assert numbers.is_contiguous(memory_format=torch.channels_last)
    assert extent is not None
    assert (
        extent.tolist() == views.size.tolist() == [[20, 10], [20, 12], [20, 10], [15, 20], [20, 12], [20, 10], [20, 8]]
    )
    for one, (h, w) in zip(numbers, extent.tolist(), strict=True):
        assert one[:, :h, :w].abs().min() > 0
        assert one[:, h:].eq(0).all() and one[:, :, w:].eq(0).all()


@pytest.mark.parametrize("chunk", [1, 2000, 2**20])
def test_image_is_rendered_the_same_alone_and_among_others(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    images, order = mixed(), np.array([3, 0, 6, 6, 1, 5])
    views = augmented(images.sizes[order], 24, True, 0.7, 0.6, 0.0, 5, 9, order)
    monkeypatch.setitem(transforms.CHUNK, "cpu", chunk)
    together, _ = render(images, order, views)
    for slot, place in enumerate(order.tolist()):
        size = images.sizes[[place]]
        alone, _ = render(images, np.array([place]), augmented(size, 24, True, 0.7, 0.6, 0.0, 5, 9, np.array([place])))
        h, w = views.size[slot]
        assert torch.equal(together[slot, :, :h, :w], alone[0])
    assert torch.equal(together[2], together[3])


def test_threads_change_no_pixel() -> None:
    images = mixed()
    views = augmented(images.sizes, 64, True, 0.7, 0.5, 0.0, 0, 0, np.arange(7))
    one, _ = render(images, np.arange(7), views)
    torch.set_num_threads(2)
    try:
        two, _ = render(images, np.arange(7), views)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, two)


def test_normalisation_is_imagenets() -> None:
    white = Pixels.of([np.full((2, 2, 3), 255, np.uint8)], CPU)
    numbers, _ = render(white, np.array([0]), whole(white.sizes, 2))
    for channel in range(3):
        assert numbers[0, channel].unique().item() == pytest.approx((1 - MEAN[channel]) / STD[channel], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": [[0, 0, 33, 16]]}, "window 0 of 33 x 16 at 0, 0 leaves its 32 x 16 pixels"),
        ({"window": [[-1, 0, 5, 5]]}, "window 0 of 5 x 5 at -1, 0 leaves"),
        ({"window": [[0, 0, 0, 5]]}, "window 0 of 0 x 5"),
        ({"cutout": [[[5, 9, 3, 8]]]}, "cutout 0 of 3 x 8 at 5, 9 leaves its 32 x 16 pixels"),
        ({"size": [[32, 0]]}, "side below one pixel"),
    ],
)
def test_views_that_leave_their_image_are_errors(change: dict[str, Any], message: str) -> None:
    images = Pixels.of([picture(32, 16)], CPU)
    views = replace(whole(images.sizes, 32), **{name: np.array(value) for name, value in change.items()})
    with pytest.raises(ValueError, match=message):
        render(images, np.array([0]), views)


def test_render_rejects_mismatched_views() -> None:
    images = mixed()
    with pytest.raises(ValueError, match="7 views of 2 images"):
        render(images, np.array([0, 1]), whole(images.sizes, 20))
    with pytest.raises(ValueError, match="0 views of 0 images"):
        render(images, np.empty(0, np.int64), whole(images.sizes[:0], 20))
    with pytest.raises(IndexError):
        render(images, np.array([7]), whole(images.sizes[:1], 20))


# --- augmentation

PLAIN = np.array([[100, 50]])


def many(
    updates: int, sizes: NDArray[np.int64] = PLAIN, flip: bool = False, crop: float = 0.0, cutout: float = 0.0
) -> Views:
    """Augment one image over several updates, at its own size."""
    each = [
        augmented(sizes, int(sizes.max()), flip, crop, cutout, 0.0, 0, update, np.array([3]))
        for update in range(updates)
    ]
    return Views(
        *(
            np.concatenate([getattr(one, name) for one in each])
            for name in ("window", "size", "mirrored", "cutout", "key")
        )
    )


@given(st.integers(0, 2**62), st.floats(0, 1), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_noise_stays_within_its_fraction_of_each_side(seed: int, cutout: float, height: int, width: int) -> None:
    original, at = picture(height, width), np.array([0])
    images = Pixels.of([original], CPU)
    views = augmented(images.sizes, max(height, width), False, 0, cutout, 0.0, seed, 1, at)
    rows, columns = np.nonzero((grey(images, views)[0] != original).any(2))
    if len(rows):
        top, left, h, w = views.cutout[0, 0]
        assert top <= rows.min() and rows.max() < top + h and h <= cutout * height
        assert left <= columns.min() and columns.max() < left + w and w <= cutout * width
    assert np.array_equal(images.batch(at)[0].permute(1, 2, 0), original)  # kept for the next updates


def test_noise_fills_its_rectangle_and_nothing_else() -> None:
    images = Pixels.of([np.full((40, 30, 3), 77, np.uint8)] * 2, CPU)
    views = replace(
        whole(images.sizes, 40), cutout=np.array([[[5, 10, 20, 12]], [[0, 0, 0, 9]]]), key=np.array([1, 2], np.uint64)
    )
    noisy, clean = grey(images, views)
    assert (clean == 77).all()
    inside = np.zeros((40, 30), bool)
    inside[5:25, 10:22] = True
    assert (noisy[~inside] == 77).all()
    assert (noisy[inside] == 77).mean() < 0.02
    assert len(np.unique(noisy[inside])) > 100


def test_noise_uses_the_whole_of_its_limit() -> None:
    height, width = many(400, cutout=0.5).cutout[:, 0, 2:].T
    assert 45 < height.max() <= 50
    assert 22 < width.max() <= 25
    assert abs(height.mean() - 25) < 2.5  # uniform sides
    assert abs(np.corrcoef(height, width)[0, 1]) < 0.2


def test_noise_may_lie_anywhere() -> None:
    top, left, height, width = many(400, cutout=0.5).cutout[:, 0].T
    assert top.min() == left.min() == 0
    assert (top + height).max() == 100
    assert (left + width).max() == 50


def test_without_noise_flip_and_crop_nothing_changes() -> None:
    images = mixed()
    plain = whole(images.sizes, 24)
    for update in range(5):
        views = augmented(images.sizes, 24, False, 0, 0, 0.0, 0, update, np.arange(7))
        assert all(map(np.array_equal, grey(images, views), grey(images, plain)))


def test_flipping_mirrors_half_of_the_time() -> None:
    images = Pixels.of([ramp(8, 6)], CPU)
    assert 70 <= many(200, images.sizes, flip=True).mirrored.sum() <= 130
    for view in (whole(images.sizes, 8), replace(whole(images.sizes, 8), mirrored=np.array([True]))):
        expected = ramp(8, 6)[:, ::-1] if view.mirrored[0] else ramp(8, 6)
        assert np.array_equal(grey(images, view)[0], expected)


@given(st.integers(0, 2**62), st.floats(0.05, 1))
@settings(max_examples=50, deadline=None)
def test_crop_window_has_at_least_requested_size(seed: int, crop: float) -> None:
    images = Pixels.of([ramp(60, 40)], CPU)
    after = grey(images, augmented(images.sizes, 60, False, crop, 0, 0.0, seed, 0, np.array([0])))[0].astype(float)
    assert after.shape == (60, 40, 3)
    shown = np.ptp(after[..., 1]) + 1, np.ptp(after[..., 0]) + 1  # rows, columns of the original
    assert shown[0] >= np.floor(crop * 60) - 1
    assert shown[1] >= np.floor(crop * 40) - 1
    assert (after[..., 2] == 99).all()


def test_augmentation_depends_only_on_seed_update_image() -> None:
    def drawn(seed: int, update: int, image: Sequence[int]) -> list[Any]:
        views = augmented(np.tile(PLAIN, (len(image), 1)), 64, True, 0.7, 0.5, 0.0, seed, update, np.array(image))
        return [(views.window[k].tolist(), views.cutout[k].tolist(), int(views.key[k])) for k in range(len(image))]

    assert drawn(1, 2, [5, 8, 5]) == [drawn(1, 2, [5])[0], drawn(1, 2, [8])[0], drawn(1, 2, [5])[0]]
    assert len({str(drawn(*words)) for words in ((1, 2, [5]), (2, 2, [5]), (1, 3, [5]), (1, 2, [6]))}) == 4


def test_copies_of_an_image_are_augmented_independently_and_the_first_as_if_alone() -> None:
    image, copy = np.array([5, 5, 8, 5]), np.array([0, 1, 0, 2])
    views = augmented(PLAIN[[0] * 4], 64, True, 0.7, 0.5, 0.0, 1, 2, image, copy=copy)
    alone = augmented(PLAIN[[0] * 2], 64, True, 0.7, 0.5, 0.0, 1, 2, np.array([5, 8]))
    assert np.array_equal(views.cutout[[0, 2]], alone.cutout) and np.array_equal(views.key[[0, 2]], alone.key)
    assert len({str(views.window[k]) + str(views.cutout[k]) for k in range(4)}) == 4
    assert len(set(views.key.tolist())) == 4


def test_regions_are_independent_and_cover_together_what_one_covers() -> None:
    sizes, image = np.full((2000, 2), 1000), np.arange(2000)
    one = augmented(sizes, 1000, False, 0, 0.4, 0.5, 0, 1, image).cutout
    three = augmented(sizes, 1000, False, 0, 0.4, 0.5, 0, 1, image, regions=3).cutout
    assert three.shape == (2000, 3, 4)
    covered = [cutout[..., 2:].prod(-1).sum(1).mean() / 1e6 for cutout in (one, three)]
    assert covered == pytest.approx([0.3**2, 0.3**2], rel=0.02)
    correlated = np.corrcoef(three.reshape(2000, 12).T) - np.eye(12)
    between = [correlated[4 * a : 4 * a + 4, 4 * b : 4 * b + 4] for a in range(3) for b in range(a)]
    assert np.abs(between).max() < 0.1


def test_every_region_is_filled_with_noise() -> None:
    images = Pixels.of([np.full((200, 100, 3), 99, np.uint8)], CPU)
    views = augmented(images.sizes, 200, False, 0, 0.5, 0.5, 0, 1, np.array([0]), regions=4)
    noisy = (grey(images, views)[0] != 99).any(2)
    inside = np.zeros((200, 100), bool)
    for top, left, height, width in views.cutout[0]:
        inside[top : top + height, left : left + width] = True
    assert not noisy[~inside].any() and noisy[inside].mean() > 0.99


# --- crops of the classification stage


@pytest.mark.parametrize(("size", "area"), [((128, 64), 0.08), ((60, 80), 0.5), ((100, 10), 0.3), ((10, 100), 0.3)])
def test_crops_by_pixels_are_distributed_as_torchvisions(size: tuple[int, int], area: float) -> None:
    count = 4000
    ours = random_crops(np.tile(size, (count, 1)), (224, 224), area, False, 0, 0, np.arange(count), "pixels").window
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [area, 1.0], [3 / 4, 4 / 3]) for _ in range(count)], np.int64
    )
    assert len(np.unique(ours, axis=0)) > (1 if size in ((128, 64), (60, 80)) else 0)
    measures = {
        "area": lambda window: window[:, 2] * window[:, 3],
        "aspect": lambda window: window[:, 2] / window[:, 3],
        "top": lambda window: window[:, 0],
        "left": lambda window: window[:, 1],
        "bottom": lambda window: window[:, 0] + window[:, 2],
        "right": lambda window: window[:, 1] + window[:, 3],
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3, name


def test_crops_by_pixels_are_hardly_distorted_by_a_square() -> None:
    sizes = np.tile([128, 64], (5000, 1))
    for aspect, median in (("pixels", 1.05), ("image", 2.0)):
        window = random_crops(sizes, (224, 224), 0.08, False, 0, 0, np.arange(5000), aspect).window
        assert np.median(window[:, 2] / window[:, 3]) == pytest.approx(median, rel=0.05)


def cropped(images: Pixels, size: tuple[int, int], area: float, flip: bool, seed: int = 0) -> NDArray[np.float64]:
    at = np.arange(len(images))
    return np.stack(grey(images, random_crops(images.sizes, size, area, flip, seed, 0, at))).astype(float)


def test_crops_have_requested_size() -> None:
    assert cropped(mixed(), (24, 12), 0.4, True).shape == (len(SIZES), 24, 12, 3)


def test_crops_differ_with_the_seed() -> None:
    assert np.array_equal(cropped(mixed(), (24, 12), 0.4, True, 1), cropped(mixed(), (24, 12), 0.4, True, 1))
    assert not np.array_equal(cropped(mixed(), (24, 12), 0.4, True, 1), cropped(mixed(), (24, 12), 0.4, True, 2))


def test_crops_differ_and_keep_to_their_image() -> None:
    crops = cropped(Pixels.of([ramp(60, 40)] * 50, CPU), (60, 40), 0.4, False)
    height, width = np.ptp(crops[..., 1], (1, 2)) + 1, np.ptp(crops[..., 0], (1, 2)) + 1
    area = height * width / (60 * 40)
    assert 0.3 < area.min() < 0.5
    assert 0.8 < area.max() <= 1
    assert (crops[..., 2] == 99).all()


def test_crops_with_cutout_are_the_crops_without_it_and_noise() -> None:
    sizes, at = np.full((400, 2), 100), np.arange(400)
    plain, noisy = (
        random_crops(sizes, (80, 40), 0.4, True, 0, 0, at, "pixels", cutout_largest) for cutout_largest in (0.0, 0.5)
    )
    assert np.array_equal(plain.window, noisy.window) and np.array_equal(plain.mirrored, noisy.mirrored)
    assert not plain.cutout[..., 2:].any()
    share = noisy.cutout[:, 0, 2:] / [80, 40]
    assert share.min() == 0.25 and 0.45 < share.max() < 0.5
    images = Pixels.of([ramp(100, 100)] * 400, CPU)
    changed = (np.stack(grey(images, plain)) != np.stack(grey(images, noisy))).any(-1).mean()
    assert changed == pytest.approx(share.prod(1).mean(), rel=0.01)


def test_half_of_the_crops_are_mirrored() -> None:
    crops = cropped(Pixels.of([ramp(30, 30)] * 200, CPU), (30, 30), 1.0, True)
    assert 70 <= (crops[:, 15, -1, 0] < crops[:, 15, 0, 0]).sum() <= 130


@pytest.mark.gpu
@needs("a GPU", torch.cuda.is_available())
def test_gpu_renders_the_same_grey_levels() -> None:
    here, at = mixed(), np.arange(7)
    there = Pixels.of([picture(*size, seed) for seed, size in enumerate(SIZES)], torch.device("cuda"))
    for largest in (16, 24, 100):
        views = augmented(here.sizes, largest, True, 0.7, 0.5, 0.0, 0, 3, at)
        expected, extent = render(here, at, views)
        numbers, gpu_extent = render(there, at, views)
        torch.testing.assert_close(numbers.cpu(), expected, rtol=0, atol=1e-6)  # a grey level is 0.017
        assert extent is not None and gpu_extent is not None and torch.equal(gpu_extent.cpu(), extent)


def test_noise_has_at_least_its_least_share() -> None:
    sizes = np.full((400, 2), 100)
    sides = augmented(sizes, 100, False, 0, 0.4, 0.5, 0, 1, np.arange(400)).cutout[:, 0, 2:]
    assert sides.min() in (20, 21) and sides.max() in (39, 40)
