"""Dataset: render a benchmark's folder or check the user's own, and write its manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pedestrians import herd, releases
from reid_done_right.artifacts import InputError, beside, sweep, write_json
from reid_done_right.data.manifest import make_manifest
from reid_done_right.data.readers import READERS

WRITERS: dict[str, Callable[..., None]] = {
    "market1501": releases.write_market1501,
    "dukemtmc": releases.write_dukemtmc,
    "mars": releases.write_mars,
    "person-search": releases.write_person_search,
    "distractors": releases.write_distractors,
    "csv": herd.write_herd,
}


def dataset(
    *, settings: Mapping[str, Any], images: Path, out: Path, receipt: Path | None = None, workers: int = 1
) -> None:
    """Render a release in its official folder structure, or check the user's own copy, and write its manifest.

    settings   name; format: a key of `READERS`; source: {"render": arguments of the format's writer} or
               {"folder": path}; read (optional): more arguments of the reader; root (optional): folder to record
               in the manifest, if `images` is temporary
    images     folder to render into, atomically; unused if the source is a folder
    out        manifest (JSON)
    receipt    of a folder unpacked by `reid_done_right.stages.fetch`: what it was made from
    Downloads and copies nothing. Raises InputError if the reader cannot read the user's folder.
    """
    name, layout, source = settings["name"], settings["format"], settings["source"]
    if "render" in source:
        root = images
        with _replacing_folder(images) as temporary:
            _render(name, layout, temporary, {**source["render"], "workers": workers, "progress": tqdm})
    else:
        root = Path(source["folder"])
        READERS[layout](root, **settings.get("read", {}))
    progress = partial(tqdm, desc=f"hash {name}", unit="chunk")
    manifest = make_manifest(name, layout, root, threads=workers, progress=progress)
    described = {**manifest, "root": settings.get("root", manifest["root"])}
    write_json(out, described)


def _render(name: str, layout: str, root: Path, arguments: Mapping[str, Any]) -> None:
    try:
        signature(WRITERS[layout]).bind(root, **arguments)
    except TypeError as error:
        raise InputError(f"dataset {name}: {error} to render {layout}; correct its source.render") from None
    WRITERS[layout](root, **arguments)


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; replace `path` by it if the block succeeds."""
    temporary = beside(path)
    sweep(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
