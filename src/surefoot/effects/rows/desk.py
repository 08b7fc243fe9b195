"""The desk: what people see of effects, and how a person ends a doubt.

What holds: a resolution names who and why; "done" is evidence like any other; "not done" is refused while whoever claimed
the effect may still be alive and sending. A resolution never overwrites an outcome; contradictions are closed, not erased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from surefoot.effects.doubt import AskPerson
from surefoot.effects.keys import BadEffect, call_digest
from surefoot.effects.registry import spec_of
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Call, Row, call_of, call_to_show
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, Undecodable, insert_record, load_to_show
from surefoot.journal.records import Head
from surefoot.journal.sealing import MissingKey, of_evidence, opened_to_show
from surefoot.journal.texts import require_words
from surefoot.journal.values import canonical_bytes
from surefoot.leases import Holder, Life, Sessions
from surefoot.people import Deed
from surefoot.people import record as record_deed
from surefoot.problem import SurefootError
from surefoot.store import Store, Tx
from surefoot.store.codec import Codec, codec_of
from surefoot.store.connection import Connection


class CannotResolve(SurefootError):
    """The effect is not in doubt, or saying "not done" is not safe yet. Nothing was changed."""


class UnfitValue(CannotResolve):
    """The value is nothing the effect could have returned, or its code, which would know, is not here. Nothing was
    changed: once recorded the value would block whoever asks for it."""


@dataclass(frozen=True, slots=True)
class EffectView:
    """An effect as people see it. Of what is under a key that is missing here the words say which key that is."""

    id: int
    name: str
    key: str
    scope: str
    doubt: str
    generation: int
    state: str
    token: int
    run: int | None
    returns: str
    redact: tuple[str, ...]
    arguments: Any
    value: Any
    reason: str
    claimed_at_ms: int
    settled_at_ms: int | None


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """One thing learned of an effect."""

    id: int
    effect: int
    at_ms: int
    kind: str
    who: str
    is_open: bool
    body: Any


@dataclass(frozen=True, slots=True)
class DoubtView:
    """Since when an effect is unknown.

    Attributes:
        since_ms: Wall clock when the doubt was noted; None if it has none, or nobody has looked yet.
        deadline_ms: Wall clock from which it is overdue; None where a person isn't the only one who can end it.
        is_escalated: Whether it was found to be overdue: it stays so when a clock is set back.
    """

    since_ms: int | None
    deadline_ms: int | None
    is_escalated: bool

    def is_overdue(self, now_ms: int) -> bool:
        """Whether it should have been ended by now."""
        return self.is_escalated or (self.deadline_ms is not None and self.deadline_ms <= now_ms)


_FILTERS = {
    "run": "run = ?",
    "state": "state = ?",
}


def list_effects(
    connection: Connection, *, run: int | None = None, state: State | None = None, limit: int = 100
) -> list[EffectView]:
    """Return the newest effects first."""
    wanted = {"run": run, "state": None if state is None else int(state)}
    used = {name: value for name, value in wanted.items() if value is not None}
    where = " AND ".join(_FILTERS[name] for name in used)
    rows = connection.execute(
        f"SELECT id FROM ledger{' WHERE ' + where if where else ''} ORDER BY id DESC LIMIT ?", (*used.values(), limit)
    ).fetchall()
    return [
        view(connection, found) for row in rows if (found := ledger.get(connection, int(_fields(row)[0]))) is not None
    ]


def view(connection: Connection, row: Row) -> EffectView:
    """Return a row with what its records say."""
    claim = load_to_show(connection, row.claim)
    call = call_to_show(claim, row.id)
    outcome = None if ledger.is_open(row) else load_to_show(connection, row.record)
    return EffectView(
        id=row.id,
        name=call.effect,
        key=call.key,
        scope=call.scope,
        doubt=call.doubt,
        generation=row.generation,
        state=row.state.name.lower(),
        token=row.token,
        run=row.run,
        returns=call.returns,
        redact=call.redact,
        arguments=msgspec.json.decode(call.arguments),
        value=None if outcome is None or outcome.body is None else msgspec.json.decode(outcome.body),
        reason="" if outcome is None else outcome.head.reason,
        claimed_at_ms=claim.at_ms,
        settled_at_ms=None if outcome is None else outcome.at_ms,
    )


def doubt_of(connection: Connection, row: Row, call: Call) -> DoubtView:
    """Return since when an effect is unknown, and from when on that is too long."""
    if row.state is not State.UNKNOWN:
        return DoubtView(None, None, is_escalated=False)
    noted = connection.execute(
        "SELECT at_ms FROM evidence WHERE effect = ? AND kind IN ('unknown', 'in doubt') ORDER BY id LIMIT 1", (row.id,)
    ).fetchall()
    since_ms = int(noted[0][0]) if noted else load_to_show(connection, row.claim).at_ms
    escalated = connection.execute("SELECT 1 FROM evidence WHERE effect = ? AND kind = 'escalated'", (row.id,))
    deadline_ms = since_ms + call.deadline_ms if call.doubt == AskPerson.name else None
    return DoubtView(since_ms, deadline_ms, is_escalated=next(escalated, None) is not None)


def evidence(connection: Connection, effect: int | None = None) -> list[EvidenceView]:
    """Return what was learned of one effect; of None, all open contradictions."""
    where = "is_open = 1" if effect is None else "effect = ?"
    codec = codec_of(connection)
    rows = connection.execute(
        f"SELECT id, effect, at_ms, kind, who, is_open, body FROM evidence WHERE {where} ORDER BY id",
        () if effect is None else (effect,),
    )
    return [
        EvidenceView(id, effect, at_ms, kind, who, bool(is_open), _evidence_body(codec, effect, kind, body))
        for id, effect, at_ms, kind, who, is_open, body in map(_fields, rows)
    ]


def _evidence_body(codec: Codec | None, effect: int, kind: str, stored: bytes | None) -> Any:
    body = opened_to_show(codec, stored, of_evidence(effect, kind))
    return None if body is None else msgspec.json.decode(body)


OPEN_EFFECTS_MAX = 10_000
"""Open effects that `sessions_in_use` reads; about a third of a second."""


def sessions_in_use(connection: Connection) -> set[int] | None:
    """Return the sessions that open effects refer to: by holder, by sender, and by their first claim, whose boot says how
    old a key is. None when there are more than `OPEN_EFFECTS_MAX` of them, or one can't be read here."""
    rows = connection.execute(
        "SELECT id FROM ledger INDEXED BY ledger_open WHERE state <= 3 LIMIT ?", (OPEN_EFFECTS_MAX + 1,)
    ).fetchall()
    if len(rows) > OPEN_EFFECTS_MAX:
        return None
    found = [ledger.get(connection, int(_fields(row)[0])) for row in rows]
    try:
        return {
            session
            for row in found
            if row is not None
            for session in (row.holder, row.sender, call_of(connection, row).session)
        }
    except Undecodable:
        return None


