"""The desk: what people see of approvals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import msgspec

from surefoot.approvals import tables
from surefoot.approvals.states import Event, State
from surefoot.approvals.tables import Asker, Note, Row, Rule
from surefoot.effects.rows.ledger import Call, call_unread, decode_call
from surefoot.journal import MissingKey, load_record
from surefoot.journal.records import ENDS_STEP
from surefoot.journal.sealing import unread_words
from surefoot.leases import Life, Sessions
from surefoot.store.connection import Connection

IsOpen: TypeAlias = Callable[[Connection, int], bool]
"""Whether a run has not ended."""


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """An approval as people see it. Where what was asked is under a key that is missing here, the words say which.

    Attributes:
        id: Its number.
        state: pending, approved, denied, used, withdrawn or lapsed.
        name: The effect's function.
        key: Its key.
        arguments: All arguments of the call.
        redact: Parameters that are not to be shown.
        call: The digest of what was asked, as hexadecimal digits.
        rule: Who may decide, how many must, and until when.
        asked_at_ms: Wall clock.
        deadline_ms: Wall clock from which it is overdue.
        runs: The rows of the runs that wait for it.
        is_waited_for: Whether anybody does.
        approved_by: Who has approved it so far.
        notes: What was said of it, in order.
    """

    id: int
    state: str
    name: str
    key: str
    arguments: Any
    redact: tuple[str, ...]
    call: str
    rule: Rule
    asked_at_ms: int
    deadline_ms: int
    runs: list[int]
    is_waited_for: bool
    approved_by: list[str]
    notes: list[Note]


def list_approvals(
    connection: Connection,
    sessions: Sessions,
    is_open: IsOpen,
    *,
    state: State | None = State.PENDING,
    limit: int = 100,
) -> list[ApprovalView]:
    """Return approvals: of pending ones those that somebody waits for, the most urgent first; else the newest first."""
    if state is not State.PENDING:
        return [view(connection, sessions, is_open, row) for row in tables.of_state(connection, state, limit)]
    rows = sorted(tables.of_state(connection, state), key=lambda row: (deadline_ms(row), row.id))
    wanted = (row for row in rows if is_waited_for(connection, sessions, is_open, row.id))
    return [view(connection, sessions, is_open, row) for row in islice(wanted, limit)]


def count_waiting(connection: Connection, sessions: Sessions, is_open: IsOpen) -> int:
    """Return how many approvals somebody waits for."""
    return sum(is_waited_for(connection, sessions, is_open, number) for number in tables.pending(connection))


def deadline_ms(row: Row) -> int:
    """Return from when an approval that nobody has decided is overdue, wall clock."""
    return row.asked_at_ms + row.rule.deadline_ms


def view(connection: Connection, sessions: Sessions, is_open: IsOpen, row: Row) -> ApprovalView:
    """Return an approval with what was asked."""
    try:
        call = call_of(connection, row)
    except MissingKey as missing:
        call = call_unread(unread_words(missing))
    notes, waiting = tables.notes(connection, row.id), list(_waiting(connection, sessions, is_open, row.id))
    return ApprovalView(
        id=row.id,
        state=row.state.name.lower(),
        name=call.effect,
        key=call.key,
        arguments=msgspec.json.decode(call.arguments),
        redact=call.redact,
        call=row.call.hex(),
        rule=row.rule,
        asked_at_ms=row.asked_at_ms,
        deadline_ms=deadline_ms(row),
        runs=list(dict.fromkeys(one.run for one in waiting if one.run is not None)),
        is_waited_for=bool(waiting),
        approved_by=approvers(notes),
        notes=notes,
    )


def call_of(connection: Connection, row: Row) -> Call:
    """Return what was asked."""
    body = load_record(connection, row.record).body
    assert body is not None, "a question has a body"
    return decode_call(body)


def approvers(notes: list[Note]) -> list[str]:
    """Return who has said yes, each once."""
    return list(dict.fromkeys(note.who for note in notes if note.kind in ("yes", Event.APPROVED.value)))


def is_waited_for(connection: Connection, sessions: Sessions, is_open: IsOpen, approval: int) -> bool:
    """Whether anybody still wants to know."""
    return any(True for _ in _waiting(connection, sessions, is_open, approval))


def _waiting(connection: Connection, sessions: Sessions, is_open: IsOpen, approval: int) -> Iterator[Asker]:
    for asker in tables.askers(connection, approval):
        if asker.run is not None:
            if is_open(connection, asker.run) and not _has_ended(connection, asker.run, asker.step):
                yield asker
        elif asker.session is None or sessions.holder(connection, asker.session).life is not Life.DEAD:
            yield asker


def _has_ended(connection: Connection, run: int, step: str) -> bool:
    """Whether a step of a run has its outcome: its code went on without the answer."""
    kinds = ",".join(str(int(kind)) for kind in sorted(ENDS_STEP))
    found = connection.execute(
        f"SELECT 1 FROM journal WHERE run = ? AND step = ? AND kind IN ({kinds}) LIMIT 1", (run, step)
    )
    return next(found, None) is not None


def untold(connection: Connection) -> list[str]:
    """Return approvals that were decided, by their state, without a decision of that call in the trail, in words."""
    acts = {State.APPROVED: "approve", State.USED: "approve", State.LAPSED: "approve", State.DENIED: "deny"}
    found = []
    for row in tables.of_state(connection, None):
        if row.state not in acts:
            continue
        told = connection.execute(
            "SELECT count(DISTINCT who) FROM trail WHERE act = ? AND target = ? AND call = ?",
            (acts[row.state], f"approval {row.id}", row.call),
        )
        count = int(str(next(told)[0]))
        if count < (row.rule.count if acts[row.state] == "approve" else 1):
            found.append(
                f"approval {row.id} is {row.state.name.lower()}, and the trail has no such decision of that call"
            )
    return found
