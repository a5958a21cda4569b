"""The digest of every artifact, and whether this machine computes the same.

    make reproduce                                  run the smoke experiment from nothing and compare
    make && python benchmarks/digests.py --write    take the digests anew, where other numbers are meant

`results/digests.json` has the SHA-256 of every artifact of the smoke experiment, and of every score, curve and table of
the embedded one, which are compared too where they lie. What differs is listed from the first stage on: the first file
is where to look. Exit status 1 if any does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from reid_done_right import dag, numerics
from reid_done_right.artifacts import file_digest
from reproducibility import environment

ROOT = Path(__file__).parents[1]
FILE = ROOT / "benchmarks/results/digests.json"
NEEDED = ("Snakefile", "params.yaml", "experiments", "profiles", "reports/paper.csv", "src", "workflow")
SMOKE = "snakemake --configfile experiments/smoke/params.yaml --cores all --quiet all"
FOLDERS = {"embed_distractors": "distractors"}
"""Folder of a stage's artifacts, where it is not called as the stage."""


def main() -> int:
    """Compare, or write, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.relative_to(ROOT)} instead of comparing")
    write = parser.parse_args().write
    if write and not (ROOT / "results/embedded/evaluate").is_dir():
        parser.error("results/embedded: no scores to take digests of; run make first")
    arithmetic = "portable" if numerics.supported() else "native"  # of the stages, which choose for themselves
    here = f"{numerics.processor().get('model name', 'this processor')}, {arithmetic} arithmetic"
    found = {"smoke": smoke(), "embedded": digests(ROOT, "embedded", ("evaluate", "distract"))}
    if write:
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{FILE.relative_to(ROOT)}: digests of {sum(map(len, found.values()))} files, from {here}")
        return 0
    known = json.loads(FILE.read_text())
    if not (ROOT / "results/embedded/evaluate").is_dir():
        print("embedded: not computed here, so not compared (make computes it)")
        del found["embedded"]
    told = {kind: first_difference(known[kind], files) for kind, files in found.items()}
    for kind, difference in told.items():
        print(f"{kind}: {difference or f'all {len(known[kind])} files have the committed bytes'} ({here})")
    return int(any(told.values()))


def first_difference(known: dict[str, str], found: dict[str, str]) -> str:
    """Say how many files differ, and which of them was made first; empty if none does."""
    differing = [name for name in [*known, *found] if known.get(name) != found.get(name)]
    return f"{len(set(differing))} of {len(known)} files differ, first {differing[0]}" if differing else ""


def smoke() -> dict[str, str]:
    """Run the smoke experiment in a folder of its own; return the digests of its artifacts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in NEEDED:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy2)(ROOT / part, folder / part)
        ended = subprocess.run(SMOKE.split(), cwd=folder, env=environment(folder), capture_output=True, text=True)
        if ended.returncode:
            sys.exit(ended.stdout + ended.stderr)
        return digests(folder, "smoke", dag.STAGES)


def digests(folder: Path, experiment: str, stages: Iterable[str]) -> dict[str, str]:
    """Return path -> SHA-256 of some stages' artifacts and of the report, in the order in which they are made."""
    parts = [f"results/{experiment}/{FOLDERS.get(stage, stage)}" for stage in stages] + [f"reports/{experiment}"]
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for part in parts
        for path in sorted((folder / part).rglob("*"))
        if path.is_file() and path.name != "ledger.json"  # whose keys of the code change where no number does
    }


if __name__ == "__main__":
    sys.exit(main())
