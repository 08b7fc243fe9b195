"""Forking: a new run that has another's journal up to a step, and goes on by itself from there.

    plan   -> where the journal is cut, and which effects and children would be done again
    write  -> the new run, with copies of the records before the cut, in one transaction

What holds: values are copied, so that neither run depends on the other; a step that had not ended before the cut begins
anew; a fork simulates unless it is told to act, which is part of its kind (`durable.SIMULATED`) and so of every execution
of it, its children included; a simulated run is never the beginning of one that acts. What the source did stays the
source's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from surefoot.effects.keys import identify
from surefoot.effects.rows import ledger
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, insert_record
from surefoot.journal.records import ENDS_STEP, OPENS_STEP, Head
from surefoot.journal.redaction import redacted
from surefoot.journal.tables import load_records
from surefoot.runs.durable import ELSEWHERE, SIMULATED, simulated
from surefoot.runs.errors import CannotFork, RunConflict, RunNotFound
from surefoot.runs.live.naming import id_of_place
from surefoot.runs.rows import inbox, tables
from surefoot.runs.rows.desk import is_forgotten
from surefoot.runs.rows.tables import RunRow
from surefoot.store import Tx
from surefoot.store.connection import Connection

STEPS_SHOWN = 20
"""How many steps an error lists of those that could have been meant."""


@dataclass(frozen=True, slots=True)
class Again:
    """An effect, a child or an event of the source that the fork may come to again.

    Attributes:
        step: Its step in the source.
        name: The effect's function, the child's kind, or the event's topic.
        key: The effect's key, or the id of the child or the event.
        arguments: The effect's arguments, without secrets; None for others.
        acts_again: Whether an acting fork that asks for the same would do it once more; False where a key dedupes.
        words: The same for people.
    """

    step: str
    name: str
    key: str
    arguments: Any
    acts_again: bool
    words: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A fork that could be made.

    Attributes:
        source: The run it begins with.
        at: The step from which on it goes on by itself.
        kept: The records it takes with it.
        again: What comes after the cut in the source, in its order.
    """

    source: RunRow
    at: str
    kept: list[Record] = field(repr=False)
    again: list[Again]


def plan(connection: Connection, run_id: str, at: str | int) -> Plan:
    """Return what a fork of a run at a step would be.

    Args:
        connection: The store.
        run_id: The run.
        at: The step's identity, or the number of its first record: both are in `surefoot show`.

    Raises:
        RunNotFound, CannotFork: There is no such run, or no such step.
    """
    source = tables.find_run(connection, run_id)
    if source is None:
        raise RunNotFound(f"there is no run {run_id!r} in {connection.filename}", hint="surefoot runs")
    if source.kind.startswith(ELSEWHERE):
        raise CannotFork(
            f"run {run_id} is executed by another engine, whose history says what comes when: it can't be forked here",
            hint="fork runs of the embedded engine; in Temporal, reset the workflow",
        )
    records = load_records(connection, source.id)
    firsts: dict[str, int] = {}
    for record in records:
        if record.step and (record.kind in OPENS_STEP or record.kind in ENDS_STEP):
            firsts.setdefault(record.step, record.seq)
    if is_forgotten(connection, source):
        raise CannotFork(f"run {run_id} can't be forked any more: retention has deleted its steps", hint="keep_for=...")
    step, cut = _cut(run_id, firsts, at)
    ended = {record.step for record in records if record.kind in ENDS_STEP and record.seq < cut}
    kept = [record for record in records if record.seq < cut and _is_kept(record, ended)]
    rest = [record for record in records if record.kind in _OUTPUTS and record.step not in ended]
    again = {one.step: one for record in rest if (one := _again(connection, source, record)) is not None}
    return Plan(source, step, kept, list(again.values()))


def _cut(run_id: str, firsts: dict[str, int], at: str | int) -> tuple[str, int]:
    for step, first in firsts.items():
        if at in (step, first) or str(at) == str(first):
            return step, first
    shown = ", ".join(list(firsts)[:STEPS_SHOWN]) or "none"
    more = f" and {len(firsts) - STEPS_SHOWN} more" if len(firsts) > STEPS_SHOWN else ""
    raise CannotFork(f"run {run_id} has no step {at!r}; its steps: {shown}{more}", hint=f"surefoot show {run_id}")


def _is_kept(record: Record, ended: set[str]) -> bool:
    """Whether the fork takes a record from before the cut with it: not the beginning of a step that ended after it."""
    if record.kind in OPENS_STEP:
        return record.step in ended
    return record.kind not in (Kind.DRIFT, Kind.ENDED, Kind.VERDICT)


