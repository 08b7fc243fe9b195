"""The desk: what people see of runs, and what they may tell them from outside the process that executes them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from surefoot.journal import Kind, Record, load_record, load_records_to_show, load_to_show
from surefoot.journal.sealing import of_letter, opened_to_show
from surefoot.runs.errors import RunNotFound
from surefoot.runs.life import ENDED
from surefoot.runs.rows import inbox, tables, waiters
from surefoot.runs.rows.inbox import WAKE
from surefoot.runs.rows.tables import RunRow
from surefoot.store import Tx
from surefoot.store.codec import Codec, codec_of
from surefoot.store.connection import Connection


@dataclass(frozen=True, slots=True)
class StepView:
    """One record of a run as people see it."""

    seq: int
    at_ms: int
    kind: str
    step: str
    name: str
    reason: str
    value: Any


@dataclass(frozen=True, slots=True)
class RunView:
    """A run and its records. Of a value whose key is missing here the words say which key that is."""

    row: RunRow
    input: Any
    result: Any
    steps: list[StepView]


def wake(tx: Tx, run: int | None, by: str, effect: int | None = None) -> None:
    """Wake a run, and whoever else waits for an effect, because something they wait for has changed."""
    if effect is not None:
        waiters.wake_waiters(tx, "effect", effect)
    if run is None:
        return
    if tables.get_run(tx.connection, run).state not in ENDED:
        inbox.post(tx, run, WAKE, None, sent_by=by)


def is_open(connection: Connection, run: int) -> bool:
    """Whether a run has not ended."""
    return tables.get_run(connection, run).state not in ENDED


def show(connection: Connection, run_id: str) -> RunView:
    """Return a run with its records.

    Raises:
        RunNotFound: There is none.
    """
    row = tables.find_run(connection, run_id)
    if row is None:
        raise RunNotFound(f"there is no run {run_id!r} in {connection.filename}", hint="surefoot runs")
    records = load_records_to_show(connection, row.id)
    return RunView(
        row=row,
        input=next((_value(record) for record in records if record.kind is Kind.STARTED), None),
        result=next((_value(record) for record in records if record.kind is Kind.ENDED), None),
        steps=[_step(record) for record in records],
    )


def records_after(connection: Connection, run: int, seq: int = 0) -> list[Record]:
    """Return a run's records above a number, in order, each with its value, in whichever record that was born."""
    rows = connection.execute("SELECT id FROM journal WHERE run = ? AND seq > ? ORDER BY seq", (run, seq))
    found = [int(row[0]) for row in rows]
    return [_with_value(connection, load_to_show(connection, record)) for record in found]


@dataclass(frozen=True, slots=True)
class LetterView:
    """A signal as people see it."""

    id: int
    name: str
    payload: Any
    sent_by: str
    at_ms: int
    dedupe: str | None


def is_forgotten(connection: Connection, row: RunRow) -> bool:
    """Whether retention has deleted what a run did and came to, or has begun to: its effects go before its records."""
    if row.ended is None:
        return False
    has_begun = next(connection.execute(_HAS_BEGUN, (row.id, row.id)))[0]
    return bool(has_begun) or bool(load_record(connection, row.ended).head.forgotten_at_ms)


_HAS_BEGUN = (
    "SELECT NOT EXISTS (SELECT 1 FROM journal WHERE run = ? AND seq = 1)"
    " OR EXISTS (SELECT 1 FROM ledger l JOIN journal j ON j.id = l.claim WHERE l.run = ? AND j.run IS NULL)"
)
"""Whether a run's first record is gone, or one of its claims was taken out of it."""


def unread(connection: Connection, run: int, limit: int) -> list[LetterView]:
    """Return the oldest signals that the run's code has not taken."""
    taken = {
        load_to_show(connection, int(str(row[0]))).head.signal
        for row in connection.execute(
            "SELECT id FROM journal WHERE run = ? AND kind = ?", (run, int(Kind.SIGNAL))
        ).fetchall()
    }
    rows = connection.execute(
        "SELECT id, name, payload, sent_by, at_ms, dedupe FROM inbox WHERE run = ? AND name NOT LIKE '$%' ORDER BY id",
        (run,),
    )
    left = (row for row in rows if row[0] not in taken)
    codec = codec_of(connection)
    return [_letter(codec, run, *row) for row in itertools.islice(left, limit)]


def _letter(
    codec: Codec | None, run: int, id: Any, name: Any, payload: Any, sent_by: Any, at_ms: Any, dedupe: Any
) -> LetterView:
    payload = opened_to_show(codec, payload, of_letter(run, name))
    return LetterView(id, name, msgspec.json.decode(payload or b"null"), sent_by, at_ms, dedupe)


def awaited_effects(connection: Connection, run: int) -> list[int]:
    """Return the ledger's rows of the effects a parked run waits for, its own and those of other runs."""
    rows = connection.execute("SELECT target FROM waiters WHERE run = ? AND kind = 'effect' ORDER BY target", (run,))
    return [cast(int, row[0]) for row in rows]


def last_record_ms(connection: Connection, run: int) -> int | None:
    """Return when a run's newest record was written."""
    found = [row[0] for row in connection.execute("SELECT max(at_ms) FROM journal WHERE run = ?", (run,))]
    return None if found[0] is None else int(found[0])


def _with_value(connection: Connection, record: Record) -> Record:
    if record.body is not None or not record.head.record:
        return record
    return msgspec.structs.replace(record, body=load_to_show(connection, record.head.record).body)


def _step(record: Record) -> StepView:
    return StepView(
        record.seq,
        record.at_ms,
        record.kind.name.lower(),
        record.step,
        record.head.name,
        record.head.reason,
        _value(record),
    )


def _value(record: Record) -> Any:
    return None if record.body is None else msgspec.json.decode(record.body)
