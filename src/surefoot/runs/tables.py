"""The tables of runs and of what is sent to them, and their SQL.

`runs`: one row per run; `epoch` counts its holders, and every write of a holder names its epoch (`is_held`).
`waiters`: what parked runs wait for, so that whoever settles it wakes them in the same transaction.
`inbox`: signals, cancellations and wake-ups, from anybody to a run; consumed by a record of the run that names the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from surefoot.effects import ledger
from surefoot.journal.sealing import of_letter, of_run, opened, opened_text, sealed, sealed_text
from surefoot.journal.tables import newest_seq
from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.life import RunState, WaitFor
from surefoot.runs.queueing import AT_ONCE, Queueing
from surefoot.store import Check, Migration, Tx
from surefoot.store.codec import Codec, codec_of
from surefoot.store.connection import Connection

MIGRATIONS = (
    Migration(
        "runs",
        1,
        "runs and inbox",
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            state INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            holder INTEGER,
            digest BLOB NOT NULL,
            parent INTEGER,
            waiting_for TEXT,
            reason TEXT NOT NULL DEFAULT '',
            wake_at_ms INTEGER,
            deadline_ms INTEGER,
            takeovers INTEGER NOT NULL DEFAULT 0,
            progress INTEGER NOT NULL DEFAULT 0,
            created_at_ms INTEGER NOT NULL,
            ended_at_ms INTEGER,
            ended INTEGER);
        CREATE INDEX runs_open ON runs (state, wake_at_ms) WHERE state <= 3;
        CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL;
        CREATE TABLE inbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            run INTEGER NOT NULL,
            name TEXT NOT NULL,
            dedupe TEXT,
            sent_by TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            payload BLOB);
        CREATE INDEX inbox_run ON inbox (run);
        CREATE UNIQUE INDEX inbox_dedupe ON inbox (run, name, dedupe) WHERE dedupe IS NOT NULL""",
    ),
    Migration(
        "runs",
        2,
        "waiters",
        # What a parked run waits for, by row: ('effect', id) of the ledger or ('run', id); written when it is parked,
        # deleted when it is woken or claimed.
        """CREATE TABLE waiters (
            run INTEGER NOT NULL,
            kind TEXT NOT NULL,
            target INTEGER NOT NULL,
            PRIMARY KEY (kind, target, run)) WITHOUT ROWID;
        CREATE INDEX waiters_run ON waiters (run)""",
    ),
    Migration(
        "runs",
        3,
        "priorities and lanes",
        # What is asked of them: the next runs of a kind that wait for a worker, in order; how many of a kind are executed;
        # the next run of a lane; how many of a lane have begun.
        """ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 3;
        ALTER TABLE runs ADD COLUMN lane TEXT;
        CREATE INDEX runs_next ON runs (kind, state, priority, id) WHERE state <= 2;
        CREATE INDEX runs_lane ON runs (lane, state, priority, id) WHERE lane IS NOT NULL AND state <= 3""",
    ),
    Migration(
        "runs",
        4,
        "times and suspects of a kind",
        # What is asked of them: the next run of a kind whose time has come, though others have such runs that nobody takes
        # up; the next suspect of a kind, which stands somewhere among all that wait.
        """CREATE INDEX runs_timed ON runs (kind, state, wake_at_ms, id) WHERE state <= 3 AND wake_at_ms >= 0;
        CREATE INDEX runs_suspect ON runs (kind, priority, id) WHERE state = 1 AND takeovers >= 3""",
    ),
)

MANY = 16
"""Children from which on a parked parent is not woken by each one's end: replaying it costs a step for each of them."""

TOGETHER = "runs"
"""The kind of a waiter for one of many children: the last one's end wakes, an earlier one's end only soon."""

TOGETHER_MS, TOGETHER_SHARE = 1_000, 20
"""How soon: a second after the first end, or a twentieth of the parent's age if that is longer. So a parent of children
that end one after another, over whatever time, is woken a few hundred times, and hears of each at most 5 % late."""

NOBODY_WAITS = (0, 0)
"""What `Tx.held` is told when no run is parked for anything, which saves a look at every outcome."""

_HELD = Check(
    2,
    "run, epoch",
    "SELECT count(*) AS found FROM asked JOIN runs ON runs.id = asked.run AND runs.epoch = asked.epoch AND runs.state = 2",
    is_each=True,
)
_AWAITED = Check(
    1,
    "target",
    "SELECT count(*) AS found FROM asked JOIN waiters ON waiters.kind = 'effect' AND waiters.target = asked.target",
    is_each=False,
)

WORK = "work"
"""What is rung for when a run can be claimed, or has got a letter; when a run has ended, its row's number is."""

_RUN_AWAITED = Check(
    1,
    "target",
    "SELECT count(*) AS found FROM asked JOIN waiters ON waiters.kind IN ('run', 'runs') AND waiters.target = asked.target",
    is_each=False,
)
_TRUSTED = {"effect": _AWAITED, "run": _RUN_AWAITED}
_NONE_OPEN = Check(
    1,
    "run",
    "SELECT count(*) AS found FROM asked JOIN ledger INDEXED BY ledger_open ON ledger.state <= 3"
    " AND ledger.state IN (2, 3) AND ledger.run = asked.run",
    is_each=False,
)
CANCEL = "$cancel"
WAKE = "$wake"

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


