"""Galleries: embeddings of photos by one model, with paths and labels, in one file.

The file is safetensors, so that its embeddings are memory-mapped: a gallery may be larger than memory.

    embeddings           (N, D) float32 of unit norm
    path, path_ends      (bytes,) uint8: all paths in UTF-8, concatenated; (N,) int64 the end of each
    person, person_ends  labels, if known; camera, camera_ends likewise

Its metadata key `reid` is JSON with `about`: `kind` ("gallery"), `model` (SHA-256 of the model's file), `model_name`,
`model_path` (where it was, likewise; absent in older galleries), `root` (folder that paths are relative to),
`largest_side`, `left_out` (path to reason of the damaged photos that were allowed) and `key` (digest of all that it
was made from).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reid_done_right.artifacts import InputError, reason_of, regular, replacing
from reid_done_right.data.arrays import Arrays, read_arrays
from reid_done_right.data.manifest import PathText, Sha256
from reid_done_right.params.messages import validated
from reid_done_right.params.section import Positive, Strict

LABELS = ("person", "camera")
MADE = "give one that `reid embed-photos` wrote"


class About(Strict):
    """What a gallery says of itself."""

    kind: Literal["gallery"]
    model: Sha256
    model_name: Annotated[str, Field(max_length=255)]
    model_path: PathText | None = None
    root: PathText
    largest_side: Positive
    left_out: dict[str, str]
    key: Sha256


@dataclass(frozen=True)
class Gallery:
    """Searchable photos.

    file        the gallery file
    embeddings  (N, D) float32 of unit norm, mapped
    path        (N,) relative to `root`
    labels      person and camera of each, if known
    about       see the module docstring
    """

    file: Path
    embeddings: NDArray[np.float32]
    path: Sequence[str]
    labels: Mapping[str, Sequence[str]]
    about: Mapping[str, Any]

    @property
    def root(self) -> Path:
        """Folder that the paths are relative to, itself relative to the working directory."""
        return Path(self.about["root"])


def write_gallery(
    file: Path,
    parts: Iterable[NDArray[np.float32]],
    dimension: int,
    path: Sequence[str],
    labels: Mapping[str, Sequence[str]],
    about: Mapping[str, Any],
) -> None:
    """Write a gallery atomically, one part of the embeddings in memory at a time.

    parts  (n, D) each, N rows in all. Raises ValueError if they are not as many as paths.
    """
    columns: dict[str, NDArray[Any]] = {}
    for name, texts in {"path": path, **labels}.items():
        encoded = [text.encode(errors="surrogateescape") for text in texts]
        columns[name] = np.frombuffer(b"".join(encoded), np.uint8)
        columns[f"{name}_ends"] = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    header: dict[str, Any] = {"__metadata__": {"reid": json.dumps({"about": {"kind": "gallery", **about}})}}
    end = 0
    # the widest types first, because the format aligns its tensors
    ends = [(name, "I64", column.shape) for name, column in columns.items() if name.endswith("_ends")]
    texts_of = [(name, "U8", column.shape) for name, column in columns.items() if not name.endswith("_ends")]
    for name, kind, shape in (*ends, ("embeddings", "F32", (len(path), dimension)), *texts_of):
        size = int(np.prod(shape)) * {"I64": 8, "F32": 4, "U8": 1}[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    with replacing(file) as temporary, temporary.open("wb") as out:
        out.write(len(written).to_bytes(8, "little") + written)
        for name, *_ in ends:
            out.write(columns[name].astype("<i8").tobytes())
        rows = 0
        for part in parts:
            out.write(np.ascontiguousarray(part, "<f4").tobytes())
            rows += len(part)
        if rows != len(path):
            raise ValueError(f"{file}: {rows} embeddings of {len(path)} photos")
        for name, *_ in texts_of:
            out.write(columns[name].tobytes())


def read_gallery(file: Path) -> Gallery:
    """Map a gallery. Raises InputError if the file is missing, damaged or of another kind."""
    about = _about(file)
    names = ("embeddings", *(f"{name}{end}" for name in ("path", *LABELS) for end in ("", "_ends")))
    arrays = read_arrays(file, names)
    embeddings = arrays.column("embeddings")
    if embeddings.ndim != 2 or embeddings.dtype != np.float32 or 0 in embeddings.shape:
        raise InputError(
            f"{file}: embeddings are {embeddings.dtype} {embeddings.shape}, expected float32 (N, D); {MADE}"
        )
    labels = {name: _texts(arrays, name, len(embeddings)) for name in LABELS if name in arrays.names}
    return Gallery(file, embeddings, _texts(arrays, "path", len(embeddings)), labels, about)


def _about(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(file), framework="np") as opened:
            about = json.loads((opened.metadata() or {}).get("reid", "{}")).get("about", {})
    except FileNotFoundError:
        raise InputError(f"{file}: no such gallery; {MADE}") from None
    except (SafetensorError, OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: not a gallery ({reason_of(error)}); {MADE}") from None
    if not isinstance(about, dict) or about.get("kind") != "gallery":
        raise InputError(f"{file}: not a gallery; {MADE}")
    return validated(About, about, f"{file}: not a gallery", MADE).model_dump()


def _texts(arrays: Arrays, name: str, rows: int) -> list[str]:
    text, ends = arrays.column(name), arrays.integers(f"{name}_ends", rows)
    if text.dtype != np.uint8 or text.ndim != 1 or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(text):
        raise InputError(f"{arrays.path}: {name} does not have a text for each of {rows} rows; {MADE}")
    content, starts = text.tobytes(), [0, *ends[:-1].tolist()]
    return [
        content[start:end].decode(errors="surrogateescape") for start, end in zip(starts, ends.tolist(), strict=True)
    ]
