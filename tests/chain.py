"""Run the stages of the tiny experiment in one process and print digests: python tests/chain.py FOLDER

prints {"numerics": portable or native, "digests": {file: SHA-256 of its tensors, scores or rows}}. What every supported
processor must print is tests/structure/portable.json; where a change of the arithmetic is meant, write it there.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from reid_done_right import numerics

if __name__ == "__main__":
    numerics.choose()  # before anything loads that computes

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from reid_done_right.params import Params
from reid_done_right.plan import plan
from reid_done_right.stages.dataset import dataset
from reid_done_right.stages.distract import distract
from reid_done_right.stages.embed import embed
from reid_done_right.stages.evaluate import evaluate
from reid_done_right.stages.follow import follow
from reid_done_right.stages.identify import identify
from reid_done_right.stages.index import index
from reid_done_right.stages.initialise import initialise
from reid_done_right.stages.pretrain import pretrain
from reid_done_right.stages.retrieve import retrieve
from reid_done_right.stages.train import train
from tiny import changed

RUN = "market-default-draw0"
JOBS = plan(Params.model_validate(changed({"identify": {"dataset": "market", "variants": ["default"]}})))


def settings(group: str, job: str) -> dict[str, Any]:
    """Return the settings that the plan gives a job."""
    return JOBS[group][job].parameters


def compute(made: Path) -> None:
    """Run every stage of one run that computes, from rendering to the curve among distractors, into a folder."""
    for name in ("market", "crowd"):
        dataset(
            settings=settings("dataset", f"{name}-draw0") | {"root": str(made / name)},
            images=made / name,
            out=made / f"{name}.json",
        )
        index(settings=settings("index", f"{name}-draw0"), manifest=made / f"{name}.json", out=made / f"{name}.parquet")
    rows = made / "market.parquet"
    first, classifier, embedder, embedded = (
        made / f"{name}.safetensors" for name in ("first", "classifier", "embedder", "embedded")
    )
    initialise(settings=settings("initialise", "shallow-draw0"), out=first)
    pretrain(
        settings=settings("pretrain", "market-shallow-draw0"),
        index=rows,
        weights=first,
        out=classifier,
        log=made / "pretrain.csv",
    )
    train(
        settings=settings("train", RUN),
        index=rows,
        weights=classifier,
        out=embedder,
        log=made / "train.csv",
        snapshots=made / "snapshots.safetensors",
    )
    embed(settings=settings("embed", RUN), index=rows, embedder=embedder, out=embedded)
    shards = [made / f"shard{number}.safetensors" for number in range(3)]
    for number, shard in enumerate(shards):
        embed(
            settings=settings("embed_distractors", f"{RUN}-{number}"),
            index=made / "crowd.parquet",
            embedder=embedder,
            out=shard,
        )
    evaluate(
        settings=settings("evaluate", RUN),
        index=rows,
        embeddings=embedded,
        out=made / "scores.json",
        queries=made / "queries.parquet",
    )
    inputs = {"index": rows, "embeddings": embedded}
    distract(
        settings=settings("distract", RUN),
        **inputs,
        shards=shards,
        out=made / "curve.json",
        queries=made / "curve.parquet",
    )
    follow(
        settings=settings("follow", RUN),
        index=rows,
        snapshots=made / "snapshots.safetensors",
        embedder=embedder,
        out=made / "follow.json",
    )
    identify(settings=settings("identify", RUN), **inputs, out=made / "open_set.json")
    retrieve(
        settings=settings("retrieve", RUN),
        **inputs,
        out=made / "ranked.parquet",
        similarities=made / "similarities.json",
    )


def digests(folder: Path) -> dict[str, str]:
    """Digest what each file below a folder says, whatever stamps it carries; in the order of their paths."""
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        parts = [
            f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
            for name, value in sorted(load_file(path).items())
        ]
        content = b"".join(parts)
    elif path.suffix == ".parquet":
        content = json.dumps(pq.read_table(path).to_pydict(), default=str).encode()
    elif path.suffix == ".json":
        content = json.dumps(
            {key: value for key, value in json.loads(content).items() if key not in ("provenance", "root")}
        ).encode()
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    compute(Path(sys.argv[1]))
    print(json.dumps({"numerics": numerics.in_force(), "digests": digests(Path(sys.argv[1]))}, indent=1))
