"""The commands that need an extra: `demo` and `model pull`. What they need is imported when they are called."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from surefoot.cli.exits import ExitCode, WrongUsage
from surefoot.cli.place import JsonOption
from surefoot.cli.screen import emit, raw, say
from surefoot.cli.shapes.keeping import ModelDocument


def demo(
    *,
    seed: Annotated[
        int | None, typer.Option(metavar="INT", help="Decides faults and kills; without it one is drawn and printed.")
    ] = None,
    tickets: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your own tickets instead of those that come with it.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="TEXT", help="The model: local, scripted, or a name Pydantic AI knows.")
    ] = "local",
    kills: Annotated[int, typer.Option(min=0, metavar="INT", help="How often a worker is killed.")] = 10,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="INT", help="Worker processes; without it, what suits this machine.")
    ] = None,
) -> None:
    """Watch an agent whose workers are killed.

    It works through tickets beside a plain loop that is killed as often; at the end the shop's own books are compared.
    """
    try:
        run_demo = importlib.import_module("surefoot.demo.main").run_demo
    except ModuleNotFoundError as missing:
        raise WrongUsage(
            f"the demo needs {missing.name}, which is not installed", hint="pip install 'surefoot[demo]'"
        ) from missing
    code = run_demo(seed=seed, tickets=tickets, model=model, kills=kills, workers=workers)
    raise typer.Exit(ExitCode.OK if code is None else code)


def pull(is_json: JsonOption = False) -> None:
    """Download the small local model.

    It goes into the cache and is checked by its SHA-256. A second time this does nothing.
    """
    from surefoot.models.weights import pull as pull_weights

    path = pull_weights(say)
    if is_json:
        return emit(ModelDocument(str(path)))
    return raw(str(path))
