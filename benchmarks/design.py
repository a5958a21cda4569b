"""How long shall the rendered benchmark train, on how many people? Validation mAP, on worlds that no report uses.

    python benchmarks/design.py --json benchmarks/results/design.json

docs/benchmark.md has the protocol, written before the first run. What is computed is kept in the folder `--work` and
found there by the next run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from reid_done_right import numerics

numerics.choose()  # before anything loads that computes

import numpy as np  # noqa: E402
import yaml  # noqa: E402

from learning import by, features, score  # noqa: E402
from reid_done_right import params, plan  # noqa: E402
from reid_done_right.artifacts import read_index, read_weights  # noqa: E402
from reid_done_right.images.decode import load  # noqa: E402
from reid_done_right.models.embedder import backbone_of, embedder_of  # noqa: E402
from reid_done_right.stages.dataset import dataset  # noqa: E402
from reid_done_right.stages.index import index  # noqa: E402
from reid_done_right.stages.initialise import initialise  # noqa: E402
from reid_done_right.stages.pretrain import pretrain  # noqa: E402
from reid_done_right.stages.train import train  # noqa: E402

ROOT = Path(__file__).parents[1]
WORLDS = (1001, 1002)
HALVINGS = 5
ROOM = 0.05
"""What ranking must add to the classifier's mAP, in every world."""


class Design(NamedTuple):
    """What is chosen: training identities, classification updates, ranking updates, triplets each, and their rate."""

    train_ids: int
    pretrain: int
    updates: int
    batch: int
    learning_rate: float


DESIGNS = [
    Design(*counts, *length, rate)
    for counts, length, rate in product(product((120, 250), (175, 350)), ((128, 32), (256, 16)), (0.075, 0.15))
]
BEFORE = Design(250, 700, 256, 32, 0.15)
"""The design before this study: no candidate, but what stays if none qualifies."""
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "resnet14": {"backbone": "resnet14"},
    "resnet22": {"backbone": "resnet22"},
    "no-pretraining": {"pretrain": False},
}
"""None of these may collapse; only the default's mAP is looked at."""


