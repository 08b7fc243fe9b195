"""The commands about runs: `runs`, `show`, `signal`, `cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from surefoot.cli import look, show
from surefoot.cli.exits import Refused, WrongUsage
from surefoot.cli.inputs import countable, one_of, read_json
from surefoot.cli.place import (
    ByOption,
    Desk,
    JsonOption,
    ModuleOption,
    SecretsOption,
    StoreOption,
    WhyOption,
    asked_secrets,
    at_desk,
    person,
    refuse_program,
)
from surefoot.cli.screen import emit, say
from surefoot.cli.shapes.runs import CancelDocument, RunsDocument, RunShape, SignalDocument
from surefoot.runs.life import ENDED, RunState
from surefoot.runs.rows.tables import list_runs

WAKE = "wake"
"""The word that makes a waiting run look again; no signal can be sent under it from here."""

STATES = tuple(state.name.lower() for state in RunState)


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)]
LimitOption = Annotated[int, typer.Option(min=1, metavar="COUNT", callback=countable, help="How many to list at most.")]
FullOption = Annotated[bool, typer.Option("--full", help="Show long values whole.")]
StateOption = Annotated[
    str | None, typer.Option(metavar="STATE", callback=one_of(STATES), help=f"Only those that are {', '.join(STATES)}.")
]


def runs(
    *,
    state: StateOption = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only those of this durable function.")] = None,
    limit: LimitOption = 50,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """List runs, newest first."""

    async def work(desk: Desk) -> None:
        wanted = None if state is None else RunState[state.upper()]
        found = await desk.read(
            lambda connection: [
                look.run_shape(connection, row) for row in list_runs(connection, state=wanted, kind=kind, limit=limit)
            ]
        )
        found = desk.seen(RunsDocument(found)).runs
        if is_json:
            return emit(RunsDocument(found))
        if not found:
            return say("no run" + (f" is {state}" if state else "") + (f" of {kind}" if kind else ""))
        return show.show_runs(found, desk.now_ms)

    at_desk(store, work)


def show_one(
    *,
    run: RunArgument,
    is_full: FullOption = False,
    is_secret: SecretsOption = False,
    by: ByOption = None,
    reason: WhyOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Show one run, and what to do next.

    Its state, its steps and what came of them, its effects, what it waits for.
    """

    async def work(desk: Desk) -> None:
        sessions = desk.app.worker.sessions
        document = await desk.read(lambda connection: look.show_run(connection, sessions, run, desk.command))
        document = desk.seen(document)
        if is_json:
            return emit(document)
        return show.show_run(document, desk.now_ms, is_full=is_full)

    at_desk(store, work, asked_secrets(f"run {run}", is_secret=is_secret, by=by, reason=reason))


def signal(
    *,
    run: RunArgument,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help=f'The signal\'s name; "{WAKE}" lets a waiting or blocked run look again.'),
    ],
    payload: Annotated[
        str | None, typer.Argument(metavar="JSON", help="Its payload; - reads standard input, @FILE a file.")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who sends it; without it, your account.")] = None,
    dedupe: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A signal of this name and text reaches the run once.")
    ] = None,
    module: Annotated[
        str | None,
        typer.Option(
            "--module",
            metavar="MODULE[:APP]",
            help="The module of its function, which knows what it can take, and the app in it, if it authenticates people.",
        ),
    ] = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Send a run a signal, or wake it.

    A payload that the run can't take is refused where its code is known: with --module. Otherwise it stays unread, and
    `surefoot show` lists it.
    """
    if name == WAKE and (payload is not None or dedupe is not None):
        raise WrongUsage(
            f'"{WAKE}" wakes the run; it takes no payload and no --dedupe', hint="surefoot signal RUN wake"
        )
    value = None if payload is None else read_json(payload, "the payload")

    refuse_program(by)

    async def work(desk: Desk) -> None:
        shape = await _of_open_run(desk, run, f"no {'wake-up' if name == WAKE else 'signal'} reaches it any more")
        handle = await desk.app.run(run)
        sender, is_new = await desk.app.identify(by or person()), True
        if name == WAKE:
            await handle.wake(by=sender)
        else:
            is_new = await handle.signal(name, value, by=sender, dedupe=dedupe)
        after = await _look(desk, run)
        if is_json:
            return emit(desk.seen(SignalDocument(after, name, is_new)))
        if not is_new:
            return say(f"{run} has had signal {name} with this --dedupe before; nothing was sent")
        what = "woken" if name == WAKE else f"sent signal {name}"
        return say(f"{run}: {what}; it was {_was(shape)}. {_goes_on(desk, after)}")

    at_desk(store, work, module=module)


def cancel(
    *,
    run: RunArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with the run.")],
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who says so; without it, your account.")] = None,
    module: ModuleOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Ask a run to stop.

    It ends as cancelled once its code has unwound and no effect of it is in doubt.
    """

    refuse_program(by)

    async def work(desk: Desk) -> None:
        shape = await _of_open_run(desk, run, "there is nothing to cancel")
        await (await desk.app.run(run)).cancel(reason, by=await desk.app.identify(by or person()))
        after = await _look(desk, run)
        if is_json:
            return emit(desk.seen(CancelDocument(after)))
        return say(f"{run}: asked to stop; it was {_was(shape)}. {_goes_on(desk, after)}")

    at_desk(store, work, module=module)


async def _look(desk: Desk, run: str) -> RunShape:
    return await desk.read(lambda connection: look.run_shape(connection, look.find(connection, run)))


async def _of_open_run(desk: Desk, run: str, why_not: str) -> RunShape:
    shape = await _look(desk, run)
    if shape.state in {state.name.lower() for state in ENDED}:
        raise Refused(f"run {run} is {shape.state}: {why_not}", hint=desk.command("show", run))
    return shape


def _was(shape: RunShape) -> str:
    return f"waiting for {shape.waiting_for}" if shape.waiting_for else shape.state


def _goes_on(desk: Desk, after: RunShape) -> str:
    if after.state == "running":
        return "Its worker is told within a moment"
    return f"The next free worker takes it; if none is running: {desk.command('worker', 'MODULE')}"
