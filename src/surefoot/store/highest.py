"""The highest number that a table has ever given out, whether or not the row with it is still there.

SQLite keeps it for tables with AUTOINCREMENT. PostgreSQL's sequences count what was rolled back too, so it is a table.
"""

from __future__ import annotations

import apsw

from surefoot.store.connection import Connection
from surefoot.store.tx import Tx

TABLE = "CREATE TABLE IF NOT EXISTS surefoot_highest (name TEXT PRIMARY KEY, seq INTEGER NOT NULL)"


def highest(connection: Connection, table: str) -> int:
    """Return it; 0 if there was never a row."""
    place = "sqlite_sequence" if isinstance(connection, apsw.Connection) else "surefoot_highest"
    found = connection.execute(f"SELECT seq FROM {place} WHERE name = ?", (table,)).fetchall()
    return int(found[0][0]) if found else 0


def keep_highest(tx: Tx, table: str, number: int) -> None:
    """Note a number that was given out."""
    if not isinstance(tx.connection, apsw.Connection):
        tx.execute(
            "INSERT INTO surefoot_highest (name, seq) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq",
            (table, number),
        )
