"""Search a gallery of photos for the people in query photos."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reid_done_right import hub
from reid_done_right.artifacts import DIGITS, InputError, write_text
from reid_done_right.data.arrays import naming
from reid_done_right.data.gallery import Gallery, read_gallery
from reid_done_right.data.readers.folder import images_below
from reid_done_right.evaluation.likeness import FEWEST, SAMPLE, Bands, bands, nobody
from reid_done_right.evaluation.ranking import Rerank
from reid_done_right.evaluation.topk import TopK, top_k
from reid_done_right.images.photos import decode_photo
from reid_done_right.models.device import set_up
from reid_done_right.photos import load_embedder
from reid_done_right.reporting.search import Hit, Searched, search_page, thumbnail


def search(
    queries: Sequence[Path],
    gallery: Path,
    model: Path | None = None,
    *,
    top: int = 10,
    rerank: Rerank = "none",
    false_alarms: float | None = None,
    html: Path | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> list[Searched]:
    """Return the most similar gallery photos for each query, best first.

    queries  photos of one person each, or folders of such photos
    gallery  written by `reid embed-photos`
    model    the model that made the gallery; None for where it was then
    top      number of results per query, at most the whole gallery
    rerank   none, qe-dba or k-reciprocal
    false_alarms  share of strangers, in (0, 1), for whom a photo may be found; a query without a photo that similar is
                  of nobody in the gallery
    html     also write a self-contained page with pictures
    device   PyTorch device to embed and search on; None: a GPU if there is one, to embed on
    Raises InputError, and writes nothing, if a query is not an image, if another model made the gallery, or if there
    are fewer photos than the re-ranking needs.
    """
    if html is not None and (html.suffix.lower() not in (".html", ".htm") or html.is_dir()):
        raise InputError(f"{html}: expected a file name ending in .html")
    if top < 1:
        raise InputError(f"--top {top}: expected a number of results, at least 1")
    if false_alarms is not None and not 0 < false_alarms < 1:
        raise InputError(f"--false-alarms {false_alarms}: expected a share between 0 and 1, as in 0.05")
    if false_alarms is not None and rerank != "none":
        raise InputError(f"--false-alarms is a threshold of similarities, which {rerank} does not order by; drop one")
    there = read_gallery(gallery)
    queries = list(chain.from_iterable(map(_photos, queries)))
    model = model or _maker(there)
    set_up(threads or os.cpu_count() or 1)
    embedder = load_embedder(model, device=device)
    check_model(there, embedder.digest, model)
    embeddings = embedder.embed(queries, threads=threads, progress=False)
    with naming(f"{gallery}: "):
        bar = partial(tqdm, desc="search", unit="block", leave=False, delay=2)
        how: dict[str, Any] = {"rerank": rerank, "threads": threads, "device": device}
        ranked = top_k(embeddings, there.embeddings, top, **how, progress=bar)
    known = _bands(there)
    limit = None if false_alarms is None else _nobody(there, false_alarms)
    found = []
    for row, query in enumerate(queries):
        hits = [_hit(there, ranked, row, rank, known) for rank in range(ranked.items.shape[1])]
        best = max(hit.similarity for hit in hits)
        found.append(Searched(query.as_posix(), hits, limit if limit is not None and best <= limit else None))
    if html is not None:
        about = {
            "gallery": gallery.name,
            "root": there.root.as_posix(),
            "photos": len(there.path),
            "left_out": len(there.about["left_out"]),
            "model": model.name,
            "digest": embedder.digest[:DIGITS],
            "rerank": rerank,
            "top": ranked.items.shape[1],
            "bands": known,
        }
        write_text(html, search_page(found, _thumbnails(queries, there, found), about))
    return found


def _photos(query: Path) -> list[Path]:
    """Return a photo as it is, and the photos in a folder and below it."""
    if not query.is_dir():
        return [query]
    return [query / path for path in images_below(query, "give photos, or folders of them")]


def _maker(gallery: Gallery) -> Path:
    """Return the model that made a gallery. Raises InputError saying where it was, if it is not there any more."""
    made = gallery.about["model_path"]
    if made is None:
        raise InputError(f"{gallery.file}: does not say where its model was; give it by --model")
    if not (hub.is_name(made) or Path(made).is_file()):
        raise InputError(
            f"{gallery.file}: made by {made}, which is not there any more; give where it is now by --model FILE"
        )
    return Path(made)


def check_model(gallery: Gallery, digest: str, model: Path) -> None:
    """Raise InputError unless the model of that digest made a gallery."""
    if digest != gallery.about["model"]:
        made = f"{gallery.about['model_name']} (SHA-256 {gallery.about['model'][:DIGITS]}...)"
        raise InputError(
            f"{gallery.file}: made by another model, {made}, than {model} ({digest[:DIGITS]}...), so embeddings "
            "cannot be compared; give that model, or embed the photos again with this one"
        )


def _bands(gallery: Gallery) -> Bands | None:
    """Return what similarities mean among the gallery's own photos; None if it does not say who they show."""
    labels = _labels(gallery)
    return None if labels is None else bands(gallery.embeddings, *labels)


def _nobody(gallery: Gallery, false_alarms: float) -> float:
    """Return the similarity that a share of strangers exceeds. Raises InputError if the gallery does not say."""
    if (labels := _labels(gallery)) is None:
        raise InputError(
            f"{gallery.file}: does not say whom its photos show, so --false-alarms has no threshold; embed them with "
            "--pattern, or with a table that has person_id"
        )
    limit = nobody(gallery.embeddings, *labels, false_alarms)
    if limit is None:
        raise InputError(
            f"{gallery.file}: too few of its people are there again for --false-alarms {false_alarms}: at least "
            f"{max(FEWEST, math.ceil(1 / false_alarms))} photos of up to {SAMPLE:,}; raise it"
        )
    return limit


def _labels(gallery: Gallery) -> tuple[NDArray[np.int64], NDArray[np.int64] | None] | None:
    """Return the numbers of persons, -1 for unknown ones, and of cameras, if known; None if no persons are."""
    numbers = {name: np.unique(texts, return_inverse=True)[1] for name, texts in gallery.labels.items()}
    if "person" not in numbers:
        return None
    return np.where(np.array(gallery.labels["person"]) == "", -1, numbers["person"]), numbers.get("camera")


def _hit(gallery: Gallery, ranked: TopK, row: int, rank: int, known: Bands | None) -> Hit:
    item = int(ranked.items[row, rank])
    labels = {name: texts[item] for name, texts in gallery.labels.items()}
    path = (gallery.root / gallery.path[item]).as_posix()
    similarity, score = float(ranked.similarity[row, rank]), float(ranked.score[row, rank])
    return Hit(path, gallery.path[item], similarity, score, labels, known.of(similarity) if known else "")


def _thumbnails(queries: Sequence[Path], gallery: Gallery, found: Sequence[Searched]) -> dict[str, bytes | None]:
    """Return path -> thumbnail of every picture on the page; None if a file is missing or unreadable."""
    wanted: dict[str, Any] = {query.as_posix(): query for query in queries}
    wanted |= {hit.path: Path(hit.path) for each in found for hit in each.hits}
    images = {path: decode_photo(file) for path, file in wanted.items()}
    return {path: None if isinstance(image, str) else thumbnail(image) for path, image in images.items()}
