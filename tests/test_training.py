"""Losses and schedules by hand; both loops learn, repeat bit by bit, and report divergence."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from conftest import ROOT
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import augmented, render, whole
from reid_done_right.models.backbone import set_batch_norm
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.models.resnet import ResNet
from reid_done_right.params import load
from reid_done_right.params.training import Pretrain, RankingStage
from reid_done_right.training.checkpoints import Checkpoints
from reid_done_right.training.classification import train_classifier
from reid_done_right.training.losses import triplet_loss
from reid_done_right.training.mining import draw_pool, mine
from reid_done_right.training.ranking import collapsed, train_ranking
from reid_done_right.training.schedules import (
    classification_rate,
    cutout_largest,
    halving,
    noise_share,
    ranking_rate,
    warm_up,
)
from reid_done_right.training.snapshots import Snapshots, moments, snapshot
from reid_done_right.training.watching import watching
from reid_done_right.training.workers import Workers
from tiny import PARAMS

CPU = torch.device("cpu")
PEOPLE = np.repeat(np.arange(6) * 10 - 10, 5)  # any integers


@pytest.fixture(autouse=True)
def one_thread() -> None:
    set_up(1)


def ignore(row: Mapping[str, float], images: int) -> None:
    """Watch nothing."""


@pytest.fixture(scope="module")
def images() -> Pixels:
    """30 images of 6 people, each of a colour of their own, under noise; two sizes."""
    generator = np.random.default_rng(0)
    colours = generator.integers(30, 226, (6, 1, 1, 3))
    noise = [generator.integers(-30, 30, (32, 16 + k % 2 * 4, 3)) for k in range(30)]
    return Pixels.of([(colours[k // 5] + noise[k]).astype(np.uint8) for k in range(30)], CPU)


def pretraining(**changes: Any) -> Pretrain:
    return Pretrain.model_validate(PARAMS["pretrain"] | changes)


def ranking(**changes: Any) -> RankingStage:
    settings = {key: value for key, value in PARAMS["train"].items() if key not in ("backbone", "pretrain")}
    return RankingStage.model_validate(settings | {"pool": 20, "updates": 8, "batch": 4, "refresh": 4} | changes)


def backbone() -> ResNet:
    torch.manual_seed(0)
    return ResNet("basic", [1, 1, 1, 1], width=4)


def embedder() -> Embedder:
    return Embedder(backbone(), 8, "max")


def wide() -> Embedder:
    """Return an embedder whose last maps have several cells, so that one image has statistics."""
    torch.manual_seed(0)
    return Embedder(ResNet("basic", [1, 1, 1, 1], width=4, last_stride=1), 8, "max")


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    return {name for name in first if torch.equal(first[name], second[name])}


# --- the loss (Eq. 1)


def test_triplet_loss_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0]] * 3)
    positive = torch.tensor([[0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    negative = torch.tensor([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
    losses = triplet_loss(query, positive, negative, 0.1)
    np.testing.assert_allclose(losses, [0.1 + 0.8 - 0.6, 0.0, 1.1], atol=1e-7)  # the second: 0.1 + 0.6 - 0.8 < 0


def test_gradient_of_the_triplet_loss_by_hand() -> None:
    query, positive, negative = (torch.tensor([row], requires_grad=True) for row in ([1.0, 0], [0, 1.0], [0.6, 0.8]))
    triplet_loss(query, positive, negative, 0.1).sum().backward()
    np.testing.assert_allclose(query.grad, [[0.6, -0.2]], atol=1e-7)  # d- minus d+
    np.testing.assert_allclose(positive.grad, [[-1, 0]], atol=1e-7)
    np.testing.assert_allclose(negative.grad, [[1, 0]], atol=1e-7)


def test_satisfied_triplet_has_no_gradient() -> None:
    query, positive, negative = (torch.tensor([row], requires_grad=True) for row in ([1.0, 0], [1.0, 0], [0, 1.0]))
    triplet_loss(query, positive, negative, 0.1).sum().backward()
    assert query.grad is not None
    assert query.grad.tolist() == [[0, 0]]


# --- schedules


def test_rate_halves_every_so_often() -> None:
    assert [halving(update, 1e-3, 512) for update in (0, 512, 1024, 4096)] == [1e-3, 5e-4, 2.5e-4, 1e-3 / 256]
    assert halving(256, 1e-3, 512) == pytest.approx(1e-3 / 2**0.5)  # continuously
    assert [halving(update, 1.0, 512, "steps") for update in (0, 511, 512, 1535)] == [1, 1, 0.5, 0.25]


def test_warming_up_is_a_line_to_one() -> None:
    assert [warm_up(update, 4) for update in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1, 1, 1]
    assert warm_up(0, 0) == warm_up(0, 0.9) == 1
    assert warm_up(0, 2.5) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("decay", "rates"),
    [
        ("linear", [1.0, 0.7525, 0.505, 0.2575]),
        ("exponential", [1.0, 0.1**0.5, 0.1, 0.1**1.5]),
        ("steps", [1.0, 1.0, 0.1, 0.01]),
    ],
)
def test_classification_rate_falls_by_two_orders(decay: str, rates: list[float]) -> None:
    assert [classification_rate(update, 8, 1.0, 0.01, decay) for update in (0, 2, 4, 6)] == pytest.approx(rates)


def test_noise_grows_from_nothing() -> None:
    assert [cutout_largest(update, 8, 0.5) for update in (0, 4, 8)] == [0, 0.25, 0.5]
    assert [cutout_largest(update, 8, 0.5, 0.5) for update in (0, 2, 4, 7)] == [0, 0.25, 0.5, 0.5]
    assert [cutout_largest(update, 8, 0.5, 0.0) for update in (0, 7)] == [0.5, 0.5]


def test_the_share_of_noise_is_that_of_drawn_cutouts_weighted_by_the_rate() -> None:
    settings = ranking(
        updates=40, halve_every=5, cutout=0.8, cutout_least=0.25, cutout_growth=0.3, warm_up=0.1, learning_rate=0.1
    )
    covered, rates = [], []
    for update in range(40):
        largest = cutout_largest(update, 40, 0.8, 0.3)
        views = augmented(np.full((400, 2), 1000), 1000, False, 0, largest, 0.25, 0, update, np.arange(400))
        covered.append(views.cutout[..., 2:].prod(-1).sum() / 400 / 1e6)
        rates.append(0.1 * 0.5 ** (update / 5) * min(1, (update + 1) / 4))
    assert noise_share(settings) == pytest.approx(np.average(covered, weights=rates), rel=0.02)


def test_the_papers_noise_grows_while_half_of_the_rate_is_spent() -> None:
    """The argument for its growth: growing to the end, the noise comes when nothing is learned any more."""
    train = load(ROOT / "experiments/paper/params.yaml").train
    rates = [ranking_rate(update, train) for update in range(train.updates)]
    growing = int(train.cutout_growth * train.updates)
    assert sum(rates[:growing]) / sum(rates) == pytest.approx(0.5, abs=0.02)
    assert noise_share(train) == pytest.approx(0.0896, abs=1e-3)
    assert noise_share(train.model_copy(update={"cutout_growth": 1.0})) == pytest.approx(0.0084, abs=1e-3)


# --- the classification loop


def test_the_linear_layer_may_learn_at_another_rate_and_without_a_bias(images: Pixels) -> None:
    """After one update from one point, each parameter has moved by its rate times its gradient."""
    moved = []
    for factor in (1.0, 10.0):
        made = embedder()
        before = deepcopy(made.state_dict())
        train_ranking(made, images, PEOPLE, ranking(updates=1, refresh=1, head_rate=factor, margin=0.5), 0, ignore)
        moved.append({name: value - before[name] for name, value in made.state_dict().items()})
    assert moved[0]["fc.weight"].norm() > 0 and moved[0]["backbone.conv1.weight"].norm() > 0
    torch.testing.assert_close(moved[1]["fc.weight"], 10 * moved[0]["fc.weight"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moved[1]["backbone.conv1.weight"], moved[0]["backbone.conv1.weight"])
    assert Embedder(backbone(), 8, "max", bias=False).fc.bias is None


def test_a_pass_is_as_many_batches_as_hold_the_images(images: Pixels) -> None:
    settings = pretraining(passes=2.5, batch=8, updates=None)
    assert settings.length(30) == 10 == len(train_classifier(backbone(), images, PEOPLE, settings, 0, ignore))
    with pytest.raises(ValueError, match="give either updates: NUMBER or passes: NUMBER"):
        pretraining(passes=2.5)


def test_classification_learns_colours(images: Pixels) -> None:
    log = train_classifier(backbone(), images, PEOPLE, pretraining(updates=40, batch=15), 0, ignore)
    assert np.mean([row["accuracy"] for row in log[-5:]]) > 0.8
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[0]["loss"] == pytest.approx(np.log(6), abs=0.3)  # six people, no idea yet


def test_classification_logs_every_update(images: Pixels) -> None:
    settings = pretraining(updates=5, warm_up=0.4)
    log = train_classifier(backbone(), images, PEOPLE, settings, 0, ignore)
    assert [row["update"] for row in log] == list(range(5))
    assert set(log[0]) == {"update", "loss", "accuracy", "learning_rate"}
    rates = [0.1 - 0.099 * k / 5 for k in range(5)]
    assert [row["learning_rate"] for row in log] == pytest.approx([rates[0] / 2, *rates[1:]])


def test_classification_repeats_bit_by_bit_and_seeds_differ(images: Pixels) -> None:
    runs = []
    for seed in (3, 3, 4):
        network = backbone()
        log = train_classifier(network, images, PEOPLE, pretraining(updates=3), seed, ignore)
        runs.append((state(network), log))
    assert runs[0][1] == runs[1][1]
    assert same(runs[0][0], runs[1][0]) == set(runs[0][0])
    assert runs[0][1] != runs[2][1]
    assert "conv1.weight" not in same(runs[0][0], runs[2][0])


def test_classification_in_bfloat16_is_nearly_the_same(images: Pixels) -> None:
    plain, rounded = (
        train_classifier(backbone(), images, PEOPLE, pretraining(updates=5, batch=15, precision=precision), 0, ignore)
        for precision in ("float32", "bfloat16")
    )
    assert [row["loss"] for row in rounded] == pytest.approx([row["loss"] for row in plain], abs=0.1)
    assert [row["loss"] for row in rounded] != [row["loss"] for row in plain]


def test_classification_trains_batch_norm_and_every_layer(images: Pixels) -> None:
    network = backbone()
    before = state(network)
    train_classifier(network, images, PEOPLE, pretraining(updates=3), 0, ignore)
    assert same(before, state(network)) == set()


def test_every_image_is_seen_once_before_any_is_seen_twice(images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    from reid_done_right.training import classification as module

    seen: list[int] = []
    render = module.render

    def note(images: Pixels, places: NDArray[np.int64], views: Any) -> Any:
        seen.extend(places.tolist())
        return render(images, places, views)

    monkeypatch.setattr(module, "render", note)
    train_classifier(backbone(), images, PEOPLE, pretraining(updates=15, batch=8), 0, ignore)
    assert sorted(seen[:30]) == sorted(seen[30:60]) == sorted(seen[60:90]) == list(range(30))
    assert seen[:30] != seen[30:60]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_diverging_classifier_is_reported(images: Pixels) -> None:
    with pytest.raises(
        FloatingPointError,
        match=r"classification loss is (nan|inf) at update \d+; no checkpoint yet; lower learning_rate",
    ):
        train_classifier(backbone(), images, PEOPLE, pretraining(updates=20, learning_rate=1e30), 0, ignore)


# --- the ranking loop


def gap(network: Embedder, images: Pixels) -> float:
    """Return how much more similar images of one person are than images of two, on average."""
    embeddings = embed(network, images, np.arange(30), 32)
    similarity, same_person = embeddings @ embeddings.T, PEOPLE[:, None] == PEOPLE
    return float(similarity[same_person & ~np.eye(30, dtype=bool)].mean() - similarity[~same_person].mean())


def test_ranking_pulls_people_apart(images: Pixels) -> None:
    network = embedder()
    before = gap(network, images)
    gentle = ranking(updates=30, batch=8, margin=0.3, learning_rate=0.03, momentum=0.5, halve_every=60, cutout=0.0)
    log = train_ranking(network, images, PEOPLE, gentle, 0, ignore)
    assert before < 0.1
    assert gap(network, images) > 0.25
    assert not collapsed(log, 0.3)


def test_ranking_logs_every_update(images: Pixels) -> None:
    log = train_ranking(embedder(), images, PEOPLE, ranking(halve_every=4), 0, ignore)
    assert [row["update"] for row in log] == list(range(8))
    assert set(log[0]) >= {"loss", "active", "mined_active", "crowding", "learning_rate", "cutout"}
    assert [row["cutout"] for row in log] == [0.5 * update / 8 for update in range(8)]
    assert log[4]["learning_rate"] == pytest.approx(log[0]["learning_rate"] / 2)
    assert all(0 <= row[name] <= 1 for row in log for name in ("active", "mined_active"))


def test_ranking_repeats_bit_by_bit_and_seeds_differ(images: Pixels) -> None:
    runs = []
    for seed in (3, 3, 4):
        network = embedder()
        log = train_ranking(network, images, PEOPLE, ranking(flip=True, crop=0.8), seed, ignore)
        runs.append((state(network), log))
    assert runs[0][1] == runs[1][1]
    assert same(runs[0][0], runs[1][0]) == set(runs[0][0])
    assert runs[0][1] != runs[2][1]
    assert "fc.weight" not in same(runs[0][0], runs[2][0])


def test_ranking_leaves_batch_norm_and_changes_the_rest(images: Pixels) -> None:
    network = embedder().train()
    before = state(network)
    train_ranking(network, images, PEOPLE, ranking(), 0, ignore)
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert same(before, state(network)) == {name for name in before if name.rpartition(".")[0] in norms}


def test_triplets_are_mined_at_every_refresh(images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[tuple[Tensor, Any]] = []

    def note(embeddings: Tensor, people: Any, triplets: int, *rest: Any) -> Any:
        pools.append((embeddings, people))
        assert (len(embeddings), triplets) == (20, 4 * 4)
        return mine(embeddings, people, triplets, *rest)

    monkeypatch.setattr("reid_done_right.training.ranking.mine", note)
    train_ranking(embedder(), images, PEOPLE, ranking(updates=9), 0, ignore)
    assert len(pools) == 3
    assert len({embeddings.numpy().tobytes() for embeddings, _ in pools}) == 3


def test_watchers_see_every_update(images: Pixels) -> None:
    seen: list[tuple[float, int]] = []
    train_ranking(embedder(), images, PEOPLE, ranking(), 0, lambda row, count: seen.append((row["update"], count)))
    train_classifier(
        backbone(), images, PEOPLE, pretraining(updates=3), 0, lambda row, count: seen.append((row["update"], count))
    )
    assert seen == [*((k, 12) for k in range(8)), *((k, 4) for k in range(3))]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_all_values_of_resumed_run(
    images: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("REID_EVENTS", str(tmp_path / "runs"))
    kept = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt), watching("train", "one", 8) as watch:

        def kill(row: Mapping[str, float], count: int) -> None:
            watch(row, count)
            if row["update"] == 5:
                raise KeyboardInterrupt

        train_ranking(embedder(), images, PEOPLE, ranking(), 0, kill, Checkpoints(kept, every=3))
    with watching("train", "one", 8) as watch:
        log = train_ranking(embedder(), images, PEOPLE, ranking(), 0, watch, Checkpoints(kept))
    with watching("train", "two", 8, silent=True) as watch:
        watch(log[0], 1)
    read = EventAccumulator(str(tmp_path / "runs/train/one")).Reload()
    assert set(read.Tags()["scalars"]) == set(log[0]) - {"update"}
    for name in read.Tags()["scalars"]:
        told = [(event.step, event.value) for event in read.Scalars(name)]
        assert told == [(row["update"], pytest.approx(row[name], rel=1e-6)) for row in log], name
    assert [folder.name for folder in (tmp_path / "runs/train").iterdir()] == ["one"]


def test_reduction_by_sum_is_the_mean_at_a_rate_times_the_batch(images: Pixels) -> None:
    by_mean, by_sum = embedder(), embedder()
    train_ranking(by_mean, images, PEOPLE, ranking(learning_rate=0.04), 0, ignore)
    train_ranking(by_sum, images, PEOPLE, ranking(learning_rate=0.01, reduction="sum"), 0, ignore)
    assert same(state(by_mean), state(embedder())) != set(state(by_mean))
    for name, tensor in state(by_mean).items():
        torch.testing.assert_close(tensor, state(by_sum)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch_norm", ["frozen", "affine"])
def test_batch_norm_trains_affine_but_never_statistics(images: Pixels, batch_norm: str) -> None:
    torch.manual_seed(0)
    network = Embedder(ResNet("basic", [1, 1, 1, 1], width=4, last_stride=1), 0, "gem")  # maps of more than one cell
    before = state(network)
    settings = ranking(batch_norm=batch_norm, learning_rate=0.1)
    train_ranking(network, images, PEOPLE, settings, 0, ignore)
    kept = same(before, state(network))
    norms = {name for name in before if ".bn" in name or ".downsample.1." in name}
    affine = {name for name in norms if name.endswith(("weight", "bias"))}
    assert kept == (norms if batch_norm == "frozen" else norms - affine)
    assert len(affine) > 10
    assert "pool.p" not in kept


def test_statistics_of_batch_norm_are_learned_image_by_image(images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """One update, replayed with PyTorch's own layers in training mode, each image a batch of its own."""
    torch.manual_seed(0)
    trained = Embedder(ResNet("basic", [1, 1, 1, 1], width=4, last_stride=1), 0, "average")
    replayed, triplets = deepcopy(trained).train(), []

    def note(*given: Any) -> Any:
        triplets.append(mine(*given))
        return triplets[-1]

    monkeypatch.setattr("reid_done_right.training.ranking.mine", note)
    settings = ranking(updates=1, refresh=1, batch_norm="statistics", batching="sequential", satisfied="keep", cutout=0)
    log = train_ranking(trained, images, PEOPLE, settings, 0, ignore)
    pool = draw_pool(PEOPLE, settings.pool, "images", np.random.default_rng((0, 2)))
    losses = []
    for triplet in pool[triplets[0][0]]:
        losses.append(
            triplet_loss(*(replayed(*shown(images, k, settings.largest_side)) for k in triplet), settings.margin)
        )
    loss = torch.cat(losses).mean()
    loss.backward()
    assert log[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    moved = 0
    for (name, tensor), (_, other) in zip(trained.named_buffers(), replayed.named_buffers(), strict=True):
        torch.testing.assert_close(tensor, other)
        moved += name.endswith("num_batches_tracked") and int(tensor) == 3 * settings.batch
    assert moved > 5
    rate = log[0]["learning_rate"]
    for (name, tensor), (_, other) in zip(trained.named_parameters(), replayed.named_parameters(), strict=True):
        gradient = other.grad if other.grad is not None else torch.zeros_like(other)
        stepped = other.detach() - rate * (gradient + settings.weight_decay * other.detach())
        torch.testing.assert_close(tensor.detach(), stepped, rtol=1e-4, atol=1e-6, msg=name)


def shown(images: Pixels, k: int, side: int) -> tuple[Tensor, Tensor | None]:
    """Return one image as the network sees it, without augmentation."""
    return render(images, np.array([k]), whole(images.sizes[[k]], side))


def test_statistics_of_batch_norm_refuse_padding_and_several_workers(images: Pixels) -> None:
    for wrong in ({}, {"batching": "sequential", "execution": "compiled"}):
        with pytest.raises(ValidationError, match="batch_norm: statistics are of one image at a time: set batching"):
            ranking(batch_norm="statistics", **wrong)
    network = embedder()
    set_batch_norm(network, "statistics")
    with pytest.raises(ValueError, match="images of mixed sizes cannot share a batch in training mode"):
        network(*render(images, np.arange(2), whole(images.sizes[:2], 32)))
    workers = Workers()
    workers.count = 2
    settings = ranking(batch_norm="statistics", batching="sequential")
    with pytest.raises(ValueError, match=r"statistics of 2 processes would differ; set resources\.train\.gpu to 1"):
        train_ranking(embedder(), images, PEOPLE, settings, 0, ignore, workers=workers)


# --- the mean of the last models


@pytest.mark.parametrize("changes", [{}, {"batch_norm": "statistics", "batching": "sequential"}])
def test_average_is_the_mean_after_each_of_the_last_updates(images: Pixels, changes: dict[str, Any]) -> None:
    models: list[dict[str, Tensor]] = []
    network = wide()
    plain = ranking(**changes)
    log = train_ranking(network, images, PEOPLE, plain, 0, lambda *_: models.append(state(network)))
    averaged = wide()
    assert train_ranking(averaged, images, PEOPLE, plain.model_copy(update={"average": 0.375}), 0, ignore) == log
    for name, tensor in averaged.state_dict().items():
        last = [model[name] for model in models[-3:]]
        expected = torch.stack(last).double().mean(0).float() if tensor.is_floating_point() else last[-1]
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-8, msg=name)
    moving = {"fc.weight"} | ({"backbone.bn1.running_mean"} if changes else set())
    assert not moving & same(state(averaged), models[-1])


