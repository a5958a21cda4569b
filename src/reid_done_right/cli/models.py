"""Commands that use a trained model: embed-photos, search, export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reid_done_right.cli.options import Numerics, Rerank, file, written

AnyDevice = Annotated[
    str | None, typer.Option("--device", help="PyTorch device, such as cuda or cpu.  [default: a GPU if there is one]")
]


def embed_photos(
    photos: Annotated[Path, typer.Argument(help="A folder of photos, or a table that lists them (.csv).")],
    model: Annotated[Path, file("The model, written by `reid train`.")],
    out: Annotated[Path, written("Where to write the gallery (.safetensors).")],
    pattern: Annotated[
        str | None,
        typer.Option(help="Labels in the paths, relative to the folder, such as {person}/{camera}/{name}."),
    ] = None,
    allow_damaged: Annotated[bool, typer.Option("--allow-damaged", help="Skip damaged photos and list them.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads.  [default: all cores]")] = None,
    device: AnyDevice = None,
    numerics: Numerics = "portable",
) -> None:
    """Embed your own photos as a gallery of unit vectors.

    \b
      reid embed-photos photos --model market-default-draw0.safetensors --out gallery.safetensors
      reid search anna.jpg --gallery gallery.safetensors

    Embeds all images in the folder and its subfolders, or those listed in a table with column path (relative to the
    table's folder) and, optionally, person_id and camera_id. After a kill, the same command resumes. A damaged photo
    is an error that names it; --allow-damaged skips it.
    """
    from reid_done_right.stages.embed_photos import embed_photos as embed_all

    count = embed_all(photos, model, out, pattern=pattern, allow_damaged=allow_damaged, threads=threads, device=device)
    typer.echo(f"embed-photos: {count:,} photos in {out}", err=True)


def search(
    queries: Annotated[
        list[Path],
        typer.Argument(help="Photos of the people to search for, one person each, or folders.", metavar="PHOTO"),
    ],
    gallery: Annotated[Path, file("The gallery to search, written by `reid embed-photos`.")],
    model: Annotated[
        Path | None, file("The model that made the gallery.  [default: the file that made it, where it was then]")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of results to show.")] = 10,
    rerank: Rerank = "none",
    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Say nobody if no photo is as similar as for this share of strangers, such as 0.05; the gallery must "
            "know the people in its photos."
        ),
    ] = None,
    html: Annotated[Path | None, written("Also write a page with pictures (.html).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads.  [default: all cores]")] = None,
    device: AnyDevice = None,
    numerics: Numerics = "portable",
) -> None:
    """Find the photos in a gallery most similar to the person in each query photo.

    The search is exact: every gallery photo is compared. Similarity is the cosine of two embeddings: 1 means
    identical, and what counts as high depends on the model and the photos. A gallery that knows the people in its
    photos tells: "the same" if 95 % of them have no other person as similar, "another" if 95 % have a photo of
    their own person more similar, otherwise "perhaps". A match is a likeness, not an identification.
    """
    from reid_done_right.stages.search import search as search_gallery

    how: dict[str, Any] = {"top": top, "rerank": rerank, "false_alarms": false_alarms, "device": device}
    found = search_gallery(queries, gallery, model, html=html, threads=threads, **how)
    _print_places(found, rerank != "none")
    if html is not None:
        typer.echo(f"search: wrote {html}", err=True)


def _print_places(found: Any, reranked: bool) -> None:
    """Print one table per query; outside a terminal, lines are not wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from reid_done_right.artifacts import printable

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    for each in found:
        labels = [name for name in ("person", "camera") if name in each.hits[0].labels]
        table = Table(box=box.SIMPLE, header_style="bold", padding=(0, 1), pad_edge=False)
        table.add_column("", justify="right")
        table.add_column("similarity", justify="right")
        if reranked:
            table.add_column("re-ranked", justify="right")
        if told := bool(each.hits[0].likeness):
            table.add_column("likeness")
        for name in labels:
            table.add_column(name)
        table.add_column("photo", overflow="fold")
        for place, hit in enumerate(each.hits, 1):
            scores = [f"{hit.similarity:.3f}", *([f"{hit.score:.3f}"] if reranked else [])]
            cells = [
                str(place),
                *scores,
                *([hit.likeness] if told else []),
                *(hit.labels[name] for name in labels),
                hit.path,
            ]
            table.add_row(*(Text(printable(cell)) for cell in cells))
        nobody = "" if each.nobody is None else f"  nobody: no photo more similar than {each.nobody:.3f}"
        console.print(Text(printable(each.query), style="bold").append(nobody))
        console.print(table)


def export(
    model: Annotated[Path, file("The model, written by `reid train`.")],
    out: Annotated[
        Path,
        written(
            "Output file: .onnx, or .pt2 for torch-export, with its model card (.md) beside it; a folder for the hub.",
            dir_okay=True,
        ),
    ],
    form: Annotated[
        Literal["onnx", "torch-export", "hub"],
        typer.Option("--format", help="onnx for any runtime, torch-export for PyTorch, hub to publish the weights."),
    ] = "onnx",
    opset: Annotated[int, typer.Option(help="ONNX operator set, 18 to 25.")] = 18,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="For trackers: take images of this height and width only, such as 256x128, as normalised floats.",
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest allowed difference from the module, per embedding value.")
    ] = 1e-4,
    scores: Annotated[
        Path | None, file("Scores for the card, written by `reid evaluate`.  [default: those of the model's run]")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Training data, for the card.  [default: from the run]")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence, for the card.  [default: from the run]")] = None,
) -> None:
    """Export a model for other programs, with a model card.

    The exported model takes pixels, uint8 (B, 3, H, W) in RGB order, any number of images of one size, and returns
    unit vectors (B, D). With --size it takes what trackers give. Normalisation is included; resizing to the
    largest side is not (the card says how). Before the file is written, it is run on random images of three shapes
    and compared with the module.

    The format hub is a folder for a repository of the Hugging Face hub: the weights as they are, config.json, and the
    card as README.md, with licence, data and scores where the hub looks for them. After an upload, hub:OWNER/NAME takes
    the place of a model's path: here, in embed-photos and search, and in `load_embedder`.
    """
    from reid_done_right.artifacts import InputError
    from reid_done_right.stages.export import export as export_model

    how: dict[str, Any] = {"form": form, "opset": opset, "tolerance": tolerance}
    if size is not None:
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
        if found is None:
            raise InputError(f"--size {size!r}: expected HEIGHTxWIDTH in pixels, as in 256x128")
        how["size"] = (int(found[1]), int(found[2]))
    told: dict[str, Any] = {"scores": scores, "data": data, "licence": licence}
    difference = export_model(model, out, **how, **told)
    if form == "hub":
        typer.echo(f"export: wrote {out}; publish it with: hf upload OWNER/NAME {out}", err=True)
        return
    typer.echo(
        f"export: differs from the module by at most {difference:.1e} on random images of three shapes", err=True
    )
    typer.echo(f"export: wrote {out} and {out}.md", err=True)
