"""What people see of topics and groups, the way back of dead letters, and the end of a group that nobody serves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec

from surefoot.coordination.events import tables
from surefoot.coordination.events.groups import served
from surefoot.coordination.events.states import State, acted_on, is_name, run_id_of
from surefoot.coordination.events.tables import OPEN, EventRow
from surefoot.journal import Undecodable, load_record
from surefoot.journal.texts import require_words
from surefoot.people import Deed
from surefoot.people import record as record_deed
from surefoot.problem import SurefootError
from surefoot.runs.rows.tables import RunRow, find_run, get_run
from surefoot.store import Store, Tx
from surefoot.store.connection import Connection
from surefoot.store.pace import politely

DELIVERIES_AT_ONCE = 5_000
"""Deliveries that one transaction deletes when a group is dropped: about 4 ms."""

ID_TAKEN = "the id of its run belongs to another run"
"""Why an event could not be acted on where no run says it."""

UNREADABLE = "what it says could not be read"
"""The same, where nothing stands in the way."""


class LetterNotFound(SurefootError):
    """There is no such dead letter. Nothing was changed."""


class GroupNotFound(SurefootError):
    """There is no such group. Nothing was changed."""


class GroupServed(SurefootError):
    """This process serves the group, and would begin it anew. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group, and how far it is.

    Attributes:
        topic: Its topic.
        group: Its name.
        behind: Events it was not brought yet.
        oldest_ms: When the oldest of them was published, wall clock; None for none.
        started: Deliveries whose run has not ended.
        dead: Its dead letters.
    """

    topic: str
    group: str
    behind: int
    oldest_ms: int | None
    started: int
    dead: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a group could not act on.

    Attributes:
        event: Its number.
        topic: Its topic.
        id: Its id.
        key: What it is about, or None.
        group: The group.
        attempt: How often the group was brought it.
        run_id: The run that failed; None where it could not be started.
        reason: Why, in words.
        at_ms: When, wall clock.
        value: What the event says; None when it can't be read, for want of its key or by damage.
    """

    event: int
    topic: str
    id: str
    key: str | None
    group: str
    attempt: int
    run_id: str | None
    reason: str
    at_ms: int
    value: Any


def list_groups(connection: Connection) -> list[GroupView]:
    """Return all groups, by topic and name."""
    rows = connection.execute("SELECT id, topic, name, place FROM event_groups ORDER BY topic, name").fetchall()
    return [_group(connection, *row) for row in rows]


def _group(connection: Connection, row: int, topic: str, name: str, place: int) -> GroupView:
    ((behind, oldest_ms),) = connection.execute(
        f"SELECT count(*), min(at_ms) FROM events INDEXED BY events_topic WHERE {tables.AFTER}",
        tables.after(topic, place),
    ).fetchall()
    open_ones = dict(
        connection.execute(
            f"SELECT state, count(*) FROM deliveries WHERE grp = ? AND {OPEN} GROUP BY state", (row,)
        ).fetchall()
    )
    started = open_ones.get(State.STARTED, 0) + open_ones.get(State.AGAIN, 0)
    return GroupView(topic, name, behind, oldest_ms, started, open_ones.get(State.DEAD, 0))


def list_dead(connection: Connection, *, group: str | None = None, limit: int = 100) -> list[DeadLetter]:
    """Return dead letters, oldest first.

    Args:
        connection: The store.
        group: Only those of the groups of this name; None for all.
        limit: How many at most.
    """
    rows = connection.execute(
        "SELECT g.topic, g.name, d.event, d.attempt, d.run, d.at_ms FROM event_groups g JOIN deliveries d ON d.grp = g.id"
        f" WHERE d.state = {State.DEAD.value} AND d.{OPEN} AND (? = '' OR g.name = ?) ORDER BY d.at_ms, d.event LIMIT ?",
        (group or "", group or "", limit),
    ).fetchall()
    return [_letter(connection, *row) for row in rows]


def is_open_letter(connection: Connection, run: RunRow) -> bool:
    """Whether an ended run is what a dead letter tells of, or one that is to be delivered anew."""
    about = acted_on(run.kind, run.run_id)
    return about is not None and bool(
        connection.execute(
            "SELECT 1 FROM events e JOIN event_groups g ON g.topic = e.topic JOIN deliveries d ON d.grp = g.id"
            f" AND d.event = e.id WHERE e.topic = ? AND e.event_id = ? AND d.run = ? AND d.{OPEN}",
            (*about, run.id),
        ).fetchall()
    )


def _letter(
    connection: Connection, topic: str, group: str, number: int, attempt: int, run: int | None, at_ms: int
) -> DeadLetter:
    event = tables.get_event(connection, number)
    assert event is not None, "events are never deleted"
    row = None if run is None else get_run(connection, run)
    value, problem = _said(connection, event)
    if row is None:
        is_taken = find_run(connection, run_id_of(topic, group, event.event_id, attempt)) is not None
        problem = ID_TAKEN if is_taken else problem or UNREADABLE
    return DeadLetter(
        event=number,
        topic=topic,
        id=event.event_id,
        key=event.key,
        group=group,
        attempt=attempt,
        run_id=None if row is None else row.run_id,
        reason=problem if row is None else row.reason,
        at_ms=at_ms,
        value=value,
    )