def test_average_of_one_is_the_last_model_to_the_bit(images: Pixels) -> None:
    last, mean = embedder(), embedder()
    train_ranking(last, images, PEOPLE, ranking(), 0, ignore)
    train_ranking(mean, images, PEOPLE, ranking(average=0.01), 0, ignore)
    assert same(state(last), state(mean)) == set(state(last))


@pytest.mark.parametrize("changes", [{}, {"batch_norm": "statistics", "batching": "sequential"}])
@pytest.mark.parametrize("killed_after", [2, 5, 7])
def test_killed_average_ends_with_the_bits_of_one_that_was_not(
    images: Pixels, tmp_path: Path, killed_after: int, changes: dict[str, Any]
) -> None:
    settings = ranking(average=0.5, **changes)
    whole_run = wide()
    log = train_ranking(whole_run, images, PEOPLE, settings, 0, ignore)
    kept = tmp_path / "checkpoint.safetensors"

    def kill(row: Mapping[str, float], images: int) -> None:
        if row["update"] == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_ranking(wide(), images, PEOPLE, settings, 0, kill, Checkpoints(kept, every=1))
    resumed = wide()
    assert train_ranking(resumed, images, PEOPLE, settings, 0, ignore, Checkpoints(kept)) == log
    assert same(state(whole_run), state(resumed)) == set(state(resumed))


