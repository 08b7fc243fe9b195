"""What is recorded of an effect, told: to its caller as an outcome, and to its run as the record its step came to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from surefoot.effects.keys import identify
from surefoot.effects.live.case import Case, Claim
from surefoot.effects.outcome import Outcome
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Row, call_of
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, Unserializable, insert_record, load_record
from surefoot.journal.records import Head
from surefoot.store import Tx
from surefoot.store.connection import Connection

LEFT = "left"
"""What the record of an effect that is not done says where its caller left before anything was sent."""

_WITH_VALUE: dict[Kind, Literal["done", "repeated"]] = {Kind.DONE: "done", Kind.REPEATED: "repeated"}


def note(tx: Tx, case: Case, draft: Record, kind: Kind, head: Head) -> None:
    """Tell the run what its step came to; outside a run there is nobody to tell."""
    if case.step is not None:
        insert_record(tx, replace(draft, kind=kind, head=head))


def of_own_row(tx: Tx, case: Case, row: Row, draft: Record) -> Claim | Outcome | None:
    """The step has claimed it before: say what its row has come to; None if it was left before the act, and so is free."""
    if ledger.is_open(row):
        return Claim(row, is_ours=False)
    kind = Kind.NOT_DONE if row.state is State.NOT_DONE else Kind.DONE
    record = load_record(tx.connection, row.record)
    if record.head.state == LEFT:
        return None
    head = Head(name=case.spec.name, record=row.record, effect=row.id, reason=record.head.reason)
    note(tx, case, draft, kind, head)
    return told(case, kind, record, head)


def was_left(connection: Connection, claim: Record) -> bool:
    """Whether the claim that a step has recorded was left before the act: nothing was sent."""
    assert claim.body is not None, "what was claimed was recorded with its call"
    call = ledger.decode_call(claim.body)
    row = ledger.find(connection, identify(call.scope, call.effect, call.key, b"").digest, call.generation)
    return row is not None and _is_left(connection, row)


def approved_generation(connection: Connection, identity: bytes, generation: int) -> int:
    """Return the generation whose approval is that of this one: the first of those before it that were left before the act,
    one after the other."""
    while (row := ledger.find(connection, identity, generation - 1)) is not None and _is_left(connection, row):
        generation -= 1
    return generation


def _is_left(connection: Connection, row: Row) -> bool:
    return load_record(connection, row.record).head.state == LEFT


def taken(tx: Tx, case: Case, row: Row, draft: Record) -> Claim | Outcome:
    """The key is taken: say by what. Nothing is sent."""
    if row.fingerprint != case.identity.fingerprint:
        first = call_of(tx.connection, row)
        detail = {"recorded": msgspec.json.decode(first.arguments), "asked": case.request}
        which = "they were deleted by retention" if first.forgotten_at_ms else _difference(detail)
        reason = f"key {case.identity.key!r} was used with other values: {which}"
        note(tx, case, draft, Kind.CONFLICT, Head(name=case.spec.name, reason=reason, detail=detail, effect=row.id))
        return Outcome("conflict", reason=reason, effect=row.id, detail=detail)
    if row.state is not State.DONE:
        return Claim(row, is_ours=False)
    head = Head(name=case.spec.name, record=row.record, effect=row.id)
    note(tx, case, draft, Kind.REPEATED, head)
    return told(case, Kind.REPEATED, load_record(tx.connection, row.record), head)


def told(case: Case, kind: Kind, record: Record, head: Head) -> Outcome:
    """Return a recorded outcome as the caller learns it."""
    effect = case.row.id if case.row is not None else head.effect
    if record.head.forgotten_at_ms and kind in _WITH_VALUE:
        return _told_without_value(_WITH_VALUE[kind], record, effect)
    match kind:
        case Kind.DONE:
            return Outcome("done", value=_value(case, record), effect=effect)
        case Kind.REPEATED:
            return Outcome("repeated", value=_value(case, record), effect=effect)
        case Kind.NOT_DONE if record.head.state == "stale":
            reason = head.reason or record.head.reason
            return Outcome("stale", reason=reason, effect=effect, detail=record.head.detail)
        case Kind.NOT_DONE:
            return Outcome("not_done", reason=head.reason or record.head.reason, effect=effect)
        case Kind.CONFLICT:
            return Outcome("conflict", reason=head.reason, effect=effect, detail=head.detail)
        case Kind.DENIED:
            return Outcome("denied", reason=head.reason, effect=effect)
        case _:
            assert kind is Kind.UNKNOWN, f"record {record.id} of kind {kind.name} is an outcome of an effect"
            return Outcome("unknown", reason=head.reason, effect=effect)


def moment_words(ms: int) -> str:
    """Return a wall-clock time in words."""
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds")


def _told_without_value(told: Literal["done", "repeated"], record: Record, effect: int) -> Outcome:
    """Return an outcome whose value is gone: that it happened, and when, is known for ever."""
    done, gone = moment_words(record.at_ms), moment_words(record.head.forgotten_at_ms)
    reason = f"it was done on {done}, and what it came to was deleted by retention on {gone}"
    return Outcome(told, reason=reason, effect=effect, detail=record.head.detail, is_forgotten=True)


def _value(case: Case, record: Record) -> Any:
    if record.head.state == "unserializable":
        raise Unserializable(record.head.reason, hint="the effect itself is done; mend what it returns")
    return None if record.body is None else case.spec.codec.load(record.body)


def _difference(detail: dict[str, Any]) -> str:
    recorded, asked = detail["recorded"], detail["asked"]
    return ", ".join(
        f"{name}={asked.get(name)!r} (recorded {recorded.get(name)!r})"
        for name in asked
        if asked.get(name) != recorded.get(name)
    )
