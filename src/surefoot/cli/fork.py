"""`fork`: a new run that goes on from a step of another, simulated unless it is told to act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from surefoot.cli import look
from surefoot.cli.exits import Refused
from surefoot.cli.place import Desk, JsonOption, StoreOption, at_desk, person, refuse_program
from surefoot.cli.runs import RunArgument
from surefoot.cli.screen import emit, say
from surefoot.cli.shapes.versions import AgainShape, ForkDocument
from surefoot.cli.words import one_line, value_words
from surefoot.runs.fork import Again


def fork(
    *,
    run: RunArgument,
    at: Annotated[
        str,
        typer.Option(
            "--at", metavar="STEP", help="The step from which on it goes on by itself: its name, or its number."
        ),
    ],
    id: Annotated[str, typer.Option("--id", metavar="ID", help="The new run's business id.")],
    is_acting: Annotated[
        bool, typer.Option("--act", help="Its effects happen; without it they are simulated from what is recorded.")
    ] = False,
    is_agreed: Annotated[
        bool, typer.Option("--yes", help="With --act: what is listed as done again may be done again.")
    ] = False,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who says so; without it, your account.")] = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Make a new run from another's journal up to a step, and list what it may do again.

    Up to the step all is as it was; from there the code runs anew, with other decisions perhaps. Without --act nothing is
    done: an effect gives the outcome that is recorded of the same effect, and where there is none, the run stands and says
    what it would do. With --act it is a run like any other. A worker executes it.
    """

    refuse_program(by)

    async def work(desk: Desk) -> None:
        handle = await desk.app.run(run)
        again = await handle.done_after(at)
        if not is_json:
            _tell(again, is_acting=is_acting)
        if is_acting and not is_agreed and any(one.acts_again for one in again):
            raise Refused(
                f"{sum(one.acts_again for one in again)} of what {run} has done from {at} on could be done AGAIN",
                hint="look at the list; if that is what you want: --yes",
            )
        made = await handle.fork(at, id=id, act=is_acting, by=by or person())
        shape = await desk.read(lambda connection: look.run_shape(connection, look.find(connection, made.id)))
        if is_json:
            return emit(desk.seen(ForkDocument(shape, [_shape(one) for one in again])))
        what = "acts" if is_acting else "simulates"
        say(
            f"{made.id}: forked from {run} at {at}; it {what}. A worker executes it: {desk.command('worker', 'MODULE')}"
        )
        return say(f"  then: {desk.command('show', made.id)}")

    at_desk(store, work)


def _shape(one: Again) -> AgainShape:
    return AgainShape(one.step, one.name, one.key, one.arguments, one.acts_again, one.words)


def _tell(again: Sequence[Again], *, is_acting: bool) -> None:
    if not again:
        say("nothing outside was done from there on")
    for one in again:
        mark = "AGAIN  " if one.acts_again and is_acting else "       "
        arguments = "" if one.arguments is None else f" {value_words(one.arguments, 80)}"
        say(f"{mark}{one_line(one.name)} [{one_line(one.key)}]{arguments}: {one_line(one.words)}")