@dataclass(frozen=True, slots=True)
class Letter:
    """One row of the inbox. Its payload is opened when it is taken: a missing key is a matter of the run that takes it."""

    id: int
    run: int
    name: str
    sent_by: str
    stored: bytes | None
    codec: Codec | None = None

    @property
    def payload(self) -> bytes | None:
        """What was sent, as JSON.

        Raises:
            MissingKey: It is encrypted, and its key is not here.
        """
        return opened(self.codec, self.stored, of_letter(self.run, self.name))


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


def doubt_claims(tx: Tx, holder: int, session: int, boot_ms: int) -> None:
    """Note what a dead or expired holder has claimed as in doubt: nobody acts on it, and it is listed from now on."""
    rows = tx.execute(
        "SELECT id FROM ledger INDEXED BY ledger_open WHERE state = 2 AND state <= 3 AND holder = ?", (holder,)
    ).fetchall()
    for (effect,) in rows:
        row = ledger.get(tx.connection, cast(int, effect))
        assert row is not None, "it was just found"
        doubt_claim(tx, row, session, boot_ms, f"session {holder}, which claimed it, is gone")


def doubt_claim(tx: Tx, row: ledger.Row, session: int, boot_ms: int, reason: str) -> None:
    """Note that nobody acts on a claim any more, as it was read in this transaction; it may have been sent until now."""
    ledger.doubt(tx, row, session, boot_ms)
    ledger.add_evidence(tx, row.id, "in doubt", f"session {session}", {"token": row.token, "reason": reason})


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


def claim_holders(connection: Connection) -> set[int]:
    """Return the sessions that hold claims, inside runs or outside."""
    rows = connection.execute(
        "SELECT DISTINCT holder FROM ledger INDEXED BY ledger_open WHERE state = 2 AND state <= 3"
    )
    return {cast(int, row[0]) for row in rows}


