"""The edges of the DAG: every artifact that one stage writes and another reads, and its file format.

Writers are atomic (temporary name in the same folder, flushed to disk, renamed). Provenance is in the ledger
(`reid_done_right.store.ledger`), not in the file, so equal content means equal bytes. Readers validate their input and
raise `InputError` with the file's name.
Nothing is pickled: weights and embeddings are safetensors, rows are Parquet, scores and manifests JSON, logs CSV.
"""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

HOST = platform.node()

DIGITS = 12
"""Digits of a digest shown to people."""

SPLITS = ("train", "query", "gallery", "query+gallery", "boxes")


class InputError(ValueError):
    """A file or parameter is not what a stage needs; the message names it, and says what to do next.

    Each argument is a line of the message.
    """

    def __str__(self) -> str:
        """Return the message, safe to print on a terminal: it may quote foreign names and contents."""
        return "\n".join(printable(str(line)) for line in self.args)


def printable(text: str) -> str:
    """Return a text as one line, with escapes for what a terminal would obey."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success, flush the file to disk and rename it to `path`.

    Raises OSError naming `path` if the disk is full, fails or may not be written to.
    """
    temporary = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:
        number = _errno(error)
        if number is None or getattr(error, "filename", None) not in (None, str(temporary)):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _errno(error: Exception) -> int | None:
    """Return the errno of an error; safetensors, written in Rust, has it only in its message."""
    if isinstance(error, OSError):
        return error.errno
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else None


def beside(path: Path) -> Path:
    """Return the temporary path under which this process writes `path`."""
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.tmp")


def sweep(path: Path) -> None:
    """Remove temporary files beside `path` left by killed processes of this machine."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{HOST}.*.tmp"):
        from psutil import pid_exists

        number = left.name.split(".")[-2]
        if number.isdecimal() and not pid_exists(int(number)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


DAMAGED = ".damaged"
"""Suffix of a damaged file that was set aside."""


def set_aside(path: Path) -> None:
    """Rename a damaged file, keeping its content."""
    path.replace(path.with_name(path.name + DAMAGED))


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear_place(path: Path) -> str:
    """Clear the place of a file of what is none; return what that was and what became of it, "" if there was nothing.

    A link to nowhere, a pipe or the like is removed, a folder set aside. A link to a file stays.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        if not path.is_symlink():
            return ""
        path.unlink()
        return "a link to nowhere; removed"
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode) and not path.is_symlink():
        remove(path.with_name(path.name + DAMAGED))  # of an earlier time: nothing is renamed over a folder
        set_aside(path)
        return f"a folder; set aside with the ending {DAMAGED}"
    path.unlink()
    return f"{KINDS.get(stat.S_IFMT(mode), 'a device')}; removed"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, keys in their given order."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


MOST_BYTES = 2**30
"""Of a file that is read whole."""

KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def regular(path: Path, most: int | None = None) -> Path:
    """Return the path of a regular file, following links, before anything opens it.

    most: bytes that it may have. Raises OSError for a folder, a pipe or a device, which may never end, for a file that
    is larger, and if there is none.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{KINDS.get(stat.S_IFMT(status.st_mode), 'a device')}, not a file", str(path))
    if most is not None and status.st_size > most:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, more than the {most:,} that are read", str(path))
    return path


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file of at most `most` bytes. Raises OSError as `regular`."""
    with regular(path, most).open("rb") as opened:
        content = opened.read(os.fstat(opened.fileno()).st_size)
        if opened.read(1):  # one that is being written, or the system's own, as in /proc
            raise OSError(errno.EFBIG, "more bytes than its size", str(path))
    return content


HARMLESS, RATIO = 100 << 20, 100
"""Bytes that a compressed file may hold whatever its own size, and beyond that, bytes for each of its own."""


def check_expansion(path: Path, held: int) -> None:
    """Raise InputError if a compressed file claims to hold far more bytes than it has, before any are unpacked."""
    size = path.stat().st_size
    if held > max(HARMLESS, RATIO * size):
        raise InputError(
            f"{path}: {size:,} bytes that unpack to {held:,}, which is not done; save it without compression"
        )


