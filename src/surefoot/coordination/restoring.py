"""What a restore means: a new incarnation of the store, in which the world may be further than the ledger.

    tokens    -> grow: the incarnation is their high part, so that a service refuses whoever worked with the old store
    sessions  -> closed: nobody of then is here
    runs      -> those that were running are free, in a new epoch
    approvals -> those that were given and not used have lapsed: they are asked for anew
    effects   -> those without outcome are in doubt, and their fences count from now; those that will be claimed anew are in
                 doubt too (`effects.rows.lost`)

What can't be refused is only said: a process that still works with the old store, on another host or with a file that was
moved away, knows nothing of this one. Tokens tell a service that compares them; keys tell one that dedupes.
"""

from __future__ import annotations

from surefoot.approvals import tables as approvals
from surefoot.approvals.states import Event, State
from surefoot.coordination.events.tables import NO_ROOT, root_of
from surefoot.effects.rows import ledger
from surefoot.journal.texts import require_words
from surefoot.store import Tx
from surefoot.store.connection import Connection

NEVER = 2**63 - 1
"""A number that no row of a restored store has."""


def begin_anew(tx: Tx, snapshot_at_ms: int | None, at_least: int) -> int:
    """Make the store a new incarnation of itself; return its number.

    Args:
        tx: The transaction.
        snapshot_at_ms: When the snapshot was taken, wall clock; None: it has what was recorded last.
        at_least: The incarnation is at least this.
    """
    (was,) = tx.row("SELECT incarnation FROM store_incarnation") or (0,)
    incarnation = max(int(was) + 1, at_least)
    newest = tx.row("SELECT coalesce(max(at_ms), 0) FROM journal") or (0,)
    last_run = tx.row("SELECT coalesce(max(id), 0) FROM runs") or (0,)
    last_event = tx.row("SELECT coalesce(max(id), 0) FROM events") or (0,)
    since_ms = int(newest[0]) if snapshot_at_ms is None else snapshot_at_ms
    tx.execute("UPDATE store_incarnation SET incarnation = ?", (incarnation,))
    tx.execute(
        "INSERT INTO store_restored (at_ms, snapshot_at_ms, last_run, last_event, incarnation) VALUES (?, ?, ?, ?, ?)",
        (tx.now_ms, since_ms, int(last_run[0]), int(last_event[0]), incarnation),
    )
    tx.execute("UPDATE sessions SET closed_at_ms = ? WHERE closed_at_ms IS NULL", (tx.now_ms,))
    tx.execute("UPDATE runs SET state = 1, holder = NULL, epoch = epoch + 1 WHERE state = 2")
    for (effect,) in tx.execute("SELECT id FROM ledger WHERE state <= 3").fetchall():
        ledger.add_evidence(
            tx, int(str(effect)), "in doubt", "restore", "the store was restored while it had no outcome"
        )
    tx.execute("UPDATE ledger SET state = 3, holder = 0 WHERE state <= 3")
    for row in approvals.of_state(tx.connection, State.APPROVED):  # it may have been used since, or taken back
        approvals.move(tx, row, Event.LAPSED, "restore", "the store was restored before it was used")
    return incarnation


def has_lost_time(connection: Connection) -> bool:
    """Whether the store was ever restored."""
    return bool(connection.execute("SELECT 1 FROM store_restored LIMIT 1").fetchall())


def lost_since_ms(connection: Connection, run: int | None) -> int | None:
    """See `surefoot.effects.rows.lost.LostSince`. A run is as old as what it goes back to: that may have led to it."""
    root = NO_ROOT if run is None else root_of(connection, run)
    rows = connection.execute(
        "SELECT min(snapshot_at_ms) FROM store_restored WHERE trusted_at_ms IS NULL OR last_run >= ? OR last_event >= ?",
        (root.run or NEVER, root.event or NEVER),
    ).fetchall()
    found = rows[0][0]
    return None if found is None else int(str(found))


def trust(tx: Tx, by: str, reason: str) -> int:
    """Note that a person has looked at what was done in the lost time: new runs act without doubt again.

    Returns:
        How many restores that was said of.

    Raises:
        SurefootError: It doesn't say who, or how they know.
    """
    require_words(by, reason, words="trust names who gives it and how they know")
    tx.execute(
        "UPDATE store_restored SET trusted_at_ms = ?, trusted_by = ?, reason = ? WHERE trusted_at_ms IS NULL",
        (tx.now_ms, by, reason),
    )
    return tx.connection.changes()
