"""What `doctor` asks of the rooms above the store: their invariants, who lives, what is stuck, what is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from surefoot.approvals import invariants as approvals
from surefoot.cli.words import count_words, one_line, span_words
from surefoot.coordination import invariants as coordination
from surefoot.coordination.events import invariants as events
from surefoot.effects.rows import invariants as effects
from surefoot.effects.rows import ledger
from surefoot.effects.rows.desk import doubt_of
from surefoot.effects.rows.ledger import call_of
from surefoot.journal import invariants as journal
from surefoot.journal.sealing import of_run, opened_text
from surefoot.leases import Holder, Life
from surefoot.leases.session import holder_of
from surefoot.runs.life import SUSPECT_AFTER, RunState
from surefoot.runs.rows import invariants as runs
from surefoot.runs.rows.claims import claim_holders
from surefoot.runs.rows.tables import run_holders
from surefoot.store.examine import Examined
from surefoot.store.finding import Finding, Severity

INVARIANTS = (*journal.INVARIANTS, *effects.INVARIANTS, *approvals.INVARIANTS, *runs.INVARIANTS,
              *coordination.INVARIANTS, *events.INVARIANTS)  # fmt: skip

STUCK_MS = 86_400_000
"""How long a run may be pending, or due, before somebody should look: a day."""

SHOWN = 20
"""How many runs or effects are named one by one."""


def sessions(store: Examined) -> Iterator[Finding]:
    """Say who works with the store, and who holds what while it is stopped."""
    look = partial(holder_of, store.connection, Path(f"{store.path}-workers"), store.clock)
    rows = store.connection.execute("SELECT id FROM sessions WHERE closed_at_ms IS NULL ORDER BY id").fetchall()
    alive = [holder for row in rows if (holder := look(int(str(row[0])))).life is not Life.DEAD]
    names = ", ".join(f"{one.name} (pid {one.pid})" for one in alive[:SHOWN])
    yield Finding(
        Severity.NOTE, f"open in {count_words(len(alive), 'process', 'processes')}" + (f": {names}" if names else "")
    )
    for number in sorted({*run_holders(store.connection), *claim_holders(store.connection)}):
        holder = look(number)
        if holder.life is Life.EXPIRED:
            yield _stopped(holder)
        elif holder.life is Life.DEAD:
            words = f"{holder.name} is gone and still holds runs or claims; the next worker takes them over"
            yield Finding(Severity.NOTE, words, ("worker", "MODULE"))


def _stopped(holder: Holder) -> Finding:
    words = f"{holder.name} (pid {holder.pid}) is stopped and holds runs or claims; others take them over"
    return Finding(Severity.WARNING, words, (f"continue it or end it: kill -CONT {holder.pid}",))


def stuck_runs(store: Examined) -> Iterator[Finding]:
    """Name runs that only a person can let go on, and those that nobody seems to execute."""
    rows = store.connection.execute(
        "SELECT run_id, id, state, waiting_for, reason, takeovers, coalesce(wake_at_ms, created_at_ms) FROM runs"
        " WHERE state <= 3 AND (waiting_for = 'blocked' OR takeovers >= ? OR (state = 1 AND created_at_ms < ?)"
        " OR wake_at_ms < ? OR (state = -1 AND reason != '')) ORDER BY id",
        (SUSPECT_AFTER, store.now_ms - STUCK_MS, store.now_ms - STUCK_MS),
    ).fetchall()
    for run_id, run, state, waiting_for, reason, takeovers, since_ms in rows[:SHOWN]:
        age = span_words(store.now_ms - int(str(since_ms)))
        if waiting_for == "blocked":
            why = opened_text(store.connection, str(reason), of_run(int(str(run))))
            words = f"run {run_id} is blocked: {one_line(why)}"
        elif int(str(takeovers)) >= SUSPECT_AFTER:
            words = f"run {run_id} was taken over {takeovers} times without a new record: it may kill its workers"
        elif state == RunState.SCHEDULED and reason:
            words = f"run {run_id} was to begin {age} ago: {one_line(str(reason))}"
        elif state == RunState.PENDING:
            words = f"run {run_id} has been pending for {age}: no worker that knows its kind has room"
        else:
            words = f"run {run_id} was to go on {age} ago: no worker that knows its kind has room"
        yield Finding(Severity.WARNING, words, ("show", str(run_id)))
    if len(rows) > SHOWN:
        yield Finding(Severity.WARNING, f"{len(rows) - SHOWN:,} more runs are stuck", ("unknowns",))


def unknowns(store: Examined) -> Iterator[Finding]:
    """Count what nobody knows the outcome of, and name what is overdue or contradicted."""
    connection = store.connection
    found = connection.execute("SELECT id FROM ledger WHERE state = 3 AND state <= 3 ORDER BY id").fetchall()
    overdue = []
    for (effect,) in found:
        row = ledger.get(connection, int(str(effect)))
        if row is not None:
            call = call_of(connection, row)
            if doubt_of(connection, row, call).is_overdue(store.now_ms):
                overdue.append((row.id, call.key))
    for number, key in overdue[:SHOWN]:
        yield Finding(Severity.WARNING, f"effect {number} ({key}) is overdue", ("effects", "--id", str(number)))
    if found:
        words = f"{count_words(len(found), 'effect')} unknown, {len(overdue):,} of them overdue"
        yield Finding(Severity.NOTE, words, ("unknowns",))
    contradictions = connection.execute("SELECT count(*) FROM evidence WHERE is_open = 1").fetchall()[0][0]
    if contradictions:
        words = f"{count_words(int(str(contradictions)), 'outcome')} contradicted by late evidence"
        yield Finding(Severity.WARNING, words, ("unknowns",))