def check_zip(path: Path) -> None:
    """Raise InputError if a zip file claims to hold far more than it has; other files are not looked at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as opened:
            check_expansion(path, sum(info.file_size for info in opened.infolist()))


def read_parquet(path: Path) -> Any:
    """Return the table of a Parquet file.

    Raises InputError if its rows claim far more than its size, OSError and pyarrow's exceptions if it is damaged.
    """
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(regular(path))  # read_table imports pandas, half a second
    check_expansion(path, 8 * opened.metadata.num_rows * opened.metadata.num_columns)  # more of it, Arrow may crash on
    return opened.read()


def reason_of(error: Exception) -> str:
    """Return what an error says, in one line, for a message that names the file itself."""
    said = error.strerror if isinstance(error, OSError) else None
    return " ".join((said or str(error) or type(error).__name__).split())


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a regular file. Raises OSError as `regular`, and UnicodeDecodeError."""
    return read_regular(path).decode(encoding)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a regular file's content. Raises OSError as `regular`."""
    with regular(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError if the file is missing, unreadable or not an object."""
    try:
        content = json.loads(read_text(Path(path)))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it first") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; it should be a JSON file that can be read") from None
    except (ValueError, RecursionError) as error:  # damaged, numbers of thousands of digits, too deep
        raise InputError(f"{path}: not valid JSON ({error}); delete it and run its stage again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


@dataclass(frozen=True)
class Index:
    """Every image (or box) of a dataset, one row each, in the order of the benchmark's own lists.

    root            folder that `path` is relative to
    path            (N,) str, posix
    person_id       (N,) int64; -1 junk (Person Search: an unlabelled pedestrian), 0 distractor
    camera_id       (N,) int64, 1-based as in file names; 0 = no camera
    tracklet_id     (N,) int64; 0 = none
    split           (N,) str, one of `SPLITS`; "query+gallery": MARS keeps its query tracklets in the gallery;
                    "boxes": Market's hand-drawn boxes for multi-query
    box             (N, 4) int32, x y w h in pixels; w = 0 means the whole image
    gallery_lists   Person Search: gallery size ("50", "100", ...) -> for each query in order, the rows of its gallery
    person, camera  (N,) str, the labels of the user's own photos that the ids stand for; None for the benchmarks
    upright         whether images are turned as their EXIF orientation says
    left_out        damaged files that the parameters allow to be left out; no row has them
    content         (N,) uint64, the first 8 bytes of the SHA-256 of each row's file, by which a changed one is found
    """

    root: Path
    path: NDArray[np.str_]
    person_id: NDArray[np.int64]
    camera_id: NDArray[np.int64]
    tracklet_id: NDArray[np.int64]
    split: NDArray[np.str_]
    box: NDArray[np.int32]
    gallery_lists: Mapping[str, Sequence[NDArray[np.int64]]] | None = None
    person: NDArray[np.str_] | None = None
    camera: NDArray[np.str_] | None = None
    upright: bool = False
    left_out: Sequence[str] = ()
    content: NDArray[np.uint64] | None = None

    def __post_init__(self) -> None:
        """Check that the columns have one length and that splits are known."""
        n = len(self.path)
        for name in ("person_id", "camera_id", "tracklet_id", "split", "box", "content"):
            if getattr(self, name) is not None and len(getattr(self, name)) != n:
                raise InputError(f"index of {self.root}: column {name} has {len(getattr(self, name))} rows, not {n}")
        unknown = set(np.unique(self.split)) - set(SPLITS)
        if unknown:
            found = ", ".join(sorted(unknown))
            raise InputError(f"index of {self.root}: unknown split {found}, expected one of {', '.join(SPLITS)}")

    def __len__(self) -> int:
        """Return the number of rows N."""
        return len(self.path)

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """Return the row numbers whose split is one of `splits`, ascending, int64."""
        return np.flatnonzero(np.isin(self.split, splits))

    @property
    def train(self) -> NDArray[np.int64]:
        """Rows to train on."""
        return self.rows("train")

    @property
    def query(self) -> NDArray[np.int64]:
        """Rows of queries (MARS: their frames)."""
        return self.rows("query", "query+gallery")

    @property
    def gallery(self) -> NDArray[np.int64]:
        """Rows of the gallery, junk and distractors included."""
        return self.rows("gallery", "query+gallery")


def write_index(path: Path, index: Index) -> None:
    """Write an index as Parquet; what is not of one row goes into the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "path": pa.array(index.path.tolist(), pa.string()),
        "person_id": index.person_id,
        "camera_id": index.camera_id,
        "tracklet_id": index.tracklet_id,
        "split": pa.array(index.split.tolist(), pa.string()).dictionary_encode(),
    }
    if index.person is not None and index.camera is not None:
        labels = {"person": index.person, "camera": index.camera}
        columns |= {name: pa.array(label.tolist(), pa.string()) for name, label in labels.items()}
    columns |= {} if index.content is None else {"content": index.content}
    columns |= {side: index.box[:, i] for i, side in enumerate(("x", "y", "w", "h"))}
    for size, lists in (index.gallery_lists or {}).items():
        by_query: list[list[int] | None] = [None] * len(index)
        for query, members in zip(index.query, lists, strict=True):
            by_query[query] = members.tolist()
        columns[f"gallery_{size}"] = pa.array(by_query, pa.list_(pa.int64()))
    metadata = {"root": index.root.as_posix(), "upright": json.dumps(index.upright)}
    metadata |= {"left_out": json.dumps(list(index.left_out))}
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary, compression="zstd")


