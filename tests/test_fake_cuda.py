"""The real loops on a CUDA device that computes nothing (`fake_cuda`): devices, types, and what makes the host wait.

No GPU is needed. A tensor on the wrong device raises here as it does there; a new synchronisation, or a transfer more
than an update needs, is over a bound.
"""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fake_cuda import GPU, fake_cuda
from reid_done_right.evaluation import distractors, topk
from reid_done_right.evaluation.embedded import Embedded, Labels
from reid_done_right.evaluation.ranking import score
from reid_done_right.evaluation.rules import RULES
from reid_done_right.evaluation.task import Task
from reid_done_right.images.pixels import Pixels
from reid_done_right.images.transforms import render, whole
from reid_done_right.models.embedder import Embedder, embed
from reid_done_right.models.resnet import ResNet
from reid_done_right.models.saliency import cells, grad_cam, maps_and_embeddings, strongest
from reid_done_right.params.training import Pretrain, RankingStage
from reid_done_right.training.classification import train_classifier
from reid_done_right.training.ranking import train_ranking
from tiny import PARAMS

PEOPLE = np.arange(24) // 4
ONE_SIZE, MIXED = [(32, 16)] * 24, [(32, 16), (40, 16), (24, 32), (33, 17)] * 6


def embedder() -> Embedder:
    torch.manual_seed(0)
    return Embedder(ResNet("bottleneck", [1, 1, 1, 1], width=4), 8, "max")


def people(sizes: list[tuple[int, int]], device: torch.device = GPU) -> Pixels:
    return Pixels.of([np.full((*size, 3), 7, np.uint8) for size in sizes], device)


def settings(**changes: Any) -> RankingStage:
    own = {key: value for key, value in PARAMS["train"].items() if key not in ("backbone", "pretrain")}
    return RankingStage.model_validate(
        own | {"pool": 20, "updates": 2, "batch": 4, "refresh": 2, "at_once": 12} | changes
    )


def ignore(*_: Any) -> None:
    pass


# --- the device itself


def test_operands_on_two_devices_raise() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=GPU) + torch.zeros(3)


def test_reading_waits_and_is_counted() -> None:
    with fake_cuda() as watch:
        there = torch.ones(3).to(GPU)
        assert watch.counts["uploads"] == watch.counts["waits"] == 1
        bool((there > 0).all())
        float(there.sum())
        there.cpu().numpy()
        with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
            np.asarray(there)
    assert (watch.counts["reads"], watch.counts["downloads"], watch.counts["waits"]) == (2, 1, 4)


# --- training


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        (ONE_SIZE, {}),
        (MIXED, {"precision": "bfloat16", "satisfied": "redraw", "pooling": "gem"}),
        (MIXED, {"at_once": 5, "views": "independent", "crop": 0.8, "flip": True}),
        (ONE_SIZE, {"precision": "bfloat16", "at_once": 5, "mining": "random", "cutout_regions": 3}),
        (MIXED, {"batching": "sequential", "updates": 1}),
    ],
    ids=["plain", "mixed-bfloat16", "mixed-in-parts", "bfloat16-in-parts", "sequential"],
)
def test_ranking_loop_keeps_its_devices(sizes: list[tuple[int, int]], changes: dict[str, Any]) -> None:
    made = embedder()
    with fake_cuda() as watch:
        log = train_ranking(made, people(sizes), PEOPLE, settings(**changes), 0, ignore)
        devices = {parameter.device for parameter in made.parameters()}
    assert len(log) == changes.get("updates", 2) and devices == {GPU}
    rounded, whole_ones = (watch.dtypes[dtype] for dtype in (torch.bfloat16, torch.float32))
    assert (rounded > 50, whole_ones <= 2) == (("precision" in changes,) * 2)  # mining compares in float32


@pytest.mark.parametrize(("sizes", "uploads"), [(ONE_SIZE, 8), (MIXED, 30)], ids=["one-size", "mixed"])
def test_an_update_waits_three_times_for_the_gpu(sizes: list[tuple[int, int]], uploads: int) -> None:
    """For which images need a gradient, for the losses, and for the norm of the gradient."""
    with fake_cuda() as watch:
        images, marks = people(sizes), []
        train_ranking(embedder(), images, PEOPLE, settings(), 0, lambda *_: marks.append(Counter(watch.counts)))
    update = marks[1] - marks[0]
    assert (update["waits"], update["downloads"], update["reads"]) == (3, 2, 1)
    assert 0 < update["uploads"] <= uploads