def _again(connection: Connection, source: RunRow, record: Record) -> Again | None:
    if record.kind is Kind.CHILD:
        own = record.head.run == f"{source.run_id}/{record.step}"
        words = "a child of its own, from its start" if own else "the same child: it is waited for, not started"
        return Again(record.step, record.head.name, record.head.run, None, own, words)
    if record.kind is Kind.PUBLISHED:
        event = msgspec.json.decode(record.body or b"null")
        own = event == id_of_place(source.run_id, record.step)
        words = "an event of its own: all groups would act AGAIN" if own else "the same event: it is published once"
        return Again(record.step, record.head.name, event, None, own, words)
    if record.kind is not Kind.CLAIMED or record.body is None:
        return None
    call = ledger.decode_call(record.body)
    row = ledger.find(connection, identify(call.scope, call.effect, call.key, b"").digest)
    state = State.CLAIMED if row is None else row.state
    arguments = redacted(msgspec.json.decode(call.arguments), call.redact)
    if call.scope != _scope(source.run_id):
        words = f"its key is taken ({_STATES[state]}): not done again while that holds"
        return Again(record.step, call.effect, call.key, arguments, state in _FREE, words)
    return Again(record.step, call.effect, call.key, arguments, True, f"without a key for all runs: it would be done "
                 f"AGAIN; in {source.run_id} it is {_STATES[state]}")  # fmt: skip


_OUTPUTS = frozenset({*OPENS_STEP, Kind.PUBLISHED})
_FREE = frozenset({State.NOT_DONE, State.COMPENSATED})
_STATES = {
    State.CLAIMED: "in progress",
    State.UNKNOWN: "not known to be done or not",
    State.DONE: "done",
    State.NOT_DONE: "not done",
    State.COMPENSATED: "compensated",
}


def write(tx: Tx, planned: Plan, run_id: str, *, is_acting: bool, by: str) -> RunRow:
    """Write the fork, or return the one that was made before in the same way.

    Raises:
        CannotFork: It would act, and its source only simulates.
        RunConflict: The id belongs to another run.
    """
    source, kind = planned.source, planned.source.kind
    if is_acting and kind.startswith(SIMULATED):
        raise CannotFork(
            f"run {source.run_id} is simulated: what it goes on from never happened", hint="fork the run it came from"
        )
    lineage = Head(run=source.run_id, detail={"at": planned.at, "records": len(planned.kept), "by": by})
    if not is_acting and not kind.startswith(SIMULATED):
        kind = f"{SIMULATED}{kind}"
    digest = source.digest if is_acting or source.kind == kind else simulated(source.digest)
    there = tables.find_run(tx.connection, run_id)
    if there is not None:
        _refuse_other(tx, there, kind, lineage)
        return there
    fork = tables.insert_run(tx, run_id, kind, digest, holder=None, parent=None, deadline_ms=None)
    numbers = {0: 0}
    for record in planned.kept:
        number = numbers[record.seq] = len(numbers)
        insert_record(tx, _copied(record, source.run_id, run_id, fork, number, numbers, lineage))
    if not is_acting:
        _copy_letters(
            tx, source.id, fork, {record.head.signal for record in planned.kept if record.kind is Kind.SIGNAL}
        )
    return tables.get_run(tx.connection, fork)


def _refuse_other(tx: Tx, there: RunRow, kind: str, lineage: Head) -> None:
    started = next(iter(load_records(tx.connection, there.id)))
    detail = started.head.detail if isinstance(started.head.detail, dict) else {}
    if (there.kind, started.head.run, detail.get("at")) != (kind, lineage.run, lineage.detail["at"]):
        raise RunConflict(f"run {there.run_id} exists and is not this fork", hint="use another id")


def _copied(
    record: Record, source: str, run_id: str, fork: int, number: int, numbers: dict[int, int], lineage: Head
) -> Record:
    after = numbers[record.after] if record.after >= 0 else -numbers[-record.after - 1] - 1
    copy = replace(record, run=fork, seq=number, after=after, id=0, at_ms=0)
    if record.kind is Kind.STARTED:
        return replace(copy, head=lineage)
    if record.kind in (Kind.CLAIMED, Kind.ASKED) and record.body is not None:
        call = ledger.decode_call(record.body)
        if call.scope == _scope(source):
            return replace(copy, body=ledger.encode_call(replace(call, scope=_scope(run_id))))
    return copy


def _scope(run_id: str) -> str:
    return f"run {run_id}"


def _copy_letters(tx: Tx, source: int, fork: int, taken: set[int]) -> None:
    """Give a simulation the signals that its source got after the cut; one that acts must be told anew, by a person."""
    for letter in inbox.letters_of(tx.connection, [source]):
        if not letter.name.startswith("$") and letter.id not in taken:
            inbox.post(tx, fork, letter.name, letter.payload, sent_by=letter.sent_by)


def source_of(connection: Connection, run: int) -> str | None:
    """Return the run that a run was forked from; None for none."""
    head = next(connection.execute("SELECT head FROM journal WHERE run = ? AND seq = 1", (run,)), (None,))[0]
    return None if head is None else msgspec.json.decode(bytes(str(head), "utf-8") if isinstance(head, str) else head,
                                                         type=Head).run or None  # fmt: skip


__all__ = ["Again", "Plan", "plan", "source_of", "write"]
