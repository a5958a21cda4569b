"""The comparison of a GPU with the CPU, with the CPU on both sides, and what it says of a device that is wrong."""

import json
import sys
from pathlib import Path

import pytest
import torch

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import device


def compare(monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> None:
    given = ["device.py", "--json", str(out), "--device", "cpu", "--small", "--threads", "1", *more]
    monkeypatch.setattr(sys, "argv", given)
    device.main()


@pytest.mark.slow
def test_comparison_of_the_cpu_with_itself_finds_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, tmp_path / "device.json")
    found = json.loads((tmp_path / "device.json").read_text())
    assert found["pixels"]["largest_difference"] == found["embeddings"]["largest_difference"] == 0
    assert found["gradients"]["float32"]["relative_l2"] == 0 and found["gradients"]["bfloat16"]["relative_l2"] > 0
    assert all(each["same_again"] for name, each in found["gradients"].items() if name != "part_seconds")
    assert found["ranks"].keys() >= {"none", "qe-dba", "k-reciprocal"} and len(found["counts"]["seconds"]) == 3
    assert device.beyond(found) == []


def test_comparison_keeps_the_other_parts_where_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(on: device.Comparison) -> dict[str, object]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    monkeypatch.setitem(device.PARTS, "pixels", broken)
    with pytest.raises(
        SystemExit, match=r"pixels: RuntimeError: CUDA error: an illegal memory access was encountered$"
    ):
        compare(monkeypatch, tmp_path / "device.json", "--only", "pixels", "embeddings")
    found = json.loads((tmp_path / "device.json").read_text())
    assert found["embeddings"]["largest_difference"] == 0 and "ranks" not in found


def test_comparison_names_what_is_beyond_the_expected() -> None:
    found = {"pixels": {"largest_difference": 0.02}, "ranks": {"none": {"differ": 0.0005}}}
    assert device.beyond(found) == ["pixels.largest_difference: 0.02, expected at most 0"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_comparison_without_a_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["device.py", "--json", str(tmp_path / "device.json")])
    with pytest.raises(SystemExit, match="no CUDA device here; give --device cpu"):
        device.main()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_computes_what_the_cpu_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["device.py", "--json", str(tmp_path / "device.json"), "--small"])
    device.main()
