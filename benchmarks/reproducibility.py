"""What stays the same to the byte, whatever the way of running and the machine.

    python benchmarks/reproducibility.py --json benchmarks/results/reproducibility.json

**Ways of running.** The smoke experiment is run in fresh copies of this checkout, each time from nothing: on one and on
two cores, with its last jobs first, without the store, through DVC. Every artifact and file of the report is compared
with the first run's.

**Machines.** The market baseline of the embedded experiment is computed from its first weights to its scores as other
machines would compute it, in an environment that asks every library for other kernels, on one core, and with MKL
told that the processor is an AMD Zen (where there is a C compiler). Portable arithmetic must give the same bytes each
time. Beside it native arithmetic, with and without AVX-512 where there is any: how far machines go apart without it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from reid_done_right import numerics
from reid_done_right.artifacts import file_digest, read_embeddings, read_json, write_json
from reid_done_right.store.ledger import made_with

ROOT = Path(__file__).parents[1]
PARAMS = "experiments/smoke/params.yaml"
RUN, CLASSIFIER, BACKBONE, WORLD = "market-default-draw0", "market-resnet10-draw0", "resnet10-draw0", "market-draw0"
SNAKEMAKE = f"snakemake --configfile {PARAMS} --quiet all"
LAST = "results/smoke/embed/person-search-default-draw0.safetensors reports/smoke/training_curves.csv"
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "one core": ([f"{SNAKEMAKE} --cores 1"], {}),
    "two cores": ([f"{SNAKEMAKE} --cores 2"], {}),
    "last jobs first": ([f"{SNAKEMAKE} --cores 2 --scheduler greedy --prioritize {LAST}"], {}),
    "without the store": ([f"{SNAKEMAKE} --cores 2"], {"REID_STORE": "none"}),
    "DVC": ([f"reid plan {PARAMS} --dvc", "dvc repro experiments/smoke/dvc.yaml"], {}),
}
HOSTILE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Prescott",
    "NUMBA_CPU_NAME": "generic",
    "OPENCV_IPP": "sse42",
    "OMP_NUM_THREADS": "3",
}
AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
NATIVE = {"REID_NUMERICS": "native"}
ZEN = "int mkl_serv_intel_cpu_true(void) { return 0; } int mkl_serv_cpuiszen(void) { return 1; }"
"""What MKL asks of the processor, answered as on AMD's Zen: linked in before PyTorch's own copy of it."""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment in which a copy of the checkout runs its own code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src"), **more}


def copy(source: Path, folder: Path) -> Path:
    """Clone the last commit of a checkout."""
    subprocess.run(["git", "clone", "--quiet", source, folder], check=True)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Digest all that the experiment wrote, but logs, times and settings, and the ledger, which needs the store."""
    files = [path for part in ("results/smoke", "reports/smoke") for path in (folder / part).rglob("*")]
    passing = {"logs", "benchmarks", "settings"}
    return {
        name: file_digest(path)
        for path in files
        if path.is_file() and not passing & set(Path(name := path.relative_to(folder).as_posix()).parts)
        if path.name != "ledger.json"
    }


def ways(work: Path) -> dict[str, Any]:
    """Run the smoke experiment in every way."""
    found: dict[str, Any] = {}
    reference: dict[str, str] = {}
    for number, (way, (commands, more)) in enumerate(WAYS.items()):
        folder = copy(ROOT, work / "first") if number == 0 else copy(work / "first", work / f"other{number}")
        for command in commands:
            ended = subprocess.run(command.split(), cwd=folder, env=environment(folder, **more), capture_output=True)
            if ended.returncode:
                sys.exit(ended.stdout.decode() + ended.stderr.decode())
        seen = contents(folder)
        reference = reference or seen
        differing = sorted(name for name in seen.keys() | reference.keys() if seen.get(name) != reference.get(name))
        found[way] = {"files": len(seen), "differing": differing}
        print(f"{way:22} {len(seen):4} files, {len(differing)} differ from the first run's", flush=True)
        if number:
            shutil.rmtree(folder)
    return found