def _fields(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row


async def resolve_by_person(
    store: Store,
    sessions: Sessions,
    effect: int,
    *,
    is_done: bool,
    who: str,
    reason: str,
    value: Any = None,
    is_fence_passed: bool = False,
    wake: Callable[[Tx, int | None, str, int], object],
) -> EffectView:
    """End a doubt by a person's word.

    Args:
        store: The store.
        sessions: To judge whether the claim's holder lives.
        effect: The effect's row.
        is_done: Whether it happened.
        who: Who says so; kept for ever.
        reason: How they know; kept for ever.
        value: What the caller should get, for done.
        is_fence_passed: The person vouches that no earlier request can still land.
        wake: Wakes whoever waits, in the same transaction: called with the effect's run, who, and the effect
            (`surefoot.runs.rows.desk.wake`).

    Raises:
        CannotResolve: No such effect; it has an outcome already; or "not done" while its holder may still act.
        BadText: Who, or why, is no text that can be kept.
        UnfitValue: Its declared type doesn't take the value, or nobody here knows that type.
        NotAllowed: This person may not (`sf.People`).
    """
    require_words(who, reason, words="a resolution names who decided and how they know", error=CannotResolve)
    body = msgspec.json.encode(value)

    def unit(tx: Tx) -> EffectView:
        row = ledger.get(tx.connection, effect)
        if row is None:
            raise CannotResolve(f"there is no effect {effect}", hint="surefoot unknowns")
        if not ledger.is_open(row):
            return _close_contradictions(tx, row, who, reason)
        _refuse_early(tx, sessions, row, is_done=is_done, is_fence_passed=is_fence_passed)
        vouched = ", and vouches that the fence has passed" if is_fence_passed else ""
        _note_deed(tx, row, who, f"{'done' if is_done else 'not done'}{vouched}: {reason}")
        if is_done:
            _check_value(call_of(tx.connection, row), body)
        kind, state = (Kind.DONE, State.DONE) if is_done else (Kind.NOT_DONE, State.NOT_DONE)
        record = Record(None, 0, kind, "", head=Head(reason=f"{who}: {reason}"), body=body if is_done else None)
        ledger.settle(tx, row.id, row.token, state, insert_record(tx, record))
        ledger.add_evidence(tx, row.id, f"resolved as {state.name.lower()}", who, reason)
        wake(tx, row.run, who, row.id)
        settled = ledger.get(tx.connection, row.id)
        assert settled is not None
        return view(tx.connection, settled)

    return await store.commit(unit, label="resolve")


async def undone_by_person(
    store: Store, effect: int, *, who: str, reason: str, wake: Callable[[Tx, int | None, str, int], object]
) -> EffectView:
    """Note, by a person's word, that a done effect was undone outside of us: its key may act again, and no saga or undo
    compensates it any more.

    Args:
        store: The store.
        effect: The effect's row.
        who: Who says so; kept for ever.
        reason: How they know; kept for ever.
        wake: As for `resolve_by_person`.

    Raises:
        CannotResolve: No such effect, or it is not done.
        BadText: Who, or why, is no text that can be kept.
        NotAllowed: This person may not undo (`sf.People`).
    """
    require_words(who, reason, words="this names who undid it and how they know", error=CannotResolve)

    def unit(tx: Tx) -> EffectView:
        row = ledger.get(tx.connection, effect)
        if row is None:
            raise CannotResolve(f"there is no effect {effect}", hint="surefoot effects")
        if row.state is not State.DONE:
            raise CannotResolve(
                f"effect {effect} is {row.state.name.lower().replace('_', ' ')}: only what is done can have been undone",
                hint=f"surefoot effects --id {effect}",
            )
        _note_deed(tx, row, who, f"undone by hand: {reason}", act="undo")
        ledger.compensated(tx, effect)
        ledger.add_evidence(tx, effect, "undone by hand", who, reason)
        wake(tx, row.run, who, effect)
        after = ledger.get(tx.connection, effect)
        assert after is not None
        return view(tx.connection, after)

    return await store.commit(unit, label="resolve")


def _note_deed(tx: Tx, row: Row, who: str, reason: str, act: str = "resolve") -> None:
    arguments = canonical_bytes(msgspec.json.decode(call_of(tx.connection, row).arguments))
    call = call_digest(row.digest, row.generation, arguments)
    record_deed(tx, Deed(act=act, who=who, target=f"effect {row.id}", reason=reason, call=call))


def _check_value(call: Call, body: bytes) -> None:
    """Refuse a value that the effect could not have returned. Claims that don't note their type are taken at the person's
    word, unless the code that knows it is here."""
    try:
        spec = spec_of(call.effect)
    except BadEffect as error:
        if not call.returns:
            return
        raise UnfitValue(
            f"{call.effect} returns {call.returns}, and only its code can tell whether a value fits",
            hint="name the module that declares it: --module MODULE; in a program, import it",
        ) from error
    try:
        spec.codec.load(body)
    except Undecodable as error:
        raise UnfitValue(
            f"this value is nothing {call.effect} could have returned: {error.message}",
            hint="look at what the function returns, and give that: --value JSON",
        ) from error


def _close_contradictions(tx: Tx, row: Row, who: str, reason: str) -> EffectView:
    tx.execute("UPDATE evidence SET is_open = 0 WHERE effect = ? AND is_open = 1", (row.id,))
    if tx.connection.changes() == 0:
        raise CannotResolve(
            f"effect {row.id} is not in doubt: it is {row.state.name.lower()}", hint=f"surefoot effects --id {row.id}"
        )
    _note_deed(tx, row, who, f"contradiction closed: {reason}")
    ledger.add_evidence(tx, row.id, "contradiction closed", who, reason)
    return view(tx.connection, row)


def _refuse_early(tx: Tx, sessions: Sessions, row: Row, *, is_done: bool, is_fence_passed: bool) -> None:
    """Refuse to speak over whoever acts, and to say "not done" while a request may still be on its way.

    A sender's death proves that it sends no more; that what it sent has landed or never will, only the person can say. An
    earlier sender that is only stopped can still send, whatever became of those that sent in its place.
    """
    holder = sessions.holder(tx.connection, row.holder)
    if row.state is State.CLAIMED and holder.life is Life.ALIVE:
        raise CannotResolve(
            f"effect {row.id} is being acted on right now by {holder.name} (pid {holder.pid})",
            hint="wait for it, or stop that process first",
        )
    if is_done or is_fence_passed:
        return
    sender = sender_of(tx.connection, sessions, row)
    if sender.life is not Life.DEAD:
        raise CannotResolve(
            f"effect {row.id}: {sender.name} (pid {sender.pid}), which may have sent it, still lives; what it sent may "
            "still land",
            hint=f"look again later and vouch with --fence-passed, or end process {sender.pid} first",
        )


def sender_of(connection: Connection, sessions: Sessions, row: Row) -> Holder:
    """Return who may have sent the effect: the last that is not known to be dead, else the last of all."""
    holders = [sessions.holder(connection, session) for session in _senders(connection, row)]
    return next((one for one in holders if one.life is not Life.DEAD), holders[0])


def sender_to_show(connection: Connection, sessions: Sessions, row: Row) -> Holder:
    """Return `sender_of`; where its claim can't be read for want of its key, who has sent it last."""
    try:
        return sender_of(connection, sessions, row)
    except MissingKey:
        return sessions.holder(connection, row.sender)


def _senders(connection: Connection, row: Row) -> list[int]:
    """Return all sessions that may have sent the effect, the last first."""
    again = connection.execute("SELECT body FROM evidence WHERE effect = ? AND kind = 'resend'", (row.id,)).fetchall()
    earlier = [call_of(connection, row).session, *(msgspec.json.decode(body)["session"] for (body,) in again)]
    return list(dict.fromkeys([row.sender, *earlier]))


__all__ = [
    "CannotResolve",
    "DoubtView",
    "EffectView",
    "EvidenceView",
    "UnfitValue",
    "doubt_of",
    "evidence",
    "list_effects",
    "resolve_by_person",
    "sessions_in_use",
    "undone_by_person",
    "view",
]
