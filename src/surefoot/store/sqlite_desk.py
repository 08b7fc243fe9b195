"""SQLite's transactions: one writer at a time, in line at the turnstile, the log moved into the database between them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

import apsw

from surefoot.store.checkpoint import Checkpointer
from surefoot.store.clock import Clock
from surefoot.store.connection import Rows
from surefoot.store.errors import StoreError, StoreFailed
from surefoot.store.naming import SICK_FILE, named
from surefoot.store.turnstile import Turnstile
from surefoot.store.tx import Turn, Waiting, write_rows
from surefoot.store.whereabouts import Whereabouts

BUSY_TIMEOUT_MS = 10_000
"""How long SQLite's own write lock is waited for: only a foreign program can hold it, since our processes queue in the
turnstile."""


class SqliteDesk:
    """See `Desk`. A failed write or sync is final: nobody knows any more what is on disk."""

    is_far = False

    def __init__(
        self,
        connection: apsw.Connection,
        clock: Clock,
        turnstile: Turnstile,
        checkpointer: Checkpointer,
        whereabouts: Whereabouts,
    ) -> None:
        self.connection = connection
        self.execute = connection.cursor().execute  # one cursor for all: a new one each time is slower
        self._clock = clock
        self._turnstile = turnstile
        self._checkpointer = checkpointer
        self._whereabouts = whereabouts

    @property
    def before_waiting(self) -> Callable[[], object]:
        """See `Desk`."""
        return self._turnstile.before_waiting

    @before_waiting.setter
    def before_waiting(self, call: Callable[[], object]) -> None:
        self._turnstile.before_waiting = call

    def __enter__(self) -> None:
        self._turnstile.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turnstile.__exit__(kind, error, trace)

    def is_at_fault(self, error: BaseException) -> bool:
        """See `Desk`."""
        return isinstance(error, (apsw.Error, OSError, StoreError))

    def is_sick(self, error: BaseException, *, is_alone: bool) -> bool:
        """See `Desk`."""
        return isinstance(error, SICK_FILE) and not is_alone

    def begin(self, numbered: Collection[str], *, is_owing: bool) -> Turn:
        """See `Desk`."""
        now_ms = self._clock.wall_ms()
        self._whereabouts.check(now_ms)
        if self._turnstile.is_sick:
            raise StoreFailed(
                f"{self.connection.filename}: a sync of the database has failed in one of its processes"
                f" ({self._checkpointer.failure or 'in another one'}); nothing more is recorded",
                hint="check the disk; stop all processes of this store, then start them again: what was acknowledged is "
                "taken from the log anew",
            )
        self._lock_file(is_owing=is_owing)
        # To its end: an answer that is not read out keeps a snapshot open behind COMMIT, and then the next BEGIN IMMEDIATE
        # fails at once (SQLITE_BUSY_SNAPSHOT) if another process has written meanwhile.
        version: Any = self.execute("PRAGMA data_version").fetchall()[0][0]
        return Turn(now_ms, version)

    def _lock_file(self, *, is_owing: bool) -> None:
        """Take the file's write lock; whoever is owed an answer has it before a foreign program is waited for."""
        connection = self.connection
        if is_owing:
            connection.set_busy_timeout(0)
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except apsw.BusyError:
                self.before_waiting()
            finally:
                connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("BEGIN IMMEDIATE")

    def write(self, waiting: Waiting) -> None:
        """See `Desk`."""
        write_rows(waiting, self.execute, self.connection)

    def query(self, waiting: Waiting, sql: str, bindings: Any) -> Rows:
        """See `Desk`."""
        self.write(waiting)
        return self.execute(sql, bindings)

    def finish(self, waiting: Waiting, rings: Collection[str]) -> None:
        """See `Desk`: here a statement that fails undoes itself only, and other processes look often enough."""
        self.write(waiting)

    def commit(self, newest: int) -> None:
        """See `Desk`."""
        self._checkpointer.before_commit(newest)
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """See `Desk`."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def has_landed(self, _error: BaseException) -> None:
        """See `Desk`: nobody can find out."""

    def was_cut_off(self) -> bool:
        """See `Desk`: nobody does."""
        return False

    @property
    def is_due(self) -> bool:
        """See `Desk`."""
        return self._checkpointer.is_due

    def after_commit(self) -> None:
        """See `Desk`."""
        self._checkpointer.after_commit()

    def named(self, error: BaseException) -> StoreError:
        """See `Desk`."""
        return named(error, self.connection.filename, "writing")
