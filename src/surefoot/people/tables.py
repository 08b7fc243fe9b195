"""The tables of people: the rules, one row, and the trail of decisions."""

from __future__ import annotations

from surefoot.store import Migration

MIGRATIONS = (
    Migration(
        "people",
        1,
        "rules and trail",
        # AUTOINCREMENT: SQLite then keeps the highest number apart, by which a cut end of the trail is found.
        """CREATE TABLE people (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            body BLOB NOT NULL,
            at_ms INTEGER NOT NULL,
            who TEXT NOT NULL);
        CREATE TABLE trail (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at_ms INTEGER NOT NULL,
            act TEXT NOT NULL,
            who TEXT NOT NULL,
            target TEXT NOT NULL,
            call BLOB NOT NULL,
            reason TEXT NOT NULL,
            host TEXT NOT NULL,
            pid INTEGER NOT NULL,
            digest BLOB NOT NULL)""",
    ),
)
