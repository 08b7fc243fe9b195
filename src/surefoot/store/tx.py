"""The transaction that units write through.

What holds: what a unit reads, it reads after everything that it and the units before it have written. Rows of the few kinds
that every step writes (`Put`) may wait for others of their kind and go with them in one statement, as long as nothing is
read: per row that is cheaper, and the other threads of the process may run meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from surefoot.store.codec import codec_of
from surefoot.store.connection import Connection, Rows

ROWS_MAX = 64
"""Rows in one statement: enough that its fixed cost is small, and 640 parameters are far below SQLite's limit."""


class Mistrusted(Exception):
    """A row that was said to be written on trust was not: the transaction is done again, without trust."""


class Put:
    """A statement that writes one row, in a form for several rows too.

    Attributes:
        forms: The statement, by how many rows it writes; the largest first.
        values: How many values a row has.
        may_miss: Whether a row may meet a conflict, or find nothing to update, without an error.

    Args:
        before: Its text before the rows' values.
        after: Its text after them.
        values: How many values a row has.
        one: The statement for a single row, where it has a simpler form.
        is_single: Whether that is the only form, because a row is written by what the rows before it have left.
    """

    def __init__(self, before: str, values: int, after: str = "", *, one: str = "", is_single: bool = False) -> None:
        marks = f"({', '.join('?' * values)})"
        self.values = values
        self.may_miss = bool(after)
        sizes = [1] if is_single else [1 << power for power in range(ROWS_MAX.bit_length())]
        self.forms = {size: f"{before} {', '.join([marks] * size)} {after}".rstrip() for size in reversed(sizes)}
        if one:
            self.forms[1] = one


class Check:
    """A question about many things at once, that has one answer if all is as it was taken to be.

    Args:
        values: How many values each thing has.
        columns: Their names.
        rest: The query below `WITH asked (columns) AS (VALUES ...)`; its one number is called `found`.
        is_each: Whether each thing must be found; else none.

    Attributes:
        forms: The query, by how many things it asks about; the largest first.
    """

    def __init__(self, values: int, columns: str, rest: str, *, is_each: bool) -> None:
        marks = f"({', '.join('?' * values)})"
        self.values = values
        self.is_each = is_each
        sizes = [1 << power for power in range(ROWS_MAX.bit_length())]
        self.forms = {
            size: f"WITH asked ({columns}) AS (VALUES {', '.join([marks] * size)}) {rest}" for size in reversed(sizes)
        }

    def expected(self, size: int) -> int:
        """Return what must be found."""
        return size if self.is_each else 0


class Turn(NamedTuple):
    """The beginning of a transaction.

    Attributes:
        now_ms: The wall clock.
        version: A number that changes when another connection has written.
        next_ids: The next ids of tables, where asking for them cost nothing.
    """

    now_ms: int
    version: int
    next_ids: Mapping[str, int] = {}


Waiting = Mapping[Put | Check, list[Any]]
"""Rows that wait to be written, and what waits to be checked: the values of each kind, one row after another."""

Write = Callable[[Waiting], None]
Query = Callable[[Waiting, str, Any], Rows]


def in_forms(waiting: Waiting) -> Iterator[tuple[Put | Check, int, str, list[Any]]]:
    """Yield the statements that write what waits, then those that check it: of which kind, for how many rows, its text,
    and its values."""
    for statement, values in sorted(waiting.items(), key=lambda each: isinstance(each[0], Check)):
        at, end = 0, len(values)
        for size, form in statement.forms.items():
            width = size * statement.values
            while end - at >= width:
                yield statement, size, form, values[at : at + width]
                at += width


