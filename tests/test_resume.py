"""`reid train`, killed as by a power loss, and shared between processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reid_done_right.artifacts import read_weights
from reid_done_right.stages.train import train
from test_stages import RUN, Chain, chain, settings

__all__ = ["chain"]


pytestmark = pytest.mark.slow


def described(chain: Chain, updates: int, **changes: Any) -> Path:
    """Write the settings of a run; of 60 updates, it takes seconds."""
    parameters = settings("train", RUN)
    parameters = parameters | {"train": parameters["train"] | {"updates": updates, "refresh": 10}} | changes
    path = chain[f"settings-{updates}.json"]
    path.write_text(json.dumps({"stage": "train", "job": RUN, "parameters": parameters}))
    return path


def command(chain: Chain, described: Path, out: Path) -> list[str]:
    paths = {"settings": described, "index": chain["market.parquet"], "weights": chain["classifier"]}
    paths |= {"out": out / "embedder.safetensors", "log": out / "log.csv", "snapshots": out / "snapshots.safetensors"}
    return [
        sys.executable,
        "-m",
        "reid_done_right",
        "train",
        *(part for name, path in paths.items() for part in (f"--{name}", str(path))),
    ]


def start(chain: Chain, described: Path, out: Path, **environment: str) -> "subprocess.Popen[str]":
    out.mkdir(exist_ok=True)
    return subprocess.Popen(
        command(chain, described, out),
        env={**os.environ, "REID_STORE": str(out / "store"), "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def whole(chain: Chain) -> Path:
    """Give the folder of a training that was not killed."""
    run = start(chain, described(chain, 60), chain["whole"])
    assert run.wait(900) == 0, run.communicate()[1]
    return chain["whole"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_training_ends_with_the_bytes_of_one_that_was_not(
    chain: Chain, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    job = described(chain, 60)
    out = tmp_path / "killed"
    victim = start(chain, job, out, REID_CHECKPOINT_UPDATES="7")
    kept = out / "store/partial"
    deadline = time.monotonic() + 900
    while not list(kept.glob("*/checkpoint.safetensors")):
        assert victim.poll() is None and time.monotonic() < deadline, "no checkpoint before the end"
        time.sleep(0.01)
    victim.send_signal(number)
    assert victim.wait(900) == (-number if number == signal.SIGKILL else 128 + number)
    assert not (out / "embedder.safetensors").exists()
    again = start(chain, job, out)
    said = again.communicate(timeout=900)[1]
    assert again.returncode == 0, said
    assert list(kept.iterdir()) == []
    for name in ("embedder.safetensors", "log.csv", "snapshots.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_two_workers_write_one_embedder_and_the_store_serves_both(chain: Chain, tmp_path: Path) -> None:
    job = described(chain, 6, workers=2)
    for expected in ("computed in", "found in the store"):
        run = start(chain, job, tmp_path / "shared")
        said = run.communicate(timeout=900)[1]
        assert run.returncode == 0, said
        assert expected in said
    alone = tmp_path / "alone"
    alone.mkdir()
    parameters = json.loads(job.read_text())["parameters"]
    train(
        settings=parameters,
        index=chain["market.parquet"],
        weights=chain["classifier"],
        out=alone / "embedder.safetensors",
        log=alone / "log.csv",
    )
    one, two = (read_weights(folder / "embedder.safetensors").state for folder in (alone, tmp_path / "shared"))
    assert set(one) == set(two)
    first, second = (
        (folder / "log.csv").read_text().splitlines()[1].split(",") for folder in (alone, tmp_path / "shared")
    )
    assert [float(cell) for cell in first[:4]] == pytest.approx([float(cell) for cell in second[:4]], rel=1e-3)
