"""Evaluation among 516K gallery items under a limit of memory that the system enforces.

    python benchmarks/limits.py --json benchmarks/results/limits.json

Data and sizes are those of `benchmarks/evaluation.py`. Before ranking, and before a sweep of distractors, the process forbids
itself more than `LIMIT` of memory beyond what it has (`RLIMIT_DATA`: what is mapped from files is free); the matrix
of queries and gallery would take 6.5 GiB. Whoever exceeds the limit gets a MemoryError, and this program ends with it.
"""

import argparse
import json
import re
import resource
import tempfile
from pathlib import Path

import numpy as np

from evaluation import DISTRACTORS, DRAWS, SIZES, embed, market, write_gallery
from reid_done_right.evaluation import distractors, ranking
from reid_done_right.evaluation.rules import MARKET1501

LIMIT = 256 * 2**20


def used() -> int:
    """Return the bytes that count against the limit."""
    found = re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def main() -> None:
    """Rank and sweep under the limit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    options = parser.parse_args()
    query_labels, market_labels = market()
    query, base = embed(query_labels, seed=-1 % 2**32), len(market_labels)
    with tempfile.TemporaryDirectory() as folder:
        gallery, labels = write_gallery(Path(folder) / "gallery.npy", market_labels)
        ranking.score(query, query_labels, gallery[:base], labels[:base], MARKET1501)  # what is compiled once
        before = used()
        resource.setrlimit(resource.RLIMIT_DATA, (before + LIMIT,) * 2)
        found = ranking.score(query, query_labels, gallery, labels, MARKET1501).scores()
        plain = ranking.score(query, query_labels, gallery[:base], labels[:base], MARKET1501)
        positions = distractors.order_positions(DISTRACTORS, DRAWS, np.random.default_rng(0))
        distractors.sweep(plain, distractors.count_beating(query, plain, gallery[base:], positions, SIZES))
    told = {
        "command": "python benchmarks/limits.py",
        "gallery": len(labels),
        "limit_mib_beyond_what_was_there": LIMIT / 2**20,
        "before_mib": before / 2**20,
        "matrix_gib": 4 * len(query) * len(labels) / 2**30,
        "mAP_516k": found["mAP"],
    }
    print(json.dumps(told, indent=1))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
