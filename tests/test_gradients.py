"""Parts of one update: exact for any batching, sharing and splitting, and resumable to the last bit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_done_right.artifacts import InputError
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import Views, augmented, render
from reid_done_right.models.backbone import set_batch_norm
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import Embedder
from reid_done_right.models.resnet import ResNet
from reid_done_right.params.training import Pretrain, RankingStage
from reid_done_right.training.checkpoints import Checkpoints
from reid_done_right.training.classification import Diverged, train_classifier
from reid_done_right.training.gradients import add_gradient, add_gradient_one_by_one, with_copies
from reid_done_right.training.losses import triplet_loss
from reid_done_right.training.ranking import train_ranking
from tiny import PARAMS

CPU = torch.device("cpu")
PEOPLE = np.repeat(np.arange(6), 5)
TRIPLETS = np.array([[0, 1, 7], [1, 0, 12], [9, 8, 0], [3, 4, 20], [25, 26, 3], [0, 1, 7]])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    set_up(1)


def pictures(low: int = 16, count: int = 30) -> Pixels:
    """Return images of many sizes, five a person."""
    generator = np.random.default_rng(0)
    colours = generator.integers(30, 226, (6, 1, 1, 3))
    sizes = [(low + 16 + k % 7, low + k % 5) for k in range(count)]
    noise = [generator.integers(-30, 30, (*size, 3)) for size in sizes]
    return Pixels.of([(colours[k // 5] + noise[k]).astype(np.uint8) for k in range(count)], CPU)


def ignore(row: Mapping[str, float], images: int) -> None:
    """Watch nothing."""


class Double(Embedder):
    """An embedder in float64, whatever the images come in."""

    def forward(self, images: Tensor, extent: Tensor | None = None) -> Tensor:
        return super().forward(images.double(), extent)


def network(backbone: Any = None, pooling: str = "max") -> Double:
    torch.manual_seed(0)
    made = Double(backbone or ResNet("basic", [1, 1, 1, 1], width=4, last_stride=1), 6, pooling).double()
    set_batch_norm(made)
    return made


def gradient(
    made: Embedder, images: Pixels, add: Any, at_once: int = 99, margin: float = 0.1, side: int = 40
) -> tuple[Tensor, Tensor]:
    """Return the losses, and all gradients in one vector."""

    def show(places: NDArray[np.int64]) -> Views:
        return augmented(images.sizes[places], side, True, 0.8, 0.5, 0.0, 3, 7, places)

    made.zero_grad()
    losses = add(made, images, TRIPLETS, show, margin, 1 / len(TRIPLETS), at_once)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in made.parameters() if p.requires_grad]
    return losses, torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("at_once", [1, 4, 7, 99])
@pytest.mark.parametrize("pooling", ["max", "average", "gem"])
def test_batch_has_the_gradient_of_one_image_at_a_time(pooling: str, at_once: int) -> None:
    made, images = network(pooling=pooling), pictures()
    losses, oracle = gradient(made, images, add_gradient_one_by_one)
    found, ours = gradient(made, images, add_gradient, at_once)
    assert (losses > 0).sum() > 0 and oracle.norm() > 0
    torch.testing.assert_close(found, losses, rtol=0, atol=1e-12)
    assert (ours - oracle).norm() <= 1e-10 * oracle.norm()


@pytest.mark.parametrize("family", ["bottleneck", "resnext"])
def test_every_family_has_the_gradient_of_one_image_at_a_time(family: str) -> None:
    """Those of torchvision take one size at a time: see test_padding."""
    torch.manual_seed(0)
    backbone = {
        "bottleneck": lambda: ResNet("bottleneck", [1, 1, 1, 1], width=4),
        "resnext": lambda: ResNet("bottleneck", [1, 1, 1, 1], width=8, groups=2, width_per_group=32),
    }[family]()
    made, images = network(backbone), pictures()
    margin = 2.5  # every triplet has a loss
    _, oracle = gradient(made, images, add_gradient_one_by_one, margin=margin, side=80)
    _, ours = gradient(made, images, add_gradient, at_once=5, margin=margin, side=80)
    assert oracle.norm() > 0
    assert (ours - oracle).norm() <= 1e-10 * oracle.norm()


def test_images_without_a_loss_are_not_passed_back_and_each_is_embedded_once() -> None:
    made, images = network(), pictures()
    seen: list[tuple[int, bool]] = []
    made.register_forward_pre_hook(lambda _, inputs: seen.append((len(inputs[0]), torch.is_grad_enabled())))
    losses, _ = gradient(made, images, add_gradient, at_once=4)
    needed = len(np.unique(TRIPLETS[(losses > 0).numpy()]))
    assert sum(count for count, grad in seen if not grad) == len(np.unique(TRIPLETS))
    assert sum(count for count, grad in seen if grad) == needed
    assert max(count for count, _ in seen) <= 4
    seen.clear()
    assert gradient(made, images, add_gradient, at_once=4, margin=-3.0)[1].norm() == 0
    assert not [count for count, grad in seen if grad]


def test_same_image_is_augmented_alike_within_an_update() -> None:
    sizes = pictures().sizes
    views = augmented(sizes[[4, 9, 4]], 40, True, 0.8, 0.5, 0.0, 3, 7, np.array([4, 9, 4]))
    assert (views.window[0] == views.window[2]).all() and views.key[0] == views.key[2] != views.key[1]


def test_every_occurrence_of_an_image_is_a_copy_of_its_own() -> None:
    triplets = np.array([[4, 9, 4], [9, 0, 4]])
    assert with_copies(triplets, 30).tolist() == [[4, 9, 34], [39, 0, 64]]


@pytest.mark.parametrize("at_once", [4, 99])
def test_independent_views_have_the_gradient_of_three_streams(at_once: int) -> None:
    """Each stream embeds its own augmented image: no two occurrences of an image share one."""
    made, images = network(), pictures()
    views = with_copies(TRIPLETS, len(images))
    assert len(np.unique(TRIPLETS)) < TRIPLETS.size == len(np.unique(views))

    def show(view: NDArray[np.int64]) -> Views:
        copy, rows = np.divmod(view, len(images))
        return augmented(images.sizes[rows], 40, True, 0.8, 0.5, 0.0, 3, 7, rows, copy=copy)

    made.zero_grad()
    streams = [embed_each(made, images, stream, show) for stream in views.T]
    expected = triplet_loss(*streams, 0.3)
    expected.sum().backward()
    oracle = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
    for add in (add_gradient, add_gradient_one_by_one):
        made.zero_grad()
        losses = add(made, images, views, show, 0.3, 1.0, at_once)
        ours = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
        torch.testing.assert_close(losses, expected.detach(), rtol=0, atol=1e-12)
        assert (ours - oracle).norm() <= 1e-10 * oracle.norm() > 0
    trained = [p for p in made.parameters() if p.grad is not None]
    direction = [torch.randn_like(p) for p in trained]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(trained, direction, strict=True) if p.grad is not None)
    step, ends = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(trained, direction, strict=True):
                p += sign * step * d
            ends.append(float(triplet_loss(*(embed_each(made, images, stream, show) for stream in views.T), 0.3).sum()))
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-4)


def embed_each(made: Embedder, images: Pixels, stream: NDArray[np.int64], show: Any) -> Tensor:
    """Embed the images of a stream one by one, with their graph."""
    return torch.cat([made(*render(images, view % len(images), show(view))) for view in stream[:, None]])


# --- the loops: out of memory, divergence


def ranking(**changes: Any) -> RankingStage:
    settings = {key: value for key, value in PARAMS["train"].items() if key not in ("backbone", "pretrain")}
    return RankingStage.model_validate(
        settings | {"pool": 20, "updates": 8, "batch": 4, "refresh": 4, "at_once": 12} | changes
    )


def embedder() -> Embedder:
    torch.manual_seed(0)
    return Embedder(ResNet("basic", [1, 1, 1, 1], width=4), 8, "max")


def weights(made: nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in made.state_dict().values())


class Small(Embedder):
    """An embedder on a device that holds three images."""

    def forward(self, images: Tensor, extent: Tensor | None = None) -> Tensor:
        if len(images) > 3 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images, extent)


def test_out_of_memory_halves_the_images_at_once_not_the_batch() -> None:
    plain, small = embedder(), Small(embedder().backbone, 8, "max")
    small.load_state_dict(plain.state_dict())
    log = train_ranking(plain, pictures(), PEOPLE, ranking(), 0, ignore)
    with pytest.warns(UserWarning, match="out of memory: from now on 3 images at once"):
        other = train_ranking(small, pictures(), PEOPLE, ranking(), 0, ignore)
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in log], rel=1e-4)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)


def test_classification_out_of_memory_is_reported() -> None:
    class Small(ResNet):
        def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    settings = Pretrain.model_validate(PARAMS["pretrain"] | {"batch": 7})
    made = Small("basic", [1, 1, 1, 1], width=4)
    with pytest.raises(InputError, match="out of memory at update 0: batch norm needs the batch of 7 together; lower"):
        train_classifier(made, pictures(), PEOPLE, settings, 0, ignore)


def test_sequential_batching_trains_the_same() -> None:
    padded, sequential = embedder(), embedder()
    log = train_ranking(padded, pictures(), PEOPLE, ranking(), 0, ignore)
    other = train_ranking(sequential, pictures(), PEOPLE, ranking(batching="sequential"), 0, ignore)
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in log], rel=1e-4)


def test_bfloat16_trains_nearly_the_same() -> None:
    plain, rounded = embedder(), embedder()
    log = train_ranking(plain, pictures(), PEOPLE, ranking(), 0, ignore)
    other = train_ranking(rounded, pictures(), PEOPLE, ranking(precision="bfloat16"), 0, ignore)
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in log], abs=0.02)
    assert [row["loss"] for row in other] != [row["loss"] for row in log]
    assert all(parameter.dtype == torch.float32 for parameter in rounded.parameters())


def test_divergence_names_update_images_and_checkpoint(tmp_path: Path) -> None:
    broken = embedder()
    path = tmp_path / "checkpoint.safetensors"

    def poison(row: Mapping[str, float], images: int) -> None:
        if row["update"] == 4:
            nn.init.constant_(broken.fc.bias, float("nan"))

    with pytest.raises(Diverged) as told:
        train_ranking(broken, pictures(), PEOPLE, ranking(refresh=8), 0, poison, Checkpoints(path, every=2))
    assert f"at update 5; last good checkpoint: {path}, 4 updates; lower learning_rate" in str(told.value)
    assert len(told.value.images) > 2 and set(told.value.images) <= set(range(30))


# --- checkpoints


def test_checkpoints_are_rare_enough_to_take_two_hundredths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REID_CHECKPOINT_UPDATES", raising=False)
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def slowly(*_: object) -> None:
        nonlocal now
        now += 3

    monkeypatch.setattr("reid_done_right.training.checkpoints.write_weights", slowly)
    kept = Checkpoints(tmp_path / "checkpoint.safetensors")
    spent = []
    for done in range(1, 2001):
        now += 1
        if kept.due(done, 2001, stopping=False):
            kept.save(done, {}, {})
            spent.append(done)
    assert spent[:3] == [30, 180, 330] and 3 * len(spent) / now < 0.025
    assert kept.due(5, 2001, stopping=True) and not kept.due(2001, 2001, stopping=True)
    now += 1000
    assert kept.due(6, 2001, stopping=False) and not Checkpoints(None).due(6, 2001, stopping=True)


def run(loop: str, seed: int, watch: Any, checkpoints: Checkpoints | None) -> tuple[nn.Module, list[dict[str, float]]]:
    if loop == "rank":
        made = embedder()
        return made, train_ranking(made, pictures(), PEOPLE, ranking(flip=True), seed, watch, checkpoints)
    torch.manual_seed(0)
    backbone = ResNet("basic", [1, 1, 1, 1], width=4)
    settings = Pretrain.model_validate(PARAMS["pretrain"] | {"updates": 8, "batch": 7})
    return backbone, train_classifier(backbone, pictures(), PEOPLE, settings, seed, watch, checkpoints)


@pytest.mark.parametrize("loop", ["rank", "classify"])
@pytest.mark.parametrize("killed", [1, 3, 4, 7])
def test_run_that_was_killed_ends_like_one_that_was_not(loop: str, killed: int, tmp_path: Path) -> None:
    expected, log = run(loop, 5, ignore, None)
    path = tmp_path / "checkpoint.safetensors"

    def kill(row: Mapping[str, float], images: int) -> None:
        if row["update"] == killed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(loop, 5, kill, Checkpoints(path, every=1))
    seen: list[float] = []
    resumed, again = run(loop, 5, lambda row, _: seen.append(row["update"]), Checkpoints(path, every=1))
    assert seen == list(range(killed, 8))
    assert weights(resumed) == weights(expected)
    assert again == log


@pytest.mark.parametrize("loop", ["rank", "classify"])
def test_signal_keeps_the_state_and_ends_the_process(loop: str, tmp_path: Path) -> None:
    expected, log = run(loop, 5, ignore, None)
    path = tmp_path / "checkpoint.safetensors"

    def ask(row: Mapping[str, float], images: int) -> None:
        if row["update"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    stopping = Checkpoints(path, every=100)
    with pytest.raises(SystemExit) as ended, stopping.catching():
        run(loop, 5, ask, stopping)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed, again = run(loop, 5, ignore, Checkpoints(path))
    assert weights(resumed) == weights(expected) and again == log


@pytest.mark.parametrize("place", [0, 40, -1], ids=["cut", "in what is said of it", "in a weight"])
def test_damaged_checkpoint_is_named_and_set_aside(tmp_path: Path, place: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    Checkpoints(path).save(1, {"weight": torch.arange(6.0)}, {"log": [{"loss": 0.5}]})
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content if place else content[:50])
    with pytest.raises(
        InputError, match=r"checkpoint\.safetensors: damaged and set aside; run the same command again to st"
    ):
        run("rank", 5, ignore, Checkpoints(path))
    run("rank", 5, ignore, Checkpoints(path))
    assert path.with_name("checkpoint.safetensors.damaged").exists()


@pytest.mark.parametrize(("loop", "other"), [("rank", "classify"), ("classify", "rank")])
def test_checkpoint_of_another_training_is_named(loop: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    run(other, 5, ignore, Checkpoints(path, every=3))
    with pytest.raises(
        InputError, match=r"checkpoint\.safetensors: not the state of this training, delete it to begin"
    ):
        run(loop, 5, ignore, Checkpoints(path))


@pytest.mark.parametrize("loop", ["rank", "classify"])
def test_signal_in_the_last_update_lets_the_training_end(loop: str, tmp_path: Path) -> None:
    expected, log = run(loop, 5, ignore, None)

    def ask(row: Mapping[str, float], images: int) -> None:
        if row["update"] == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    stopping = Checkpoints(tmp_path / "checkpoint.safetensors", every=100)
    with stopping.catching():
        ended, again = run(loop, 5, ask, stopping)
    assert weights(ended) == weights(expected) and again == log


# --- people and images at the edges of what can be ranked


@pytest.mark.parametrize(
    ("people", "changes"),
    [
        (PEOPLE, {"pool": 500, "hardest": 400}),  # fewer images than the pool, fewer triplets than the hardest
        (np.array([0, 0, *range(1, 29)]), {"pool": 30}),  # one person with two images: two queries for all triplets
        (PEOPLE, {"batch": 50, "refresh": 1}),  # more triplets than people and images
        (PEOPLE // 3, {"pool_of": "identities"}),
    ],
)
def test_little_data_trains(people: NDArray[np.int64], changes: dict[str, Any]) -> None:
    log = train_ranking(embedder(), pictures(), people, ranking(updates=2, at_once=500, **changes), 0, ignore)
    assert len(log) == 2 and all(np.isfinite(list(row.values())).all() for row in log)


def test_one_person_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="none of 20 pool images has both a positive and a negative there; enlarge"):
        train_ranking(embedder(), pictures(), np.zeros(30, np.int64), ranking(), 0, ignore)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [[(64, 1), (40, 1), (1, 30)], [(1, 1)]])
def test_images_of_one_pixel_width_train(sizes: list[tuple[int, int]], precision: str) -> None:
    generator = np.random.default_rng(0)
    thin = [generator.integers(0, 256, (*sizes[k % len(sizes)], 3), dtype=np.uint8) for k in range(30)]
    log = train_ranking(embedder(), Pixels.of(thin, CPU), PEOPLE, ranking(updates=2, precision=precision), 0, ignore)
    assert all(np.isfinite(list(row.values())).all() and row["gradient"] < 100 for row in log)


# --- several processes

WORKER = """
import json, sys
import torch
sys.path.insert(0, {tests!r})
from test_gradients import *
from reid_done_right.training.workers import Workers
torch.set_num_threads(1)
made = embedder()
workers = Workers()
kept = Checkpoints(Path({kept!r}) if workers.rank == 0 else None, every=5)
log = train_ranking(made, pictures(), PEOPLE, ranking(batch=5), 0, ignore, kept, workers)
vector = torch.cat([tensor.flatten() for tensor in made.state_dict().values()])
everyone = [None] * workers.count
torch.distributed.all_gather_object(everyone, vector.numpy().tobytes())
assert len(set(everyone)) == 1, "processes ended with different weights"
if workers.rank == 0:
    open({out!r}, "w").write(json.dumps({{"log": log, "weights": vector.tolist()}}))
"""


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    script, out = tmp_path / "worker.py", tmp_path / "out.json"
    kept = tmp_path / "checkpoint.safetensors"
    script.write_text(WORKER.format(tests=str(Path(__file__).parent), out=str(out), kept=str(kept)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    made = embedder()
    log = train_ranking(made, pictures(), PEOPLE, ranking(batch=5), 0, ignore)
    found = json.loads(out.read_text())
    for ours, theirs in zip(found["log"], log, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    vector = torch.cat([tensor.flatten() for tensor in made.state_dict().values()])
    assert found["weights"] == pytest.approx(vector.tolist(), rel=1e-3, abs=1e-5)
    seen: list[float] = []
    alone = embedder()  # takes up what the two left after 5 updates
    train_ranking(
        alone, pictures(), PEOPLE, ranking(batch=5), 0, lambda row, _: seen.append(row["update"]), Checkpoints(kept)
    )
    assert seen == [5, 6, 7]
    vector = torch.cat([tensor.flatten() for tensor in alone.state_dict().values()])
    assert found["weights"] == pytest.approx(vector.tolist(), rel=1e-3, abs=1e-5)
