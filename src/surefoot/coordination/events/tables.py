"""The tables of events and their deliveries, and their SQL.

`events`: one row per event, for ever: its id can't be given out again. What it says is a record of the journal.
`event_groups`: one row per group, with its place in the topic: the last event that it was brought.
`deliveries`: one row per event and group that was brought it, until retention takes it away.

Only one process writes at a time, so events are numbered in the order in which they were committed, and a group's place
never passes one that comes later.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from surefoot.coordination.events.states import State, acted_on
from surefoot.journal import Kind, Record, insert_record
from surefoot.journal.records import Head
from surefoot.journal.values import Value, canonical_bytes
from surefoot.runs.durable import UNDO
from surefoot.runs.fork import source_of
from surefoot.runs.rows.tables import WORK, find_run
from surefoot.runs.rows.undone import undone_by
from surefoot.store import Migration, Tx
from surefoot.store.connection import Connection

MIGRATIONS = (
    Migration(
        "events",
        1,
        "events, groups and deliveries",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY,
            topic TEXT NOT NULL,
            event_id TEXT NOT NULL,
            key TEXT,
            digest BLOB NOT NULL,
            run INTEGER,
            at_ms INTEGER NOT NULL,
            record INTEGER);
        CREATE UNIQUE INDEX events_id ON events (topic, event_id);
        CREATE INDEX events_topic ON events (topic, id);
        CREATE TABLE event_groups (
            id INTEGER PRIMARY KEY,
            topic TEXT NOT NULL,
            name TEXT NOT NULL,
            began_after INTEGER NOT NULL,
            place INTEGER NOT NULL,
            at_ms INTEGER NOT NULL);
        CREATE UNIQUE INDEX event_groups_name ON event_groups (topic, name);
        CREATE TABLE deliveries (
            grp INTEGER NOT NULL,
            event INTEGER NOT NULL,
            state INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            run INTEGER,
            at_ms INTEGER NOT NULL,
            PRIMARY KEY (grp, event)) WITHOUT ROWID;
        CREATE INDEX deliveries_open ON deliveries (grp, state, event) WHERE state <= 3""",
    ),
    Migration(
        "events",
        2,
        "what events go back to",
        # Where both are null the event goes back to nothing else.
        """ALTER TABLE events ADD COLUMN root_run INTEGER;
        ALTER TABLE events ADD COLUMN root_event INTEGER""",
    ),
)

OPEN = "state <= 3"
"""What the index of open deliveries is told by."""


class EventRow(NamedTuple):
    """One event as the store has it. `record` is what it says; None once retention has deleted it."""

    id: int
    topic: str
    event_id: str
    key: str | None
    at_ms: int
    record: int | None


AFTER = (
    "topic IN (?, ?) AND id > ?"
    " AND (CAST(topic AS TEXT), id) > (?, ?) AND (CAST(topic AS TEXT), id) <= (?, 9223372036854775807)"
)
"""The events of a topic behind a place, for `after`. Said twice: SQLite searches the topic's part of `events_topic` by the
first two, PostgreSQL, to which a text cast to text is the same, by the pairs. Told `topic = ? AND id > ?` it may go along
the primary key, past all that other topics have published since; SQLite sees only the topic in a pair."""


def after(topic: str, place: int) -> tuple[str, str, int, str, int, str]:
    """Return what `AFTER` is asked with."""
    return topic, topic, place, topic, place, topic


_EVENT = "SELECT id, topic, event_id, key, at_ms, record FROM events"


def digest_of(key: str | None, said: object) -> bytes:
    """Return by what an event is known to be the same."""
    return hashlib.blake2b(canonical_bytes([key, said]), digest_size=16).digest()


def insert_event(
    tx: Tx, topic: str, event_id: str, key: str | None, digest: bytes, body: Value, *, run: int | None
) -> bytes:
    """Write an event, unless one of its id is there; return the digest of the one that is there now."""
    there = tx.row("SELECT digest FROM events WHERE topic = ? AND event_id = ?", (topic, event_id))
    if there is not None:
        return bytes(there[0])
    record = insert_record(tx, Record(None, 0, Kind.PUBLISHED, "", 0, Head(name=topic), body))
    root = NO_ROOT if run is None else root_of(tx.connection, run)
    tx.execute(
        "INSERT INTO events (topic, event_id, key, digest, run, root_run, root_event, at_ms, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (topic, event_id, key, digest, run, root.run, root.event, tx.now_ms, record),
    )
    tx.ring(WORK)
    return digest


class Root(NamedTuple):
    """What something goes back to: a run, or an event that no run published; neither, where there is no run."""

    run: int | None
    event: int | None


NO_ROOT = Root(None, None)


