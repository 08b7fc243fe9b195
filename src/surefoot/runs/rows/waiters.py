"""What parked runs wait for, by row, so that whoever settles it wakes them in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from surefoot.journal.sealing import of_run, sealed_text
from surefoot.runs.life import RunState, WaitFor
from surefoot.runs.rows.inbox import WAKE, post
from surefoot.runs.rows.tables import hand_back_run
from surefoot.store import Check, Tx
from surefoot.store.connection import Connection

MANY = 16
"""Children from which on a parked parent is not woken by each one's end: replaying it costs a step for each of them."""

TOGETHER = "runs"
"""The kind of a waiter for one of many children: the last one's end wakes, an earlier one's end only soon."""

TOGETHER_MS, TOGETHER_SHARE = 1_000, 20
"""How soon: a second after the first end, or a twentieth of the parent's age if that is longer. So a parent of children
that end one after another, over whatever time, is woken a few hundred times, and hears of each at most 5 % late."""

NOBODY_WAITS = (0, 0)
"""What `Tx.held` is told when no run is parked for anything, which saves a look at every outcome."""

_AWAITED = Check(
    1,
    "target",
    "SELECT count(*) AS found FROM asked JOIN waiters ON waiters.kind = 'effect' AND waiters.target = asked.target",
    is_each=False,
)
_RUN_AWAITED = Check(
    1,
    "target",
    "SELECT count(*) AS found FROM asked JOIN waiters ON waiters.kind IN ('run', 'runs') AND waiters.target = asked.target",
    is_each=False,
)
_TRUSTED = {"effect": _AWAITED, "run": _RUN_AWAITED}


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
