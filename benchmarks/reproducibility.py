"""What stays the same to the byte, and how far the rest goes apart.

    make && python benchmarks/reproducibility.py --json benchmarks/results/reproducibility.json

**Same bytes.** The smoke experiment is run in fresh copies of this checkout, each time from nothing: on one and on two
cores, with its last jobs first, without the store, through DVC. Every artifact, record and file of the report is
compared with the first run's.

**Another machine.** One training, embedding and evaluation of the embedded experiment is repeated as other machines would
compute it: without AVX-512, without AVX2 (PyTorch and oneDNN are told to do without), with sums in another order (one
thread instead of two), and on a GPU where there is one. Once from the same embedder (`same_weights`: what embedding
alone adds), once trained anew (`trained_anew`: what 256 updates make of it). The spread of seeds in the tables is the
measure for what matters.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_done_right.artifacts import read_embeddings, read_json, write_json
from reid_done_right.records import made_with

ROOT = Path(__file__).parents[1]
PARAMS = "experiments/smoke/params.yaml"
RUN = "market-default-seed0"
SNAKEMAKE = f"snakemake --configfile {PARAMS} --quiet all"
LAST = "results/smoke/embed/person-search-default-seed0.safetensors reports/smoke/training_curves.csv"
DVC = "dvc repro experiments/smoke/dvc.yaml"
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "one core": (f"{SNAKEMAKE} --cores 1", {}),
    "two cores": (f"{SNAKEMAKE} --cores 2", {}),
    "last jobs first": (f"{SNAKEMAKE} --cores 2 --scheduler greedy --prioritize {LAST}", {}),
    "without the store": (f"{SNAKEMAKE} --cores 2", {"REID_STORE": "none"}),
    "DVC": (DVC, {}),
}
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
MACHINES: dict[str, tuple[dict[str, str], int]] = {  # environment, threads
    "as here": (NO_GPU, 2),
    "another order of sums": (NO_GPU, 1),
    "without AVX-512": ({**NO_GPU, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, 2),
    "without AVX2": ({**NO_GPU, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, 2),
} | ({"on the GPU": ({}, 2)} if torch.cuda.is_available() else {})


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Give the environment in which a copy of the checkout runs its own code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src"), **more}


def copy(source: Path, folder: Path) -> Path:
    """Clone the last commit of a checkout."""
    subprocess.run(["git", "clone", "--quiet", source, folder], check=True)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Digest all that the experiment wrote, but logs, times and settings."""
    files = [path for part in ("results/smoke", "reports/smoke") for path in (folder / part).rglob("*")]
    passing = {"logs", "benchmarks", "settings"}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not passing & set(Path(name := path.relative_to(folder).as_posix()).parts)
    }


def same_bytes(work: Path) -> dict[str, Any]:
    """Run the smoke experiment in every way."""
    found: dict[str, Any] = {}
    reference: dict[str, str] = {}
    for number, (way, (command, more)) in enumerate(WAYS.items()):
        folder = copy(ROOT, work / "first") if number == 0 else copy(work / "first", work / f"other{number}")
        for again in range(1 + (command == DVC)):  # its first call may only update the list of jobs
            ended = subprocess.run(command.split(), cwd=folder, env=environment(folder, **more), capture_output=True)
            if ended.returncode and (command != DVC or again):
                sys.exit(ended.stdout.decode() + ended.stderr.decode())
        seen = contents(folder)
        reference = reference or seen
        differing = sorted(name for name in seen.keys() | reference.keys() if seen.get(name) != reference.get(name))
        found[way] = {"files": len(seen), "differing": differing}
        print(f"{way:22} {len(seen):4} files, {len(differing)} differ from the first run's", flush=True)
        if number:
            shutil.rmtree(folder)
    return found


def another_machine(work: Path) -> dict[str, Any]:
    """Embed and score as other machines would, from the same embedder and from one trained anew."""
    results = Path("results/embedded")
    found: dict[str, Any] = {}
    for machine, (more, threads) in MACHINES.items():
        for weights in ("same_weights", "trained_anew"):
            out = work / machine.replace(" ", "-") / weights
            embedder = results / f"train/{RUN}.safetensors"
            if weights == "trained_anew":
                embedder = out / "embedder.safetensors"
                start = results / "pretrain/market-resnet10-seed0.safetensors"
                stage(work, "train", threads, more, weights=start, out=embedder, log=out / "log.csv")
            stage(work, "embed", threads, more, embedder=embedder, out=out / "embeddings.safetensors")
            scores = {"out": out / "scores.json", "queries": out / "queries.parquet"}
            stage(work, "evaluate", threads, more, embeddings=out / "embeddings.safetensors", **scores)
            here = work / "as-here" / weights
            rows = [read_embeddings(place / "embeddings.safetensors").embeddings for place in (out, here)]
            mAP = [read_json(place / "scores.json")["results"][0]["mAP"] for place in (out, here)]
            change = {"embeddings": float(np.abs(rows[0] - rows[1]).max()), "mAP": mAP[0] - mAP[1]}
            found.setdefault(machine, {})[weights] = change
            print(
                f"{machine:22} {weights:13} embeddings {change['embeddings']:.1e}, mAP {change['mAP']:+.5f}", flush=True
            )
    return found


def stage(work: Path, name: str, threads: int, more: dict[str, str], **places: Path) -> None:
    """Call one stage of the run by hand, without the store."""
    settings = read_json(Path(f"results/embedded/settings/{name}/{RUN}.json"))
    settings["parameters"] |= {"threads": threads}
    write_json(work / "settings.json", settings)
    command = ["reid", name, "--settings", work / "settings.json", "--index", "results/embedded/index/market.parquet"]
    command += [part for option, place in places.items() for part in (f"--{option}", place)]
    subprocess.run(command, env=environment(ROOT, REID_STORE="none", **more), check=True, capture_output=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    options = parser.parse_args()
    if not Path("results/embedded/train").is_dir():
        parser.error("results/embedded: no such results; run make first")
    with tempfile.TemporaryDirectory() as work:
        same = same_bytes(Path(work))
        apart = another_machine(Path(work))
    command = "make && python benchmarks/reproducibility.py"
    found = {"command": command, "made_with": made_with(), "same_bytes": same, "another_machine": apart}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