class Tx:
    """The transaction a unit writes through.

    Attributes:
        now_ms: Wall clock at the start of the transaction.
        codec: How values lie on disk; None: as they are.
        newest: The highest id of a journal row that this transaction has written; 0 for none. (An id that was taken for a
            row which then was not written is no acknowledged record.)
        held: What was checked and still holds (see `runs`); whoever changes what was checked must clear it.
        rings: What this transaction leaves for other processes to do: `ring`.
        numbered: Tables whose next id is asked for, and known while no other connection writes.
    """

    __slots__ = (
        "_connection",
        "_execute",
        "_is_hurried",
        "_next_ids",
        "_query",
        "_version",
        "_waiting",
        "_write",
        "codec",
        "held",
        "newest",
        "now_ms",
        "numbered",
        "rings",
    )

    def __init__(self, connection: Connection, execute: Callable[..., Rows], write: Write, query: Query) -> None:
        self._connection = connection
        self._execute = execute
        self._write = write
        self._query = query
        self._is_hurried = False
        self._waiting: defaultdict[Put | Check, list[Any]] = defaultdict(list)  # the values of rows, one after another
        self._version = -1
        self.codec = codec_of(connection)
        self.now_ms = 0
        self.held: set[tuple[int, int]] = set()
        self.newest = 0
        self.numbered: set[str] = set()
        self.rings: set[str] = set()
        self._next_ids: dict[str, int] = {}

    def begin(self, turn: Turn, *, is_hurried: bool = False) -> None:
        """Start afresh. What was checked in an earlier transaction still holds if no other connection has written since, as
        the version says, because whoever changes it in this process clears it."""
        self.now_ms, version = turn.now_ms, turn.version
        self.newest = 0
        self._is_hurried = is_hurried
        self._waiting.clear()
        self.rings.clear()
        if version != self._version:
            self._version = version
            self.forget()
            self._next_ids.update(turn.next_ids)

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

    def trusts(self, check: Check, *values: Any) -> bool:
        """Say that something is as the check says, if there is a hurry; else return False, and the caller must look.

        What is not so then undoes the transaction, which is done again without hurry, as with `put`. It is asked behind the
        rows that are put, and before anything else is read or written: so it speaks of what was there when it was said.
        """
        if self._is_hurried:
            self._waiting[check].extend(values)
        return self._is_hurried

    def flush(self) -> None:
        """Write the rows that wait, and ask what was trusted.

        Raises:
            Mistrusted: One of them was not written, or something was not so.
        """
        self._write(self.take_waiting())

    def take_waiting(self) -> Waiting:
        """Return what is left to be written, for the desk to write it at the end."""
        waiting, self._waiting = self._waiting, defaultdict(list)
        return waiting

    def ring(self, what: str) -> None:
        """Let other processes know, once this is committed, that there is something to do for them.

        It is a hint: an engine may have no way to do so, and a notice may be lost, so whoever waits looks by himself too.

        Args:
            what: One word; what they make of it is the room's matter.
        """
        self.rings.add(what)

    @property
    def connection(self) -> Connection:
        """The connection, with all that waits written."""
        if self._waiting:
            self.flush()
        return self._connection

    def execute(self, sql: str, bindings: tuple[Any, ...] = ()) -> Rows:
        """Run a statement after all that waits; its rows must be read to their end."""
        if self._waiting:
            return self._query(self.take_waiting(), sql, bindings)
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
        found = self._next_ids.get(table) or self.next_id(table)
        self._next_ids[table] = found + 1
        return found

    def next_id(self, table: str) -> int:
        """Return the id that `take_id` gives next: what is there, or was put before, has lower ones."""
        found = self._next_ids.get(table)
        if found is None:
            self.numbered.add(table)
            found = cast(int, self.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchall()[0][0])
            self._next_ids[table] = found
        return found


def write_rows(waiting: Waiting, execute: Callable[..., Rows], connection: Connection) -> None:
    """Write what waits, statement by statement; see `Tx.flush`."""
    for statement, size, form, values in in_forms(waiting):
        rows = execute(form, values)
        if isinstance(statement, Check):
            is_right = rows.fetchall()[0][0] == statement.expected(size)
        else:
            is_right = connection.changes() == size
        if not is_right:
            raise Mistrusted
