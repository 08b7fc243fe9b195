"""Statements that go to PostgreSQL together, prepared, and are answered together: one round trip for all of them.

What holds: all are sent before an answer is read; after one that fails the server skips the others, COMMIT too; whatever
happens to the way, the connection is found broken, and its transaction is looked up (see `postgres_desk`). Nobody else of
the process stands still meanwhile: waiting is done in `poll`, outside of Python's lock.

It speaks libpq's own protocol, as psycopg gives it out (`psycopg.pq`), since adapting each value by itself costs ten times
as much as what is done with it: integers, text and bytes are all that the rooms write in bulk.

Source: https://www.postgresql.org/docs/current/libpq-pipeline-mode.html.
"""

from __future__ import annotations

import select
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from surefoot.store.postgres_errors import driver, error_of

NUL = "\u2400"
"""What stands for a NUL in names and words, which PostgreSQL's text can't have; values are bytes, and keep theirs."""

INT8, TEXT, BYTEA, BOOL, FLOAT8, INFERRED = 20, 25, 17, 16, 701, 0
"""The server's numbers of the types; of a column whose first value is NULL it finds the type by itself."""

OFTEN, SEEN_MAX, PREPARED_MAX = 5, 1_000, 500
"""After how many uses a statement is prepared, how many are counted, and how many are prepared at most: some name the rows
they ask for in their text."""

_packed = struct.Struct("!q").pack
_unpacked = struct.Struct("!q").unpack


class Sent(NamedTuple):
    """One statement.

    Attributes:
        sql: Its text, with `$1`, `$2`, ... for values.
        values: These: integers, text, bytes, None.
        is_often: Whether it comes with every batch: it is prepared at once, and once, so that its values' types must be
            those of columns, whatever the first ones are.
    """

    sql: str
    values: Sequence[Any] = ()
    is_often: bool = False


def _text(value: str) -> bytes:
    return (value.replace("\0", NUL) if "\0" in value else value).encode()


def _same(value: Any) -> Any:
    return value


_Encoder = tuple[int, Callable[[Any], bytes | None]]
_ENCODERS: dict[type, _Encoder] = {
    int: (INT8, _packed),
    bool: (BOOL, struct.Struct("!?").pack),
    float: (FLOAT8, struct.Struct("!d").pack),
    str: (TEXT, _text),
    bytes: (BYTEA, _same),
    type(None): (INFERRED, _same),
}
_AS_BYTES: _Encoder = (BYTEA, bytes)


def _encoder(value: Any) -> _Encoder:
    """Return how a value is written; enumerations are integers, and raw JSON is bytes."""
    kind = type(value)
    found = _ENCODERS.get(kind)
    if found is None:
        found = _ENCODERS[kind] = next((how for base, how in _ENCODERS.items() if isinstance(value, base)), _AS_BYTES)
    return found


class Pipeline:
    """The pipeline of one connection; another one after a break, for what was prepared is gone with it."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._pq = driver().pq
        self._prepared: dict[object, bytes] = {}
        self._preparing: dict[object, bytes] = {}
        self._seen: Counter[object] = Counter()
        self._names = 0
        self._expected: list[
            object
        ] = []  # of each answer that is to come: what is prepared; None for a statement's own
        self._poll = select.poll()
        self._poll.register(real.pgconn.socket, select.POLLIN)

    def send(self, statements: Sequence[Sent]) -> None:
        """Send statements; `receive` returns their answers.

        Raises:
            psycopg.OperationalError: The way is broken.
        """
        written = []
        for statement in statements:
            hows = [_encoder(value) for value in statement.values]
            values = [how[1](value) for how, value in zip(hows, statement.values, strict=True)]
            written.append((statement, [how[0] for how in hows], values))  # before anything is sent: some can't be
        connection = self._real.pgconn
        connection.enter_pipeline_mode()
        try:
            for statement, types, values in written:
                formats = [1] * len(values)
                name = self._name_of(statement, types)
                if name is None:
                    connection.send_query_params(statement.sql.encode(), values, types, formats, 1)
                else:
                    connection.send_query_prepared(name, values, formats, 1)
                self._expected.append(None)
            connection.pipeline_sync()
            while connection.flush():
                self._poll.modify(connection.socket, select.POLLIN | select.POLLOUT)
                self._poll.poll()
                connection.consume_input()
                self._poll.modify(connection.socket, select.POLLIN)
        except BaseException:
            connection.finish()  # half of it may be there: only the server knows
            raise

    def _name_of(self, statement: Sent, types: list[int]) -> bytes | None:
        """Return the name under which a statement is prepared, if it comes often enough to be."""
        key: object = statement.sql if statement.is_often else (statement.sql, tuple(types))
        if (name := self._prepared.get(key) or self._preparing.get(key)) is not None:
            return name
        self._seen[key] += 1
        if len(self._seen) > SEEN_MAX:
            self._seen.clear()
        if not statement.is_often and (not types or self._seen[key] < OFTEN or len(self._prepared) >= PREPARED_MAX):
            return None
        self._names += 1
        name = self._preparing[key] = f"surefoot {self._names} {statement.sql.partition(' ')[0]}".encode()
        self._real.pgconn.send_prepare(name, statement.sql.encode(), types)
        self._expected.append(key)
        return name

    def receive(self) -> list[Any]:
        """Return the results of what was sent, with the errors of those that failed or were skipped.

        Raises:
            psycopg.OperationalError: The way is broken.
        """
        connection, expected, preparing = self._real.pgconn, self._expected, self._preparing
        self._expected, self._preparing = [], {}
        try:
            found: list[Any] = []
            unprepared = None
            for key in expected:
                result = self._next()
                if result.status == self._pq.ExecStatus.FATAL_ERROR and result.error_field(
                    self._pq.DiagnosticField.SEVERITY_NONLOCALIZED
                ) in (b"FATAL", b"PANIC", None):
                    raise driver().OperationalError(result.get_error_message())
                if key is None:
                    found.append(unprepared or result)
                    unprepared = None
                elif result.status == self._pq.ExecStatus.COMMAND_OK:
                    self._prepared[key] = preparing[key]
                else:
                    unprepared = result  # it says why; the statement itself is only skipped
                self._next()  # nothing: what ends an answer
            if self._next().status != self._pq.ExecStatus.PIPELINE_SYNC:
                raise driver().OperationalError("the server ended a pipeline too early")
            connection.exit_pipeline_mode()
        except BaseException:
            connection.finish()
            raise
        return found

    def ask(self, statements: Sequence[Sent]) -> list[Any]:
        """Send statements, and return their results.

        Raises:
            psycopg.Error: One of them failed, or the way is broken.
        """
        self.send(statements)
        found = self.receive()
        for result in found:
            if (error := error_of(result)) is not None:
                raise error
        return found

    def _next(self) -> Any:
        connection = self._real.pgconn
        while connection.is_busy():
            self._poll.poll()
            connection.consume_input()
        return connection.get_result()


def numbers_of(result: Any) -> list[int]:
    """Return the integers of an answer's first row."""
    return [_unpacked(result.get_value(0, column))[0] for column in range(result.nfields)]


def numbered(form: str) -> str:
    """Return a statement with `$1`, `$2`, ... for its values."""
    first, *rest = form.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
