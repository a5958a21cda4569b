"""Search: who in a gallery of one's own photos looks most like the people of some others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reid_done_right.artifacts import InputError, replacing, write_text
from reid_done_right.data.arrays import naming
from reid_done_right.data.decoding import decode_photo
from reid_done_right.data.gallery import Gallery, read_gallery
from reid_done_right.functional.evaluation import Rerank
from reid_done_right.functional.search import Ranked, rank
from reid_done_right.photos import PhotoEmbedder, load_embedder
from reid_done_right.reporting.search import Hit, Searched, search_page, thumbnail

DIGITS = 12
"""Of a model's digest, where people read it."""


def search(
    queries: Sequence[Path],
    gallery: Path,
    model: Path,
    *,
    top: int = 10,
    rerank: Rerank = "none",
    approximate: bool = False,
    html: Path | None = None,
    threads: int | None = None,
) -> list[Searched]:
    """Embed the queries and give the first places of the gallery for each, best first.

    queries      images of one person each
    gallery      what `reid embed-photos` wrote
    model        the very model that made it
    top          places of each query; the whole gallery if it is smaller
    rerank       none, qe-dba or k-reciprocal
    approximate  walk a graph of neighbours instead of comparing with everybody; the graph is made once and kept beside
                 the gallery, its name ending in .graph
    html         where to write a page with the pictures, that needs nothing else
    Raises InputError, and writes nothing, if a query is no image, if the gallery is another model's, or if there are
    fewer photos than the re-ranking needs.
    """
    if html is not None and (html.suffix.lower() not in (".html", ".htm") or html.is_dir()):
        raise InputError(f"{html}: expected the name of a page, ending in .html")
    if approximate and rerank != "none":
        raise InputError(f"re-ranking {rerank} needs exact neighbours; drop --approximate, or the re-ranking")
    if top < 1:
        raise InputError(f"--top {top}: expected how many places to show, from 1 on")
    there = read_gallery(gallery)
    embedder = load_embedder(model)
    if embedder.digest != there.about["model"]:
        made = f"{there.about['model_name']} (SHA-256 {there.about['model'][:DIGITS]}...)"
        raise InputError(
            f"{gallery}: made by another model, {made}, than {model} ({embedder.digest[:DIGITS]}...), so that nothing "
            "compares; give that model, or embed the photos again with this one"
        )
    embeddings = _embed(queries, embedder)
    with naming(f"{gallery}: "):
        if approximate:
            ranked = _by_graph(embeddings, there, top, threads)
        else:
            bar = partial(tqdm, desc="search", unit="block", leave=False, delay=2)
            ranked = rank(embeddings, there.embeddings, top, rerank=rerank, threads=threads, progress=bar)
    found = [
        Searched(query.as_posix(), [_hit(there, ranked, row, place) for place in range(ranked.items.shape[1])])
        for row, query in enumerate(queries)
    ]
    if html is not None:
        about = {
            "gallery": gallery.name,
            "root": there.root.as_posix(),
            "photos": len(there.path),
            "left_out": len(there.about["left_out"]),
            "model": model.name,
            "digest": embedder.digest[:DIGITS],
            "rerank": rerank,
            "approximate": approximate,
            "top": ranked.items.shape[1],
        }
        write_text(html, search_page(found, _thumbnails(queries, there, found), about))
    return found


def _embed(queries: Sequence[Path], embedder: PhotoEmbedder) -> NDArray[np.float32]:
    images = [decode_photo(query) for query in queries]
    for query, image in zip(queries, images, strict=True):
        if reason := embedder.fault(image):
            raise InputError(f"{query}: no image that can be searched for: {reason}; give a photo of a person")
    return embedder.embed_images(images)  # type: ignore[arg-type]


def _hit(gallery: Gallery, ranked: Ranked, row: int, place: int) -> Hit:
    item = int(ranked.items[row, place])
    labels = {name: texts[item] for name, texts in gallery.labels.items()}
    path = (gallery.root / gallery.path[item]).as_posix()
    return Hit(path, gallery.path[item], float(ranked.similarity[row, place]), float(ranked.score[row, place]), labels)


def _by_graph(embeddings: NDArray[np.float32], gallery: Gallery, top: int, threads: int | None) -> Ranked:
    from reid_done_right.functional.approximate import build_graph, open_graph, rank_by_graph

    file = gallery.file.with_suffix(".graph")
    graph = _read_graph(file, gallery.about["key"])
    if graph is None:
        bar = partial(tqdm, desc=f"link {gallery.file.name}", unit="block")
        graph = build_graph(gallery.embeddings, threads=threads, progress=bar)
        _write_graph(file, graph, gallery.about["key"])
    return rank_by_graph(embeddings, open_graph(graph, gallery.embeddings.shape, threads=threads), top)


def _read_graph(file: Path, key: str) -> NDArray[np.uint8] | None:
    """Read a graph; None if there is none, or it is of another state of the gallery."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return opened.get_tensor("graph") if (opened.metadata() or {}).get("gallery") == key else None
    except (FileNotFoundError, SafetensorError):
        return None


def _write_graph(file: Path, graph: NDArray[np.uint8], key: str) -> None:
    from safetensors.numpy import save_file

    with replacing(file) as temporary:
        save_file({"graph": graph}, temporary, {"gallery": key})


def _thumbnails(queries: Sequence[Path], gallery: Gallery, found: Sequence[Searched]) -> dict[str, bytes | None]:
    """Give every picture of the page in small, by its path; None for one that is no longer there or cannot be read."""
    wanted: dict[str, Any] = {query.as_posix(): query for query in queries}
    wanted |= {hit.path: Path(hit.path) for each in found for hit in each.hits}
    images = {path: decode_photo(file) for path, file in wanted.items()}
    return {path: None if isinstance(image, str) else thumbnail(image) for path, image in images.items()}
