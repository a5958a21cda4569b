"""The stage commands, `reid dataset` to `reid publish`, built from the graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from reid_done_right import dag
from reid_done_right.cli.options import Device, Offline, artifact, compute_as, file, folder, written

Function = Callable[..., object]


def _dataset() -> Function:
    from reid_done_right.stages.dataset import dataset

    return dataset


def _index() -> Function:
    from reid_done_right.stages.index import index

    return index


def _join() -> Function:
    from reid_done_right.stages.join import join

    return join


def _initialise() -> Function:
    from reid_done_right.stages.initialise import initialise

    return initialise


def _pretrain() -> Function:
    from reid_done_right.stages.pretrain import pretrain

    return pretrain


def _train() -> Function:
    from reid_done_right.stages.train import train

    return train


def _embed() -> Function:
    from reid_done_right.stages.embed import embed

    return embed


def _evaluate() -> Function:
    from reid_done_right.stages.evaluate import evaluate

    return evaluate


def _follow() -> Function:
    from reid_done_right.stages.follow import follow

    return follow


def _distract() -> Function:
    from reid_done_right.stages.distract import distract

    return distract


def _retrieve() -> Function:
    from reid_done_right.stages.retrieve import retrieve

    return retrieve


def _inspect() -> Function:
    from reid_done_right.stages.inspect import inspect

    return inspect


def _identify() -> Function:
    from reid_done_right.stages.identify import identify

    return identify


def _tabulate() -> Function:
    from reid_done_right.stages.tabulate import tabulate

    return tabulate


def _illustrate() -> Function:
    from reid_done_right.stages.illustrate import illustrate

    return illustrate


def _draw() -> Function:
    from reid_done_right.stages.draw import draw

    return draw


def _publish() -> Function:
    from reid_done_right.stages.publish import publish

    return publish


LOADERS: Mapping[str, Callable[[], Function]] = {
    "dataset": _dataset,
    "index": _index,
    "join": _join,
    "initialise": _initialise,
    "pretrain": _pretrain,
    "train": _train,
    "embed": _embed,
    "evaluate": _evaluate,
    "follow": _follow,
    "distract": _distract,
    "retrieve": _retrieve,
    "inspect": _inspect,
    "identify": _identify,
    "tabulate": _tabulate,
    "illustrate": _illustrate,
    "draw": _draw,
    "publish": _publish,
}
"""Stage -> loader of its function, called only when it runs, because the imports are slow."""


def commands() -> tuple[Function, ...]:
    """Return one function per stage, with its options as arguments, for typer to turn into commands."""
    return tuple(_command(name, dag.STAGES[name]) for name in dag.COMMANDS)


def _command(name: str, stage: dag.Stage) -> Function:
    def command(
        *,
        settings: Path,
        threads: int | None = None,
        device: str | None = None,
        offline: bool = False,
        **places: Path | None,
    ) -> None:
        compute_as(_arithmetic(settings))
        from reid_done_right.running import run

        given = {key: place for key, place in places.items() if place is not None}
        told = run(name, LOADERS[name], settings, given, threads=threads, device=device, offline=offline)
        if told is not None:
            typer.echo(told, err=True)

    kinds: dict[str, Any] = {
        "settings": file("This job's settings, written by `reid plan`: results/<experiment>/settings/...")
    }
    of_kind: dict[str, Callable[[str], Any]] = {
        "folder": folder,
        "input": artifact,
        "output": partial(written, dir_okay=True),
    }
    for key, option in dag.options(stage).items():
        kinds[key] = of_kind[option.kind](option.help)
    optional = {key for key, option in dag.options(stage).items() if option.optional}
    parameters = [
        _parameter(key, Annotated[Path | None, kind], None)
        if key in optional
        else _parameter(key, Annotated[Path, kind])
        for key, kind in kinds.items()
    ]
    if stage.threads:
        how = typer.Option(help="Number of threads or processes.")
        parameters.append(_parameter("threads", Annotated[int, how], 1))
    if stage.device:
        parameters.append(_parameter("device", Device, None))
    if stage.fetches:
        parameters.append(_parameter("offline", Offline, False))
    command.__name__, command.__doc__ = name, stage.help
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return command


def _arithmetic(settings: Path) -> str:
    """Return the arithmetic in the settings; `run` reports invalid settings later."""
    if not settings.is_file():  # a pipe would be read here, and not be there for the stage
        return "portable"
    try:
        return str(json.loads(settings.read_text(encoding="utf-8"))["parameters"]["numerics"])
    except (OSError, ValueError, LookupError, TypeError):
        return "portable"


def _parameter(name: str, kind: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)
