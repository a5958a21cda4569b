"""The command `reid`: its commands in panels, and how mistakes are told. Importing it imports nothing heavy."""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import version
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reid_done_right import numerics
from reid_done_right.cli import experiment, models, score, stages
from reid_done_right.cli.options import Command

HELP = """\
Person re-identification done right: from photos to the paper's tables, one command a stage.

Each stage reads its own settings (a file that `reid plan` writes from params.yaml) and the artifacts of earlier
stages, and writes its own. A stage that has been computed before, with the same settings, inputs and code, is taken
from the store (folder .store, or $REID_STORE; REID_STORE=none computes without one).

`snakemake --cores all` runs the whole experiment, and so does `dvc repro`.
"""

AGAIN = "nothing is lost: put it right, then run the same again"
CURES = {
    errno.ENOSPC: "the disk is full: free some of it, then run the same again; nothing is lost",
    errno.EDQUOT: "your quota of the disk is used up: free some of it, then run the same again; nothing is lost",
    errno.EFBIG: "files may not be that large here (ulimit -f): allow it, then run the same again; nothing is lost",
    errno.EIO: "the disk fails to read or write: look into the system's log, then run the same again",
    errno.EROFS: "nothing can be written there: make it writable, or name another store in REID_STORE",
    errno.EACCES: "you may not use it: change its permissions, or name another store in REID_STORE",
    errno.EMFILE: "too many files are open: allow more (ulimit -n), then run the same again",
}
"""What to do where the system refuses."""

PANELS = {
    "Experiment": (experiment.plan, experiment.check, experiment.fetch, experiment.verify, experiment.why),
    "Stages": stages.commands(),
    "Models": (models.embed_photos, models.search, models.export),
    "Evaluation": (score.score, score.compare),
}


class Panels(TyperGroup):
    """A group whose help lists the commands panel by panel, each with the whole first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
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
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; a mistake in the input is one line on stderr and exit status 1."""
    numerics.choose()
    if not sys.stderr.isatty():  # no moving bar, but a line now and then; tqdm reads it when a stage imports it
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    if "REID_DEBUG" in os.environ:
        app()
    try:
        app()
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
