"""The commands about effects: `effects`, `unknowns`, `resolve`."""

from __future__ import annotations

from typing import Annotated

import typer

from surefoot.cli import look, show
from surefoot.cli.exits import WrongUsage
from surefoot.cli.inputs import countable, one_of, read_json
from surefoot.cli.place import (
    HOW,
    YOU,
    ByOption,
    Desk,
    JsonOption,
    SecretsOption,
    StoreOption,
    WhyOption,
    asked_secrets,
    at_desk,
    refuse_program,
)
from surefoot.cli.runs import FullOption, LimitOption
from surefoot.cli.screen import emit, say
from surefoot.cli.shapes.effects import EffectsDocument, EffectShape, ResolveDocument
from surefoot.cli.words import state_words
from surefoot.effects.registry import spec_of
from surefoot.effects.rows.desk import resolve_by_person, undone_by_person
from surefoot.effects.states import State
from surefoot.runs.rows.desk import wake

STATES = tuple(state.name.lower() for state in State)


def effects(
    *,
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Only those this run claimed.")] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", callback=one_of(STATES), help=f"Only those that are {', '.join(STATES)}."),
    ] = None,
    effect: Annotated[
        int | None,
        typer.Option("--id", metavar="EFFECT", callback=countable, help="One effect, with all that was learned of it."),
    ] = None,
    limit: LimitOption = 50,
    is_full: FullOption = False,
    is_secret: SecretsOption = False,
    by: ByOption = None,
    reason: WhyOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """List effects, newest first, or show one with its evidence."""
    target = "effects" if effect is None else f"effect {effect}"
    secrets = asked_secrets(target, is_secret=is_secret, by=by, reason=reason)
    if effect is not None and (run is not None or state is not None):
        raise WrongUsage("--id names one effect; --run and --state choose among many", hint="give one or the other")

    async def work(desk: Desk) -> None:
        sessions = desk.app.worker.sessions
        if effect is not None:
            document = await desk.read(lambda connection: look.show_effect(connection, sessions, effect, desk.command))
            document = desk.seen(document)
            return emit(document) if is_json else show.show_effect(document, desk.now_ms, is_full=is_full)
        wanted = None if state is None else State[state.upper()]
        found = await desk.read(
            lambda connection: look.list_effects(connection, sessions, run=run, state=wanted, limit=limit)
        )
        found = desk.seen(EffectsDocument(found)).effects
        if is_json:
            return emit(EffectsDocument(found))
        if not found:
            return say("no effect" + (f" is {state_words(state)}" if state else "") + (f" in run {run}" if run else ""))
        return show.show_effects(found, desk.now_ms)

    at_desk(store, work, secrets)


def unknowns(*, store: StoreOption = None, is_json: JsonOption = False) -> None:
    """List all that waits for a person.

    Unknown effects, outcomes that late evidence contradicts, runs in doubt or blocked; overdue ones first, then the
    oldest. An effect whose worker is gone without leaving an outcome counts as unknown. Overdue is one that only a person
    can end and that has been unknown for longer than its deadline: 24 h, or what AskPerson(deadline) says.
    """

    async def work(desk: Desk) -> None:
        sessions, now_ms = desk.app.worker.sessions, desk.now_ms
        document = await desk.read(lambda connection: look.unknowns(connection, sessions, now_ms, desk.command))
        document = desk.seen(document)
        return emit(document) if is_json else show.show_unknowns(document)

    at_desk(store, work)


def resolve(
    *,
    effect: Annotated[
        int, typer.Argument(metavar="EFFECT", callback=countable, help="The effect's number, from `surefoot unknowns`.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="How you know; kept for ever.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who says so; kept for ever.")],
    is_done: Annotated[bool, typer.Option("--done", help="It happened.")] = False,
    is_not_done: Annotated[bool, typer.Option("--not-done", help="It did not happen; the key may act again.")] = False,
    is_undone: Annotated[
        bool, typer.Option("--undone", help="It was done, and has been undone by hand; the key may act again.")
    ] = False,
    value: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="With --done: what the effect would have returned; null without it. It can't be changed afterwards. "
            "- reads standard input, @FILE a file.",
        ),
    ] = None,
    module: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE[:APP]",
            help="The module that declares the effect, which knows whether --value fits, and the app in it, which may "
            "authenticate people. Needed for --done if it returns more than plain JSON.",
        ),
    ] = None,
    is_fence_passed: Annotated[
        bool, typer.Option("--fence-passed", help="You vouch that no earlier request of it can still land.")
    ] = False,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """End a doubt by your word, or say that you have undone what was done.

    The run that waits for it goes on. Look at the service first. An outcome is written once: for an effect that has
    one, this closes its contradictions and changes nothing else. "Not done" is refused while whoever claimed it may
    still be alive and sending.
    """
    if is_done + is_not_done + is_undone != 1:
        raise WrongUsage("say either --done, --not-done or --undone", hint="look at the service: did it happen?")
    if value is not None and not is_done:
        raise WrongUsage("--value goes with --done: what did not happen returned nothing", hint="leave it out")
    if by == YOU or reason == HOW:
        raise WrongUsage(f"{YOU} and {HOW} stand for your own words", hint="who decided, and how do they know?")
    refuse_program(by)
    returned = None if value is None else read_json(value, "--value")

    async def work(desk: Desk) -> None:
        sessions = desk.app.worker.sessions

        async def look_again() -> EffectShape:
            return await desk.read(lambda connection: look.get_effect(connection, sessions, effect))

        before = await look_again()  # says that there is none as what it is
        if module is not None and is_done:
            spec_of(before.name)  # says that the module declares no such effect
        who = await desk.app.identify(by)
        if is_undone:
            await undone_by_person(desk.app.store, effect, who=who, reason=reason, wake=wake)
        else:
            await resolve_by_person(
                desk.app.store,
                sessions,
                effect,
                is_done=is_done,
                who=who,
                reason=reason,
                value=returned,
                is_fence_passed=is_fence_passed,
                wake=wake,
            )
        after = await look_again()
        if is_json:
            return emit(desk.seen(ResolveDocument(after)))
        goes_on = "" if after.run is None else f". Run {after.run} goes on with the next free worker"
        return say(f"effect {effect} ({after.key}) is {state_words(after.state)}{goes_on}")

    at_desk(store, work, module=module)
