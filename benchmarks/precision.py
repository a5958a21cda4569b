"""What other arithmetic and other batches change in the end, on the embedded experiment.

    make && python benchmarks/precision.py --json benchmarks/results/precision.json

The default variant of market and duke is trained again from the experiment's own classifiers, once in float32 and once in
bfloat16 (autocast), and once image by image (`batching: sequential`), then embedded and scored by single queries. Seeds
of training differ by more than a change must be to matter: `float32_draws` has their spread beside it.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from reid_done_right.artifacts import read_embeddings, read_index, read_json
from reid_done_right.evaluation import ranking
from reid_done_right.evaluation.embedded import Labels
from reid_done_right.evaluation.rules import RULES
from reid_done_right.stages.embed import embed
from reid_done_right.stages.train import train

RESULTS = Path("results/embedded")
WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "sequential": {"batching": "sequential"},
}


def score(dataset: str, draw: int, changes: dict[str, Any], folder: Path) -> dict[str, float]:
    """Train, embed and score one run; give mAP and seconds of training."""
    job = f"{dataset}-default-draw{draw}"
    settings = read_json(RESULTS / f"settings/train/{job}.json")["parameters"]
    index = RESULTS / f"index/{dataset}-draw{draw}.parquet"
    weights = RESULTS / f"pretrain/{dataset}-resnet10-draw{draw}.safetensors"
    settings = {**settings, "train": {**settings["train"], **changes}}
    start = time.process_time()
    train(settings=settings, index=index, weights=weights, out=folder / "embedder", log=folder / "log")
    seconds = time.process_time() - start
    embed(settings={"threads": settings["threads"]}, index=index, embedder=folder / "embedder", out=folder / "rows")
    rows, embedded = read_index(index), read_embeddings(folder / "rows")
    labels = [Labels(rows.person_id[part], rows.camera_id[part]) for part in (rows.query, rows.gallery)]
    rule = RULES["market1501" if dataset == "market" else "dukemtmc"]
    found = ranking.score(embedded.of(rows.query), labels[0], embedded.of(rows.gallery), labels[1], rule)
    return {"mAP": found.scores()["mAP"], "cpu_seconds": seconds}  # type: ignore[dict-item]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS), help="float32 must be among them")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for dataset in ("market", "duke"):
        for draw in options.draws:
            for way in options.ways:
                with tempfile.TemporaryDirectory() as folder:
                    scores = score(dataset, draw, WAYS[way], Path(folder))
                found.setdefault(dataset, {}).setdefault(way, {})[f"draw{draw}"] = scores
                print(
                    dataset, draw, way, f"mAP {100 * scores['mAP']:.2f}, {scores['cpu_seconds']:.0f} CPU s", flush=True
                )
        means = {way: sum(run["mAP"] for run in runs.values()) / len(runs) for way, runs in found[dataset].items()}
        found[dataset]["mAP_change"] = {way: means[way] - means["float32"] for way in means if way != "float32"}
        values = [run["mAP"] for run in found[dataset]["float32"].values()]
        found[dataset]["float32_draws"] = max(values) - min(values)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
