"""The sessions table: one row per process, the newest thousand and those that something open refers to."""

from __future__ import annotations

from surefoot.store.migrations import Migration

MIGRATIONS = (
    Migration(
        "leases",
        1,
        "sessions",
        """CREATE TABLE sessions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL,
            pid INTEGER NOT NULL,
            boot_id TEXT NOT NULL,
            lock_file TEXT NOT NULL,
            opened_at_ms INTEGER NOT NULL,
            renewed_boot_ms INTEGER NOT NULL,
            ttl_ms INTEGER NOT NULL,
            closed_at_ms INTEGER)""",
    ),
    Migration(
        "leases",
        2,
        "incarnation",
        # One row: the high part of every token, raised whenever the store's past may have been lost (restore, failover).
        """CREATE TABLE store_incarnation (one INTEGER PRIMARY KEY CHECK (one = 1), incarnation INTEGER NOT NULL);
           INSERT INTO store_incarnation VALUES (1, 1)""",
    ),
    Migration(
        "leases",
        3,
        "restored",
        # One row per restore: from when on the store's past may have been lost, and whether a person has looked since.
        """CREATE TABLE store_restored (
            id INTEGER PRIMARY KEY,
            at_ms INTEGER NOT NULL,
            snapshot_at_ms INTEGER NOT NULL,
            last_run INTEGER NOT NULL,
            incarnation INTEGER NOT NULL,
            trusted_at_ms INTEGER,
            trusted_by TEXT,
            reason TEXT)""",
    ),
    Migration(
        "leases",
        4,
        "events restored",
        # 0 of a restore before there were events.
        "ALTER TABLE store_restored ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0",
    ),
)

TOKEN_BITS = 40
"""A token is incarnation << 40 | counter: 10^12 claims of one row before it could touch the high part."""


def token_of(incarnation: int, counter: int) -> int:
    """Return the fencing token that goes out: it grows with each claim, and across a restore."""
    return incarnation << TOKEN_BITS | counter
