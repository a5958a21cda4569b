"""Backbones of torchvision and timm, all small or without memory: their maps, sides, weights, training and heat maps."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small

from models import write_model
from reid_done_right.artifacts import InputError, Weights, read_weights, write_weights
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import MEAN, STD
from reid_done_right.models.build import build
from reid_done_right.models.embedder import Embedder, backbone_of, embedder_of
from reid_done_right.models.libraries import Foreign, _features, of_timm, of_torchvision
from reid_done_right.models.saliency import grad_cam
from reid_done_right.params import Params
from reid_done_right.params.networks import Backbone
from reid_done_right.readiness import probe
from reid_done_right.readiness.networks import check_networks
from reid_done_right.reporting.card import Card, write_card
from reid_done_right.stages.export import export
from reid_done_right.stages.initialise import initialise
from reid_done_right.training.classification import train_classifier
from test_optimizer import MODERN, whole_and_resumed
from test_params import changed
from test_saliency import slow
from test_training import PEOPLE, ignore, images, one_thread, pretraining, ranking, same, state

__all__ = ["images", "one_thread"]

TINY = ["timm:test_vit", "timm:test_convnext", "timm:test_efficientnet", "torchvision:mobilenet_v3_small"]


def tiny_swin() -> Foreign:
    """Return a Swin transformer of two stages, as timm has none so small under a name."""
    torch.manual_seed(0)
    shape = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2)}
    network = timm.models.SwinTransformer(num_classes=0, dynamic_img_size=True, **shape)
    return Foreign("timm:swin", network, _features, smallest=8, patch=4)


def made(family: str) -> Any:
    torch.manual_seed(0)
    return tiny_swin() if family == "timm:swin" else build({"family": family})


# --- their maps


@pytest.mark.parametrize(
    ("family", "channels", "side"),
    [
        ("timm:vit_small_patch14_dinov2", 384, 14),
        ("timm:vit_base_patch14_dinov2.lvd142m", 768, 14),
        ("timm:vit_small_patch16_dinov3", 384, 16),
        ("timm:convnext_tiny", 768, 32),
        ("timm:swin_tiny_patch4_window7_224", 768, 32),
        ("timm:efficientnet_b0", 1280, 32),
        ("torchvision:convnext_tiny", 768, 32),
        ("torchvision:swin_t", 768, 32),
        ("torchvision:efficientnet_b0", 1280, 32),
    ],
)
def test_published_networks_have_maps_of_any_size_and_nothing_random(family: str, channels: int, side: int) -> None:
    with torch.device("meta"):
        network = build({"family": family})
        maps, mask = network(torch.zeros(2, 3, 9 * side, 4 * side))
    assert maps.shape == (2, channels, 9, 4) and mask is None
    assert (network.channels, network.smallest, network.pads, network.portable) == (channels, side, False, False)
    random = [
        part for part in network.modules() if "Drop" in type(part).__name__ or "Stochastic" in type(part).__name__
    ]
    assert (
        random and all(getattr(part, "p", 0) == getattr(part, "drop_prob", 0) == 0 for part in random)
    ) or not random


@pytest.mark.parametrize("family", ["timm:test_vit", "timm:test_convnext", "timm:swin"])
def test_maps_are_those_that_timm_gives(family: str) -> None:
    network = made(family).eval()
    network.scale, network.shift = [1.0] * 3, [0.0] * 3
    shown = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        (expected,) = network.network.forward_intermediates(
            shown, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        torch.testing.assert_close(network(shown)[0], expected)


def test_maps_of_torchvision_are_what_its_classifier_pools() -> None:
    torch.manual_seed(0)
    whole = mobilenet_v3_small().eval()
    network = of_torchvision("mobilenet_v3_small").eval()
    network.adopt({f"module.{name}": tensor for name, tensor in whole.state_dict().items()}, "file")
    shown = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole.classifier(network(shown)[0].mean((2, 3))), whole(shown))


def test_images_are_normalised_as_the_weights_expect() -> None:
    grey = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    network = Foreign("own", nn.Conv2d(3, 2, 1), lambda inner, taken: inner(taken), mean=(0.5,) * 3, std=(0.25,) * 3)
    with torch.no_grad():
        found, _ = network((grey - mean) / std)
        torch.testing.assert_close(found, network.network((grey - 0.5) / 0.25))
    half = of_timm("test_vit")
    assert (half.scale, half.shift) == ([each / 0.5 for each in STD], [(each - 0.5) / 0.5 for each in MEAN])


@pytest.mark.parametrize(("height", "width", "taken"), [(64, 32, (64, 32)), (70, 47, (64, 48)), (72, 40, (80, 48))])
def test_sides_are_rounded_to_the_patch_and_the_log_says_so_once(
    height: int, width: int, taken: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    network = made("timm:test_vit").eval()
    shown = torch.randn(1, 3, height, width)
    with torch.no_grad():
        twice = [network(shown)[0] for _ in range(2)]
        torch.testing.assert_close(twice[0], network(F.interpolate(shown, taken, mode="bilinear"))[0])
    assert twice[0].shape[2:] == (taken[0] // 16, taken[1] // 16)
    told = (
        f"timm:test_vit: sides are rounded to multiples of 16: {height} x {width} pixels become {taken[0]} x {taken[1]}"
    )
    assert capsys.readouterr().err.count(told) == ((height, width) != taken)


def test_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="an image is 64 x 12 pixels, this backbone takes 16 x 16 or more"):
        made("timm:test_vit")(torch.zeros(1, 3, 64, 12))


# --- weights


@pytest.mark.parametrize("family", [*TINY, "timm:swin"])
def test_file_of_the_library_is_adopted_without_its_classifier(family: str) -> None:
    source, network = made(family), made(family)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    inside = source.network.state_dict()
    network.adopt(
        {f"model.{name}": tensor for name, tensor in inside.items()} | {"model.head.fc.bias": Tensor(1000)}, "f"
    )
    assert same(state(source), state(network)) == set(state(source))
    with pytest.raises(InputError, match=r"weights do not fit the network: missing "):
        network.adopt({name: tensor for number, (name, tensor) in enumerate(inside.items()) if number != 3}, "file")


def test_file_of_dinov3s_authors_is_translated() -> None:
    network = of_timm("vit_small_patch16_dinov3")
    own = state(network.network)
    theirs = {
        name.replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma")
        .replace("reg_token", "storage_tokens"): tensor
        for name, tensor in own.items()
    }
    theirs |= {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.zeros(16)}
    expected = state(network)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    network.adopt(theirs, "dinov3_vits16.pth")
    assert theirs.keys() != own.keys() and same(expected, state(network)) == set(expected)


def test_initial_weights_from_a_file_are_of_native_arithmetic(tmp_path: Path) -> None:
    torch.save(made("timm:test_convnext").network.state_dict(), tmp_path / "file.pth")
    settings = {"backbone": {"family": "timm:test_convnext"}, "threads": 1, "seed": 1}
    initialise(settings=settings, out=tmp_path / "b.safetensors", weights=tmp_path / "file.pth")
    written = read_weights(tmp_path / "b.safetensors")
    assert written.about["numerics"] == "native"
    expected = state(made("timm:test_convnext"))
    assert same(expected, state(backbone_of(written, "b"))) == set(expected)


# --- training and heat maps


@pytest.mark.parametrize("family", ["timm:test_vit", "timm:test_efficientnet"])
def test_killed_training_ends_with_the_bits_of_one_that_was_not(family: str, images: Pixels, tmp_path: Path) -> None:
    settings = ranking(**MODERN, updates=6, largest_side=64)
    size = {"crop_height": 64, "crop_width": 32}

    def started() -> Embedder:
        backbone = made(family)
        train_classifier(backbone, images, PEOPLE, pretraining(**MODERN, **size, updates=1, passes=None), 0, ignore)
        return Embedder(backbone, 8, "average")

    before = state(started())
    whole, resumed = whole_and_resumed(started, images, settings, tmp_path / "checkpoint.safetensors")
    assert same(state(whole), state(resumed)) == set(before) != same(before, state(whole))
    about = {"backbone": {"family": family}, "embedding": 8, "pooling": "average", "largest_side": 64}
    write_weights(tmp_path / "e.safetensors", Weights(whole.state_dict(), about))
    loaded = embedder_of(read_weights(tmp_path / "e.safetensors"), "e")
    assert same(state(whole), state(loaded)) == set(before)


@pytest.mark.parametrize("family", ["timm:test_vit", "timm:test_convnext", "timm:swin", "timm:test_efficientnet"])
def test_heat_maps_agree_with_finite_differences(family: str) -> None:
    network = Embedder(made(family), 4, "average").double().eval()
    shown = torch.randn(1, 3, 64, 32, dtype=torch.float64)
    dimensions = torch.tensor([[0, 2]])
    found = grad_cam(network, shown, dimensions)
    torch.testing.assert_close(found, slow(network, shown, dimensions), rtol=1e-4, atol=1e-8)
    assert float(found.max()) > 0


def test_card_says_to_what_sides_are_rounded() -> None:
    about = {"backbone": {"family": "timm:test_vit"}, "pooling": "max", "embedding": 8, "largest_side": 64}
    about |= {"collapsed": False}
    card = {"file": "m.onnx", "form": "onnx", "model": "m", "digest": "d", "about": about, "dimension": 8}
    told = write_card(Card(**card, smallest=16, difference=0.0, multiple=16))
    assert "timm:test_vit, max pooling" in told
    assert "sides are rounded to multiples of 16 pixels" in told
    assert "rounded to multiples" not in write_card(Card(**card, smallest=16, difference=0.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "form", "name"),
    [("timm:test_vit", "onnx", "m.onnx"), ("timm:test_convnext", "torch-export", "m.pt2")],
)
def test_exported_network_embeds_any_number_and_size_of_images(
    family: str, form: Any, name: str, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m.safetensors", backbone={"family": family})
    assert 0 <= export(model, tmp_path / name, form=form) < 1e-5
    told = (tmp_path / f"{name}.md").read_text()
    assert family in told and ("sides are rounded to multiples of 16" in told) == (family == "timm:test_vit")


# --- what is not there, and what cannot be


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("timm:test_vitt", "timm:test_vitt: there is no such network; near names: test_vit"),
        ("torchvision:convnext_tin", "torchvision:convnext_tin: there is no such network; near names: convnext_tiny"),
        ("torchvision:vit_b_16", r"torchvision:vit_b_16: has no feature maps of images of any size \("),
        ("timm:maxvit_tiny_tf_224", r"timm:maxvit_tiny_tf_224: has no feature maps of images of any size \("),
        ("keras:resnet", "library keras is unknown; known: timm, torchvision"),
    ],
)
def test_network_that_is_not_there_is_one_line_before_a_run(family: str, told: str) -> None:
    params = Params.model_validate(changed({"backbones/deep": {"family": family}}))
    with pytest.raises(InputError, match=f"^backbones.deep: {told}"):
        check_networks(params)


def test_side_that_a_network_cannot_take_names_its_key() -> None:
    params = Params.model_validate(changed({"backbones/deep": {"family": "timm:test_convnext"}}))
    with pytest.raises(
        InputError, match=r"pretrain.crop_width: 16 pixels are too few for timm:test_convnext; give 32 or more"
    ):
        check_networks(params)


def test_library_that_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(
        InputError, match=r"timm:test_vit: timm is not installed: pip install 'reid-done-right\[timm\]'"
    ):
        build({"family": "timm:test_vit"})


def test_networks_of_our_own_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_done_right.models.build.build", lambda _: pytest.fail("it built a network"))
    check_networks(Params.model_validate(changed({})))


def test_readiness_knows_the_smallest_side_and_the_arithmetic() -> None:
    layers = Backbone(family="timm:test_convnext")
    assert probe.sides(layers, 40) == (40, 32)
    assert probe.arithmetic(layers, 64, 64) > 3 * probe.arithmetic(layers, 32, 32)
    assert probe.dimension(layers, 0) == 64
