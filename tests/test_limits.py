"""Memory, open files and leftovers: limits of each stage, and no growth with repetition."""

import gc
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_done_right.artifacts import (
    Embeddings,
    Index,
    InputError,
    Weights,
    file_digest,
    read_checkpoint,
    read_embeddings,
    read_index,
    read_json,
    read_state,
    read_weights,
    write_embeddings,
    write_index,
    write_json,
    write_log,
    write_weights,
)
from reid_done_right.store import make

RANKING = """
    import re, resource, sys
    from pathlib import Path
    import numpy as np
    from reid_done_right.evaluation import ranking
    from reid_done_right.evaluation.embedded import Labels
    from reid_done_right.evaluation.rules import MARKET1501

    queries, items = 1000, 150_000
    rng = np.random.default_rng(0)
    query, labels = rng.standard_normal((queries, 4), np.float32), Labels(np.arange(queries) % 500 + 1, np.ones(queries, np.int64))
    gallery = np.lib.format.open_memmap(sys.argv[1], "w+", np.float32, (items, 4))
    gallery[:] = rng.standard_normal(gallery.shape, np.float32)
    for embeddings in (query, gallery):
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    person = np.where(np.arange(items) < 2000, np.arange(items) % 500 + 1, 0)  # the rest are distractors
    asked = lambda size: ranking.score(query, labels, gallery[:size], Labels(person[:size], np.full(size, 2)), MARKET1501)
    asked(3000)  # what is compiled and started once
    used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]) * 2**20,) * 2)
    print(asked(items).scores()["mAP"])
    query @ gallery.T
"""


@pytest.mark.slow
def test_ranking_stays_within_its_limit_where_the_whole_matrix_would_not(tmp_path: Path) -> None:
    """A block of scores is 128 MiB, the matrix of 1,000 queries and 150,000 items would be 572 MiB."""
    command = [sys.executable, "-c", textwrap.dedent(RANKING), str(tmp_path / "gallery.npy"), "256"]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 1 and "Unable to allocate 572. MiB" in ran.stderr, ran.stderr
    assert 0 < float(ran.stdout) < 1


# --- nothing grows with repetition

TIMES = [("artifacts", 30), ("store", 200), ("no store", 30)]
TIMES += [pytest.param(kind, 1000, marks=pytest.mark.soak) for kind in ("artifacts", "store", "no store")]


def open_things(folder: Path) -> tuple[int, int]:
    """Return how many files this process has open, and how many parts of files below a folder it has mapped."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len(list(Path("/proc/self/fd").iterdir())), sum(str(folder) in line for line in maps)


def every_kind(folder: Path) -> None:
    """Write and read an artifact of each kind, and fail to read a damaged one of each."""
    index = Index(
        root=Path("images"),
        path=np.array(["1.jpg"]),
        person_id=np.ones(1, np.int64),
        camera_id=np.ones(1, np.int64),
        tracklet_id=np.zeros(1, np.int64),
        split=np.array(["query"]),
        box=np.zeros((1, 4), np.int32),
    )
    weights = Weights({"weight": torch.ones(2)}, {"backbone": {}, "update": 1})
    kinds: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
        "object.json": (lambda path: write_json(path, {"a": 1}), read_json),
        "index.parquet": (lambda path: write_index(path, index), read_index),
        "weights.safetensors": (lambda path: write_weights(path, weights), read_weights),
        "checkpoint.safetensors": (lambda path: write_weights(path, weights), read_checkpoint),
        "state.safetensors": (lambda path: write_weights(path, weights), read_state),
        "embeddings.safetensors": (
            lambda path: write_embeddings(path, Embeddings(np.arange(2), np.ones((2, 3), np.float32))),
            read_embeddings,
        ),
        "log.csv": (lambda path: write_log(path, [{"update": 1}]), file_digest),
    }
    for name, (write, read) in kinds.items():
        write(folder / name)
        read(folder / name)
        if name != "log.csv":
            (folder / name).write_bytes((folder / name).read_bytes()[:-9])
            with pytest.raises(InputError):
                read(folder / name)


def through_the_store(folder: Path, number: int) -> None:
    """Compute a result, find it again, fail to compute another, compute without a store."""

    def compute(made: Path) -> None:
        write_json(made / "out.json", {"number": number % 2})
        if number < 0:
            raise OSError("no")

    (folder / "in.txt").write_text(str(number % 2))
    request = {"inputs": {"a": folder / "in.txt"}, "outputs": [folder / "out.json"], "compute": compute}
    for copy in (False, True):
        make("index", parameters={"number": number % 2}, copy=copy, **request)
    number = -1
    with pytest.raises(OSError):
        make("index", parameters={"number": number}, **request)


@pytest.mark.parametrize(("kind", "times"), TIMES)
def test_repetition_leaves_no_file_open_mapped_or_behind(
    kind: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, passing = tmp_path / "here", tmp_path / "passing"
    folder.mkdir()
    passing.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(passing))
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a disk's time, nothing else
    monkeypatch.setenv("REID_STORE", "none" if kind == "no store" else str(folder / ".store"))

    def repeat(count: int) -> tuple[tuple[int, int], set[str]]:
        for number in range(count):
            if kind == "artifacts":
                every_kind(folder)
            else:
                through_the_store(folder, number)
        gc.collect()
        return open_things(folder), {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}

    before = repeat(4)
    assert repeat(times) == before
    assert list(passing.iterdir()) == []
