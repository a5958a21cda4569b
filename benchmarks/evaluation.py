"""What retrieval evaluation costs beside the bare matrix product, at Market-1501's true size and with 500K distractors.

    python benchmarks/evaluation.py --json benchmarks/results/evaluation.json

The queries, gallery, people and cameras are Market-1501's (`market1501.csv`: how many images of each person in each
camera); the embeddings are drawn at random, 2048 dimensions, so that mAP falls from about 76 % to 44 % as the gallery
grows from 16K to 516K, like a good model's. Gauges: CPU seconds of all threads, median of `--repeats`, everything in one
process and in turn; peak anonymous memory above what was there before. The embeddings of the gallery are a file, mapped.

| key | what is compared | with |
|---|---|---|
| ratio_to_matmul_15k, _116k, _516k | `ranking.score` | the matrix products over the same undeleted rows, block by block |
| extra_gib_516k | its memory | |
| sweep_ratio | six sizes x ten draws, one pass | one evaluation at the largest size |
| k_reciprocal_speedup, _extra_gib, _difference | `reciprocal.k_reciprocal`, all distances | the dense textbook (`oracles`) |
| k_reciprocal_ratio_to_matmul | the same | what it must multiply: every pair once, and query x gallery |
| qe_dba_ratio_to_matmul | `expansion.expand` | the products gallery x gallery and query x gallery |
| dense_speedup_15k, _difference_15k | `ranking.score` | sorting the dense Q x G matrix, as torchreid does (written here) |
| torchreid_speedup_15k, _difference_15k | `ranking.score` | torchreid's own evaluator in Python, with `--torchreid` only |
| float16_score_error, _mAP_difference | a gallery stored in float16, 15.9K items | the same in float32 |

torchreid 0.2.5 is no wheel and not needed: `pip install --no-deps --target FOLDER torchreid==0.2.5`, then
`--torchreid FOLDER`. Its compiled evaluator is not built that way.
"""

import argparse
import csv
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation import distractors, expansion, ranking, reciprocal
from reid_done_right.evaluation.blocks import split
from reid_done_right.evaluation.embedded import Labels, normalised
from reid_done_right.evaluation.rules import MARKET1501

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import oracles

DIMENSIONS, LATENT = 2048, 96
CAMERA, NOISE = 0.5, 1.0
DISTRACTORS = 500_000
SIZES = [0, 100_000, 200_000, 300_000, 400_000, 500_000]
DRAWS = 10


def listed(path: Path, cameras: int) -> tuple[Labels, Labels]:
    """Labels of queries and gallery, in the order of their files, from a table of the files of each person and camera."""
    with path.open(newline="") as opened:
        table = np.array([[int(cell) for cell in row] for row in list(csv.reader(opened))[1:]])
    pairs = np.stack([np.repeat(table[:, 0], cameras), np.tile(np.arange(1, cameras + 1), len(table))], axis=1)
    gallery, query = (np.repeat(pairs, part.ravel(), axis=0) for part in np.split(table[:, 1:], 2, axis=1))
    return Labels(query[:, 0], query[:, 1]), Labels(gallery[:, 0], gallery[:, 1])


def market() -> tuple[Labels, Labels]:
    """Labels of Market-1501's queries and gallery."""
    return listed(Path(__file__).parent / "market1501.csv", 6)


def embed(labels: Labels, seed: int, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """Embeddings (N, D) of unit norm: a person (a new one for -1 and 0), a camera and noise in a random subspace."""
    rng = np.random.default_rng([seed, 1])
    world = np.random.default_rng(0)
    people, cameras = (world.standard_normal((size, LATENT), dtype=np.float32) for size in (1502, 7))
    basis = world.standard_normal((LATENT, dimensions), dtype=np.float32)
    person = people[np.maximum(labels.person_id, 0)]
    nobody = labels.person_id <= 0
    person[nobody] = rng.standard_normal((nobody.sum(), LATENT), dtype=np.float32)
    noise = rng.standard_normal(person.shape, dtype=np.float32)
    return normalised((person + CAMERA * cameras[labels.camera_id] + NOISE * noise) @ basis)


def write_gallery(path: Path, gallery: Labels) -> tuple[NDArray[np.float32], Labels]:
    """Write gallery and distractors to a file, a part at a time, and map it."""
    nobody = np.zeros(DISTRACTORS, dtype=np.int64)
    cameras = np.random.default_rng(2).integers(1, 7, DISTRACTORS)
    labels = Labels(np.concatenate([gallery.person_id, nobody]), np.concatenate([gallery.camera_id, cameras]))
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (len(labels), DIMENSIONS))
    for seed, rows in enumerate([slice(0, len(gallery)), *split(slice(len(gallery), len(labels)), 20_000)]):
        mapped[rows] = embed(labels[rows], seed)
    mapped.flush()
    return np.load(path, mmap_mode="r"), labels


