"""The tables of approvals, and their SQL.

`approvals`: one row for each question; `call` is 16 bytes of what exactly is asked: effect, key, generation, all arguments.
`askers`: who waits for the answer: steps of runs, and callers outside runs.
`approval_notes`: what was said of it, in order: who approved or denied it and why, that it was used, escalated, told.
What was asked in full is the record of the journal that the row names, written before, and with it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from surefoot.approvals.states import Event, State, next_state
from surefoot.store import Migration, Tx
from surefoot.store.connection import Connection

MIGRATIONS = (
    Migration(
        "approvals",
        1,
        "approvals",
        """CREATE TABLE approvals (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            call BLOB NOT NULL,
            state INTEGER NOT NULL,
            record INTEGER NOT NULL,
            rule BLOB NOT NULL,
            asked_at_ms INTEGER NOT NULL,
            decided_at_ms INTEGER);
        CREATE INDEX approvals_call ON approvals (call);
        CREATE INDEX approvals_open ON approvals (state) WHERE state <= 2;
        CREATE TABLE askers (
            approval INTEGER NOT NULL,
            run INTEGER,
            step TEXT NOT NULL,
            session INTEGER);
        CREATE INDEX askers_approval ON askers (approval);
        CREATE TABLE approval_notes (
            id INTEGER PRIMARY KEY,
            approval INTEGER NOT NULL,
            at_ms INTEGER NOT NULL,
            kind TEXT NOT NULL,
            who TEXT NOT NULL,
            body BLOB);
        CREATE INDEX approval_notes_approval ON approval_notes (approval)""",
    ),
)

_encode = msgspec.json.encode


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was declared of an approval when it was asked for. Data on disk.

    Attributes:
        by: Roles or names of which one may decide; empty: anybody.
        count: How many people must approve.
        deadline_ms: How long it may be pending before it is escalated.
        valid_for_ms: How long a decision stands: an approval must be used in that time.
        requester: Who it is asked for, and so may not approve it; empty for nobody.
    """

    by: tuple[str, ...] = ()
    count: int = 1
    deadline_ms: int = 0
    valid_for_ms: int = 0
    requester: str = ""


_decode_rule = msgspec.json.Decoder(Rule).decode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One approval. `record` is the journal's record of what was asked, `decided_at_ms` when it was approved or denied."""

    id: int
    call: bytes
    state: State
    record: int
    rule: Rule
    asked_at_ms: int
    decided_at_ms: int | None


class Asker(msgspec.Struct, frozen=True, gc=False):
    """Who waits: a step of a run, or, outside runs, a process, where a later call could not be known for the same."""

    run: int | None
    step: str
    session: int | None


class Note(msgspec.Struct, frozen=True, gc=False):
    """One thing said of an approval."""

    id: int
    at_ms: int
    kind: str
    who: str
    body: Any


ALL = 2**62
"""A limit that is none."""

_SELECT = "SELECT id, call, state, record, rule, asked_at_ms, decided_at_ms FROM approvals"


def newest(connection: Connection, call: bytes) -> Row | None:
    """Return the last approval that was asked for this call."""
    return _one(connection.execute(f"{_SELECT} WHERE call = ? ORDER BY id DESC LIMIT 1", (call,)).fetchall())


def get(connection: Connection, approval: int) -> Row | None:
    """Return an approval by its number."""
    return _one(connection.execute(f"{_SELECT} WHERE id = ?", (approval,)).fetchall())


def of_state(connection: Connection, state: State | None, limit: int = ALL) -> list[Row]:
    """Return approvals, the newest first; of all states for None."""
    where = (
        "" if state is None else f" WHERE state = {int(state)}" + (" AND state <= 2" if state <= State.APPROVED else "")
    )
    return [_row(row) for row in connection.execute(f"{_SELECT}{where} ORDER BY id DESC LIMIT ?", (limit,)).fetchall()]


def pending(connection: Connection) -> list[int]:
    """Return the numbers of all that nobody has decided."""
    rows = connection.execute("SELECT id FROM approvals WHERE state = 1 AND state <= 2 ORDER BY id")
    return [int(str(row[0])) for row in rows]


def _one(rows: list[Any]) -> Row | None:
    return _row(rows[0]) if rows else None


def _row(values: Any) -> Row:
    number, call, state, record, rule, asked_at_ms, decided_at_ms = values
    return Row(number, call, State(state), record, _decode_rule(rule), asked_at_ms, decided_at_ms)


def insert(tx: Tx, call: bytes, record: int, rule: Rule) -> int:
    """Write a question."""
    tx.execute(
        "INSERT INTO approvals (call, state, record, rule, asked_at_ms) VALUES (?, 1, ?, ?, ?)",
        (call, record, _encode(rule), tx.now_ms),
    )
    return tx.connection.last_insert_rowid()


def move(tx: Tx, row: Row, event: Event, who: str, body: Any = None) -> bool:
    """Change an approval's state, if it is as it was read and the table has such a way; note it."""
    state = next_state(row.state, event)
    if state is None:
        return False
    decided = tx.now_ms if event in (Event.APPROVED, Event.DENIED) else row.decided_at_ms
    tx.execute(
        "UPDATE approvals SET state = ?, decided_at_ms = ? WHERE id = ? AND state = ?",
        (int(state), decided, row.id, int(row.state)),
    )
    if tx.connection.changes() != 1:
        return False
    add_note(tx, row.id, event.value, who, body)
    return True


def add_asker(tx: Tx, approval: int, asker: Asker) -> None:
    """Note who waits, once."""
    if asker not in askers(tx.connection, approval):
        tx.execute(
            "INSERT INTO askers (approval, run, step, session) VALUES (?, ?, ?, ?)",
            (approval, asker.run, asker.step, asker.session),
        )


def askers(connection: Connection, approval: int) -> list[Asker]:
    """Return who waits."""
    rows = connection.execute(
        "SELECT run, step, session FROM askers WHERE approval = ? ORDER BY run, step, session", (approval,)
    )
    return [Asker(*row) for row in rows]


def add_note(tx: Tx, approval: int, kind: str, who: str, body: Any = None) -> None:
    """Note what was said."""
    tx.execute(
        "INSERT INTO approval_notes (approval, at_ms, kind, who, body) VALUES (?, ?, ?, ?, ?)",
        (approval, tx.now_ms, kind, who, None if body is None else _encode(body)),
    )


def notes(connection: Connection, approval: int) -> list[Note]:
    """Return what was said, in order."""
    rows = connection.execute(
        "SELECT id, at_ms, kind, who, body FROM approval_notes WHERE approval = ? ORDER BY id", (approval,)
    )
    return [_note(row) for row in rows]


def _note(values: Any) -> Note:
    number, at_ms, kind, who, body = values
    return Note(number, at_ms, kind, who, None if body is None else msgspec.json.decode(body))