def imitations(work: Path) -> dict[str, dict[str, str]]:
    """Return name -> environment of what can be imitated here."""
    found = {"as here": {}, "hostile environment, one core": HOSTILE}
    if (compiler := shutil.which("cc")) and numerics.supported():
        (work / "zen.c").write_text(ZEN)
        subprocess.run([compiler, "-shared", "-fPIC", work / "zen.c", "-o", work / "zen.so"], check=True)
        found["MKL as on AMD Zen"] = {"LD_PRELOAD": str(work / "zen.so")}
    found["native"] = NATIVE
    if "avx512f" in numerics.processor().get("flags", "").split():
        found["native, without AVX-512"] = NATIVE | AVX2_ONLY
    return found


def machines(work: Path) -> dict[str, Any]:
    """Compute the baseline, every stage from the first weights on, as each imitation; compare it with the first."""
    command = [sys.executable, "-m", "reid_done_right"]
    subprocess.run([*command, "plan", "params.yaml", "--quiet"], cwd=work, env=environment(ROOT), check=True)
    found: dict[str, Any] = {}
    first: Path | None = None
    for name, more in imitations(work).items():
        out = work / name.replace(" ", "-")
        one_core = ["taskset", "-c", "0"] if more is HOSTILE else []
        index = ["--index", out / "index.parquet"]

        def stage(stage: str, job: str, *rest: str | Path, more: Any = more, first_core: Any = one_core) -> None:
            settings = read_json(work / f"results/embedded/settings/{stage}/{job}.json")
            settings["parameters"]["numerics"] = more.get("REID_NUMERICS", "portable")
            write_json(work / "settings.json", settings)
            arguments = [*first_core, *command, stage, "--settings", work / "settings.json", *rest]
            ended = subprocess.run(
                arguments, cwd=work, env=environment(ROOT, REID_STORE="none", **more), capture_output=True, text=True
            )
            if ended.returncode:
                sys.exit(ended.stderr)

        stage("dataset", WORLD, "--images", work / f"results/embedded/dataset/{WORLD}", "--out", out / "market.json")
        stage("index", WORLD, "--manifest", out / "market.json", "--out", out / "index.parquet")
        stage("initialise", BACKBONE, "--out", out / "first.safetensors")
        weights = ["--weights", out / "first.safetensors", "--log", out / "pretrain.csv"]
        stage("pretrain", CLASSIFIER, *index, *weights, "--out", out / "classifier.safetensors")
        weights = ["--weights", out / "classifier.safetensors", "--log", out / "train.csv"]
        kept = ["--snapshots", out / "snapshots.safetensors"]
        stage("train", RUN, *index, *weights, *kept, "--out", out / "embedder.safetensors")
        model = ["--embedder", out / "embedder.safetensors"]
        stage("embed", RUN, *index, *model, "--out", out / "embeddings.safetensors")
        rows = ["--embeddings", out / "embeddings.safetensors", "--queries", out / "queries.parquet"]
        stage("evaluate", RUN, *index, *rows, "--out", out / "scores.json")
        first = first or out
        differing = [
            file.name for file in sorted(first.iterdir()) if file.read_bytes() != (out / file.name).read_bytes()
        ]
        ours, theirs = (read_embeddings(folder / "embeddings.safetensors").embeddings for folder in (first, out))
        mAP = [read_json(folder / "scores.json")["results"][0]["mAP"] for folder in (first, out)]
        found[name] = {"differing": differing, "embeddings": float(abs(ours - theirs).max()), "mAP": mAP[1] - mAP[0]}
        print(f"{name:30} {len(differing)} files differ, mAP {100 * found[name]['mAP']:+.2f} points", flush=True)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument(
        "--only", choices=("ways", "machines"), help="measure one half, and keep what the file has of the other"
    )
    options = parser.parse_args()
    found = read_json(options.json) if options.only and options.json.is_file() else {}
    found |= {
        "command": "python benchmarks/reproducibility.py",
        "made_with": made_with().model_dump(exclude={"numerics"}),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        shutil.copy(ROOT / "params.yaml", work)
        for half in (ways, machines):
            if options.only in (None, half.__name__):
                found[half.__name__] = half(Path(work))
                options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
