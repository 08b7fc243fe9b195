"""What runs have claimed and nobody has settled: questions to the ledger, and doubts noted in it when a holder is gone."""

from __future__ import annotations

from typing import cast

from surefoot.effects.rows import ledger
from surefoot.store import Check, Tx
from surefoot.store.connection import Connection

_NONE_OPEN = Check(
    1,
    "run",
    "SELECT count(*) AS found FROM asked JOIN ledger INDEXED BY ledger_open ON ledger.state <= 3"
    " AND ledger.state IN (2, 3) AND ledger.run = asked.run",
    is_each=False,
)


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


def claim_holders(connection: Connection) -> set[int]:
    """Return the sessions that hold claims, inside runs or outside."""
    rows = connection.execute(
        "SELECT DISTINCT holder FROM ledger INDEXED BY ledger_open WHERE state = 2 AND state <= 3"
    )
    return {cast(int, row[0]) for row in rows}


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
