"""The digest of every artifact, and whether this machine computes the same.

    make reproduce                                  run the smoke experiment from nothing and compare
    make && python benchmarks/digests.py --write    take the digests anew, where other numbers are meant

`results/digests.json` has the SHA-256 of every artifact of the smoke experiment, and of every score, curve and table of
the embedded one, which are compared too where they lie. What differs is listed from the first stage on: the first file
is where to look. Exit status 1 if any does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from reid_done_right import dag, numerics
from reproducibility import environment

ROOT = Path(__file__).parents[1]
FILE = ROOT / "benchmarks/results/digests.json"
NEEDED = ("Snakefile", "params.yaml", "experiments", "profiles", "reports/paper.csv", "src", "workflow")
SMOKE = "snakemake --configfile experiments/smoke/params.yaml --cores all --quiet all"
KEYED = {"logs", "benchmarks", "settings", "ledger.json"}
"""Files with times, or with keys of the code: what computes the same may be written otherwise."""


def main() -> int:
    """Compare, or write, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.relative_to(ROOT)} instead of comparing")
    write = parser.parse_args().write
    if write and not (ROOT / "results/embedded/evaluate").is_dir():
        parser.error("results/embedded: no scores to take digests of; run make first")
    here = f"{numerics.processor().get('model name', 'this processor')} ({numerics.choose()} arithmetic)"
    found = {"smoke": smoke(), "embedded": digests(ROOT, "embedded", ("evaluate", "distract"))}
    if write:
        FILE.write_text(json.dumps({"made_on": here, **found}, indent=1) + "\n")
        print(f"{FILE.relative_to(ROOT)}: digests of {sum(map(len, found.values()))} files, from {here}")
        return 0
    known = json.loads(FILE.read_text())
    if not found["embedded"]:
        print("embedded: not computed here, so not compared (make computes it)")
        del found["embedded"]
    differing = [
        f"{name}" for kind, files in found.items() for name in known[kind] if files.get(name) != known[kind][name]
    ]
    compared = sum(len(known[kind]) for kind in found)
    if not differing:
        print(f"{compared} files have the bytes of {FILE.name} on {here}")
        return 0
    print(
        f"{len(differing)} of {compared} files differ on {here}; the first is {differing[0]}",
        *differing[1:],
        sep="\n  ",
    )
    return 1


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
        return digests(folder, "smoke", (*dag.STAGES, "distractors"))


def digests(folder: Path, experiment: str, stages: tuple[str, ...]) -> dict[str, str]:
    """Return path -> SHA-256 of some stages' artifacts and of the report, in the order in which they are made."""
    parts = [f"results/{experiment}/{stage}" for stage in stages] + [f"reports/{experiment}"]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in parts
        for path in sorted((folder / part).rglob("*"))
        if path.is_file() and not KEYED & set(path.parts[len(folder.parts) :])
    }


if __name__ == "__main__":
    sys.exit(main())