def settings(world: int, design: Design, variant: str) -> dict[str, dict[str, Any]]:
    """Return the settings of every stage: params.yaml's for `market`, in another world, with this design."""
    text = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    market = text["datasets"]["market"]
    rendered = market["source"]["render"] | {"world": world, "train_ids": design.train_ids}
    text |= {"datasets": {"market": market | {"source": {"render": rendered}, "variants": [variant]}}}
    text |= {"draws": [0], "variants": {variant: VARIANTS[variant]}}
    text |= {"report": {"title": "", "synthetic": True, "command": "", "baseline": variant, "allow_missing": False}}
    text |= {"distract": None}
    text["initialise"]["objects"]["world"] = world
    text["pretrain"]["updates"] = design.pretrain
    text["train"] |= {"updates": design.updates, "halve_every": design.updates // HALVINGS}
    text["train"] |= {"batch": design.batch, "learning_rate": design.learning_rate}
    text["train"] |= {"pool": 500, "satisfied": "redraw", "cutout_least": 0.5, "cutout_growth": 0.125}
    jobs = plan.plan(params.Params.model_validate(text))
    return {stage: next(iter(jobs[stage].values())).parameters for stage in jobs if jobs[stage]}


def once(path: Path, make: Callable[[Path], object]) -> float:
    """Return the CPU seconds of making a file, now or before."""
    spent = path.with_suffix(".seconds")
    if not spent.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        make(path)
        spent.write_text(f"{time.process_time() - start:.2f}")
    return float(spent.read_text())


def rows_of(work: Path, world: int, design: Design) -> Path:
    """Return the index of a world."""
    chosen, folder = settings(world, design, "default"), work / f"{world}-{design.train_ids}"
    chosen["dataset"].pop("root")
    manifest, rows = folder / "manifest.json", folder / "index.parquet"
    once(manifest, lambda out: dataset(settings=chosen["dataset"], images=folder / "images", out=out))
    once(rows, lambda out: index(settings=chosen["index"], manifest=manifest, out=out))
    return rows


def initial(work: Path, world: int, variant: str) -> tuple[Path, float]:
    """Return first weights and their CPU seconds."""
    chosen = settings(world, BEFORE, variant)
    path = work / f"{world}-objects" / f"{VARIANTS[variant].get('backbone', 'resnet10')}.safetensors"
    return path, once(path, lambda out: initialise(settings=chosen["initialise"], out=out))


def classifier(work: Path, world: int, design: Design, variant: str) -> tuple[Path, float]:
    """Return the weights that ranking starts from, and the CPU seconds of their classification."""
    first, _ = initial(work, world, variant)
    if VARIANTS[variant].get("pretrain") is False:
        return first, 0.0
    rows = rows_of(work, world, design)
    path = rows.with_name(f"{first.stem}-{design.pretrain}") / "classifier.safetensors"
    chosen = settings(world, design, variant)["pretrain"]
    made = partial(pretrain, settings=chosen, index=rows, weights=first, log=path.with_name("log.csv"))
    return path, once(path, lambda out: made(out=out))


def measured(work: Path, world: int, design: Design, variant: str) -> dict[str, Any]:
    """Return mAP of the classifier and of the embedder (of the default), whether it collapsed, and CPU seconds."""
    rows = rows_of(work, world, design)
    weights, pretraining = classifier(work, world, design, variant)
    path = rows.with_name(f"embedder-{variant}-{'-'.join(map(str, design))}") / "embedder.safetensors"
    chosen = settings(world, design, variant)["train"]
    made = partial(train, settings=chosen, index=rows, weights=weights, log=path.with_name("log.csv"))
    training = once(path, lambda out: made(out=out))
    trained = read_weights(path)
    found: dict[str, Any] = {"collapsed": trained.about["collapsed"], "cpu_seconds": [pretraining, training]}
    if variant != "default":
        return found
    kept = path.with_name("mAP.json")
    if not kept.is_file():
        test = read_index(rows)
        images = load(test, np.concatenate([test.query, test.gallery]))
        kinds = {
            "classifier": features(backbone_of(read_weights(weights), str(weights))),
            "embedder": by(embedder_of(trained, str(path))),
        }
        kept.write_text(json.dumps({kind: score(test, images, extract) for kind, extract in kinds.items()}))
    return found | json.loads(kept.read_text())


def gain(found: dict[int, dict[str, Any]]) -> float:
    """Return what ranking adds to the classifier in the world where it adds least."""
    return min(one["embedder"] - one["classifier"] for one in found.values())


def mean_map(found: dict[int, dict[str, Any]]) -> float:
    """Return the embedder's mAP, averaged over worlds."""
    return float(np.mean([one["embedder"] for one in found.values()]))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--work", type=Path, default=Path("results/design"), help="where to keep what is computed")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    results: dict[Design, dict[int, dict[str, Any]]] = {}
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:

        def run(designs: Iterable[Design], variant: str) -> dict[Design, dict[int, dict[str, Any]]]:
            """Measure designs in every world, one world a process, so that no two make the same file."""
            designs = list(designs)
            by_world = list(pool.map(partial(_all, arguments.work, designs, variant), WORLDS))
            return {design: dict(zip(WORLDS, found, strict=True)) for design, *found in zip(designs, *by_world)}  # noqa: B905

        results = run([BEFORE, *DESIGNS], "default")
        for design, found in results.items():
            print(design, f"mAP {100 * mean_map(found):.1f}, of which ranking {100 * gain(found):.1f}", flush=True)
        roomy = [design for design in DESIGNS if gain(results[design]) >= ROOM]
        ranked = [*sorted(roomy, key=lambda design: -mean_map(results[design])), BEFORE]
        collapses: dict[Design, dict[str, Any]] = {}
        for design in ranked:
            others = {variant: run([design], variant)[design] for variant in VARIANTS if variant != "default"}
            collapses[design] = others
            if not any(one["collapsed"] for found in [results[design], *others.values()] for one in found.values()):
                break
            print(design, "collapsed:", others, flush=True)
    print("chosen", design)
    if arguments.json:
        described = {"processor": numerics.processor().get("model name", ""), "numerics": numerics.in_force()}
        tried = [
            {"design": d._asdict(), "mean_mAP": mean_map(f), "least_gain": gain(f), "worlds": f}
            | ({"variants": collapses[d]} if d in collapses else {})
            for d, f in results.items()
        ]
        text = {**described, "tried": tried, "chosen": design._asdict()}
        arguments.json.write_text(json.dumps(text, indent=1) + "\n")


def _all(work: Path, designs: list[Design], variant: str, world: int) -> list[dict[str, Any]]:
    return [measured(work, world, design, variant) for design in designs]


if __name__ == "__main__":
    main()
