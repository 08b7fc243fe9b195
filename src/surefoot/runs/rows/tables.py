"""The table `runs`: one row per run, found, held, handed on and ended.

What holds: `epoch` counts a run's holders, and every write of a holder names its epoch (`is_held`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from surefoot.journal.sealing import of_run, opened_text, sealed_text
from surefoot.journal.tables import newest_seq
from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.life import RunState
from surefoot.runs.queueing import AT_ONCE, Queueing
from surefoot.store import Check, Tx
from surefoot.store.connection import Connection

ELSEWHERE_AT_ONCE = 1_000
"""Runs of other engines that are looked at together."""

WORK = "work"
"""What is rung for when a run can be claimed, or has got a letter; when a run has ended, its row's number is."""

_HELD = Check(
    2,
    "run, epoch",
    "SELECT count(*) AS found FROM asked JOIN runs ON runs.id = asked.run AND runs.epoch = asked.epoch AND runs.state = 2",
    is_each=True,
)

_SELECT = (
    "SELECT id, run_id, kind, state, epoch, holder, digest, parent, waiting_for, reason, wake_at_ms, deadline_ms,"
    " takeovers, progress, created_at_ms, ended_at_ms, ended, priority, lane FROM runs"
)


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as the store has it. `ended` is the id of its ENDED record; `progress` the highest record number at its
    last takeover, `takeovers` how often it was taken over since without a new one."""

    id: int
    run_id: str
    kind: str
    state: RunState
    epoch: int
    holder: int | None
    digest: bytes
    parent: int | None
    waiting_for: str | None
    reason: str
    wake_at_ms: int | None
    deadline_ms: int | None
    takeovers: int
    progress: int
    created_at_ms: int
    ended_at_ms: int | None
    ended: int | None
    priority: int
    lane: str | None


def _row(connection: Connection, values: tuple[Any, ...]) -> RunRow:
    row = RunRow(*[*values[:3], RunState(values[3]), *values[4:]])
    words = opened_text(connection, row.reason, of_run(row.id))
    return row if words == row.reason else replace(row, reason=words)


def find_run(connection: Connection, run_id: str) -> RunRow | None:
    """Return a run by its business id."""
    values = next(connection.execute(f"{_SELECT} WHERE run_id = ?", (run_id,)), None)
    return None if values is None else _row(connection, values)


def get_run(connection: Connection, run: int) -> RunRow:
    """Return a run by its row."""
    return _row(connection, next(connection.execute(f"{_SELECT} WHERE id = ?", (run,))))


def list_runs(
    connection: Connection, *, state: RunState | None = None, kind: str | None = None, limit: int = 100
) -> list[RunRow]:
    """Return the newest runs first."""
    where, bindings = [], []
    if state is not None:
        where.append("state = ?")
        bindings.append(int(state))
    if kind is not None:
        where.append("kind = ?")
        bindings.append(kind)  # type: ignore[arg-type]  # bindings are of mixed types
    clause = f" WHERE {' AND '.join(where)}" if where else ""
    rows = connection.execute(f"{_SELECT}{clause} ORDER BY id DESC LIMIT ?", (*bindings, limit))
    return [_row(connection, values) for values in rows]


def list_open(connection: Connection, *, after: int, kind: str | None, limit: int) -> list[RunRow]:
    """Return runs of the embedded engine that have not ended, oldest first, from above a row on."""
    clause = f" AND kind NOT LIKE '{ELSEWHERE}%'" if kind is None else " AND kind = ?"
    rows = connection.execute(
        f"{_SELECT} WHERE state <= 3 AND id > ?{clause} ORDER BY id LIMIT ?",
        (after, limit) if kind is None else (after, kind, limit),
    )
    return [_row(connection, values) for values in rows]


_IS_HELD = "SELECT 1 FROM runs WHERE id = ? AND epoch = ? AND state = 2"


def is_held(tx: Tx, run: int, epoch: int) -> bool:
    """Whether this epoch still holds the run, in the transaction that relies on it. Asked once per run and batch."""
    if (run, epoch) in tx.held:
        return True
    if not tx.trusts(_HELD, run, epoch) and tx.row(_IS_HELD, (run, epoch)) is None:
        return False
    tx.held.add((run, epoch))
    return True


def insert_run(
    tx: Tx,
    run_id: str,
    kind: str,
    digest: bytes,
    *,
    holder: int | None,
    parent: int | None,
    deadline_ms: int | None,
    how: Queueing = AT_ONCE,
    state: RunState = RunState.PENDING,
) -> int:
    """Write a new run: running in its first epoch if a holder is given, else in the state that `queue.place` has found."""
    inserted = tx.execute(
        "INSERT INTO runs (run_id, kind, state, epoch, holder, digest, parent, wake_at_ms, deadline_ms, created_at_ms,"
        " priority, lane) VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            run_id,
            kind,
            int(state if holder is None else RunState.RUNNING),
            holder,
            digest,
            parent,
            how.at_ms if state is RunState.SCHEDULED else None,
            deadline_ms,
            tx.now_ms,
            how.priority,
            how.lane,
        ),
    )
    if holder is None:
        tx.ring(WORK)
    return cast(int, inserted.fetchall()[0][0])


def take_over_runs(tx: Tx, holder: int) -> None:
    """Free the runs of a holder that is dead or expired: its epoch can write no more, and anybody may claim them."""
    rows = tx.execute(f"{_SELECT} WHERE state = 2 AND state <= 3 AND holder = ?", (holder,)).fetchall()
    for values in rows:
        row = _row(tx.connection, values)
        _free(tx, row, is_counted=True)
    tx.held.clear()


def _free(tx: Tx, row: RunRow, *, is_counted: bool) -> None:
    """Make a run pending in a new epoch.

    One that is freed without a new record since the last time is one step nearer to being suspect.
    """
    newest = newest_seq(tx, row.id)
    takeovers = row.takeovers + int(is_counted) if newest <= row.progress else 0
    tx.execute(
        "UPDATE runs SET state = 1, holder = NULL, epoch = epoch + 1, takeovers = ?, progress = ? WHERE id = ?",
        (takeovers, newest, row.id),
    )
    tx.ring(WORK)


def hold(tx: Tx, runs: Sequence[int], session: int) -> list[RunRow]:
    """Write the new holder and epochs; return the runs as they are then."""
    if not runs:
        return []
    marks = ",".join("?" * len(runs))
    tx.execute(
        "UPDATE runs SET state = 2, holder = ?, epoch = epoch + 1, waiting_for = NULL, reason = '', wake_at_ms = NULL"
        f" WHERE id IN ({marks})",
        (session, *runs),
    )
    tx.execute(f"DELETE FROM waiters WHERE run IN ({marks})", tuple(runs))
    tx.held.clear()
    rows = tx.execute(f"{_SELECT} WHERE id IN ({marks}) ORDER BY id", tuple(runs)).fetchall()
    return [_row(tx.connection, values) for values in rows]


def run_holders(connection: Connection) -> list[int]:
    """Return the sessions that hold running runs; whether they are dead is for `leases` to say."""
    rows = connection.execute("SELECT DISTINCT holder FROM runs WHERE state = 2 AND state <= 3 AND holder IS NOT NULL")
    return [cast(int, row[0]) for row in rows]


def hand_back_run(tx: Tx, run: int, *, is_counted: bool) -> None:
    """Give a run back to whoever claims it next.

    Args:
        tx: The transaction.
        run: The run.
        is_counted: Whether this counts as a takeover: it does unless the worker itself is going down.
    """
    _free(tx, get_run(tx.connection, run), is_counted=is_counted)
    tx.held.clear()


def set_running_elsewhere(tx: Tx, run: int) -> None:
    """Say of a run that another engine executes that it goes on."""
    tx.execute(
        "UPDATE runs SET state = 2, waiting_for = NULL, reason = '', wake_at_ms = NULL WHERE id = ? AND state <= 3",
        (run,),
    )
    tx.execute("DELETE FROM waiters WHERE run = ?", (run,))
    tx.held.clear()


def list_elsewhere(
    connection: Connection, kinds: Sequence[str], now_ms: int, *, is_due: bool, after: int = 0
) -> list[RunRow]:
    """Return runs of these kinds that have not ended, by their rows, from above one on, `ELSEWHERE_AT_ONCE` at most; with
    `is_due`, those that their engine must be told of."""
    marks = ",".join("?" * len(kinds))
    due = " AND (state = 1 OR (state = 3 AND wake_at_ms <= ?))" if is_due else ""
    bindings = (*kinds, after, *([now_ms] if is_due else ()), ELSEWHERE_AT_ONCE)
    where = f"WHERE state <= 3 AND kind IN ({marks}) AND id > ?{due}"
    rows = connection.execute(f"{_SELECT} {where} ORDER BY id LIMIT ?", bindings)
    return [_row(connection, values) for values in rows]


def end_run(tx: Tx, run: int, state: RunState, record: int, reason: str) -> None:
    """Write a run's end."""
    tx.execute(
        "UPDATE runs SET state = ?, holder = NULL, ended = ?, ended_at_ms = ?, reason = ?, waiting_for = NULL,"
        " wake_at_ms = NULL WHERE id = ?",
        (int(state), record, tx.now_ms, sealed_text(tx.connection, reason, of_run(run)) if reason else "", run),
    )
    tx.ring(str(run))
    tx.held.clear()
