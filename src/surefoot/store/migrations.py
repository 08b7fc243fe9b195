"""The format of the file: each room brings its steps, each step is applied once, in order, with its record.

A file whose format is newer than this code knows is refused (`NewerFormat`); an older one is brought forward in one
transaction per room, so that a crash leaves either the old format or the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apsw

from surefoot.store.errors import NewerFormat

_FORMAT_TABLE = """CREATE TABLE IF NOT EXISTS surefoot_format (
    room TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, applied_at_ms INTEGER NOT NULL,
    PRIMARY KEY (room, version)) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of one room's format. Names and versions are data on disk: never changed once released."""

    room: str
    version: int
    name: str
    sql: str


def migrate(connection: apsw.Connection, migrations: Sequence[Migration], now_ms: int) -> None:
    """Bring the file to the newest format known here.

    Raises:
        NewerFormat: The file has a version of a room that `migrations` doesn't know.
    """
    missing = missing_steps(connection, migrations)
    connection.execute(_FORMAT_TABLE)
    for step in missing:
        connection.execute(step.sql)
        connection.execute(
            "INSERT INTO surefoot_format VALUES (?, ?, ?, ?)", (step.room, step.version, step.name, now_ms)
        )


def versions_of(connection: apsw.Connection) -> dict[str, int]:
    """Return the format of each room; nothing for a file that is not a store yet."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'surefoot_format'").fetchall():
        return {}
    rows = connection.execute("SELECT room, max(version) FROM surefoot_format GROUP BY room")
    return {str(room): int(str(version)) for room, version in rows}


def missing_steps(connection: apsw.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Return the steps that the file has yet to take.

    Raises:
        NewerFormat: The file has a version of a room that `migrations` doesn't know.
    """
    return missing_of(versions_of(connection), migrations, connection.filename)


def missing_of(have: dict[str, int], migrations: Sequence[Migration], name: str) -> list[Migration]:
    """Return the steps that a store has yet to take.

    Args:
        have: The format of each of its rooms.
        migrations: The steps that are known here.
        name: The store's, for the message.

    Raises:
        NewerFormat: It has a version of a room that `migrations` doesn't know.
    """
    newest: dict[str, int] = {}
    for step in migrations:
        newest[step.room] = max(step.version, newest.get(step.room, 0))
    for room, version in have.items():
        if version > newest.get(room, 0):
            raise NewerFormat(
                f"{name}: the {room} records have format {version}, this Surefoot knows up to {newest.get(room, 0)}",
                hint="upgrade Surefoot (`pip install -U surefoot`); nothing in the file was changed",
            )
    return [step for step in migrations if step.version > have.get(step.room, 0)]
