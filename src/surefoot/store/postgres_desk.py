"""PostgreSQL's transactions: all processes of a store take turns, and a lost answer is looked up. See `postgres`.

What is known beforehand goes in few round trips: BEGIN, the turn and the next ids in one; the rows of a batch, what it took
on trust, and COMMIT in another (see `pipeline`). What fails there undoes the transaction, COMMIT included, and the batch is
done again statement by statement.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Any

from surefoot.store import postgres_connection
from surefoot.store.clock import new_id
from surefoot.store.connection import Rows
from surefoot.store.errors import StoreError, StoreFailed
from surefoot.store.pipeline import Sent, numbered, numbers_of
from surefoot.store.postgres_clock import ServerClock
from surefoot.store.postgres_connection import PostgresConnection, in_words
from surefoot.store.postgres_errors import driver, error_of, named, sick
from surefoot.store.postgres_listening import notice
from surefoot.store.tx import Check, Mistrusted, Turn, Waiting, in_forms

BACK_MS = 60_000
"""By how much the server's clock may go back: less than what fences and keys leave as a margin; more is no adjustment."""

NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

_TURN = (
    "WITH mine AS (INSERT INTO surefoot_writers (writer, batch, at_ms) VALUES ($1, $2, "
    + NOW_MS
    + ") ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, at_ms = excluded.at_ms)"
    " UPDATE surefoot_turn SET turn = turn + 1, at_ms = greatest(at_ms, "
    + NOW_MS
    + ") RETURNING turn, at_ms, "
    + NOW_MS
    + ", pg_backend_pid()::bigint"
)
_NOTIFY = "SELECT pg_notify($1, $2)"
_BEGIN, _COMMIT, _ROLLBACK = (Sent(word, is_often=True) for word in ("BEGIN", "COMMIT", "ROLLBACK"))


