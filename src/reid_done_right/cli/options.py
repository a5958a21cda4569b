"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from reid_done_right import numerics


def file(text: str) -> Any:
    """Return an option that names a file."""
    return typer.Option(help=text, dir_okay=False)


def folder(text: str) -> Any:
    """Return an option that names a folder."""
    return typer.Option(help=text, file_okay=False)


Offline = Annotated[
    bool, typer.Option("--offline", envvar="REID_OFFLINE", help="Fetch nothing; say at once what is missing.")
]
Rerank = Annotated[
    Literal["none", "qe-dba", "k-reciprocal"],
    typer.Option(help="qe-dba is the paper's re-ranking, k-reciprocal the one of Zhong et al."),
]


def compute_as(wanted: str) -> str:
    """Choose the arithmetic before anything loads that computes; say so where it is not what was asked for."""
    if numerics.choose(wanted) != wanted:
        typer.echo(f"reid: warning: {numerics.WHY_NATIVE}", err=True)
    return wanted


Numerics = Annotated[
    Literal["portable", "native"],
    typer.Option(
        "--numerics",
        envvar=numerics.VARIABLE,
        callback=compute_as,
        help="portable: the same bits on every x86-64 processor with AVX2; native: all that this one has, for speed.",
    ),
]
