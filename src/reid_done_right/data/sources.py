"""Sources of releases and weights: `sources.toml`, the table of pages, terms, files and digests."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class File:
    """An external file.

    path     its path on disk
    urls     mirrors, in order; none if it must be obtained by hand
    sha256   its digest, or its first digits if only these are published; "" if unknown: trusted on first use
    bytes    its size if known; a download may be a hundredth larger
    """

    path: Path
    urls: tuple[str, ...] = ()
    sha256: str = ""
    bytes: int | None = None


def file_of(settings: Mapping[str, Any]) -> File:
    """Read a file from settings: path, and any of urls, sha256, bytes."""
    fields = {**settings, "path": Path(settings["path"]), "urls": tuple(settings.get("urls", ()))}
    return File(**fields)


def weights_file(weights: str, architecture: str, folder: Path) -> File:
    """Return torchvision's file of some weights (IMAGENET1K_V1) for an architecture (resnet50), kept in `folder`."""
    known = TABLE["weights"][weights][architecture]
    return File(folder / name_of(known["url"]), (known["url"],), known["sha256"], known["bytes"])


def name_of(url: str) -> str:
    """Return the file name at the end of an address."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def how_to_obtain(release: Mapping[str, Any]) -> str:
    """Return how to obtain a release: what, where and on what terms."""
    return f"{release['obtain']} ({release['licence']})"