class PostgresDesk:
    """See `Desk`.

    Attributes:
        writer: Its name among the writers of the store.
    """

    is_far = True

    def __init__(self, connection: PostgresConnection, clock: ServerClock, channel: str) -> None:
        self._faults: tuple[type[BaseException], ...] = (driver().Error, OSError, StoreError)
        self.before_waiting: Callable[[], object] = _nothing
        self._connection = connection
        self.execute: Callable[..., Rows] = connection.execute
        self._clock = clock
        self._channel = channel
        self.writer = new_id()
        self._batch = 0
        self._turn = self._version = self._begun_ms = self._ended_ms = 0
        self._has_trusted = False

    @property
    def connection(self) -> PostgresConnection:
        """See `Desk`."""
        return self._connection

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def is_at_fault(self, error: BaseException) -> bool:
        """See `Desk`."""
        return isinstance(error, self._faults) or self.connection.is_broken

    def is_sick(self, error: BaseException, *, is_alone: bool) -> bool:
        """See `Desk`: whatever a unit makes of a broken connection, it is broken."""
        return self.connection.is_broken or (isinstance(error, sick()) and not is_alone)

    def begin(self, numbered: Collection[str], *, is_owing: bool) -> Turn:
        """See `Desk`: BEGIN, the turn, and what only then is sure."""
        if is_owing:
            self.before_waiting()
        self._batch += 1
        self._begun_ms = asked_ms = self._clock.ask()
        tables = sorted(numbered)
        asked = [_BEGIN, Sent(_TURN, (self.writer, self._batch), is_often=True)]
        if tables:
            asked.append(Sent(_next_ids(tables), is_often=True))
        try:
            found = self._connection.pipeline.ask(asked)
        except driver().errors.InvalidSqlStatementName as error:
            raise self._connection.pooled("what was prepared on it is gone") from error
        turn, highest_ms, server_ms, backend = numbers_of(found[1])
        self._version += turn != self._turn + 1
        self._turn = turn
        self._connection.require_own(backend)
        if highest_ms - server_ms > BACK_MS:
            self.rollback()
            raise StoreFailed(
                f"{self.connection.filename}: the server's clock has gone back by {(highest_ms - server_ms) // 1_000} s,"
                " and the ages of keys, fences and leases are counted by it",
                hint="set it right, or wait; then start the process again",
            )
        self._clock.learn(server_ms, asked_ms)
        next_ids = dict(zip(tables, numbers_of(found[2]), strict=True)) if tables else {}
        return Turn(self._clock.wall_ms(), self._version, next_ids)

    def write(self, waiting: Waiting) -> None:
        """See `Desk`."""
        self._connection.write(_sent(waiting))

    def query(self, waiting: Waiting, sql: str, bindings: Any) -> Rows:
        """See `Desk`: in one round trip."""
        return self._connection.execute(sql, bindings, after=_sent(waiting))

    def finish(self, waiting: Waiting, rings: Collection[str]) -> None:
        """See `Desk`: sends COMMIT behind what is written. After an error of a statement PostgreSQL would answer it with a
        rollback, and without an error."""
        if self.connection.real.info.transaction_status != driver().pq.TransactionStatus.INTRANS:
            raise driver().errors.InFailedSqlTransaction("a statement failed, and its error was not let through")
        self._has_trusted = bool(waiting)
        told = [Sent(_NOTIFY, (self._channel, notice(self.writer, rings)), is_often=True)] if rings else []
        self._connection.pipeline.send([*_sent(waiting), *told, _COMMIT])

    def commit(self, newest: int) -> None:
        """See `Desk`: waits for what `finish` has sent."""
        *written, committed = self._connection.pipeline.receive()
        failed = next((error for result in (*written, committed) if (error := error_of(result)) is not None), None)
        if failed is not None:
            raise Mistrusted if self._has_trusted else failed

    def rollback(self) -> None:
        """See `Desk`."""
        self._turn -= 1  # as the row now says again
        if not self.connection.is_broken:
            self._connection.pipeline.ask([_ROLLBACK])

    def has_landed(self, error: BaseException) -> bool | None:
        """See `Desk`: after a break, the server knows; a statement that somebody has cancelled is no more than that."""
        self._ended_ms = self._clock.ask()
        while self.connection.is_broken or isinstance(error, driver().errors.QueryCanceled):
            try:
                self.connection.connect_again(postgres_connection.PATIENCE_S)
                self._turn = -1  # whatever comes next, others may have written
                with self.connection.real.transaction():
                    # Whoever was there has ended, since its lock is ours; and a standby that is waited for has what it
                    # left, once it has this.
                    self.connection.execute("UPDATE surefoot_turn SET turn = turn + 1")
                    found = self.connection.execute(
                        "SELECT batch FROM surefoot_writers WHERE writer = ?", (self.writer,)
                    )
                    return found.fetchall() == [(self._batch,)]
            except StoreFailed:
                return None
            except self._faults as again:
                error = again
        return None

    def was_cut_off(self) -> bool:
        """See `Desk`."""
        return self._ended_ms - self._begun_ms >= postgres_connection.STOPPED_MS

    @property
    def is_due(self) -> bool:
        """See `Desk`: the server does such things by itself."""
        return False

    def after_commit(self) -> None:
        """See `Desk`."""

    def named(self, error: BaseException) -> StoreError:
        """See `Desk`."""
        return named(error, self.connection.filename, "writing")

    def forget(self) -> None:
        """Delete what tells of this writer."""
        with suppress(Exception):  # it goes by itself after a while
            self.connection.execute("DELETE FROM surefoot_writers WHERE writer = ?", (self.writer,))


def _next_ids(tables: list[str]) -> str:
    return "SELECT " + ", ".join(f"coalesce((SELECT max(id) FROM {table}), 0) + 1" for table in tables)


_texts: dict[str, str] = {}


def _sent(waiting: Waiting) -> list[Sent]:
    """Return statements that fail where a row was not written, or what was trusted is not so: by a division by zero."""
    found = []
    for statement, size, form, values in in_forms(waiting):
        text = _texts.get(form)
        if text is None:
            text = numbered(in_words(form))
            if isinstance(statement, Check):
                text = f"SELECT 1 / (found = {statement.expected(size)})::int FROM ({text}) AS counted"
            elif statement.may_miss:
                text = f"WITH written AS ({text} RETURNING 1) SELECT 1 / (count(*) = {size})::int FROM written"
            _texts[form] = text
        found.append(Sent(text, values, is_often=True))
    return found


def _nothing() -> None:
    return None