def read_index(path: Path) -> Index:
    """Read an index. Raises InputError if the file is missing or is not one."""
    import pyarrow as pa

    try:
        table = read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such index; run `reid index` first") from None
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # Arrow raises OSError on damage too
        raise InputError(f"{path}: not an index ({reason_of(error)}); delete it and run `reid index` again") from None
    missing = sorted({"path", "person_id", "camera_id", "tracklet_id", "split", *"xywh"} - set(table.column_names))
    if missing:
        raise InputError(f"{path}: not an index, it lacks {', '.join(missing)}; give one that `reid index` wrote")
    try:
        return _index(table)
    except InputError as error:
        raise InputError(f"{path}: {error}; delete it and run `reid index` again") from None
    except (pa.ArrowException, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not an index ({reason_of(error)}); delete it and run `reid index` again") from None


def _index(table: Any) -> Index:
    """Convert a table to an index; invalid tables raise any exception of NumPy and Arrow."""
    columns = {name: table[name].to_numpy() for name in table.column_names if not name.startswith("gallery_")}
    for name in ("person_id", "camera_id", "tracklet_id"):
        if columns[name].dtype != np.int64:
            raise TypeError(f"{name} is of type {columns[name].dtype}, not int64")
    lists = {}
    for name in table.column_names:
        if name.startswith("gallery_"):
            lists[name.removeprefix("gallery_")] = [
                np.asarray(members, np.int64) for members in table[name].to_pylist() if members is not None
            ]
    metadata = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
    return Index(
        root=Path(metadata["root"]),
        path=columns["path"].astype(np.str_),
        person_id=columns["person_id"],
        camera_id=columns["camera_id"],
        tracklet_id=columns["tracklet_id"],
        split=columns["split"].astype(np.str_),
        box=np.stack([columns[side] for side in ("x", "y", "w", "h")], axis=1).astype(np.int32),
        gallery_lists=lists or None,
        person=columns["person"].astype(np.str_) if "person" in columns else None,
        camera=columns["camera"].astype(np.str_) if "camera" in columns else None,
        upright=json.loads(metadata.get("upright", "false")),
        left_out=json.loads(metadata.get("left_out", "[]")),
        content=columns.get("content"),
    )


@dataclass(frozen=True)
class Weights:
    """Parameters of a network and the description to rebuild it.

    state     name -> tensor, the names of torchvision's state dicts
    about     JSON-able description: architecture, pooling, largest side, collapsed, ...
    """

    state: Mapping[str, Tensor]
    about: Mapping[str, Any]


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights as safetensors; `about` goes into its metadata."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.state.items()}
    with replacing(path) as temporary:
        save_file(state, temporary, _metadata(weights.about))


def read_weights(path: Path) -> Weights:
    """Read weights without executing code. Raises InputError if the file is missing, damaged or of another kind."""
    from safetensors.torch import load_file

    weights = Weights(_load(path, load_file), _about(path))
    if "backbone" not in weights.about:
        raise InputError(f"{path}: not a network's weights; give those that `reid initialise`, pretrain or train wrote")
    return weights


def read_checkpoint(path: Path) -> Weights:
    """Read the state of an unfinished training. Raises InputError if the file is damaged or of another kind."""
    from safetensors.torch import load_file

    kept = Weights(_load(path, load_file), _about(path))
    if "update" not in kept.about:
        raise InputError(f"{path}: not the state of a training; delete it to begin again")
    return kept


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a network's tensors by name, without executing code, from safetensors or a PyTorch state dict.

    A state dict may be under the key "state_dict" or "model" of the file. Raises InputError if the file is
    missing, damaged, or would have to execute code.
    """
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return _load(path, load_file)
    import torch

    try:
        check_zip(regular(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the path of your weights") from None
    except Exception as error:  # torch raises many kinds on damaged and foreign files
        reason = (str(error) or repr(error)).splitlines()[0]
        raise InputError(
            f"{path}: not a state dict that can be loaded without executing code ({reason}); "
            "save model.state_dict() alone, or write safetensors"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise InputError(f"{path}: holds more than tensors by name; save model.state_dict() alone")
    return content


@dataclass(frozen=True)
class Embeddings:
    """Unit-norm embeddings of some rows of an index.

    rows         (N,) int64, rows of the index
    embeddings   (N, D) float32
    about        run (dataset, variant, draw, backbone), collapsed, ...
    """

    rows: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    about: Mapping[str, Any] = field(default_factory=dict)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the embeddings (len(rows), D) of the given index rows. Raises InputError if one was not embedded."""
        order = np.argsort(self.rows, kind="stable")
        place = np.searchsorted(self.rows, rows, sorter=order)
        found = np.isin(rows, self.rows)
        if not found.all():
            raise InputError(f"index row {rows[~found][0]} has no embedding; run `reid embed` again with this index")
        return self.embeddings[order[place]]


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write embeddings as safetensors."""
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[Any]] = {
        "rows": np.ascontiguousarray(embeddings.rows),  # safetensors writes the memory of a strided view as it lies
        "embeddings": np.ascontiguousarray(embeddings.embeddings),
    }
    with replacing(path) as temporary:
        save_file(arrays, temporary, _metadata(embeddings.about))


def read_embeddings(path: Path) -> Embeddings:
    """Read embeddings. Raises InputError if the file is missing, damaged or of another kind."""
    from safetensors.numpy import load_file

    arrays = _load(path, load_file)
    shapes = {name: array.shape for name, array in arrays.items()}
    rows, embeddings = shapes.get("rows", ()), shapes.get("embeddings", ())
    if len(shapes) != 2 or len(rows) != 1 or len(embeddings) != 2 or rows[0] != embeddings[0]:
        raise InputError(f"{path}: expected tensors rows (N,) and embeddings (N, D), found {shapes}")
    if arrays["rows"].dtype != np.int64 or arrays["embeddings"].dtype != np.float32:
        raise InputError(f"{path}: expected rows of int64 and embeddings of float32; run `reid embed` again")
    return Embeddings(arrays["rows"], arrays["embeddings"], _about(path))


def _load(path: Path, load_file: Any) -> dict[str, Any]:
    from safetensors import SafetensorError

    try:
        return dict(load_file(regular(path)))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it first") from None
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:  # also of kinds that NumPy lacks
        raise InputError(f"{path}: damaged safetensors ({error}); delete it and run its stage again") from None


def _metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """Return safetensors' metadata, under one key: it writes several in random order, and equal content other bytes."""
    return {"reid": json.dumps({"about": dict(about)})}


def _about(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as opened:
        metadata = opened.metadata() or {}
    try:
        return dict(json.loads(metadata.get("reid", "{}")).get("about", {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: what it says of itself is damaged ({error}); delete it and run its stage again"
        ) from None


def write_log(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write a training log as CSV, one row per update, with six significant digits."""
    with replacing(path) as temporary, temporary.open("w", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(rows[0].keys() if rows else ["update"])
        writer.writerows([f"{value:.6g}" for value in row.values()] for row in rows)