def _said(connection: Connection, event: EventRow) -> tuple[Any, str]:
    """Return what an event says; or None, and why it can't be read."""
    if event.record is None:
        return None, ""
    try:
        return msgspec.json.decode(load_record(connection, event.record).body or b"null"), ""
    except Undecodable as error:
        return None, error.message
    except msgspec.DecodeError as error:
        return None, str(error)


async def decide(store: Store, event: int, group: str, *, is_again: bool, who: str, reason: str) -> None:
    """Let a dead letter be delivered anew, or discard it.

    Args:
        store: The store.
        event: The event's number.
        group: The group's name.
        is_again: Whether it is delivered anew.
        who: Who says so.
        reason: Why.

    Raises:
        LetterNotFound: It is none.
        BadText: Who, or why, is no text that can be kept.
        NotAllowed: This person may not.
    """
    act = "redeliver" if is_again else "discard"
    require_words(who, reason, words=f"{act} names who decides and why")

    def unit(tx: Tx) -> None:
        found = (
            None
            if not is_name(group)
            else tx.row(
                f"SELECT d.grp FROM event_groups g JOIN deliveries d ON d.grp = g.id AND d.event = ?"
                f" WHERE g.name = ? AND d.state = {State.DEAD.value}",
                (event, group),
            )
        )
        if found is None:
            raise LetterNotFound(
                f"event {event} is no dead letter of group {group!r}", hint="surefoot events shows those that are"
            )
        record_deed(tx, Deed(act=act, who=who, target=f"event {event} of group {group}", reason=reason))
        state = State.AGAIN if is_again else State.DISCARDED
        tx.execute(
            "UPDATE deliveries SET state = ?, at_ms = ? WHERE grp = ? AND event = ?",
            (int(state), tx.now_ms, found[0], event),
        )

    await store.commit(unit, label=act)


async def drop_group(store: Store, topic: str, group: str, *, who: str, reason: str) -> GroupView:
    """Forget a group, with its place and its deliveries; runs that it has begun go on as runs.

    The deliveries go some at a time, so that others write in between. Cut short, it leaves the group, with what is left of
    them; dropped again, that goes too.

    Args:
        store: The store.
        topic: Its topic.
        group: Its name.
        who: Who says so.
        reason: Why.

    Returns:
        What it was.

    Raises:
        GroupNotFound: It is none.
        GroupServed: This process serves it.
        BadText: Who, or why, is no text that can be kept.
        NotAllowed: This person may not.
    """
    require_words(who, reason, words="drop group names who decides and why")
    if (topic, group) in served():
        raise GroupServed(
            f"group {group!r} of topic {topic!r} is served by this process, which would begin it anew",
            hint="take its function out of the code of all workers first",
        )

    view = await store.read(lambda connection: _group(connection, *_found(connection, topic, group)[:4]))

    def begin(tx: Tx) -> _Found:
        found = _found(tx.connection, topic, group)
        record_deed(tx, Deed(act="drop group", who=who, target=f"group {group} of topic {topic}", reason=reason))
        return found

    found = await store.commit(begin, label="drop group")
    after: int | None = 0
    while after is not None:
        after = await politely(store, partial(_forget, found, after), label="drop group")
    return view


class _Found(NamedTuple):
    """A group's row; a new group of its name may have the same, but for the time."""

    id: int
    topic: str
    name: str
    place: int
    at_ms: int


def _found(connection: Connection, topic: str, group: str) -> _Found:
    query = "SELECT id, topic, name, place, at_ms FROM event_groups WHERE topic = ? AND name = ?"
    rows = connection.execute(query, (topic, group)).fetchall() if is_name(topic) and is_name(group) else []
    if not rows:
        raise GroupNotFound(f"topic {topic!r} has no group {group!r}", hint="surefoot events shows those that are")
    return _Found(*rows[0])


def _forget(group: _Found, after: int, tx: Tx) -> int | None:
    """Delete some deliveries of a group, the oldest first, as if it had begun behind them; once there are none, the group.

    Args:
        group: The group.
        after: The last event that was seen to.
        tx: The transaction.

    Returns:
        The last event that is seen to now; None at the end.
    """
    if tx.row("SELECT 1 FROM event_groups WHERE id = ? AND at_ms = ?", (group.id, group.at_ms)) is None:
        return None
    some = "SELECT event FROM deliveries WHERE grp = ? AND event > ? ORDER BY event LIMIT ?"
    last = tx.row(f"SELECT max(event) FROM ({some}) AS batch", (group.id, after, DELIVERIES_AT_ONCE))
    if last is None or last[0] is None:
        tx.execute("DELETE FROM event_groups WHERE id = ?", (group.id,))
        return None
    tx.execute("DELETE FROM deliveries WHERE grp = ? AND event > ? AND event <= ?", (group.id, after, last[0]))
    tx.execute("UPDATE event_groups SET began_after = ? WHERE id = ?", (last[0], group.id))
    return int(last[0])
