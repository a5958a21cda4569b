"""The code keys of what computes, tied to the bytes that it computes: no result is found under a key that it outgrew.

`golden.json` has, for each stage of a tiny chain, its key and the digests of what it wrote. One and the same key with
other bytes means that `reid_done_right.store.keys` left out something that computes. Where a change of code is meant,

    python tests/test_golden.py

writes the file anew; commit it with the change. The bytes are those of the packages in requirements.lock, on one
thread, on a processor for which arithmetic on the CPU is the same as here.
"""

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reid_done_right.artifacts import read_json, write_json
from reid_done_right.params import Params
from reid_done_right.plan import plan
from reid_done_right.store import make
from reid_done_right.store.ledger import Ledger
from tiny import changed

GOLDEN = Path(__file__).with_name("golden.json")
RUN = "market-default-seed0"
CHAIN: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("dataset", "market", {}, {"images": "results/tiny/dataset/market", "out": "market.json"}),
    ("index", "market", {"manifest": "market.json"}, {"out": "market.parquet"}),
    ("initialise", "shallow", {}, {"out": "first"}),
    (
        "pretrain",
        "market-shallow-seed0",
        {"index": "market.parquet", "weights": "first"},
        {"out": "classifier", "log": "classifier.csv"},
    ),
    ("train", RUN, {"index": "market.parquet", "weights": "classifier"}, {"out": "embedder", "log": "embedder.csv"}),
    ("embed", RUN, {"index": "market.parquet", "embedder": "embedder"}, {"out": "embedded"}),
    (
        "evaluate",
        RUN,
        {"index": "market.parquet", "embeddings": "embedded"},
        {"out": "scores.json", "queries": "queries.parquet"},
    ),
    (
        "retrieve",
        RUN,
        {"index": "market.parquet", "embeddings": "embedded"},
        {"out": "places.parquet", "similarities": "similarities.json"},
    ),
]


def computed() -> dict[str, Any]:
    """Run the chain below the working directory; give stage -> key, and digests of what it wrote."""
    jobs = plan(Params.model_validate(changed({})))
    for stage, job, inputs, outputs in CHAIN:
        parameters = jobs[stage][job]["parameters"]
        parameters |= {"threads": 1} if "threads" in parameters else {}

        def compute(
            folder: Path, names: Mapping[str, str] = outputs, call: tuple[Any, ...] = (stage, parameters, inputs)
        ) -> None:
            function = getattr(importlib.import_module(f"reid_done_right.stages.{call[0]}"), call[0])
            places = {name: folder / Path(path).name for name, path in names.items()}
            function(settings=call[1], **{name: Path(path) for name, path in call[2].items()}, **places)

        request = {"inputs": {name: Path(path) for name, path in inputs.items()}, "compute": compute}
        make(stage, parameters=parameters, outputs=[Path(path) for path in outputs.values()], **request)
    entries = {entry.stage: entry for entry in Ledger.here().entries}
    return {stage: {"key": entries[stage].key, "outputs": entries[stage].outputs} for stage, *_ in CHAIN}


def test_equal_keys_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_STORE", raising=False)
    golden, found = read_json(GOLDEN), computed()
    assert list(golden) == list(found)
    outgrown = [
        stage
        for stage in found
        if found[stage]["key"] == golden[stage]["key"] and found[stage]["outputs"] != golden[stage]["outputs"]
    ]
    assert not outgrown, (
        f"{outgrown[0]} writes other bytes under the same key: store/keys.py leaves out something that computes, or "
        "packages or processor differ from those of golden.json"
    )
    other = [stage for stage in found if found[stage] != golden[stage]]
    same = "the same bytes" if other and found[other[0]]["outputs"] == golden[other[0]]["outputs"] else "other bytes"
    assert not other, (
        f"the code of {other[0]} changed and writes {same}: if that is meant, `python tests/test_golden.py`"
    )


if __name__ == "__main__":
    os.environ.pop("REID_STORE", None)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_json(GOLDEN, computed())
    print(json.dumps(read_json(GOLDEN), indent=1), file=sys.stderr)
