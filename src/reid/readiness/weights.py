"""First weights before a run: learned here, or torchvision's files, verified by the digest in their names."""

from __future__ import annotations

import hashlib
import urllib.request
from functools import cache
from pathlib import Path

from reid.params import Params
from reid.plan import PUBLISHED
from reid.readiness.findings import Finding

PATIENCE = 5
"""Seconds to wait for the server of the weights."""


def examine_weights(params: Params) -> list[Finding]:
    """Look for the first weights of each backbone that is trained."""
    trained = {params.variant(variant).backbone for name in params.datasets for variant in params.variants_of(name)}
    backbones = {name: layers for name, layers in params.backbones.items() if name in trained}
    if params.initialise.imagenet is None:
        return [Finding(name, "ready", "learned by the run, from rendered objects") for name in backbones]
    return [
        _examine_file(name, PUBLISHED[layers.block, tuple(layers.blocks)], params.initialise.imagenet)  # type: ignore[index]
        for name, layers in backbones.items()
    ]


def _examine_file(backbone: str, architecture: str, weights: str) -> Finding:
    import torch
    from torchvision.models import get_model_weights

    url = get_model_weights(architecture)[weights].url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        if _answers(url):
            return Finding(backbone, "note", f"{file}: not there yet; the run downloads it from {url}")
        return Finding(backbone, "missing", f"{file}: not there, and no network reaches {url}; put it there")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if not digest.startswith(file.stem.rpartition("-")[2]):
        told = f"its SHA-256 begins with {digest[:8]}, not as its name says; delete it and take it from {url}"
        return Finding(backbone, "damaged", f"{file}: {told}", (f"{file}: SHA-256 {digest}",))
    return Finding(backbone, "ready", f"{file}, verified")


@cache
def _answers(url: str) -> bool:
    """Ask a server whether it would give a file."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return True
    except OSError:
        return False
