"""Options shared by several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from reid_done_right import numerics

OUTPUTS = "reid.outputs"


def file(text: str) -> Any:
    """Return an option that names a file."""
    return typer.Option(help=text, dir_okay=False)


def artifact(text: str) -> Any:
    """Return an option that names a file which a stage wrote: whatever lies there now, the store may bring it back."""
    return typer.Option(help=text)


def _note_output(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    ctx.meta.setdefault(OUTPUTS, []).append(param.name)
    return value


def written(text: str, *names: str, dir_okay: bool = False) -> Any:
    """Return an option that names a file which the command writes; `names` where it is not called as its argument."""
    return typer.Option(*names, help=text, dir_okay=dir_okay, callback=_note_output)


class Command(TyperCommand):
    """A command that writes none of the files that it reads: checked here for all of them, before anything runs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; what is wrong with one is told without the name of a Python exception."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises InputError for an output that is one of the inputs, or another output."""
        from reid_done_right.artifacts import InputError

        outputs, named = ctx.meta.get(OUTPUTS, []), dict[str, str]()
        for name, value in sorted(ctx.params.items(), key=lambda item: item[0] in outputs):  # the outputs last
            is_output, option = name in outputs, name.replace("_", "-")
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path | str) and (is_output or Path(path).is_file()):
                    other = named.setdefault(os.path.realpath(path), option)
                    if is_output and other != option:
                        raise InputError(
                            f"{path}: --{option} would overwrite what is given as {other}; name another file"
                        )
        return super().invoke(ctx)


def folder(text: str) -> Any:
    """Return an option that names a folder."""
    return typer.Option(help=text, file_okay=False)


Offline = Annotated[
    bool, typer.Option("--offline", envvar="REID_OFFLINE", help="Download nothing; report at once what is missing.")
]
Device = Annotated[
    str | None,
    typer.Option(help="PyTorch device, such as cuda or cpu.  [default: a GPU if the settings ask for one]"),
]
Rerank = Annotated[
    Literal["none", "qe-dba", "k-reciprocal"],
    typer.Option(help="qe-dba: the paper's re-ranking; k-reciprocal: re-ranking of Zhong et al."),
]


def compute_as(wanted: str) -> str:
    """Choose the arithmetic before any numeric library loads; warn if the request cannot be met."""
    if numerics.choose(wanted) != wanted:
        typer.echo(f"reid: warning: {numerics.WHY_NATIVE}", err=True)
    return wanted


Numerics = Annotated[
    Literal["portable", "native"],
    typer.Option(
        "--numerics",
        envvar=numerics.VARIABLE,
        callback=compute_as,
        help="portable: the same bits on every x86-64 processor with AVX2; native: fastest on this processor.",
    ),
]
