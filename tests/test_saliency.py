"""Grad-CAM against finite differences on a toy network in float64, and the figures that show it."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import render, whole
from reid_done_right.models.build import build
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import Embedder
from reid_done_right.models.saliency import (
    Heat,
    cells,
    embed_maps,
    enlarge,
    grad_cam,
    maps_and_embeddings,
    share_inside,
    shared,
    strongest,
)
from reid_done_right.params.training import Pretrain
from reid_done_right.reporting.figures import house_style, image
from reid_done_right.reporting.pictures import RIGHT, WRONG, List_, figure4, gallery, overlay
from reid_done_right.stages.illustrate import DPI
from reid_done_right.training.classification import train_classifier
from tiny import PARAMS


@pytest.fixture(params=["max", "average"])
def network(request):
    torch.manual_seed(0)
    backbone = build({"block": "basic", "blocks": [1, 1, 1, 1], "width": 2, "last_stride": 1})
    toy = Embedder(backbone, 6, request.param).double().eval()
    return toy


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 32)))


def slow(network, images, dimensions) -> torch.Tensor:
    """Weigh each map by what raising all of it a little does to the strength; no gradient anywhere."""
    with torch.no_grad():
        maps, _ = maps_and_embeddings(network, images)
        weights = torch.zeros(len(images), dimensions.shape[1], maps.shape[1], dtype=maps.dtype)
        step = 1e-6
        for f in range(maps.shape[1]):
            shift = torch.zeros_like(maps)
            shift[:, f] = step
            up, down = (embed_maps(network, maps + sign * shift).gather(1, dimensions).abs() for sign in (1, -1))
            weights[:, :, f] = (up - down) / (2 * step) / (maps.shape[2] * maps.shape[3])
        return F.relu(torch.einsum("bkf,bfhw->bkhw", weights, maps))


def test_grad_cam_agrees_with_finite_differences(network, images):
    dimensions = torch.tensor([[0, 3, 5], [2, 1, 0]])
    expected = slow(network, images, dimensions)
    found = grad_cam(network, images, dimensions)
    assert found.shape == (2, 3, 4, 2) and float(expected.max()) > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_accumulated_strengths_share_one_gradient(network, images):
    """The weights of a sum are the sum of the weights; only the cut at 0 comes after."""
    dimensions = strongest(maps_and_embeddings(network, images)[1].detach(), 4)
    (together,) = grad_cam(network, images, dimensions, accumulate=True).unbind(1)
    apart = grad_cam(network, images, dimensions).sum(1)
    assert (together <= apart + 1e-12).all()  # what is negative of one dimension is cut off only where it stands alone


def test_share_of_heat_inside_a_mask_by_hand():
    heat = np.array([[1, 2, 0], [0, 4, 1]], np.float32)
    mask = np.array([[0, 0.5, 1], [1, 1, 0]], np.float32)
    assert share_inside(heat, mask) == 5 / 8
    assert share_inside(np.ones((2, 3), np.float32), mask) == pytest.approx(mask.mean())  # even heat finds nobody
    assert np.isnan(share_inside(np.zeros((2, 3), np.float32), mask))


@pytest.mark.parametrize("activations", ["value", "absolute"])
def test_attention_is_the_joint_map_of_the_strongest_dimensions(network, images, activations):
    heat, image = Heat(network, activations), images[:1]
    with torch.no_grad():
        which = strongest(network(image), 1, activations)
    where = cells(network, image)
    joint = grad_cam(network, image, which, accumulate=True)[0, 0].float().numpy()
    expected = enlarge(joint, (where.rows, where.columns), where.reach, (64, 32), (128, 64))
    assert heat.many == 1 and np.array_equal(heat.attention(image, (128, 64)), expected)


def test_embeddings_are_the_networks_own(network, images):
    with torch.no_grad():
        torch.testing.assert_close(maps_and_embeddings(network, images)[1], network(images))


@pytest.fixture(scope="module")
def trained():
    """A network that has learned to tell people apart by the colour of their upper half, and images of them."""
    set_up(1)
    generator = np.random.default_rng(0)
    colours, people = generator.integers(0, 256, (6, 3)), np.repeat(np.arange(6), 6)
    pictures = generator.integers(96, 160, (36, 64, 32, 3))
    pictures[:, 8:32, 8:24] = (pictures[:, 8:32, 8:24] + 3 * colours[people][:, None, None]) // 4
    images = Pixels.of(list(pictures.astype(np.uint8)), torch.device("cpu"))
    torch.manual_seed(0)
    made = Embedder(build({"block": "basic", "blocks": [1, 1, 1, 1], "width": 8, "last_stride": 1}), 8, "max")
    crops = {"crop_height": 64, "crop_width": 32, "crop_area": 0.8, "flip": False}
    settings = Pretrain.model_validate(PARAMS["pretrain"] | {"updates": 100, "batch": 18} | crops)
    log = train_classifier(made.backbone, images, people, settings, 0, lambda *_: None)
    assert np.mean([row["accuracy"] for row in log[-5:]]) > 0.7, "nothing was learned"
    shown, _ = render(images, np.arange(4), whole(images.sizes[:4], 64))
    return made.double().eval(), shown.double()


def looked_at(network, images) -> np.ndarray:
    """Return how much each cell (h, w) changes with each pixel (H, W), all colours, by finite differences."""
    step, found = 1e-5, []
    with torch.no_grad():
        for shifts in (step * torch.eye(images.numel(), dtype=images.dtype)).split(512):
            shifts = shifts.view(-1, *images.shape[1:])
            up, down = (network.backbone(images + sign * shifts)[0].sum(1) for sign in (1, -1))
            found.append((up - down).abs())
    changes = torch.cat(found).view(3, *images.shape[2:], *up.shape[1:]).sum(0)
    return changes.permute(2, 3, 0, 1).numpy()


@pytest.mark.slow
def test_cells_are_where_a_trained_network_looks_and_as_wide(trained):
    network, images = trained
    images = images[:1]
    found = cells(network, images)
    assert (np.diff(found.rows) > 3).all() and (np.diff(found.columns) > 1).all()
    seen = looked_at(network, images)
    for axis, centres, reach in ((0, found.rows, found.reach[0]), (1, found.columns, found.reach[1])):
        lines = seen.sum(3 - axis)
        lines, places = lines / lines.sum(2, keepdims=True), np.arange(lines.shape[2])
        expected = lines @ places
        assert centres == pytest.approx(expected.mean(1 - axis), abs=0.1)
        deviation = ((lines * (places - expected[..., None]) ** 2).sum(2) ** 0.5).mean()
        assert reach == pytest.approx(deviation, rel=0.01)
    for row, column in product(range(4), range(2)):
        heat = np.zeros((4, 2), np.float32)
        heat[row, column] = 1
        drawn = enlarge(heat, (found.rows, found.columns), found.reach, (64, 32), (64, 32))
        assert np.unravel_index(drawn.argmax(), drawn.shape) == pytest.approx(
            (found.rows[row], found.columns[column]), abs=1
        )


def test_cells_of_maps_that_see_nothing_are_in_the_middle(network, images):
    for parameter in network.backbone.parameters():
        torch.nn.init.zeros_(parameter)
    found = cells(network, images)
    assert found.rows.tolist() == pytest.approx([31.5] * 4) and found.columns.tolist() == pytest.approx([15.5] * 2)


def test_dimensions_by_hand():
    left, right = torch.tensor([[0.1, -0.8, 0.5]]), torch.tensor([[0.9, -0.2, -0.4]])
    assert strongest(left, 2).tolist() == [[1, 2]]
    assert strongest(left, 2, "value").tolist() == [[2, 0]]
    assert shared(left, right, 3).tolist() == [[1, 0, 2]]  # 0.16, 0.09, -0.20


# --- what is drawn


def picture(value: int) -> np.ndarray:
    return np.full((16, 8, 3), value, np.uint8)


def test_ranked_lists_are_framed_and_signed():
    lists = [List_(picture(9), 0.5, 3, [(picture(50), True), (picture(90), False)])]
    with house_style():
        figure = figure4([("Highest AP", lists)], "title", "subtitle")
    _, right, wrong = figure.axes
    signs = [(axes.texts[0].get_text(), axes.patches[0].get_edgecolor()[:3]) for axes in (right, wrong)]
    assert [sign for sign, _ in signs] == ["✓", "✗"]
    assert right.patches[0].get_linestyle() == "-" and wrong.patches[0].get_linestyle() != "-"
    assert RIGHT != WRONG and signs[0][1] != signs[1][1]
    assert "AP 50.0\n(3)" in {text.get_text() for text in figure.texts}


def test_places_are_as_wide_as_most_pictures_and_do_not_touch():
    for across in (False, True):
        one = picture(9).transpose(1, 0, 2) if across else picture(9)
        with house_style():
            figures = [
                figure4([("a", [List_(one, 0.5, 3, [(one, True), (one, False)])] * 2)], "t", "s"),
                gallery([("a", [(one, None, "b")] * 3)] * 2, 1, "t", "s"),
            ]
        for figure in figures:
            places = [axes.get_position() for axes in figure.axes]
            wide, tall = figure.get_size_inches() * (places[0].width, places[0].height)
            assert (wide > tall) == across
            assert not any(a.overlaps(b) for a, b in combinations(places, 2))


def test_heat_brightens_where_it_is_hot_and_leaves_grey_where_it_is_cold():
    heat = np.zeros((16, 8), np.float32)
    heat[0, 0] = 2
    laid = overlay(picture(60), heat)
    assert laid[0, 0].sum() > 3 * 60 + 100
    assert (laid[8:] == 60).all()
    assert (overlay(picture(60), np.zeros((16, 8), np.float32)) == 60).all()


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_drawn_pictures_are_small_and_the_same_to_the_byte(kind):
    noise = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    with house_style():
        drawn = [image(gallery([("a", [(noise, None, "b")] * 4)], 1, "t", "s"), kind, DPI) for _ in (0, 1)]
    assert drawn[0] == drawn[1]
    if kind == "svg":
        assert b"data:image/jpeg" in drawn[0] and b"data:image/png" not in drawn[0]
        assert b"prefers-color-scheme:dark" in drawn[0]
    assert len(drawn[0]) < 4 * noise.nbytes  # four pictures of noise: nothing compresses them without loss


def test_lists_and_pairs_of_which_there_are_none_leave_room_for_nothing() -> None:
    with house_style():
        for figure in (figure4([("Highest AP", []), ("Lowest AP", [])], "t", "s"), gallery([], 2, "t", "s")):
            assert image(figure, "png")[:4] == b"\x89PNG"
            assert [text.get_text() for axes in figure.axes for text in axes.texts] in ([], ["nothing to show"])
