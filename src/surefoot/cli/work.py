"""The commands that execute: `run`, `undo` and `worker`."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from surefoot.app import Surefoot
from surefoot.cli.code import find_app, find_kind, load_module, own_kinds, require_executing
from surefoot.cli.exits import WrongUsage
from surefoot.cli.inputs import arguments_of
from surefoot.cli.place import JsonOption, StoreOption, command, person, refuse_program
from surefoot.cli.runs import RunArgument
from surefoot.cli.screen import emit, say
from surefoot.cli.shapes.runs import WorkerDocument
from surefoot.cli.stopping import Stopping, execute
from surefoot.cli.watch import Watch
from surefoot.cli.words import count_words
from surefoot.problem import SurefootError
from surefoot.runs import Run, RunState
from surefoot.runs.queueing import deadline_of
from surefoot.runs.rows.tables import get_run
from surefoot.runs.worker import GRACE_S
from surefoot.store import shown
from surefoot.store.connection import Connection

WORDS = f"acts in progress have {GRACE_S:.0f} s to get their answer, runs are handed back"
"""What the first Ctrl-C says."""

LOOK_S = 0.2
"""How often the worker's own health is looked at."""

TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=0.0, metavar="SECONDS", help="Leave then; the run goes on with a worker."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Don't tell the steps on stderr.")]


def run(
    *,
    target: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="A durable function, or an app's agent.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGUMENT", help="Its arguments in order: text where the type reads it, else JSON."),
    ] = None,
    id: Annotated[str, typer.Option("--id", metavar="ID", help="The run's business id: the same id, the same run.")],
    given: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="JSON",
            help="Its arguments: an object by name, or an array in order; - reads standard input, @FILE a file.",
        ),
    ] = None,
    deadline_s: Annotated[
        float | None,
        typer.Option("--deadline", min=0.0, metavar="SECONDS", help="Then its next step raises DeadlinePassed."),
    ] = None,
    timeout_s: TimeoutOption = None,
    is_quiet: QuietOption = False,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Start a run, execute it here, and print its result.

    A run of that id and the same input is gone on with, wherever it stands. Meanwhile this process is a worker like any
    other, and takes other runs of the same module too. It leaves when the run has ended, or when only a person can let
    it go on.
    """
    try:
        deadline_of(0, deadline_s)
    except SurefootError as error:
        raise WrongUsage(f"--deadline {deadline_s}: {error.message}", hint=error.hint) from error
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no data of ours
        module, kind = find_kind(target)
        args, kwargs = arguments_of(kind.function, kind.signature, typed=arguments or [], given=given)
        app = find_app(module, None, store)

        async def begin() -> Run:
            return await app.start(kind.name, *args, id=id, deadline_s=deadline_s, **kwargs)

        watch = _follow(app, begin, timeout_s, is_quiet=is_quiet)
    watch.tell(is_json=is_json)
    raise typer.Exit(watch.exit_code)


def undo(
    *,
    run: RunArgument,
    target: Annotated[
        str,
        typer.Option(
            "--module", metavar="MODULE[:APP]", help="The module with the effects and what undoes them; an app in it."
        ),
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with the undo.")],
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who says so; without it, your account.")] = None,
    id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="The undo's business id; without it RUN/undo, RUN/undo#2 after a failure."
        ),
    ] = None,
    timeout_s: TimeoutOption = None,
    is_quiet: QuietOption = False,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Compensate what a run has done, its last effect first, and print the keys of what was undone.

    The run must have ended. The undo is a run of its own, executed here as by `surefoot run`: asked for again it goes on
    where it stands, and what was undone is not undone twice. An effect without compensation stops it, and is named.
    """
    refuse_program(by)
    with contextlib.redirect_stdout(sys.stderr):
        name, _, app_name = target.partition(":")
        app = find_app(load_module(name), app_name or None, store, is_made=False)

        async def begin() -> Run:
            return await (await app.run(run)).undo(reason, id=id, by=await app.identify(by or person()))

        watch = _follow(app, begin, timeout_s, is_quiet=is_quiet)
    watch.tell(is_json=is_json)
    raise typer.Exit(watch.exit_code)


def _follow(app: Surefoot, begin: Callable[[], Awaitable[Run]], timeout_s: float | None, *, is_quiet: bool) -> Watch:
    """Begin a run and execute it here, until it ends or its time is up."""

    async def work() -> Watch:
        with Stopping(WORDS) as stopping:
            async with app:
                require_executing(app)
                watch = Watch((await begin()).id, app.url, stopping, is_quiet=is_quiet)
                await watch.follow(app, timeout_s)
            if not watch.is_ended:
                await watch.look_again()
            return watch

    return execute(work)


def worker(
    *,
    target: Annotated[
        str, typer.Argument(metavar="MODULE[:APP]", help="The module with the durable functions; an app in it.")
    ],
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="COUNT", help="How many runs it has in memory at a time; without it, what the app says."
        ),
    ] = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Execute runs until Ctrl-C or SIGTERM.

    The module is imported, so that its durable functions are known. If it has an app, that one is used, with its store
    and its gates. Stopping lets acts in progress get their answer and hands the rest back; a second Ctrl-C leaves at
    once. Nothing recorded is lost either way.
    """
    with contextlib.redirect_stdout(sys.stderr):
        name, _, app_name = target.partition(":")
        module = load_module(name)
        if not own_kinds():
            raise WrongUsage(f"{name} has no durable function, so there is nothing to execute", hint="@sf.durable")
        app = find_app(module, app_name or None, store)
        app.concurrency = concurrency or app.concurrency
        document = execute(lambda: _serve(app))
    if is_json:
        emit(document)
    back = ", ".join(document.handed_back)
    say(f"stopped by {document.stopped_by}; " + (f"handed back: {back}" if back else "nothing was in progress"))


async def _serve(app: Surefoot) -> WorkerDocument:
    with Stopping(WORDS) as stopping:
        async with app:
            require_executing(app)
            kinds = own_kinds()
            session = app.worker.session.name
            say(f"worker {session} on {shown(app.url)}, for {count_words(len(kinds), 'kind')}: {', '.join(kinds)}")
            gc.freeze()  # the modules stay for ever: the collector need not walk them again and again
            say("Ctrl-C to stop; what waits for a person: " + command(app.url, "unknowns"))
            while not await stopping.wait(LOOK_S):
                if app.worker.failure is not None:
                    raise app.worker.failure
            worker = app.worker
        stopped_by = stopping.by.name if stopping.by is not None else ""
        back = await _handed_back(app.url, worker.handed_back) if worker.handed_back else []
        return WorkerDocument(session, shown(app.url), kinds, stopped_by, back)


async def _handed_back(url: str, held: dict[int, str]) -> list[str]:
    """Return those of the runs that have not ended or parked while the worker stopped."""

    def query(connection: Connection) -> list[str]:
        states = {row: get_run(connection, row).state for row in held}
        return [run_id for row, run_id in held.items() if states[row] in (RunState.PENDING, RunState.RUNNING)]

    async with Surefoot(url, is_worker=False) as app:
        return await app.store.read(query)