def root_of(connection: Connection, run: int) -> Root:
    """Return what a run goes back to: the first of its line of parents, and where that acts on an event, what led to it; of
    a fork, what its source goes back to; of an undo, what the run does that it undoes.

    Whoever is older than a root is older than all that goes back to it: what a snapshot has of them begins with the root.
    """
    ((first, kind, run_id),) = connection.execute(
        "WITH RECURSIVE line(id) AS (SELECT ? UNION ALL SELECT parent FROM runs JOIN line USING (id))"
        " SELECT id, kind, run_id FROM runs WHERE id = (SELECT min(id) FROM line)",
        (run,),
    ).fetchall()
    source = source_of(connection, int(str(first)))
    if source is not None and (forked := find_run(connection, source)) is not None:
        return root_of(connection, forked.id)
    undone = undone_by(connection, int(str(first))) if kind == UNDO else None
    if undone is not None:
        return root_of(connection, undone)
    about = acted_on(str(kind), str(run_id))
    rows = [] if about is None else connection.execute(_ROOT, about).fetchall()
    return Root(*rows[0]) if rows else Root(int(str(first)), None)


_ROOT = (
    "SELECT root_run, CASE WHEN root_run IS NULL THEN coalesce(root_event, id) END FROM events"
    " WHERE topic = ? AND event_id = ?"
)


def get_event(connection: Connection, event: int) -> EventRow | None:
    """Return an event by its number."""
    rows = connection.execute(f"{_EVENT} WHERE id = ?", (event,)).fetchall()
    return EventRow(*rows[0]) if rows else None


def events_after(tx: Tx, topic: str, place: int, limit: int) -> list[EventRow]:
    """Return the next events of a topic, in order."""
    rows = tx.execute(
        f"{_EVENT} INDEXED BY events_topic WHERE {AFTER} ORDER BY topic, id LIMIT ?", (*after(topic, place), limit)
    )
    return [EventRow(*row) for row in rows.fetchall()]


def ensure_group(tx: Tx, topic: str, group: str, *, is_from_beginning: bool) -> None:
    """Write a group, unless it is there: put before the first event of its topic, or behind the last."""
    if tx.row("SELECT 1 FROM event_groups WHERE topic = ? AND name = ?", (topic, group)) is not None:
        return
    last = None if is_from_beginning else tx.row("SELECT max(id) FROM events WHERE topic = ?", (topic,))
    place = 0 if last is None else int(last[0] or 0)
    tx.execute(
        "INSERT INTO event_groups (topic, name, began_after, place, at_ms) VALUES (?, ?, ?, ?, ?)",
        (topic, group, place, place, tx.now_ms),
    )


class GroupRow(NamedTuple):
    """A group as the store has it; `place` is the last event that it was brought."""

    id: int
    topic: str
    name: str
    place: int


_NEWEST = (
    "SELECT CASE WHEN e.topic = g.topic THEN e.id ELSE 0 END FROM events e WHERE e.topic <= g.topic"
    " ORDER BY e.topic DESC, e.id DESC LIMIT 1"
)
"""The newest event of a group's topic: one step back from the end of its part of `events_topic`. Said so that no planner
sees another way; see `AFTER`."""


def groups_with_news(connection: Connection) -> list[GroupRow]:
    """Return the groups which have an event to come to, or one to be brought again."""
    rows = connection.execute(
        f"SELECT id, topic, name, place FROM event_groups g WHERE coalesce(({_NEWEST}), 0) > g.place OR EXISTS"
        f" (SELECT 1 FROM deliveries WHERE grp = g.id AND state = {State.AGAIN.value} AND {OPEN})"
        " ORDER BY id"
    )
    return [GroupRow(*row) for row in rows.fetchall()]


def known_groups(connection: Connection) -> set[tuple[str, str]]:
    """Return topic and name of all groups."""
    rows = connection.execute("SELECT topic, name FROM event_groups").fetchall()
    return {(str(row[0]), str(row[1])) for row in rows}


def move_place(tx: Tx, group: int, place: int) -> None:
    """Note that a group was brought all events up to one."""
    tx.execute("UPDATE event_groups SET place = ? WHERE id = ?", (place, group))


def to_bring_again(tx: Tx, group: int, limit: int) -> list[tuple[EventRow, int]]:
    """Return the events that a group is to be brought again, each with the number of its last attempt."""
    rows = tx.execute(
        f"SELECT event, attempt FROM deliveries WHERE grp = ? AND state = {State.AGAIN.value} AND {OPEN}"
        " ORDER BY event LIMIT ?",
        (group, limit),
    ).fetchall()
    found = [(get_event(tx.connection, event), attempt) for event, attempt in rows]
    return [(event, attempt) for event, attempt in found if event is not None]


def write_delivery(tx: Tx, group: int, event: int, state: State, attempt: int, run: int | None) -> None:
    """Write that a group was brought an event, or was brought it again."""
    tx.execute(
        "INSERT INTO deliveries (grp, event, state, attempt, run, at_ms) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (grp, event) DO UPDATE SET state = excluded.state, attempt = excluded.attempt, run = excluded.run,"
        " at_ms = excluded.at_ms",
        (group, event, int(state), attempt, run, tx.now_ms),
    )


def end_delivery(tx: Tx, group: int, event: int, run: int, state: State) -> None:
    """Write what became of a delivery, by the run that acted on it; an earlier attempt's run says nothing any more."""
    tx.execute(
        "UPDATE deliveries SET state = ?, at_ms = ? WHERE grp = ? AND event = ? AND run = ?"
        f" AND state = {State.STARTED.value}",
        (int(state), tx.now_ms, group, event, run),
    )