# --- models from along the training


def test_snapshots_are_the_models_after_as_many_updates(images: Pixels) -> None:
    models = [state(start := wide())]
    train_ranking(start, images, PEOPLE, ranking(), 0, lambda *_: models.append(state(start)))
    updates = len(models) - 1
    taken = Snapshots(moments(4, updates))
    train_ranking(wide(), images, PEOPLE, ranking(), 0, ignore, snapshots=taken)
    assert taken.moments == [0, updates // 4, updates // 2, 3 * updates // 4]
    for done in taken.moments:
        kept = snapshot(taken.taken, done)
        assert same(kept, models[done]) == set(kept) == set(models[done])


def test_killed_training_keeps_its_snapshots(images: Pixels, tmp_path: Path) -> None:
    def kill(row: Mapping[str, float], images: int) -> None:
        if row["update"] == 5:
            raise KeyboardInterrupt

    kept, whole_run, resumed = tmp_path / "checkpoint.safetensors", Snapshots([0, 3]), Snapshots([0, 3])
    train_ranking(wide(), images, PEOPLE, ranking(), 0, ignore, snapshots=whole_run)
    with pytest.raises(KeyboardInterrupt):
        train_ranking(
            wide(), images, PEOPLE, ranking(), 0, kill, Checkpoints(kept, every=1), snapshots=Snapshots([0, 3])
        )
    train_ranking(wide(), images, PEOPLE, ranking(), 0, ignore, Checkpoints(kept), snapshots=resumed)
    assert same(whole_run.taken, resumed.taken) == set(resumed.taken) != set()


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_triplets_at_a_time_are_a_matter_of_memory(images: Pixels, at_once: int) -> None:
    together, apart = embedder(), embedder()
    log = train_ranking(together, images, PEOPLE, ranking(at_once=4), 0, ignore)
    other = train_ranking(apart, images, PEOPLE, ranking(at_once=at_once), 0, ignore)
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in log], rel=1e-3)
    for name, tensor in state(together).items():
        torch.testing.assert_close(tensor, state(apart)[name], rtol=1e-3, atol=1e-5)


