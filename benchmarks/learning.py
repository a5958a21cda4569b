"""Is learning real on the rendered benchmark? mAP of four embeddings of ever more training, and a colour histogram.

    python benchmarks/learning.py --json benchmarks/results/learning.json

untrained < histogram < classifier < embedder must hold on market and on duke, for every draw. Run the embedded
experiment first (`make`): the classifier and the embedder are its artifacts. Of the herd, whose ranking with cut-out may
be worse than its classifier, after its experiment:

    python benchmarks/learning.py --experiment herd --datasets herd flanks --draws 2 3 4 --json benchmarks/results/herd.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reid_done_right.artifacts import Index, read_index, read_weights
from reid_done_right.evaluation import ranking
from reid_done_right.evaluation.embedded import Labels, normalised
from reid_done_right.evaluation.rules import Rule
from reid_done_right.images.decode import load
from reid_done_right.images.pixels import Pixels
from reid_done_right.models.backbone import Backbone
from reid_done_right.models.build import build
from reid_done_right.models.embedder import Embedder, backbone_of, embed, embedder_of

CPU = torch.device("cpu")
STRIPES, LEVELS = 6, 4


def histogram(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return root-frequencies of 4 x 4 x 4 colours in six horizontal stripes of the middle columns: (384,)."""
    middle = image[:, image.shape[1] // 5 : -(image.shape[1] // 5)] // (256 // LEVELS)
    colours = middle.astype(np.int64) @ np.array([LEVELS**2, LEVELS, 1])
    stripes = np.array_split(colours, STRIPES)
    counts = [np.bincount(stripe.ravel(), minlength=LEVELS**3) / stripe.size for stripe in stripes]
    return np.sqrt(np.concatenate(counts)).astype(np.float32)


def score(
    index: Index,
    images: Sequence[NDArray[np.uint8]],
    extract: Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]],
) -> float:
    """Return the mAP of single queries, trapezoid, of what `extract` makes of the images (query rows, then gallery)."""
    embeddings = normalised(extract(images))
    queries = len(index.query)
    labels = [Labels(index.person_id[rows], index.camera_id[rows]) for rows in (index.query, index.gallery)]
    rule = Rule(same_camera_is_junk=bool(index.camera_id.any()))  # the herd has no cameras
    ranked = ranking.score(embeddings[:queries], labels[0], embeddings[queries:], labels[1], rule)
    return float(ranked.average_precision().mean())


def features(backbone: Backbone, side: int) -> Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]:
    """Extract max-pooled features of a backbone."""
    return by(Embedder(backbone, 0, "max"), side)


def by(network: Embedder, side: int) -> Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]:
    """Embed with a network images whose longer side has this many pixels."""
    return lambda images: embed(network, Pixels.of(images, CPU), np.arange(len(images)), side)


def measure(results: Path, dataset: str, draw: int) -> dict[str, float]:
    """Return the mAP of each kind of embedding on a dataset."""
    index = read_index(results / f"index/{dataset}-draw{draw}.parquet")
    images = load(index, np.concatenate([index.query, index.gallery]))
    classifier = results / f"pretrain/{dataset}-resnet10-draw{draw}.safetensors"
    trained = results / f"train/{dataset}-default-draw{draw}.safetensors"
    side = read_weights(trained).about["largest_side"]
    initial = read_weights(results / f"initialise/resnet10-draw{draw}.safetensors")
    torch.manual_seed(draw)
    kinds = {
        "untrained": features(build(initial.about["backbone"]), side),
        "objects": features(backbone_of(initial, "resnet10"), side),
        "histogram": lambda some: np.stack([histogram(image) for image in some]),
        "classifier": features(backbone_of(read_weights(classifier), str(classifier)), side),
        "embedder": by(embedder_of(read_weights(trained), str(trained)), side),
    }
    return {kind: score(index, images, extract) for kind, extract in kinds.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--experiment", default="embedded")
    parser.add_argument("--datasets", nargs="+", default=["market", "duke"])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for dataset in arguments.datasets:
        for draw in arguments.draws:
            found = measured.setdefault(dataset, {})[f"draw{draw}"] = measure(
                Path("results") / arguments.experiment, dataset, draw
            )
            order = [found[kind] for kind in ("untrained", "histogram", "classifier", "embedder")]
            verdict = "holds" if order == sorted(order) else "FAILS"
            print(f"{dataset} draw {draw}:", *(f"{kind} {100 * value:.1f}" for kind, value in found.items()), verdict)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