def anonymous_bytes() -> int:
    """Memory of this process that is not the pages of a file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux")


class Peak:
    """Largest growth of anonymous memory while the block runs, sampled every five milliseconds."""

    def __enter__(self) -> "Peak":
        """Start to sample."""
        self.before = self.highest = anonymous_bytes()
        self.done = threading.Event()
        self.sampler = threading.Thread(target=self.sample)
        self.sampler.start()
        return self

    def sample(self) -> None:
        """Look until the block has ended."""
        while not self.done.wait(0.005):
            self.highest = max(self.highest, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.done.set()
        self.sampler.join()

    @property
    def gib(self) -> float:
        """Growth in GiB."""
        return (self.highest - self.before) / 2**30


def in_turn(repeats: int, **work: Callable[[], object]) -> dict[str, float]:
    """Median CPU seconds of each, taken in turn so that a busy machine disturbs all alike."""
    spent: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, run in work.items():
            start = time.process_time()
            run()
            spent[name].append(time.process_time() - start)
    seconds = {name: statistics.median(values) for name, values in spent.items()}
    print(", ".join(f"{name} {value:.2f} CPU s" for name, value in seconds.items()), file=sys.stderr, flush=True)
    return seconds


def products(query: NDArray[np.float32], gallery: NDArray[np.float32], rows: int) -> None:
    """The bare matrix product, `rows` gallery rows at a time into the same memory."""
    out = np.empty(len(query) * rows, dtype=np.float32)
    for part in split(slice(0, len(gallery)), rows):
        block = gallery[part]
        np.matmul(query, block.T, out=out[: len(query) * len(block)].reshape(len(query), len(block)))


def dense_scores(
    query: NDArray[np.float32], query_labels: Labels, gallery: NDArray[np.float32], gallery_labels: Labels
) -> float:
    """Return mAP by the step rule from the sorted Q x G matrix, the way torchreid computes it."""
    order = np.argsort(1 - query @ gallery.T, axis=1)
    person, camera = gallery_labels.person_id[order], gallery_labels.camera_id[order]
    matches = person == query_labels.person_id[:, None]
    precision = []
    for i in range(len(query)):
        kept = ~(matches[i] & (camera[i] == query_labels.camera_id[i]))
        hits = matches[i][kept]
        found = hits.cumsum() / np.arange(1, len(hits) + 1)
        precision.append((found * hits).sum() / hits.sum())
    return float(np.mean(precision))


def module(path: Path) -> ModuleType:
    """Load one file of a package without the rest of it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def torchreid_scores(
    folder: Path,
    query: NDArray[np.float32],
    query_labels: Labels,
    gallery: NDArray[np.float32],
    gallery_labels: Labels,
) -> float:
    """Return mAP by torchreid's own cosine distance and evaluator."""
    import torch

    metrics = folder / "torchreid/reid/metrics"
    left, right = torch.from_numpy(query), torch.from_numpy(np.array(gallery))
    distance = module(metrics / "distance.py").compute_distance_matrix(left, right, "cosine").numpy()
    people, cameras = (
        [getattr(each, name) for each in (query_labels, gallery_labels)] for name in ("person_id", "camera_id")
    )
    return float(module(metrics / "rank.py").evaluate_rank(distance, *people, *cameras, use_cython=False)[1])


