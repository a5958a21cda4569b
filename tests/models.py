"""A minimal model file with random weights."""

from pathlib import Path
from typing import Any

import torch

from reid_done_right.artifacts import Weights, write_weights
from reid_done_right.models.build import build
from reid_done_right.models.embedder import Embedder

NARROW = {"block": "basic", "blocks": [1, 1, 1, 1], "width": 4, "last_stride": 1}


def write_model(path: Path, seed: int = 0, backbone: dict[str, Any] = NARROW, pooling: str = "max") -> Path:
    """Write an embedder for images of 64 pixels to 8 dimensions, as `reid train` would."""
    torch.manual_seed(seed)
    embedder = Embedder(build(backbone), 8, pooling)
    about = {"backbone": backbone, "embedding": 8, "pooling": pooling, "largest_side": 64, "collapsed": False}
    write_weights(path, Weights(embedder.state_dict(), about))
    return path