def park_run(
    tx: Tx,
    run: int,
    wait_for: WaitFor,
    reason: str,
    wake_at_ms: int | None,
    last_letter: int,
    *,
    targets: Sequence[tuple[str, int]] = (),
) -> RunState:
    """Suspend a run, unless what it waits for has happened unseen: then it is pending at once.

    Args:
        tx: The transaction.
        run: The run.
        wait_for: What it waits for.
        reason: The same in words.
        wake_at_ms: When to claim it at the latest; None for never.
        last_letter: The last letter its code has seen.
        targets: The rows whose end wakes it.
    """
    children = [target for target in targets if target[0] == "run"]
    are_many = len(children) >= MANY
    left = [target for target in targets if not is_over(tx.connection, target)]
    if len(left) < len(targets) and (not are_many or not any(target in children for target in left)):
        hand_back_run(tx, run, is_counted=True)
        return RunState.PENDING
    newer = tx.row("SELECT 1 FROM inbox WHERE run = ? AND id > ?", (run, last_letter))
    state = RunState.WAITING if newer is None else RunState.PENDING
    tx.execute(
        "UPDATE runs SET state = ?, holder = NULL, waiting_for = ?, reason = ?, wake_at_ms = ? WHERE id = ?",
        (
            int(state),
            wait_for.value if newer is None else None,
            sealed_text(tx.connection, reason, of_run(run)),
            wake_at_ms,
            run,
        ),
    )
    if newer is None:
        for kind, target in left:
            kind = TOGETHER if are_many and kind == "run" else kind  # noqa: PLW2901  as it is written
            tx.execute("INSERT INTO waiters (run, kind, target) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                       (run, kind, target))  # fmt: skip
        if len(left) < len(targets):
            _wake_soon(tx, run)
    tx.held.clear()
    return state


def is_over(connection: Connection, target: tuple[str, int]) -> bool:
    """Whether an effect has its outcome, a run its end, an approval was decided, or it is a lease's turn."""
    kind, row = target
    found = next(connection.execute(_IS_OVER[kind], (row,)), None)
    return found is not None and bool(found[0])


_IS_OVER = {
    "effect": "SELECT state > 3 FROM ledger WHERE id = ?",
    "run": "SELECT state > 3 FROM runs WHERE id = ?",
    "approval": "SELECT state > 1 FROM approvals WHERE id = ?",
    "lease": "SELECT count(*) = 0 OR max(is_called) = 1 FROM leases WHERE number = ?",
}


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


def list_elsewhere(connection: Connection, kinds: Sequence[str], now_ms: int, *, is_due: bool) -> list[RunRow]:
    """Return runs of these kinds that have not ended; with `is_due`, those that their engine must be told of."""
    marks = ",".join("?" * len(kinds))
    due = " AND (state = 1 OR (state = 3 AND wake_at_ms <= ?))" if is_due else ""
    bindings = (*kinds, now_ms) if is_due else tuple(kinds)
    rows = connection.execute(f"{_SELECT} WHERE state <= 3 AND kind IN ({marks}){due} ORDER BY id LIMIT 1000", bindings)
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


def post(tx: Tx, run: int, name: str, payload: bytes | None, *, sent_by: str, dedupe: str | None = None) -> int | None:
    """Put a letter in a run's inbox and wake the run if it waits; None if the same letter is there already."""
    tx.execute(
        "INSERT INTO inbox (run, name, dedupe, sent_by, at_ms, payload) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (run, name, dedupe, sent_by, tx.now_ms, sealed(tx.codec, payload, of_letter(run, name))),
    )
    if tx.connection.changes() == 0:
        return None
    tx.ring(WORK)
    letter = tx.connection.last_insert_rowid()
    waking = "= 3" if name != CANCEL else "IN (-1, 0, 3)"  # what has not begun keeps its turn, unless it is to end
    tx.execute(
        f"UPDATE runs SET state = 1, waiting_for = NULL, wake_at_ms = NULL WHERE id = ? AND state {waking}", (run,)
    )
    return letter


def is_posted(tx: Tx, run: int, name: str, dedupe: str | None) -> bool:
    """Whether the same letter is in the run's inbox already, read or not."""
    if dedupe is None:
        return False
    return tx.row("SELECT 1 FROM inbox WHERE run = ? AND name = ? AND dedupe = ?", (run, name, dedupe)) is not None


def letters_since(connection: Connection, last: int) -> list[Letter]:
    """Return all letters newer than `last`."""
    rows = connection.execute("SELECT id, run, name, sent_by, payload FROM inbox WHERE id > ? ORDER BY id", (last,))
    codec: Any = codec_of(connection)
    return [Letter(*[*values, codec]) for values in rows]


def letters_of(connection: Connection, runs: Iterable[int]) -> list[Letter]:
    """Return all letters of these runs, in order."""
    marks = ",".join(str(int(run)) for run in runs)
    rows = connection.execute(f"SELECT id, run, name, sent_by, payload FROM inbox WHERE run IN ({marks}) ORDER BY id")
    codec: Any = codec_of(connection)
    return [Letter(*[*values, codec]) for values in rows]


def has_open_effect(tx: Tx, run: int) -> bool:
    """Whether an effect of the run has no outcome yet. (Left to itself, SQLite reads the whole ledger for this.)"""
    if tx.trusts(_NONE_OPEN, run):
        return False
    found = tx.row(
        "SELECT 1 FROM ledger INDEXED BY ledger_open WHERE state <= 3 AND state IN (2, 3) AND run = ? LIMIT 1", (run,)
    )
    return found is not None


def open_effects(tx: Tx, run: int) -> list[int]:
    """Return the run's effects that have no outcome yet."""
    rows = tx.execute(
        "SELECT id FROM ledger INDEXED BY ledger_open WHERE state <= 3 AND state IN (2, 3) AND run = ?", (run,)
    )
    return [cast(int, row[0]) for row in rows.fetchall()]


def wake_waiters(tx: Tx, kind: str, target: int, *, is_expected: bool = False) -> None:
    """Wake the runs that are parked for this effect or run.

    Args:
        tx: The transaction.
        kind: What they wait for.
        target: Its row.
        is_expected: Whether somebody probably waits: else it is taken on trust that nobody does.
    """
    if NOBODY_WAITS in tx.held or (not is_expected and kind in _TRUSTED and tx.trusts(_TRUSTED[kind], target)):
        return
    if tx.row("SELECT 1 FROM waiters LIMIT 1") is None:
        tx.held.add(NOBODY_WAITS)
        return
    for (run,) in tx.execute("SELECT run FROM waiters WHERE kind = ? AND target = ?", (kind, target)).fetchall():
        _wake_waiter(tx, cast(int, run), f"{kind} {target}")
    if kind != "run":
        return
    for (run,) in tx.execute("SELECT run FROM waiters WHERE kind = ? AND target = ?", (TOGETHER, target)).fetchall():
        tx.execute("DELETE FROM waiters WHERE kind = ? AND target = ? AND run = ?", (TOGETHER, target, run))
        if tx.row("SELECT 1 FROM waiters WHERE run = ? AND kind = ? LIMIT 1", (run, TOGETHER)) is None:
            _wake_waiter(tx, cast(int, run), "the last of its children")
        else:
            _wake_soon(tx, cast(int, run))


def _wake_waiter(tx: Tx, run: int, by: str) -> None:
    tx.execute("DELETE FROM waiters WHERE run = ?", (run,))
    post(tx, run, WAKE, None, sent_by=by)


def _wake_soon(tx: Tx, run: int) -> None:
    """Let a parked run be claimed once some of its many children have had time to end too."""
    tx.execute(
        "UPDATE runs SET wake_at_ms = (SELECT min(at_ms) FROM (SELECT wake_at_ms AS at_ms UNION ALL SELECT ? +"
        " (SELECT max(pause_ms) FROM (SELECT ? AS pause_ms UNION ALL SELECT (? - created_at_ms) / ?) AS pauses)) AS times)"
        " WHERE id = ? AND state = 3",
        (tx.now_ms, TOGETHER_MS, tx.now_ms, TOGETHER_SHARE, run),
    )
