"""Search results as one self-contained page: `search.html` with the report's style and all pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow

from reid_done_right.reporting.encoding import data_uri, webp
from reid_done_right.reporting.templates import render

BOX = (192, 288)
"""Width and height in pixels that a picture is scaled down into."""


@dataclass(frozen=True)
class Hit:
    """A photo found for a query.

    path        of the photo; name: its path below the gallery's folder
    similarity  dot product of the embeddings, in [-1, 1]
    score       value that orders the photos: the similarity, or the score of a re-ranking
    labels      person and camera of the photo, if known
    likeness    the same, perhaps or another, if the gallery's labels tell; otherwise ""
    """

    path: str
    name: str
    similarity: float
    score: float
    labels: Mapping[str, str]
    likeness: str = ""


@dataclass(frozen=True)
class Searched:
    """A query by its path, and the photos found for it, best first.

    nobody  the similarity that no photo exceeds, if therefore nobody in the gallery is the query's person
    """

    query: str
    hits: Sequence[Hit]
    nobody: float | None = None


def search_page(found: Sequence[Searched], pictures: Mapping[str, bytes | None], about: Mapping[str, Any]) -> str:
    """Write the page.

    pictures: WebP of every photo by its path, None for one that is gone. about: gallery, root, photos, left_out,
    model, digest, rerank, top, bands.
    """
    sources = {path: data_uri(content) if content else "" for path, content in pictures.items()}
    return render("search.html", found=found, sources=sources, about=about, box=BOX)


def thumbnail(image: NDArray[np.uint8]) -> bytes:
    """Scale a picture (h, w, 3) down into `BOX`, its shape kept, as WebP; a small one stays as it is."""
    small = pillow.fromarray(image)
    small.thumbnail(BOX)
    return webp(small, quality=80, effort=4)