def evaluation(folder: Path, repeats: int, torchreid: Path | None) -> dict[str, float]:
    """Rank at three gallery sizes, and sweep distractors."""
    query_labels, market_labels = market()
    query = embed(query_labels, seed=-1 % 2**32)
    gallery, labels = write_gallery(folder / "gallery.npy", market_labels)
    base = len(market_labels)
    rows = ranking.BLOCK // len(query)
    first = int((market_labels.person_id == MARKET1501.junk_id).sum())  # junk comes first, as in the release
    found: dict[str, float] = {}

    def evaluate(size: int) -> ranking.Ranking:
        return ranking.score(query, query_labels, gallery[:size], labels[:size], MARKET1501)

    def sweep() -> None:
        plain = evaluate(base)
        places = distractors.order_positions(DISTRACTORS, DRAWS, np.random.default_rng(0))
        distractors.sweep(plain, distractors.count_beating(query, plain, gallery[base:], places, SIZES))

    for name, size in (("15k", base), ("116k", base + 100_000), ("516k", base + DISTRACTORS)):
        with Peak() as peak:
            scores = evaluate(size).scores()
        print(f"{name}: {scores}, {peak.gib:.2f} GiB", file=sys.stderr, flush=True)
        work = {"rank": lambda: evaluate(size), "matmul": lambda: products(query, gallery[first:size], rows)}
        if name == "516k":
            with Peak() as sweep_peak:
                sweep()
            work["sweep"] = sweep
        seconds = in_turn(repeats, **work)
        found |= {
            f"seconds_{name}": seconds["rank"],
            f"mAP_{name}": float(scores["mAP"]),
            f"extra_gib_{name}": peak.gib,
        }
        found[f"ratio_to_matmul_{name}"] = seconds["rank"] / seconds["matmul"]
    found |= {"sweep_ratio": seconds["sweep"] / seconds["rank"], "sweep_extra_gib": sweep_peak.gib}

    kept, kept_labels = gallery[first:base], labels[first:base]
    dense = in_turn(
        1, dense=lambda: found.update(dense_mAP_step_15k=dense_scores(query, query_labels, kept, kept_labels))
    )
    found["dense_speedup_15k"] = dense["dense"] / found["seconds_15k"]
    found["dense_difference_15k"] = abs(found["dense_mAP_step_15k"] - evaluate(base).average_precision("step").mean())
    if torchreid is not None:
        theirs: dict[str, float] = {}
        spent = in_turn(
            1, torchreid=lambda: theirs.update(mAP=torchreid_scores(torchreid, query, query_labels, kept, kept_labels))
        )
        found["torchreid_speedup_15k"] = spent["torchreid"] / found["seconds_15k"]
        found["torchreid_difference_15k"] = abs(theirs["mAP"] - found["dense_mAP_step_15k"])
    half = np.asarray(gallery[:base]).astype(np.float16)
    halved = ranking.score(query, query_labels, half, market_labels, MARKET1501).scores()
    found["float16_score_error"] = float(np.abs(query @ (half[first:].astype(np.float32) - kept).T).max())
    found["float16_mAP_difference"] = abs(float(halved["mAP"]) - found["mAP_15k"])
    return found | re_ranking(query, kept, repeats)


def re_ranking(query: NDArray[np.float32], gallery: NDArray[np.float32], repeats: int) -> dict[str, float]:
    """k-reciprocal re-ranking, and QE + DBA."""
    queries, items = slice(0, len(query)), slice(0, len(gallery))

    def ours() -> NDArray[np.float32]:
        reranked = reciprocal.k_reciprocal(query, gallery)
        for rows in split(queries, 512):  # every final distance, as the textbook gives, but none kept
            distance = reranked.distance(rows, items)
        return distance

    def search() -> None:
        for source in (gallery, query):
            for rows in split(slice(0, len(source)), 2048):
                products(source[rows], gallery, 2048)

    def pairs() -> None:
        parts = [source[rows] for source in (query, gallery) for rows in split(slice(0, len(source)), 2048)]
        for i, part in enumerate(parts):
            for other in parts[i:]:
                part @ other.T
        products(query, gallery, 2048)

    with Peak() as peak:
        ours()
    with Peak() as expansion_peak:
        expansion.expand(query, gallery)
    work = {"reciprocal": ours, "expand": lambda: expansion.expand(query, gallery), "matmul": search, "pairs": pairs}
    seconds = in_turn(repeats, **work)
    dense: dict[str, NDArray[np.float32]] = {}
    both = np.asarray(gallery)
    textbook = in_turn(1, textbook=lambda: dense.update(distance=oracles.k_reciprocal(query, both)))
    difference = np.abs(dense["distance"] - reciprocal.k_reciprocal(query, gallery).distance(queries, items))
    return {
        "seconds_k_reciprocal": seconds["reciprocal"],
        "k_reciprocal_speedup": textbook["textbook"] / seconds["reciprocal"],
        "k_reciprocal_ratio_to_matmul": seconds["reciprocal"] / seconds["pairs"],
        "k_reciprocal_extra_gib": peak.gib,
        "k_reciprocal_difference": float(difference.max()),
        "k_reciprocal_entries_off": int((difference > 1e-6).sum()),
        "seconds_qe_dba": seconds["expand"],
        "qe_dba_ratio_to_matmul": seconds["expand"] / seconds["matmul"],
        "qe_dba_extra_gib": expansion_peak.gib,
    }


def main() -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=3, help="how often to take each time")
    parser.add_argument("--folder", type=Path, help="folder for the 4 GiB of embeddings; a temporary one if absent")
    parser.add_argument("--torchreid", type=Path, help="folder that holds the package torchreid 0.2.5")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = evaluation(Path(folder), options.repeats, options.torchreid)
    machine = {"cores": len(os.sched_getaffinity(0)), "numpy": np.__version__, "repeats": options.repeats}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**machine, **found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
