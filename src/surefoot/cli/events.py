"""The commands about events: `events`, `redeliver`, `discard`, `drop-group`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from surefoot.cli.advice import BY_PERSON
from surefoot.cli.approvals import refuse_placeholders
from surefoot.cli.inputs import countable
from surefoot.cli.place import (
    Desk,
    JsonOption,
    ModuleOption,
    SecretsOption,
    StoreOption,
    asked_secrets,
    at_desk,
    refuse_program,
)
from surefoot.cli.runs import FullOption, LimitOption
from surefoot.cli.screen import Column, emit, fields, heading, line, listing, say
from surefoot.cli.shapes.parts import Advice
from surefoot.cli.shapes.sharing import DroppedDocument, EventsDocument, GroupShape, LetterDocument, LetterShape
from surefoot.cli.show import show_advice
from surefoot.cli.words import VALUE_CHARS_MAX, moment, one_line, span_words, value_words
from surefoot.coordination.events.letters import DeadLetter, list_dead, list_groups
from surefoot.store.connection import Connection

EventArgument = Annotated[
    int, typer.Argument(metavar="EVENT", callback=countable, help="The event's number, from `surefoot events`.")
]
GroupOption = Annotated[str, typer.Option(metavar="GROUP", help="The group whose dead letter it is.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why; kept for ever.")]
DeciderOption = Annotated[str, typer.Option(metavar="NAME", help="Who decides; kept for ever.")]


def events(
    *,
    group: Annotated[str | None, typer.Option(metavar="GROUP", help="Only this group.")] = None,
    limit: LimitOption = 50,
    is_full: FullOption = False,
    is_secret: SecretsOption = False,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="With --show-secrets: who looks.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="With --show-secrets: why.")] = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """List the groups of all topics, how far each is, and their dead letters: what they could not act on, and why."""
    secrets = asked_secrets("events", is_secret=is_secret, by=by, reason=reason)

    async def work(desk: Desk) -> None:
        now_ms, command = desk.now_ms, desk.command
        document = desk.seen(await desk.read(lambda connection: _look(connection, group, limit, now_ms, command)))
        if is_json:
            return emit(document)
        return _show(document, is_full=is_full)

    at_desk(store, work, secrets)


def _look(
    connection: Connection, group: str | None, limit: int, now_ms: int, command: Callable[..., str]
) -> EventsDocument:
    groups = [
        GroupShape(
            topic=one.topic,
            group=one.group,
            behind=one.behind,
            oldest_s=None if one.oldest_ms is None else max(0, now_ms - one.oldest_ms) / 1_000,
            started=one.started,
            dead=one.dead,
        )
        for one in list_groups(connection)
        if group is None or one.group == group
    ]
    letters = [_letter(one, command) for one in list_dead(connection, group=group, limit=limit)]
    return EventsDocument(groups, letters)


def _letter(one: DeadLetter, command: Callable[..., str]) -> LetterShape:
    names = (str(one.event), "--group", one.group, *BY_PERSON)
    look = [] if one.run_id is None else [Advice("see what its run did", command("show", one.run_id))]
    return LetterShape(
        event=one.event,
        topic=one.topic,
        id=one.id,
        key=one.key,
        group=one.group,
        attempt=one.attempt,
        run=one.run_id,
        reason=one.reason,
        at=moment(one.at_ms) or "",
        value=one.value,
        next=[
            *look,
            Advice("once that is mended", command("redeliver", *names)),
            Advice("if nobody needs to act on it", command("discard", *names)),
        ],
    )


def _show(document: EventsDocument, *, is_full: bool) -> None:
    if not document.groups:
        return say("no group has ever been there: sf.on(topic, group=...) declares one, and a worker brings it in")
    rows = [
        (
            one.group,
            one.topic,
            f"{one.behind:,}",
            "" if one.oldest_s is None else span_words(int(one.oldest_s * 1_000)),
            f"{one.started:,}",
            f"{one.dead:,}",
        )
        for one in document.groups
    ]
    columns = ("group", "topic", "behind", "oldest", "in progress", "dead")
    listing([Column(title, is_flexible=title in ("group", "topic")) for title in columns], rows)
    for one in document.dead:
        line("")
        heading(f"event {one.event} of {one.topic}, {one_line(one.id)}: group {one.group} could not act on it")
        fields(
            [
                ("why", one_line(one.reason)),
                ("says", value_words(one.value, None if is_full else VALUE_CHARS_MAX)),
                *([("key", one_line(one.key))] if one.key is not None else []),
                ("when", f"{one.at}, attempt {one.attempt}"),
            ]
        )
        show_advice(one.next, f"next, event {one.event}")
    return None


def redeliver(
    *,
    event: EventArgument,
    group: GroupOption,
    reason: ReasonOption,
    by: DeciderOption,
    module: ModuleOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Bring a dead letter to its group again, as a new run.

    It comes behind what is there of its key by now. What the run that failed has done under a key is known by that, and is
    not done again.
    """
    _decide(event, group, is_again=True, by=by, reason=reason, module=module, store=store, is_json=is_json)


def discard(
    *,
    event: EventArgument,
    group: GroupOption,
    reason: ReasonOption,
    by: DeciderOption,
    module: ModuleOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Close a dead letter: nobody will act on the event in this group."""
    _decide(event, group, is_again=False, by=by, reason=reason, module=module, store=store, is_json=is_json)


def drop_group(
    *,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The group.")],
    topic: Annotated[str, typer.Option(metavar="TOPIC", help="Its topic.")],
    reason: ReasonOption,
    by: DeciderOption,
    module: ModuleOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Forget a group that no worker serves any more, so that it no longer keeps what its topic's events say.

    Take its function out of the code of all workers first: one that still has it begins it anew. Its dead letters go with
    it. Runs that it has begun stay.
    """
    refuse_placeholders(by, reason)
    refuse_program(by)

    async def work(desk: Desk) -> None:
        was = await desk.app.drop_group(group, topic=topic, by=by, reason=reason)
        if is_json:
            return emit(DroppedDocument(topic, group, was.behind, was.started, was.dead))
        return say(
            f"group {group} of topic {topic} is forgotten: {was.behind} behind, {was.started} under way, {was.dead} dead"
        )

    at_desk(store, work, module=module)


def _decide(
    event: int,
    group: str,
    *,
    is_again: bool,
    by: str,
    reason: str,
    module: str | None,
    store: str | None,
    is_json: bool,
) -> None:
    refuse_placeholders(by, reason)
    refuse_program(by)

    async def work(desk: Desk) -> None:
        act = desk.app.redeliver if is_again else desk.app.discard
        await act(event, group=group, by=by, reason=reason)
        if is_json:
            return emit(LetterDocument(event, group, "again" if is_again else "discarded"))
        after = "is brought to it again by the next free worker" if is_again else "is discarded"
        return say(f"event {event} of group {group} {after}")

    at_desk(store, work, module=module)
