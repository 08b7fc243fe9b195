"""Receipts: how an effect in another database proves that it happened, and how recovery proves that it never will.

The effect's own transaction inserts a row under (idempotency key, attempt): both are committed, or neither. Recovery
inserts a *tombstone* under the same unique key, for each attempt there was:

    the insert succeeds         -> that attempt has not committed and never can: its own insert would now fail, and its
                                   whole transaction with it
    a receipt is in the way     -> the effect is done, with the receipt's value
    a tombstone is in the way   -> somebody has proven it before

What holds: at most one attempt's receipt is ever committed, for the next one begins only when all earlier ones are sealed;
rows are never changed, so recovery may be repeated, killed, and done by several at once. This asks no more of the database
than a unique key and transactions; who inserts second waits for the first, or is refused.

Source: the transaction status table of two-phase commit (Gray and Reuter 1993, chapter 7), with the vote made a unique key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import msgspec

from surefoot.problem import SurefootError

Parameters: TypeAlias = Sequence[object] | Mapping[str, object]

_MARKS: dict[str, Callable[[int, str], str]] = {
    "qmark": lambda _place, _name: "?",
    "format": lambda _place, _name: "%s",
    "numeric": lambda place, _name: f":{place}",
    "named": lambda _place, name: f":{name}",
    "pyformat": lambda _place, name: f"%({name})s",
}
"""How a statement marks a parameter, by the paramstyles of PEP 249."""

_NAMED = frozenset({"named", "pyformat"})


class Cursor(Protocol):
    """A cursor of PEP 249, as far as it is needed. (`Any`: drivers narrow these types, each in its own way.)"""

    def execute(self, sql: Any, parameters: Any, /) -> object:
        """Run a statement."""

    def fetchall(self) -> Sequence[Any]:
        """Return the rows that are left."""


class Connection(Protocol):
    """A connection of PEP 249, as far as it is needed."""

    def cursor(self) -> Any:
        """Return a new cursor."""

    def commit(self) -> None:
        """Commit the open transaction, if there is one."""

    def rollback(self) -> None:
        """Roll back the open transaction, if there is one."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class Receipts:
    """Where the effects of another database leave their receipts: one table in that database, made by you from `ddl`.

    Args:
        connect: Returns a new connection (PEP 249) to that database, to its primary; used by recovery only, in a thread,
            and closed after use. Limit how long it waits for locks: an attempt that is still in its transaction holds one.
        paramstyle: How that driver marks parameters: the `paramstyle` of its module, such as `sqlite3.paramstyle` or
            `psycopg.paramstyle`.
        table: The table's name; one for each Surefoot store, for two stores may use the same key for different things.

    Raises:
        SurefootError: No such paramstyle, or a table name that is more than a name.
    """

    connect: Callable[[], Connection]
    paramstyle: str
    table: str = "surefoot_receipts"

    def __post_init__(self) -> None:
        if self.paramstyle not in _MARKS:
            raise SurefootError(
                f"paramstyle={self.paramstyle!r} is none of {', '.join(_MARKS)}",
                hint="pass the driver's own: Receipts(connect, paramstyle=sqlite3.paramstyle)",
            )
        if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", self.table, re.ASCII) is None:
            raise SurefootError(f"table={self.table!r} is no plain name", hint='use "name" or "schema.name"')

    @property
    def ddl(self) -> str:
        """The statement that makes the table; in your migrations, once per database."""
        return (
            f"CREATE TABLE {self.table} (\n"
            "    idempotency_key VARCHAR(64) NOT NULL,\n"
            "    attempt BIGINT NOT NULL,\n"
            "    value TEXT,\n"
            "    written_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL,\n"
            "    PRIMARY KEY (idempotency_key, attempt))"
        )

    def insertion(self, idempotency_key: str, attempt: int, value: str | None) -> tuple[str, Parameters]:
        """Return the statement that writes a receipt with a value as JSON, or, for None, a tombstone."""
        given = {"idempotency_key": idempotency_key, "attempt": attempt, "value": value}
        marks = ", ".join(_MARKS[self.paramstyle](place, name) for place, name in enumerate(given, 1))
        return f"INSERT INTO {self.table} ({', '.join(given)}) VALUES ({marks})", self._bound(given)

    def selection(self, idempotency_key: str) -> tuple[str, Parameters]:
        """Return the query for what is written under a key."""
        mark = _MARKS[self.paramstyle](1, "idempotency_key")
        sql = f"SELECT attempt, value FROM {self.table} WHERE idempotency_key = {mark}"
        return sql, self._bound({"idempotency_key": idempotency_key})

    def _bound(self, given: dict[str, object]) -> Parameters:
        return given if self.paramstyle in _NAMED else tuple(given.values())


def find_or_seal(receipts: Receipts, idempotency_key: str, last_attempt: int) -> bytes | None:
    """Return the value of the effect's receipt as JSON, or None: then no attempt has committed, and none ever can.

    Args:
        receipts: Where to look.
        idempotency_key: The effect and its generation.
        last_attempt: The newest attempt that may have begun; they count from 1.

    Raises:
        Exception: Whatever the driver raises. Nothing is known then, and nothing is harmed by asking again.
    """
    with closing(receipts.connect()) as connection:
        written = _written(connection, receipts, idempotency_key)
        for attempt in range(1, last_attempt + 1):
            if _receipt_in(written) is None and attempt not in written:
                written = _seal(connection, receipts, idempotency_key, attempt, written)
    found = _receipt_in(written)
    if found is None:
        return None
    msgspec.json.decode(found)  # a row of somebody else's making is no receipt
    return found.encode()


def _receipt_in(written: Mapping[int, str | None]) -> str | None:
    return next((value for value in written.values() if value is not None), None)


def _seal(
    connection: Connection, receipts: Receipts, idempotency_key: str, attempt: int, written: dict[int, str | None]
) -> dict[int, str | None]:
    """Write a tombstone, or find out what is in its way; return all that is written then."""
    try:
        connection.cursor().execute(*receipts.insertion(idempotency_key, attempt, None))
        connection.commit()
    except Exception:  # drivers have their own classes: what is in the table tells a taken key from any other failure
        connection.rollback()
        there = _written(connection, receipts, idempotency_key)
        if attempt not in there:
            raise
        return there
    return {**written, attempt: None}


def _written(connection: Connection, receipts: Receipts, idempotency_key: str) -> dict[int, str | None]:
    cursor: Cursor = connection.cursor()
    cursor.execute(*receipts.selection(idempotency_key))
    rows = {int(attempt): value for attempt, value in cursor.fetchall()}
    connection.rollback()  # end the snapshot: the next statement must see what was committed meanwhile
    return rows
