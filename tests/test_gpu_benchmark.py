"""The GPU benchmark, tiny and on a CPU: all of its branches."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu

TINY = """--backbone resnet18 --images 20 --largest-side 32 --batch 2 --at-once 6 --pool 10 --refresh 2 --updates 2
    --repeats 1 --workers 1 --distractors 100"""


def start(out: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--json", str(out), *TINY.split(), *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=1800,
    )


@pytest.mark.slow
def test_gpu_benchmark_measures_other_parts_alone(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = start(out, "--minutes", "8", "--only", "classification", "mixed", "ranking")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["ways"] == {} and "way" not in found
    assert found["classification"].keys() == {"bfloat16", "float32"}
    assert 0 <= found["mixed"]["padding"] <= 0.25 and found["mixed"]["embedding_images_per_second"] > 0
    assert found["ranking"]["items"] == 400 and len(found["ranking"]["seconds"]) == 4


@pytest.mark.slow
def test_gpu_benchmark_measures_and_reports_failures(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = start(out, "--minutes", "8", "--ways", "float32", "eager", "compiled", CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["way"] == "eager"
    assert found["updates_measured"] == 2
    share = min(0.02, found["checkpoint_seconds"] / 30)
    seconds = found["seconds_per_update"] * 4096 * (1 + share) + found["decode_seconds"]
    assert found["projected_minutes"] == pytest.approx(seconds / 60)
    assert min(found["update_seconds"], found["checkpoint_seconds"]) > 0
    assert found["percent_of_peak"] is None and found["device"] == "cpu"
    assert found["embedding_images_per_second"] > 0 and found["gradient_agreement"]["cosine"] > 0.8
    assert found["ways"]["float32"]["gradient_agreement"] == {"relative_l2": 0, "cosine": pytest.approx(1)}
    assert "no-such-compiler" in found["ways"]["compiled"]["error"]
    # 10 images mined for 2 updates of 6 images at most, which count three times
    assert 5 + 3 * 3 <= found["images_per_update"] <= 5 + 3 * 6
    assert {"command", "commit", "torch", "cuda", "settings"} <= found.keys()
    for shown in ("cosine", "eager", "projected_minutes", "no-such-compiler"):
        assert shown in done.stdout


def test_gpu_benchmark_without_time_keeps_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    options = [*TINY.split(), "--minutes", "0.001", "--ways", "float32", "eager"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json", str(out), *options])
    with pytest.raises(SystemExit, match="no update was measured"):
        gpu.main()
    assert json.loads(out.read_text())["ways"] == {name: {"error": "no time was left"} for name in ("float32", "eager")}


def test_slow_part_is_stopped_and_keeps_results(tmp_path: Path) -> None:
    options = Namespace(folder=tmp_path, **dict.fromkeys(gpu.PASSED, 1))
    (tmp_path / "eager.json").write_text('{"gradient_seconds": 1.5}')
    begin = time.monotonic()
    assert gpu.run(options, "eager", 0.2) == {"gradient_seconds": 1.5, "error": "took more than 0 s"}
    assert time.monotonic() - begin < 60


def test_out_of_memory_halves_batch() -> None:
    tried: list[int] = []

    def work(many: int) -> torch.Tensor:
        tried.append(many)
        if many > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(1)

    assert gpu.that_fits(work, 192)[1] == 48
    assert tried == [192, 96, 48]
    with pytest.raises(RuntimeError, match="another"):
        gpu.that_fits(lambda many: (_ for _ in ()).throw(RuntimeError("another")), 4)


def way(seconds: float, cosine: float, precision: str = "bfloat16", **more: Any) -> dict[str, Any]:
    agreement = {"cosine": cosine}
    return {
        "estimated_seconds_per_update": seconds,
        "gradient_agreement": agreement,
        "precision": precision,
        **more,
    }


def test_fastest_way_that_agrees_is_chosen() -> None:
    ways = {"float32": way(0.1, 1.0, "float32"), "eager": way(3, 0.96), "compiled": way(2, 0.95), "graphs": way(1, 0.5)}
    assert gpu.fastest(ways) == "compiled"
    assert gpu.fastest({**ways, "broken": way(0.1, 0.96, error="crashed")}) == "compiled"
    assert gpu.fastest({"float32": ways["float32"]}) is None
