"""What the rooms ask of a database: statements with `?` for each value, in the SQL that SQLite and PostgreSQL both read.

apsw's connections are these as they are; PostgreSQL's are made so (`postgres`).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol

import apsw


def faults_of(connection: object) -> tuple[type[Exception], ...]:
    """Return what a connection raises when the database, not what was read from it, is at fault."""
    found: tuple[type[Exception], ...] = getattr(connection, "faults", (apsw.Error,))
    return found


class Rows(Protocol):
    """The answer of a statement: read to its end, or with `fetchall`."""

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""


class Connection(Protocol):
    """One connection to a store."""

    @property
    def filename(self) -> str:
        """The store's name, for messages."""

    def execute(self, sql: str, bindings: Any = (), /) -> Rows:
        """Run a statement; its rows must be read to their end."""

    def changes(self) -> int:
        """Return how many rows the last statement has written."""

    def __enter__(self) -> object:
        """Begin to read from one moment; ends with `__exit__`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...

    def last_insert_rowid(self) -> int:
        """Return the id that the database gave the row inserted last."""
