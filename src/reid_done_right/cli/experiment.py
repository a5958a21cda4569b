"""Commands for a whole experiment: new, plan, check, fetch, status, verify, why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from reid_done_right.cli.options import Offline, written

AGAIN = 10.0
"""Seconds from one look of `reid status --watch` to the next."""


def new(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    example: Annotated[
        str, typer.Option("--from", help="Experiment to start from: embedded, paper, market, own, own-cpu or smoke.")
    ] = "embedded",
) -> None:
    """Lay out an experiment of your own in a folder: params.yaml to edit, profiles, and a Snakefile to run there.

    \b
      reid new mine --from own
      cd mine && reid check && snakemake --cores all

    The Snakefile uses this project's workflow as a module, so a newer version of it applies without copying anything.
    """
    from reid_done_right.experiments import create

    create(folder, example)  # type: ignore[arg-type]  # which it checks
    typer.echo(f"new: wrote {folder / 'params.yaml'}; edit it, then run snakemake --cores all in {folder}", err=True)


def plan(
    params: Annotated[
        Path, typer.Argument(help="The experiment's parameters, params.yaml; - reads JSON from standard input.")
    ],
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the number of jobs.")] = False,
    dvc: Annotated[
        bool, typer.Option("--dvc", help="Write dvc.yaml beside the parameters, and print as with --quiet.")
    ] = False,
    fail_if_changed: Annotated[
        bool, typer.Option("--fail-if-changed", help="With --dvc: exit with an error if dvc.yaml was out of date.")
    ] = False,
    of: Annotated[
        list[Path] | None,
        typer.Option(help="A YAML file that PARAMS came from, to be read again: some readers take a key twice."),
    ] = None,
) -> None:
    """Validate the parameters, update the settings files of all jobs, and print rules and jobs as JSON.

    What is in the place of a result but no file, such as a pipe or a link to nowhere, is removed, a folder set aside.

    With --dvc, also write the jobs to dvc.yaml, for `dvc repro`. DVC itself calls this command with
    --fail-if-changed, because it would otherwise continue with the old jobs; the next `dvc repro` runs the new ones.
    """
    from reid_done_right import dvc as pipelines
    from reid_done_right import params as parameters
    from reid_done_right import plan as planning
    from reid_done_right.artifacts import InputError, printable, write_text
    from reid_done_right.readiness.networks import check_networks

    for file in of or ():
        parameters.read(file)
    chosen = parameters.load(params)
    check_networks(chosen)
    jobs = planning.plan(chosen)
    planning.write_settings(jobs, Path("results") / chosen.experiment / "settings")
    for line in planning.clear_places(jobs):
        typer.echo(printable(f"reid: warning: {line}"), err=True)
    if quiet or dvc:
        for stage, members in jobs.items():
            typer.echo(f"{stage:18}{len(members):5}")
    else:
        typer.echo(json.dumps(planning.rules(chosen, jobs)))
    if dvc:
        file = params.with_name("dvc.yaml")
        text = pipelines.pipeline(chosen, jobs, Path(os.path.relpath(params)))
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
            if fail_if_changed:
                raise InputError(f"{file}: the parameters ask for other jobs; it is updated, run the same again")


def check(
    params: Annotated[
        Path, typer.Argument(help="The experiment's parameters; - reads JSON from standard input.")
    ] = Path("params.yaml"),
    probe: Annotated[bool, typer.Option(help="Time a few training updates, for the time estimate.")] = True,
    decode: Annotated[
        bool, typer.Option(help="Decode every image instead of reading only the headers and ends of files.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check only folders, names and counts, and print only errors.")
    ] = False,
    only: Annotated[str, typer.Option(help="With --quick: datasets to check, separated by commas.")] = "",
    json_file: Annotated[Path | None, written("Also write the findings to this file (.json).", "--json")] = None,
) -> None:
    """Check data, weights and hardware before a run, and estimate how long it takes on this machine.

    Shows each dataset (present, or missing and how to get it; damaged files by name; counts against the published
    ones), the initial weights, disk and GPU memory needed and available, and finished and remaining jobs with an
    estimate of their time. Changes nothing. Both engines run the quick part first.

    Exit status: 0 if ready, 1 if something is missing, wrong or damaged, or if the parameters are invalid.
    """

    def tell(part: str) -> None:
        typer.echo(f"check: {part}", err=True)

    if not quick:
        tell(str(params))  # before the imports, which take seconds
    from reid_done_right import params as parameters
    from reid_done_right.artifacts import write_json
    from reid_done_right.readiness import survey as surveying
    from reid_done_right.readiness.networks import check_networks

    chosen = parameters.load(params)
    check_networks(chosen)
    if quick:
        found = surveying.quick_survey(chosen, only.split(",") if only else None)
    else:
        from reid_done_right.readiness.page import show

        found = surveying.survey(chosen, decode=decode, probe=probe, tell=tell)
        show(found)
    if json_file is not None:
        write_json(json_file, found.as_json())
    if quick:
        for finding in found.failing:
            typer.echo(f"reid: error: dataset {finding.name} is {finding.state}: {finding.told}", err=True)
    if not found.ready:
        raise typer.Exit(1)


def fetch(
    params: Annotated[Path, typer.Argument(help="The experiment's parameters, params.yaml.")],
    offline: Offline = False,
) -> None:
    """Download, verify and unpack everything an experiment needs, before it runs.

    Useful if the compute nodes have no network; otherwise a run downloads what it lacks. Whatever is missing,
    including releases that may not be downloaded, is listed with where to obtain it and where to put it.
    """
    from reid_done_right import params as parameters
    from reid_done_right import plan as planning
    from reid_done_right.artifacts import InputError
    from reid_done_right.running import fetch_for, is_from_outside

    jobs = planning.plan(parameters.load(params))
    missing = []
    for name, job in [*jobs["dataset"].items(), *jobs["initialise"].items()]:
        if is_from_outside(job.parameters):
            try:
                fetch_for(job.parameters, offline)
                typer.echo(f"{name}: there")
            except InputError as error:
                missing.append(f"{name}: {error}")
    if missing:
        raise InputError("some inputs are missing", *missing)


def status(
    of: Annotated[
        Path, typer.Argument(help="The experiment: its folder, such as results/embedded, or its parameters.")
    ] = Path("params.yaml"),
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every ten seconds, until all is done.")] = False,
    json_file: Annotated[Path | None, written("Also write it to this file (.json).", "--json")] = None,
) -> None:
    """Show what is done, what runs where, what failed, and how long the rest takes.

    Works whether Snakemake, DVC or a scheduler runs the jobs, from any machine that sees the folder. The time left is
    that of the jobs of the same stage that were computed here. Changes nothing.

    Exit status: 1 if a job has failed, otherwise 0.
    """
    import time

    from reid_done_right import plan as planning
    from reid_done_right.artifacts import write_json
    from reid_done_right.readiness.board import board
    from reid_done_right.readiness.page import terminal
    from reid_done_right.readiness.status import find_params
    from reid_done_right.readiness.status import status as look

    params = find_params(of)
    jobs = planning.plan(params)
    console = terminal()
    while True:
        found = look(params.experiment, jobs)
        if watch and console.is_terminal:
            console.clear()
        console.print(board(found))
        if found.finished or not watch:
            break
        time.sleep(AGAIN)
    if json_file is not None:
        write_json(json_file, found.as_json())
    if found.failed:
        raise typer.Exit(1)


def verify(
    folders: Annotated[list[Path], typer.Argument(help="Results of an experiment, such as results/embedded.")],
    images: Annotated[bool, typer.Option(help="Read every image of the datasets.")] = True,
    json_file: Annotated[Path | None, written("Also write the findings to this file (.json).", "--json")] = None,
) -> None:
    """Check that every artifact is intact and up to date with its inputs, settings and code.

    For results/<experiment>, the tables and figures in reports/<experiment> are checked too. Lists each file that
    was changed, is missing or stale, or was written by no stage, and what to do.

    Exit status: 0 if everything is intact, otherwise 1.
    """
    from tqdm import tqdm

    from reid_done_right.artifacts import printable, write_json
    from reid_done_right.store.trace import artifacts
    from reid_done_right.store.trace import verify as verify_artifacts

    reports = [Path("reports", folder.name) for folder in folders if folder.parent == Path("results")]
    paths = [path for folder in [*folders, *filter(Path.is_dir, reports)] for path in artifacts(folder)]
    found = verify_artifacts(paths, images, lambda listed: tqdm(listed, "verify", unit=" files"))
    broken = [verdict for verdict in found if verdict.state != "whole"]
    for verdict in broken:
        typer.echo(f"{verdict.state:8}{printable(f'{verdict.path}: {verdict.told}')}")
    if json_file is not None:
        write_json(json_file, {str(verdict.path): {"state": verdict.state, "told": verdict.told} for verdict in found})
    typer.echo(f"verify: {len(found) - len(broken)} of {len(found)} artifacts are whole", err=True)
    if broken:
        raise typer.Exit(1)


def why(
    file: Annotated[Path, typer.Argument(help="An artifact, such as reports/embedded/table1.md.")],
    every: Annotated[
        bool, typer.Option("--all", help="Follow every input, not only the first of many similar ones.")
    ] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Print the parameters of every job.")] = False,
) -> None:
    """Print the provenance of an artifact: the jobs behind it, as a tree, down to the digest of the images."""
    from reid_done_right.store.trace import show, trace

    show(trace(file), every=every, parameters=parameters)
