"""What can wait too long for a person: doubts that only a person can end, and approvals. Read for `escalating`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from surefoot.approvals import State as ApprovalState
from surefoot.approvals import tables as approvals
from surefoot.approvals.desk import call_of as question_of
from surefoot.approvals.desk import deadline_ms, is_waited_for
from surefoot.approvals.states import Event
from surefoot.effects.rows import desk, ledger
from surefoot.effects.rows.ledger import call_of
from surefoot.effects.states import State
from surefoot.journal.redaction import redacted
from surefoot.leases import Sessions
from surefoot.runs.rows.desk import is_open
from surefoot.runs.rows.tables import get_run
from surefoot.store import Tx
from surefoot.store.connection import Connection

ESCALATED, TELLING, TOLD = "escalated", "telling of it", "told"
"""What an escalation leaves beside what it is about, in this order."""

_log = logging.getLogger("surefoot")


@dataclass(frozen=True, slots=True)
class Escalation:
    """A doubt, or an approval, that has waited for a person for longer than it was declared to.

    Attributes:
        effect: The effect's number, for `surefoot resolve`; 0 for an approval, whose effect is not claimed yet.
        name: The function.
        key: Its key.
        arguments: The call's arguments, as data; what is a secret by its name or declaration is left out.
        run_id: The run that claimed it or asks for it, or None.
        unknown_since_ms: Wall clock in milliseconds when the doubt was noted, or the approval asked for.
        deadline_ms: Wall clock in milliseconds when it became overdue.
        approval: The approval's number, for `surefoot approve`; 0 for a doubt.
    """

    effect: int
    name: str
    key: str
    arguments: Any
    run_id: str | None
    unknown_since_ms: int
    deadline_ms: int
    approval: int = 0


class Subject(Protocol):
    """One kind of thing that waits for people."""

    name: str

    def all_open(self, connection: Connection) -> list[int]:
        """Return the numbers of all that wait."""

    def due_ms(self, connection: Connection, number: int) -> int | None:
        """Return from when it is overdue, wall clock; None for never. Asked once for each."""

    def look(self, tx: Tx, number: int) -> Escalation | None:
        """Return it as it is now; None if it waits no longer."""

    def stages(self, connection: Connection, number: int) -> dict[str, int | None]:
        """Return which stages of an escalation are noted, each with the session that its newest note names."""

    def note(self, tx: Tx, number: int, kind: str, who: str, body: Any = None) -> None:
        """Note a stage."""

    def warn(self, escalation: Escalation) -> None:
        """Say it in the log."""


class Doubts:
    """Effects whose outcome only a person can find out."""

    name = "effect"

    def all_open(self, connection: Connection) -> list[int]:
        """See `Subject`."""
        rows = connection.execute(
            "SELECT id FROM ledger INDEXED BY ledger_open WHERE state = 3 AND state <= 3 ORDER BY id"
        )
        return [int(str(row[0])) for row in rows]

    def due_ms(self, connection: Connection, number: int) -> int | None:
        """See `Subject`."""
        row = ledger.get(connection, number)
        return None if row is None else desk.doubt_of(connection, row, call_of(connection, row)).deadline_ms

    def look(self, tx: Tx, number: int) -> Escalation | None:
        """See `Subject`."""
        connection = tx.connection
        row = ledger.get(connection, number)
        if row is None or row.state is not State.UNKNOWN:  # it has ended since
            return None
        call = call_of(connection, row)
        doubt = desk.doubt_of(connection, row, call)
        assert doubt.since_ms is not None, "it is unknown"
        assert doubt.deadline_ms is not None, "it was overdue when it was found, and its claim stays as it is"
        return Escalation(
            effect=row.id,
            name=call.effect,
            key=call.key,
            arguments=redacted(msgspec.json.decode(call.arguments), call.redact),
            run_id=None if row.run is None else get_run(connection, row.run).run_id,
            unknown_since_ms=doubt.since_ms,
            deadline_ms=doubt.deadline_ms,
        )

    def stages(self, connection: Connection, number: int) -> dict[str, int | None]:
        """See `Subject`."""
        rows = connection.execute(
            "SELECT kind, body FROM evidence WHERE effect = ? AND kind IN (?, ?, ?) ORDER BY id",
            (number, ESCALATED, TELLING, TOLD),
        )
        return {kind: None if body is None else msgspec.json.decode(body).get("session") for kind, body in rows}

    def note(self, tx: Tx, number: int, kind: str, who: str, body: Any = None) -> None:
        """See `Subject`."""
        ledger.add_evidence(tx, number, kind, who, body)

    def warn(self, escalation: Escalation) -> None:
        """See `Subject`."""
        _log.warning(
            "effect %d (%s) has been unknown for more than %.3g h: surefoot unknowns",
            escalation.effect,
            escalation.key,
            _hours(escalation),
        )


class Questions:
    """Approvals that nobody has decided."""

    name = "approval"

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def all_open(self, connection: Connection) -> list[int]:
        """See `Subject`."""
        return approvals.pending(connection)

    def due_ms(self, connection: Connection, number: int) -> int | None:
        """See `Subject`."""
        row = approvals.get(connection, number)
        return None if row is None else deadline_ms(row)

    def look(self, tx: Tx, number: int) -> Escalation | None:
        """See `Subject`. One that nobody waits for any more is withdrawn."""
        row = approvals.get(tx.connection, number)
        if row is None or row.state is not ApprovalState.PENDING:
            return None
        if not is_waited_for(tx.connection, self._sessions, is_open, number):
            approvals.move(tx, row, Event.WITHDRAWN, "surefoot", "nobody waits for it any more")
            return None
        call = question_of(tx.connection, row)
        runs = [one.run for one in approvals.askers(tx.connection, number) if one.run is not None]
        return Escalation(
            effect=0,
            name=call.effect,
            key=call.key,
            arguments=redacted(msgspec.json.decode(call.arguments), call.redact),
            run_id=get_run(tx.connection, runs[0]).run_id if runs else None,
            unknown_since_ms=row.asked_at_ms,
            deadline_ms=deadline_ms(row),
            approval=number,
        )

    def stages(self, connection: Connection, number: int) -> dict[str, int | None]:
        """See `Subject`."""
        said = [note for note in approvals.notes(connection, number) if note.kind in (ESCALATED, TELLING, TOLD)]
        return {note.kind: note.body.get("session") if isinstance(note.body, dict) else None for note in said}

    def note(self, tx: Tx, number: int, kind: str, who: str, body: Any = None) -> None:
        """See `Subject`."""
        approvals.add_note(tx, number, kind, who, body)

    def warn(self, escalation: Escalation) -> None:
        """See `Subject`."""
        _log.warning(
            "approval %d (%s) has been pending for more than %.3g h: surefoot approvals",
            escalation.approval,
            escalation.key,
            _hours(escalation),
        )


def _hours(escalation: Escalation) -> float:
    return (escalation.deadline_ms - escalation.unknown_since_ms) / 3_600_000
