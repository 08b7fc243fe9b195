"""The world of the soak: one file of books that every worker writes its acts into, and that nobody of ours reads back.

An act is one committed row; a key that a service honours is answered from its first row. What was acted twice stands
there twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw

_TABLE = """CREATE TABLE IF NOT EXISTS acts (n INTEGER PRIMARY KEY, key TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS acts_by_key ON acts (key)"""

BUSY_MS = 20_000
"""Longer than any worker is stopped while it holds the file."""


class Books:
    """One connection to the books."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.set_busy_timeout(BUSY_MS)
        self._connection.execute("PRAGMA journal_mode = wal; PRAGMA synchronous = off")  # only processes die here
        self._connection.execute(_TABLE)

    def act(self, key: str) -> int:
        """Do the thing that the key stands for; return the number of its row."""
        self._connection.execute("INSERT INTO acts (key) VALUES (?)", (key,))
        return self._connection.last_insert_rowid()

    def act_once(self, key: str) -> int:
        """Do it as a service that honours keys: a second request gets the first one's answer."""
        self._connection.execute("BEGIN IMMEDIATE")
        done = self.find(key)
        row = self.act(key) if done is None else done
        self._connection.execute("COMMIT")
        return row

    def find(self, key: str) -> int | None:
        """Return the first row of a key, or None."""
        row: int | None
        (row,) = next(self._connection.execute("SELECT min(n) FROM acts WHERE key = ?", (key,)))
        return row

    def counts(self) -> Iterator[tuple[str, int]]:
        """Yield every key with how often it was done."""
        for key, count in self._connection.execute("SELECT key, count(*) FROM acts GROUP BY key"):
            yield str(key), int(count)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()
