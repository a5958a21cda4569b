"""The command `reid`: its commands in panels, and how mistakes are told. Importing it imports nothing heavy."""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import version
from inspect import cleandoc
from typing import Annotated

import typer

from reid_done_right import numerics
from reid_done_right.cli import experiment, models, score, stages

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


def _flow(text: str) -> str:
    """Return a help text whose paragraphs have no line breaks, so that they fill the terminal; examples keep theirs."""
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(each if each.startswith("\b") else each.replace("\n", " ") for each in paragraphs)


app = typer.Typer(
    name="reid",
    help=_flow(HELP),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
)
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel, help=_flow(command.__doc__ or ""))(command)


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
    except (ValueError, FloatingPointError) as error:  # InputError is a ValueError
        message = str(error)
    except OSError as error:
        message = (
            f"{error.filename2 or error.filename}: {error.strerror or error}; {CURES.get(error.errno or 0, AGAIN)}"
        )
    else:
        return
    typer.echo(f"reid: error: {message}", err=True)
    sys.exit(1)
