"""Deciding: a person approves or denies, in one transaction with the trail and with waking whoever waits.

What holds: the first decision stands; one that nobody waits for any more is refused and says why; nobody's name counts
twice; what was approved can be denied until it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from surefoot.approvals import tables
from surefoot.approvals.desk import ApprovalView, IsOpen, approvers, call_of, is_waited_for, view
from surefoot.approvals.states import Event, State
from surefoot.approvals.tables import Row
from surefoot.journal.texts import require_words
from surefoot.leases import Sessions
from surefoot.people import PROGRAM, Deed, NotAllowed, record
from surefoot.problem import SurefootError
from surefoot.store import Store, Tx

Wake = Callable[[Tx, tuple[str, int]], object]
"""Wakes whoever waits for a row."""


class CannotDecide(SurefootError):
    """The approval can't be decided, or not any more. Nothing was changed."""


class ApprovalNotFound(CannotDecide):
    """There is no approval of this number."""


class AlreadyDecided(CannotDecide):
    """It was decided before, and that stands. Nothing was changed."""


class NobodyWaits(CannotDecide):
    """Whoever asked has ended, was cancelled, or went on without an answer. Nothing was changed."""


async def decide(
    store: Store,
    sessions: Sessions,
    approval: int,
    *,
    is_yes: bool,
    who: str,
    reason: str,
    is_open: IsOpen,
    wake: Wake,
) -> ApprovalView:
    """Approve or deny.

    Args:
        store: The store.
        sessions: To judge whether callers outside runs still wait.
        approval: Its number.
        is_yes: Approve, or deny.
        who: Who decides; kept for ever.
        reason: Why; kept for ever. Whoever is denied is told it.
        is_open: Whether a run has not ended.
        wake: Wakes whoever waits, in the same transaction.

    Raises:
        ApprovalNotFound, AlreadyDecided, NobodyWaits, NotAllowed, BadText: See each; nothing was changed.
    """
    require_words(who, reason, words="a decision names who decides and why")

    def unit(tx: Tx) -> ApprovalView:
        row = tables.get(tx.connection, approval)
        if row is None:
            raise ApprovalNotFound(f"there is no approval {approval} in {store.path}", hint="surefoot approvals")
        (_approve if is_yes else _deny)(tx, row, who, reason, partial(is_waited_for, tx.connection, sessions, is_open))
        moved = tables.get(tx.connection, approval)
        assert moved is not None, "it was there"
        if moved.state is not State.PENDING:
            wake(tx, ("approval", approval))
        return view(tx.connection, sessions, is_open, moved)

    return await store.commit(unit, label="decide")


IsWaitedFor = Callable[[int], bool]


def _approve(tx: Tx, row: Row, who: str, reason: str, is_wanted: IsWaitedFor) -> None:
    _refuse_late(tx, row, is_wanted, {State.PENDING})
    if row.rule.requester and row.rule.requester == who:
        raise NotAllowed(f"approval {row.id} is asked for {who}, who may not approve it", hint="somebody else has to")
    said = approvers(tables.notes(tx.connection, row.id))
    if who in said:
        raise AlreadyDecided(
            f"{who} has approved {row.id} already; it needs {row.rule.count} different people",
            hint=f"surefoot approvals --id {row.id}",
        )
    _note_deed(tx, row, "approve", who, reason)
    if len(said) + 1 < row.rule.count:
        tables.add_note(tx, row.id, "yes", who, reason)
    else:
        tables.move(tx, row, Event.APPROVED, who, reason)


def _deny(tx: Tx, row: Row, who: str, reason: str, is_wanted: IsWaitedFor) -> None:
    _refuse_late(tx, row, is_wanted, {State.PENDING, State.APPROVED})
    _note_deed(tx, row, "deny", who, reason)
    tables.move(tx, row, Event.DENIED, who, reason)


def _note_deed(tx: Tx, row: Row, act: str, who: str, reason: str) -> None:
    if who == PROGRAM and row.rule.by:
        raise NotAllowed(f"approval {row.id} needs {' or '.join(row.rule.by)}", hint="name the person who decides")
    record(tx, Deed(act=act, who=who, target=f"approval {row.id}", reason=reason, call=row.call, needed=row.rule.by))


def _refuse_late(tx: Tx, row: Row, is_wanted: IsWaitedFor, may: set[State]) -> None:
    """Refuse to decide what was decided, and what nobody waits for; say by whom, when, and what can be done."""
    call = call_of(tx.connection, row)
    notes = {note.kind: note for note in tables.notes(tx.connection, row.id)}
    if row.state in may:
        if not is_wanted(row.id):
            raise NobodyWaits(
                f"approval {row.id} ({call.key}): whoever asked has ended, was cancelled, or went on without it",
                hint="nothing is left to decide; who needs it still asks anew",
            )
        return
    if row.state is State.WITHDRAWN:
        raise NobodyWaits(
            f"approval {row.id} ({call.key}) was withdrawn: nobody waited for it any more",
            hint="nothing is left to decide; who needs it still asks anew",
        )
    last = notes[Event.DENIED.value if row.state is State.DENIED else Event.APPROVED.value]
    fate = {
        State.DENIED: ("was denied", "that stands; who needs it still asks anew in another run"),
        State.APPROVED: ("was approved, and is not used yet", f"surefoot deny {row.id} takes it back until it is used"),
        State.USED: (
            "was approved, and is used",
            f"to undo what was done: surefoot undo; see surefoot approvals --id {row.id}",
        ),
        State.LAPSED: ("was approved, and not used in time", "it was asked for anew: surefoot approvals"),
    }[row.state]
    at = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=last.at_ms)).isoformat(timespec="seconds")
    raise AlreadyDecided(f"approval {row.id} ({call.key}) {fate[0]}: {last.who}, {at}: {last.body}", hint=fate[1])
