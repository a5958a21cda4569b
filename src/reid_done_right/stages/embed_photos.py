"""Embed the user's photos, from a folder or a table, as a searchable gallery.

Not part of the graph. Photos are embedded in shards. Finished shards are kept in a folder beside the gallery, so that
the same command resumes after a kill. A shard is identified by the model and by the path, size and modification time
of each photo. Memory holds two parts of a shard (`reid_done_right.images.photos`) and the list of paths.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from reid_done_right.artifacts import Embeddings, InputError, printable, read_embeddings, write_embeddings
from reid_done_right.data.gallery import read_gallery, write_gallery
from reid_done_right.data.listing import Listing, list_photos
from reid_done_right.data.manifest import portable
from reid_done_right.models.device import set_up
from reid_done_right.photos import PhotoEmbedder, load_embedder

SHARD = 4096
"""Photos in a shard: a kill loses at most this many."""


def embed_photos(
    source: Path,
    model: Path,
    out: Path,
    *,
    pattern: str | None = None,
    allow_damaged: bool = False,
    threads: int | None = None,
    device: str | None = None,
    shard: int = SHARD,
) -> int:
    """Embed every photo in `source`, write a gallery, and return the number of photos in it.

    source         folder, or CSV table (`reid_done_right.data.listing.list_photos`)
    model          written by `reid train`
    out            gallery (.safetensors, `reid_done_right.data.gallery`); not recomputed if nothing changed
    allow_damaged  skip damaged photos and list them on stderr and in the gallery; otherwise they are an error
    device         PyTorch device; None: a GPU if there is one
    shard          photos per shard
    Raises InputError naming all damaged photos; finished shards are kept for the next run.
    """
    if out.suffix != ".safetensors" or out.is_dir():
        raise InputError(f"{out}: expected a file name ending in .safetensors")
    threads = threads or os.cpu_count() or 1
    listing = list_photos(source, pattern)
    set_up(threads)
    embedder = load_embedder(model, device=device)
    spans = [range(first, min(first + shard, len(listing.path))) for first in range(0, len(listing.path), shard)]
    keys = [_key(listing, span, embedder) for span in spans]
    labels = {name: list(texts) for name, texts in listing.labels.items()}
    key = _digest([keys, labels, portable(listing.root)])
    if _is_there(out, key, allow_damaged):
        return len(read_gallery(out).path)
    folder = out.with_name(f".{out.name}.shards")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            files = [folder / f"{number:06}.safetensors" for number in range(len(spans))]
            with tqdm(total=len(listing.path), desc="embed", unit="photo") as bar:
                for file, span, each in zip(files, spans, keys, strict=True):
                    if _holds(file, each):
                        bar.update(len(span))
                    else:
                        _embed_shard(listing, span, embedder, file, each, threads, bar)
            kept, damaged = _found(files)
            _tell(damaged, listing, allow_damaged)
            about = {
                "model": embedder.digest,
                "model_name": model.name,
                "model_path": portable(model),
                "root": portable(listing.root),
                "largest_side": embedder.largest_side,
                "left_out": damaged,
                "key": key,
            }
            write_gallery(
                out,
                (read_embeddings(file).embeddings for file in files),
                embedder.dimension,
                [listing.path[row] for row in kept],
                {name: [texts[row] for row in kept] for name, texts in labels.items()},
                about,
            )
    except Timeout:
        raise InputError(f"{folder}: another process is writing this gallery; wait for it, or stop it") from None
    shutil.rmtree(folder)
    return len(kept)


def _key(listing: Listing, span: range, embedder: PhotoEmbedder) -> str:
    """Return the digest of a shard's inputs; a missing photo has no size and no time."""
    found = []
    for row in span:
        try:
            stat = (listing.root / listing.path[row]).stat()
            found.append([listing.path[row], stat.st_size, stat.st_mtime_ns])
        except OSError:
            found.append([listing.path[row]])
    return _digest([embedder.digest, embedder.device.type, found])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _is_there(out: Path, key: str, allow_damaged: bool) -> bool:
    """Return whether the gallery is up to date, including damaged photos."""
    try:
        about = read_gallery(out).about
    except InputError:
        return False
    return about["key"] == key and (allow_damaged or not about["left_out"])


def _holds(file: Path, key: str) -> bool:
    """Return whether a shard is finished and holds these photos."""
    try:
        about = read_embeddings(file).about
        return about.get("key") == key and isinstance(about.get("damaged"), dict)
    except InputError:
        return False


def _embed_shard(
    listing: Listing, span: range, embedder: PhotoEmbedder, file: Path, key: str, threads: int, bar: Any
) -> None:
    rows: list[int] = []
    damaged: dict[str, str] = {}
    embeddings = [np.empty((0, embedder.dimension), np.float32)]
    done = 0
    for faults, some in embedder.parts([listing.root / listing.path[row] for row in span], threads):
        for row, fault in zip(span[done : done + len(faults)], faults, strict=True):
            if fault:
                damaged[listing.path[row]] = fault
            else:
                rows.append(row)
        embeddings.append(some)
        done += len(faults)
        bar.update(len(faults))
    found = Embeddings(np.array(rows, np.int64), np.concatenate(embeddings), {"key": key, "damaged": damaged})
    write_embeddings(file, found)


def _found(files: Sequence[Path]) -> tuple[list[int], dict[str, str]]:
    """Return the embedded rows, and path -> reason for every damaged photo."""
    kept: list[int] = []
    damaged: dict[str, str] = {}
    for file in files:
        shard = read_embeddings(file)
        kept += shard.rows.tolist()
        damaged |= shard.about["damaged"]
    return kept, damaged


def _tell(damaged: Mapping[str, str], listing: Listing, allow_damaged: bool) -> None:
    """List skipped photos on stderr. Raises InputError listing them, unless damaged photos are allowed."""
    lines = [f"{listing.root / path}: {reason}" for path, reason in damaged.items()]
    if damaged and (not allow_damaged or len(damaged) == len(listing.path)):
        told = f"{listing.root}: {len(damaged)} of {len(listing.path)} photos cannot be embedded"
        advice = "restore them" if allow_damaged else "restore them, or leave them out with --allow-damaged"
        raise InputError(f"{told}; {advice}, and run the same command again:", *(f"  {line}" for line in lines))
    for line in lines:
        print(printable(f"left out {line}"), file=sys.stderr)