def test_images_in_memory_are_sent_from_pinned_memory() -> None:
    with fake_cuda() as watch:
        images = people(ONE_SIZE, torch.device("cpu"))
        images.device = GPU
        batch = images.batch(np.arange(5))
    assert batch.device == GPU and (watch.counts["uploads"], watch.counts["waits"]) == (1, 0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_classification_keeps_its_devices_and_waits_three_times_an_update(precision: str) -> None:
    own = Pretrain.model_validate(PARAMS["pretrain"] | {"updates": 3, "precision": precision})
    with fake_cuda() as watch:
        marks: list[Counter[str]] = []
        backbone = embedder().backbone
        train_classifier(backbone, people(MIXED), PEOPLE, own, 0, lambda *_: marks.append(Counter(watch.counts)))
    assert (watch.dtypes[torch.bfloat16] > 0) is (precision == "bfloat16")
    update = marks[1] - marks[0]
    assert (update["waits"], update["downloads"], update["reads"]) == (3, 0, 3)


# --- embeddings


@pytest.mark.parametrize("sizes", [ONE_SIZE, MIXED], ids=["one-size", "mixed"])
def test_embedding_waits_once(sizes: list[tuple[int, int]]) -> None:
    made = embedder()
    with fake_cuda() as watch:
        images = people(sizes)
        made.to(GPU)
        watch.counts.clear()
        found = embed(made, images, np.arange(24), 32)
    assert found.shape == (24, 8) and watch.counts["waits"] == watch.counts["downloads"] == 1


def test_heat_maps_keep_their_device() -> None:
    made = embedder()
    with fake_cuda():
        images = people(ONE_SIZE)
        made.to(GPU)
        shown, _ = render(images, np.arange(2), whole(images.sizes[:2], 32))
        with torch.no_grad():
            _, found = maps_and_embeddings(made, shown)
        heat = grad_cam(made, shown, strongest(found, 3))
        where = cells(made, shown)
    assert heat.device == GPU and heat.shape[:2] == (2, 3)
    assert len(where.rows) == heat.shape[2]


# --- ranking

QUERIES, GALLERY = 6, 40


def unit(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def benchmark() -> tuple[Any, ...]:
    of_query = Labels(np.arange(QUERIES) + 1, np.ones(QUERIES, np.int64))
    of_gallery = Labels(np.arange(GALLERY) % 8, np.arange(GALLERY) % 3 + 1)
    return unit(QUERIES, 0), of_query, unit(GALLERY, 1), of_gallery, RULES["market1501"]


@pytest.mark.parametrize("rerank", ["none", "qe-dba", "k-reciprocal"])
def test_ranking_and_lists_keep_their_device(rerank: Any) -> None:
    options = {"none": {}, "qe-dba": {}, "k-reciprocal": {"k1": 4, "k2": 2}}[rerank]
    query, _, gallery, *_ = benchmark()
    with fake_cuda():
        ranking = score(*benchmark(), rerank=rerank, options=options, device="cuda")
        first = topk.top_k(query, gallery, 5, rerank=rerank, options=options, device="cuda")
    assert len(ranking.relevant) == QUERIES and first.items.shape == (QUERIES, 5)


def test_sweep_keeps_its_device() -> None:
    plain = score(*benchmark())
    positions = distractors.order_positions(30, 2, np.random.default_rng(0))
    with fake_cuda():
        counts = distractors.count_beating(unit(QUERIES, 0), plain, unit(30, 2), positions, [0, 10, 30], device="cuda")
    assert counts.shape == (len(plain.ranks), 3, 2)


def test_retrieval_keeps_its_device() -> None:
    query, of_query, gallery, of_gallery, rule = benchmark()
    task = Task(Embedded(query, of_query, "query"), Embedded(gallery, of_gallery, "gallery"), rule)
    with fake_cuda():
        found = topk.retrieve(task, top=3, device="cuda")
    assert found.items.shape == (QUERIES, 3)
