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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from surefoot.store.postgres_errors import driver, error_of

NUL = "\u2400"
"""What stands for a NUL in names and words, which PostgreSQL's text can't have; values are bytes, and keep theirs."""

INT8, TEXT, BYTEA, INFERRED = 20, 25, 17, 0
"""The server's numbers of the types; of a column whose first value is NULL it finds the type by itself."""

_packed = struct.Struct("!q").pack
_unpacked = struct.Struct("!q").unpack


class Sent(NamedTuple):
    """One statement: its text with `$1`, `$2`, ... for values, and these."""

    sql: str
    values: Sequence[Any] = ()


def _text(value: str) -> bytes:
    return (value.replace("\0", NUL) if "\0" in value else value).encode()


def _same(value: Any) -> Any:
    return value


_ENCODERS: dict[type, tuple[int, Callable[[Any], bytes | None]]] = {
    int: (INT8, _packed),
    bool: (INT8, _packed),
    str: (TEXT, _text),
    bytes: (BYTEA, _same),
    type(None): (INFERRED, _same),
}


def _encoder(value: Any) -> tuple[int, Callable[[Any], bytes | None]]:
    """Return how a value of a type seen for the first time is written: enumerations are integers, raw JSON is bytes."""
    kind = type(value)
    found = _ENCODERS.get(kind)
    if found is None:
        found = (INT8, _packed) if isinstance(value, int) else (BYTEA, bytes)
        _ENCODERS[kind] = found
    return found


class Pipeline:
    """The pipeline of one connection; another one after a break, for what was prepared is gone with it."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._pq = driver().pq
        self._prepared: dict[str, bytes] = {}
        self._names = 0
        self._preparing: dict[str, bytes] = {}
        self._expected: list[
            str
        ] = []  # of each answer that is to come: the text that is prepared; empty for one asked for
        self._poll = select.poll()
        self._poll.register(real.pgconn.socket, select.POLLIN)

    def send(self, statements: Sequence[Sent]) -> None:
        """Send statements; `receive` returns their answers.

        Raises:
            psycopg.OperationalError: The way is broken.
        """
        coded = [(sql, [_encoder(value) for value in values], values) for sql, values in statements]
        written = [(sql, [how[0] for how in hows], [how[1](value) for how, value in zip(hows, values, strict=True)])
                   for sql, hows, values in coded]  # fmt: skip
        connection = self._real.pgconn
        connection.enter_pipeline_mode()
        try:
            for sql, types, parameters in written:
                name = self._prepared.get(sql) or self._preparing.get(sql)
                if name is None:
                    self._names += 1
                    name = self._preparing[sql] = f"surefoot {self._names} {sql.partition(' ')[0]}".encode()
                    connection.send_prepare(name, sql.encode(), types)
                    self._expected.append(sql)
                connection.send_query_prepared(name, parameters, [1] * len(parameters), 1)
                self._expected.append("")
            connection.pipeline_sync()
            while connection.flush():
                select.select([connection.socket], [connection.socket], [])
                connection.consume_input()
        except BaseException:
            connection.finish()  # half of it may be there: only the server knows
            raise

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
            for text in expected:
                result = self._next()
                if result.status == self._pq.ExecStatus.FATAL_ERROR and result.error_field(
                    self._pq.DiagnosticField.SEVERITY_NONLOCALIZED
                ) in (b"FATAL", b"PANIC", None):
                    raise driver().OperationalError(result.get_error_message())
                if not text:
                    found.append(unprepared or result)
                    unprepared = None
                elif result.status == self._pq.ExecStatus.COMMAND_OK:
                    self._prepared[text] = preparing[text]
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
