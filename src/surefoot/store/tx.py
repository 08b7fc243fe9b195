"""The transaction that units write through.

What holds: what a unit reads, it reads after everything that it and the units before it have written. Rows of the few kinds
that every step writes (`Put`) may wait for others of their kind and go with them in one statement, as long as nothing is
read: per row that is cheaper, and the other threads of the process may run meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

from surefoot.store.codec import codec_of
from surefoot.store.connection import Connection, Rows

ROWS_MAX = 64
"""Rows in one statement: enough that its fixed cost is small, and 640 parameters are far below SQLite's limit."""


class Mistrusted(Exception):
    """A row that was said to be written on trust was not: the transaction is done again, without trust."""


class Put:
    """A statement that writes one row, in a form for several rows too.

    Args:
        before: Its text before the rows' values.
        after: Its text after them.
        values: How many values a row has.
        one: The statement for a single row, where it has a simpler form.
    """

    def __init__(self, before: str, values: int, after: str = "", *, one: str = "") -> None:
        marks = f"({', '.join('?' * values)})"
        self.values = values
        sizes = [1 << power for power in range(ROWS_MAX.bit_length())]
        self.forms = {size: f"{before} {', '.join([marks] * size)} {after}".rstrip() for size in reversed(sizes)}
        if one:
            self.forms[1] = one


class Tx:
    """The transaction a unit writes through.

    Attributes:
        now_ms: Wall clock at the start of the transaction.
        codec: How values lie on disk; None: as they are.
        newest: The highest id of a journal row that this transaction has written; 0 for none. (An id that was taken for a
            row which then was not written is no acknowledged record.)
        held: What was checked and still holds (see `runs`); whoever changes what was checked must clear it.
    """

    __slots__ = (
        "_connection",
        "_execute",
        "_is_hurried",
        "_next_ids",
        "_version",
        "_waiting",
        "codec",
        "held",
        "newest",
        "now_ms",
    )

    def __init__(self, connection: Connection, execute: Callable[..., Rows]) -> None:
        self._connection = connection
        self._execute = execute
        self._is_hurried = False
        self._waiting: defaultdict[Put, list[Any]] = defaultdict(list)  # the values of its rows, one after another
        self._version = -1
        self.codec = codec_of(connection)
        self.now_ms = 0
        self.held: set[tuple[int, int]] = set()
        self.newest = 0
        self._next_ids: dict[str, int] = {}

    def begin(self, now_ms: int, version: int, *, is_hurried: bool = False) -> None:
        """Start afresh. What was checked in an earlier transaction still holds if no other connection has written since, as
        the version says, because whoever changes it in this process clears it."""
        self.now_ms = now_ms
        self.newest = 0
        self._is_hurried = is_hurried
        self._waiting.clear()
        if version != self._version:
            self._version = version
            self.forget()

    def forget(self) -> None:
        """Drop what was learned of the file: after a rollback, or when another process has written."""
        self.held.clear()
        self._next_ids.clear()
        self._waiting.clear()

    def put(self, statement: Put, row: tuple[Any, ...]) -> bool:
        """Write a row, and return whether it was written: not if it met a conflict, or what it updates has moved.

        In a hurry, True is returned on trust; a row that was not written then undoes the transaction, which is done again
        without hurry. So a unit may go on with the answer, but must not let it out before its commit.
        """
        if self._is_hurried:
            self._waiting[statement].extend(row)
            return True
        self._execute(statement.forms[1], row)
        return self._connection.changes() == 1

    def flush(self) -> None:
        """Write the rows that wait.

        Raises:
            Mistrusted: One of them was not written.
        """
        for statement, values in self._waiting.items():
            at, end = 0, len(values)
            for size, form in statement.forms.items():
                width = size * statement.values
                while end - at >= width:
                    self._execute(form, values[at : at + width])
                    if self._connection.changes() != size:
                        raise Mistrusted
                    at += width
        self._waiting.clear()

    @property
    def connection(self) -> Connection:
        """The connection, with all that waits written."""
        if self._waiting:
            self.flush()
        return self._connection

    def execute(self, sql: str, bindings: tuple[Any, ...] = ()) -> Rows:
        """Run a statement after all that waits; its rows must be read to their end."""
        if self._waiting:
            self.flush()
        return self._execute(sql, bindings)

    def execute_apart(self, sql: str, bindings: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run a statement of the user's, who may catch its error and go on; return its rows."""
        connection = self.connection
        execute: Callable[..., Any] = getattr(connection, "execute_apart", connection.execute)
        return list(execute(sql, bindings))

    def row(self, sql: str, bindings: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        rows = self.execute(sql, bindings).fetchall()
        return rows[0] if rows else None

    def take_id(self, table: str) -> int:
        """Return the next row id of an append-only table, for a row that this transaction is about to insert."""
        found = self._next_ids.get(table)
        if found is None:
            found = cast(int, self.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchall()[0][0])
        self._next_ids[table] = found + 1
        return found