def test_people_seen_once_cannot_be_ranked(images: Pixels) -> None:
    with pytest.raises(
        ValueError, match="none of 20 pool images has both a positive and a negative there; enlarge `pool`"
    ):
        train_ranking(embedder(), images, np.arange(30), ranking(), 0, ignore)


@pytest.mark.parametrize("satisfied", ["keep", "redraw"])
def test_diverging_run_is_reported(images: Pixels, satisfied: str) -> None:
    broken = embedder()
    nn.init.constant_(broken.fc.bias, float("nan"))
    with pytest.raises(
        (FloatingPointError, ValueError),
        match=r"triplet loss nan, gradient .* at update 0; no checkpoint yet; lower learning_rate",
    ):
        train_ranking(broken, images, PEOPLE, ranking(satisfied=satisfied), 0, ignore)


# --- collapse


def point() -> Embedder:
    """Return an embedder that puts every image into one point: its loss is the margin, its gradient zero."""
    network = deepcopy(embedder())
    nn.init.zeros_(network.fc.weight)
    nn.init.ones_(network.fc.bias)
    return network


def test_run_forced_into_one_point_is_seen(images: Pixels) -> None:
    log = train_ranking(point(), images, PEOPLE, ranking(), 0, ignore)
    assert log[-1]["loss"] == pytest.approx(0.1)
    assert log[-1]["crowding"] == pytest.approx(1, abs=1e-6)
    assert collapsed(log, 0.1)


@pytest.mark.parametrize(
    ("crowding", "loss", "expected"),
    [(1.0, 0.1, True), (0.91, 0.096, True), (0.2, 0.1, False), (1.0, 0.09, False), (0.2, 0.01, False)],
)
def test_collapse_is_crowding_at_the_loss_of_the_margin(crowding: float, loss: float, expected: bool) -> None:
    healthy = [{"crowding": 0.3, "loss": 0.05}] * 70
    end = [{"crowding": crowding, "loss": loss}] * 10
    assert collapsed(healthy + end, 0.1) is expected
    assert not collapsed(end + healthy, 0.1)  # recovered
    assert collapsed(end[:1], 0.1) is expected
