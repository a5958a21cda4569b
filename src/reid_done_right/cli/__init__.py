"""The command `reid`: help panels and error reporting. Importing it imports nothing heavy."""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import version
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reid_done_right import extras, numerics
from reid_done_right.cli import experiment, models, score, stages
from reid_done_right.cli.options import Command

HELP = """\
Person re-identification done right: from photos to the paper's tables, one command per stage.

Each stage reads its own settings (a file that `reid plan` writes from params.yaml) and the artifacts of earlier
stages, and writes its own. If it has run before with the same settings, inputs and code, its results come from the
store (folder .store, or $REID_STORE; REID_STORE=none disables it).

`snakemake --cores all` or `dvc repro` runs the whole experiment.
"""

AGAIN = "no results were lost; fix the problem and run the same command again"
CURES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again; no results were lost",
    errno.EDQUOT: "disk quota exceeded; free some space and run the same command again; no results were lost",
    errno.EFBIG: "file size limit exceeded; raise it (`ulimit -f`) and run the command again; no results were lost",
    errno.EIO: "the disk cannot be read or written; check the system log, then run the same command again",
    errno.EROFS: "the file system is read-only; make it writable, or set REID_STORE to another folder",
    errno.EACCES: "permission denied; change the permissions, or set REID_STORE to another folder",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n` and run the same command again",
}
"""System error -> what to do about it."""

PANELS = {
    "Experiment": (
        experiment.new,
        experiment.plan,
        experiment.check,
        experiment.fetch,
        experiment.status,
        experiment.verify,
        experiment.why,
    ),
    "Stages": stages.commands(),
    "Models": (models.embed_photos, models.search, models.export),
    "Evaluation": (score.score, score.compare),
}


class Panels(TyperGroup):
    """A command group whose help lists commands by panel, each with its full first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section per panel."""
        for panel, functions in PANELS.items():
            names = [function.__name__.replace("_", "-") for function in functions]
            with formatter.section(panel):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


app = typer.Typer(
    name="reid",
    cls=Panels,
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
)
for function in chain.from_iterable(PANELS.values()):
    app.command(cls=Command)(function)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"reid {version('reid-done-right')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Accept the options before a command."""


def main() -> None:
    """Run the command line; an input error prints one line on stderr and exits with status 1."""
    numerics.choose()
    if not sys.stderr.isatty():  # log files get a line now and then; tqdm reads this when a stage imports it
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    if "REID_DEBUG" in os.environ:
        app()
    try:
        app()
    except ModuleNotFoundError as error:
        if (told := extras.advice(error)) is None:
            raise
        typer.echo(f"reid: error: {told}", err=True)
        sys.exit(1)
    except (ValueError, FloatingPointError, OSError) as error:
        typer.echo(f"reid: error: {_message(error)}", err=True)
        sys.exit(1)


def _message(error: Exception) -> str:
    """Return what a mistake is told by: names and contents in it are anybody's, and no command to the terminal."""
    from reid_done_right.artifacts import InputError, printable

    if isinstance(error, OSError):
        where, cure = error.filename2 or error.filename, CURES.get(error.errno or 0, AGAIN)
        return printable(f"{where}: {error.strerror or error}; {cure}")
    return str(error) if isinstance(error, InputError) else printable(str(error))
