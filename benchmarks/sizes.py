"""How many updates does the rendered benchmark need? Validation mAP of ever fewer, on worlds that no report uses.

    python benchmarks/sizes.py --json benchmarks/results/sizes.json

docs/benchmark.md has the protocol. What is computed is kept in the folder `--work` and found there by the next run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from reid_done_right import numerics

numerics.choose()  # before anything loads that computes

import numpy as np  # noqa: E402
import yaml  # noqa: E402

from learning import by, score  # noqa: E402
from reid_done_right import params, plan  # noqa: E402
from reid_done_right.artifacts import read_index, read_weights  # noqa: E402
from reid_done_right.images.decode import load  # noqa: E402
from reid_done_right.models.embedder import embedder_of  # noqa: E402
from reid_done_right.stages.dataset import dataset  # noqa: E402
from reid_done_right.stages.index import index  # noqa: E402
from reid_done_right.stages.initialise import initialise  # noqa: E402
from reid_done_right.stages.pretrain import pretrain  # noqa: E402
from reid_done_right.stages.train import train  # noqa: E402

ROOT = Path(__file__).parents[1]
WORLDS = (1001, 1002)
HALVINGS = 5
TOLERANCE = 0.01


class Updates(NamedTuple):
    """Of each training, one after the other."""

    initialise: int
    pretrain: int
    train: int


MOST = Updates(1800, 700, 256)
"""The largest tried; each is halved twice."""


def settings(world: int, updates: Updates) -> dict[str, dict[str, Any]]:
    """Return the settings of every stage: params.yaml's for `market`, in another world, with these updates."""
    text = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    market = text["datasets"]["market"]
    market |= {"source": {"render": market["source"]["render"] | {"world": world}}, "variants": ["default"]}
    text |= {"seeds": [0], "datasets": {"market": market}, "variants": {"default": {}}}
    text |= {"report": {"title": "", "synthetic": True, "command": "", "baseline": "default", "allow_missing": False}}
    del text["distract"]
    text["initialise"]["objects"]["updates"] = updates.initialise
    text["pretrain"]["updates"] = updates.pretrain
    text["train"] |= {"updates": updates.train, "halve_every": max(1, updates.train // HALVINGS)}
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


def rows_of(work: Path, world: int) -> Path:
    """Return the index of a world."""
    chosen, folder = settings(world, MOST), work / str(world)
    chosen["dataset"].pop("root")
    manifest, rows = folder / "manifest.json", folder / "index.parquet"
    once(manifest, lambda out: dataset(settings=chosen["dataset"], images=folder / "images", out=out))
    once(rows, lambda out: index(settings=chosen["index"], manifest=manifest, out=out))
    return rows


def initial(work: Path, updates: Updates) -> tuple[Path, float]:
    """Return first weights and their CPU seconds."""
    path = work / f"objects-{updates.initialise}" / "weights.safetensors"
    chosen = settings(WORLDS[0], updates)["initialise"]
    return path, once(path, lambda out: initialise(settings=chosen, out=out))


def classifier(work: Path, updates: Updates, world: int) -> tuple[Path, float]:
    """Return a classifier's weights and their CPU seconds."""
    path = work / str(world) / f"classifier-{updates.initialise}-{updates.pretrain}" / "weights.safetensors"
    inputs = {"index": rows_of(work, world), "weights": initial(work, updates)[0], "log": path.with_name("log.csv")}
    chosen = settings(world, updates)["pretrain"]
    return path, once(path, lambda out: pretrain(settings=chosen, out=out, **inputs))


def embedder(work: Path, updates: Updates, world: int) -> dict[str, float]:
    """Return an embedder's mAP of single queries and the CPU seconds of each training."""
    path = work / str(world) / f"embedder-{'-'.join(map(str, updates))}" / "weights.safetensors"
    inputs = {"index": rows_of(work, world), "log": path.with_name("log.csv")}
    weights, pretraining = classifier(work, updates, world)
    chosen = settings(world, updates)["train"]
    training = once(path, lambda out: train(settings=chosen, weights=weights, out=out, **inputs))
    kept = path.with_name("mAP.json")
    if not kept.is_file():
        kept.write_text(json.dumps(mean_average_precision(inputs["index"], path)))
    seconds = {"initialise": initial(work, updates)[1], "pretrain": pretraining, "train": training}
    return {"mAP": json.loads(kept.read_text()), "cpu_seconds": seconds}


def mean_average_precision(rows: Path, trained: Path) -> float:
    """Return the mAP of single queries."""
    test = read_index(rows)
    images = load(test, np.concatenate([test.query, test.gallery]))
    return score(test, images, by(embedder_of(read_weights(trained), str(trained))))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--work", type=Path, default=Path("results/sizes"), help="where to keep what is computed")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once")
    arguments = parser.parse_args()
    chosen, tried = MOST, []
    arguments.work.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        for stage in reversed(Updates._fields):
            most = getattr(MOST, stage)
            ladder = [chosen._replace(**{stage: most // step}) for step in (1, 2, 4)]
            both = [(updates, world) for updates in ladder for world in WORLDS]
            list(pool.map(partial(rows_of, arguments.work), WORLDS))
            list(pool.map(partial(initial, arguments.work), {u.initialise: u for u in ladder}.values()))
            first = {(u.initialise, u.pretrain, world): (u, world) for u, world in both}.values()
            list(pool.map(partial(classifier, arguments.work), *zip(*first, strict=True)))
            results = dict(
                zip(both, pool.map(partial(embedder, arguments.work), *zip(*both, strict=True)), strict=True)
            )
            means = []
            for updates in ladder:
                found = {str(world): results[updates, world] for world in WORLDS}
                means.append(mean(one["mAP"] for one in found.values()))
                tried.append({"updates": updates._asdict(), "mean_mAP": means[-1], "worlds": found})
                print(updates, f"{100 * means[-1]:.1f}", flush=True)
            chosen = [u for u, value in zip(ladder, means, strict=True) if value >= means[0] - TOLERANCE][-1]
    print("chosen", chosen)
    if arguments.json:
        described = {"processor": numerics.processor().get("model name", ""), "numerics": numerics.in_force()}
        text = {**described, "tried": tried, "chosen": chosen._asdict()}
        arguments.json.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
