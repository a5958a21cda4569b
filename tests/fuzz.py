"""Fuzz the parsers of `hostile.py`, guided by coverage, with atheris:  make fuzz [SECONDS=600] [TARGETS="table image"]

Each target runs in a process of its own, on a corpus that begins with inputs that code writes and that is kept in .fuzz,
so that a longer run goes on where the last one ended. An input that is a finding is kept beside it, and named.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

INSTRUMENTED = [
    "reid_done_right",
    "yaml",
    "zipfile",
    "tarfile",
    "csv",
    "json",
    "numpy.lib._format_impl",
    "scipy.io",
    "PIL",
    "torch._weights_only_unpickler",
]
KEPT = Path(".fuzz")
MEGABYTES = 3000
SLOW = 20


def fuzz(name: str, seconds: int) -> None:
    """Run one target until the time is over or a finding ends the process; does not return."""
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        import hostile

    corpus = KEPT / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix="reid-fuzz-", dir=memory if memory.is_dir() else None))
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(hostile.TARGETS[name].seeds(Path(folder))):
            (corpus / f"seed{number}").write_bytes(seed)

    def one(content: bytes) -> None:
        folder = scratch / "x"
        folder.mkdir()
        try:
            hostile.attempt(name, content, folder)
        finally:
            for path in scratch.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    options = [f"-max_total_time={seconds}", f"-timeout={SLOW}", f"-rss_limit_mb={MEGABYTES}", "-print_final_stats=1"]
    options += [f"-artifact_prefix={KEPT / name}/", "-max_len=65536", str(corpus)]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def main() -> None:
    """Fuzz some targets or all, one after another, and print how many inputs each was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="as in hostile.py; all of them if none")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        fuzz(given.alone, given.seconds)
    from hostile import TARGETS  # only now: a target imports it instrumented

    found = total = 0
    print(f"{'target':14}{'inputs':>10}{'seconds':>9}  finding")
    for name in given.targets or TARGETS:
        ran = subprocess.run(
            [sys.executable, __file__, "--alone", name, "--seconds", str(given.seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        inputs = re.findall(r"^#(\d+)|number_of_executed_units: (\d+)", ran.stdout, re.MULTILINE)
        number = max((int(a or b) for a, b in inputs), default=0)
        total += number
        kept = re.findall(r"Test unit written to (\S+)", ran.stdout)
        bad = ran.returncode != 0 or not number
        found += bad
        (KEPT / name / "log").write_text(ran.stdout)
        print(
            f"{name:14}{number:10}{given.seconds:9}  {kept[0] if kept else ran.stdout[-500:] if bad else '-'}",
            flush=True,
        )
    print(f"{total} inputs, {found} findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
