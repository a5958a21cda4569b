"""Memory, open files and left-over files: what a stage is allowed, and that nothing grows with repetition."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

RANKING = """
    import re, resource, sys
    from pathlib import Path
    import numpy as np
    from reid.functional import ranking
    from reid.functional.protocols import MARKET1501, Labels

    queries, items = 1000, 150_000
    rng = np.random.default_rng(0)
    query, labels = rng.standard_normal((queries, 4), np.float32), Labels(np.arange(queries) % 500 + 1, np.ones(queries, np.int64))
    gallery = np.lib.format.open_memmap(sys.argv[1], "w+", np.float32, (items, 4))
    gallery[:] = rng.standard_normal(gallery.shape, np.float32)
    for embeddings in (query, gallery):
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    person = np.where(np.arange(items) < 2000, np.arange(items) % 500 + 1, 0)  # the rest are distractors
    asked = lambda size: ranking.rank(query, labels, gallery[:size], Labels(person[:size], np.full(size, 2)), MARKET1501)
    asked(3000)  # what is compiled and started once
    used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]) * 2**20,) * 2)
    print(asked(items).scores()["mAP"])
    query @ gallery.T
"""


def test_the_ranking_stays_within_its_limit_where_the_whole_matrix_would_not(tmp_path: Path) -> None:
    """A block of scores is 128 MiB, the matrix of 1,000 queries and 150,000 items would be 572 MiB."""
    command = [sys.executable, "-c", textwrap.dedent(RANKING), str(tmp_path / "gallery.npy"), "256"]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 1 and "Unable to allocate 572. MiB" in ran.stderr, ran.stderr
    assert 0 < float(ran.stdout) < 1
