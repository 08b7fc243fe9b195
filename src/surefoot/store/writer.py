"""The one ordered writer of a process: everything this process records goes through here, in the order it was asked.

What holds:

* *Prefix*: units are written in the order of `submit`; if one is on disk, all before it are. That is what lets an effect
  wait for one sync and know that every reason for it is durable too (output commit: Strom & Yemini 1985).
* *Group commit*: all units that wait share one transaction and one sync, and wake their callers with one call per loop.
* *Bounded flush*: a unit that nobody waits for is on disk within `flush_s`; the writer wakes for it by itself.
* *A refused unit fails alone*: a batch whose unit raises is rolled back and written again, each unit in its own
  transaction. A unit must therefore do nothing but read and write through its `Tx`: it may run twice.
* *A failed write or sync stops the writer for good*: all that waits gets `StoreFailed`, later units too.

Units run in the writer's thread. Nothing else in the process writes to the file.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import apsw

from surefoot.store.clock import Clock
from surefoot.store.errors import DiskFull, StoreBusy, StoreClosed, StoreError, StoreFailed

if TYPE_CHECKING:
    from surefoot.store.checkpoint import Checkpointer
    from surefoot.store.turnstile import Turnstile

T = TypeVar("T")

FLUSH_S = 0.005
"""Longest time a unit that nobody waits for stays in memory. 5 ms: far below a model call, far above one sync."""

BATCH_UNITS_MAX = 2_000
"""Units in one transaction. Bounds the time the write lock is held; a sync is already nearly free per unit at 100."""

BACKLOG_BYTES_MAX = 32 * 1024 * 1024
"""Unsynced bytes above which `has_room` says no. About 0.2 s of a slow cloud disk."""


FATAL = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    OSError,
)
"""What says that the file, not the unit, is at fault."""


class Tx:
    """The transaction a unit writes through.

    Attributes:
        now_ms: Wall clock at the start of the transaction.
        held: Guards that were already checked (see `runs`); whoever changes what they check must clear it.
        next_ids: The next row ids of append-only tables; see `take_id`.
    """

    __slots__ = ("_version", "connection", "execute", "held", "next_ids", "now_ms")

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.execute = connection.cursor().execute
        self.now_ms = 0
        self.held: set[tuple[int, int]] = set()
        self.next_ids: dict[str, int] = {}
        self._version = -1

    def begin(self, now_ms: int) -> None:
        """Start afresh. What was checked in an earlier transaction still holds if no other connection has written since
        (SQLite's data_version says so), because whoever changes it in this process clears it."""
        self.now_ms = now_ms
        version = int(next(self.execute("PRAGMA data_version"))[0])
        if version != self._version:
            self._version = version
            self.forget()

    def forget(self) -> None:
        """Drop what was learned of the file: after a rollback, or when another process has written."""
        self.held.clear()
        self.next_ids.clear()

    def take_id(self, table: str) -> int:
        """Return the next row id of an append-only table, for a row that this transaction is about to insert."""
        found = self.next_ids.get(table)
        if found is None:
            found = int(next(self.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}"))[0])
        self.next_ids[table] = found + 1
        return found

    def row(self, sql: str, bindings: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        rows = self.execute(sql, bindings).fetchall()
        return rows[0] if rows else None


Unit = Callable[[Tx], T]


class Ticket(Generic[T]):
    """A unit on its way to the disk."""

    __slots__ = ("done", "error", "future", "is_alone", "label", "loop", "on_error", "result", "size", "unit")

    def __init__(self, unit: Unit[T], label: str, size: int, is_alone: bool) -> None:
        self.unit = unit
        self.label = label
        self.size = size
        self.is_alone = is_alone
        self.result: T | None = None
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[T] | None = None
        self.on_error: Callable[[BaseException], None] | None = None
        self.done: threading.Event | None = None

    def settle(self) -> None:
        """Hand the result over; runs in the loop that waits."""
        future = self.future
        if future is not None:
            if not future.done():
                if self.error is not None:
                    future.set_exception(self.error)
                else:
                    future.set_result(self.result)  # type: ignore[arg-type]  # set before settle is called
        elif self.error is not None and self.on_error is not None:
            self.on_error(self.error)


class Writer:
    """A thread with a queue in front of one connection. See the module for what it promises."""

    def __init__(
        self,
        connection: apsw.Connection,
        clock: Clock,
        turnstile: Turnstile,
        checkpointer: Checkpointer,
        *,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._turnstile = turnstile
        self._checkpointer = checkpointer
        self._flush_s = flush_s
        self._tx = Tx(connection)
        self._queue: deque[Ticket[Any]] = deque()
        self._wake = threading.Event()
        self._is_asleep = False
        self._is_closing = False
        self._failure: StoreError | None = None
        self._backlog = 0
        self._pid = os.getpid()
        self.syncs = 0
        self._thread = threading.Thread(target=self._run, name="surefoot-writer", daemon=True)
        self._thread.start()

    def append(self, unit: Unit[T], *, label: str, on_error: Callable[[BaseException], None], size: int = 0) -> None:
        """Record in order, without waiting.

        Args:
            unit: What to write.
            label: What this is, for traces and fault injection: "decision", "settle", ...
            on_error: Called in the running loop if the unit is refused or the store fails.
            size: Bytes of the unit, for the backlog's bound.
        """
        ticket = Ticket(unit, label, size, is_alone=False)
        ticket.loop = asyncio.get_running_loop()
        ticket.on_error = on_error
        self._put(ticket)
        if self._is_asleep:
            self._wake.set()

    async def commit(self, unit: Unit[T], *, label: str, size: int = 0, is_alone: bool = False) -> T:
        """Record in order and return the unit's result once it, and all before it, is on disk.

        Args:
            unit: What to write.
            label: See `append`.
            size: See `append`.
            is_alone: Give the unit a transaction of its own, for units that must not run twice.

        Raises:
            StoreFailed: The write or its sync failed; whether it is on disk is unknown.
        """
        ticket = Ticket(unit, label, size, is_alone)
        ticket.loop = loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        ticket.future = future
        self._put(ticket)
        if not self._wake.is_set():  # it clears this before it looks at the queue, so what is in the queue now is seen
            self._wake.set()
        return await future

    def commit_blocking(self, unit: Unit[T], *, label: str) -> T:
        """As `commit`, for threads without a loop."""
        ticket = Ticket(unit, label, 0, is_alone=False)
        ticket.done = done = threading.Event()
        self._put(ticket)
        self._wake.set()
        done.wait()
        if ticket.error is not None:
            raise ticket.error
        return cast(T, ticket.result)

    @property
    def has_room(self) -> bool:
        """Whether less than `BACKLOG_BYTES_MAX` waits for the disk; when not, await `barrier` before appending more."""
        return self._backlog < BACKLOG_BYTES_MAX

    def close(self) -> None:
        """Write what is queued, then stop. Safe to call twice."""
        self._is_closing = True
        self._wake.set()
        if os.getpid() == self._pid:
            self._thread.join()

    def _put(self, ticket: Ticket[Any]) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_closing or os.getpid() != self._pid:
            reason = "is closed" if self._is_closing else "was opened before this process was forked"
            raise StoreClosed(f"the store {reason}", hint="open it again: `async with app:` in this process")
        self._backlog += ticket.size
        self._queue.append(ticket)

    def _run(self) -> None:
        while True:
            is_asked = self._wake.wait(self._flush_s)
            if not is_asked and not self._queue and not self._is_closing:
                self._is_asleep = True
                if not self._queue:  # an append that came before it saw us asleep is in the queue now
                    self._wake.wait()
                self._is_asleep = False
                continue
            self._wake.clear()
            while self._queue and self._failure is None:
                self._write_batch()
            if self._is_closing and (not self._queue or self._failure is not None):
                return

    def _write_batch(self) -> None:
        batch: list[Ticket[Any]] = []
        queue = self._queue
        while queue and len(batch) < BATCH_UNITS_MAX:
            is_alone = queue[0].is_alone
            if is_alone and batch:
                break
            batch.append(queue.popleft())
            if is_alone:
                break
        try:
            self._transact(batch)
        except FATAL as error:
            self._fail(batch, error)
        self._backlog -= sum(ticket.size for ticket in batch)
        _wake_callers(batch)
        self._checkpointer.after_commit()

    def _transact(self, batch: list[Ticket[Any]]) -> None:
        with self._turnstile:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._write(batch)
            except Exception as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._tx.forget()
                if isinstance(error, FATAL):
                    raise
                if len(batch) == 1:
                    batch[0].error = error
                    return
            else:
                self._connection.execute("COMMIT")
                self.syncs += 1
                return
        for ticket in batch:
            self._transact([ticket])

    def _write(self, batch: list[Ticket[Any]]) -> None:
        tx = self._tx
        tx.begin(self._clock.wall_ms())
        for ticket in batch:
            ticket.result = ticket.unit(tx)

    def _fail(self, batch: list[Ticket[Any]], error: Exception) -> None:
        path = self._connection.filename
        if isinstance(error, apsw.FullError):
            failure: StoreError = DiskFull(
                f"{path}: no room on the device",
                hint="free some room and start the process again; all that was acknowledged is recorded",
            )
        elif isinstance(error, apsw.BusyError):
            failure = StoreBusy(
                f"{path}: another program holds the write lock",
                hint="close it (an open transaction in a SQLite shell?) and start the process again",
            )
        else:
            failure = StoreFailed(
                f"{path}: writing failed ({error}); this process records nothing more",
                hint="check the disk, then start the process again; all that was acknowledged is recorded",
            )
        failure.__cause__ = error
        self._failure = failure
        batch.extend(self._queue)
        self._queue.clear()
        for ticket in batch:
            ticket.error = ticket.error or failure

    @property
    def failure(self) -> StoreError | None:
        """Why the writer stopped, or None while it works."""
        return self._failure


def _wake_callers(batch: list[Ticket[Any]]) -> None:
    waiting: dict[asyncio.AbstractEventLoop, list[Ticket[Any]]] = {}
    for ticket in batch:
        if ticket.done is not None:
            ticket.done.set()
        elif ticket.loop is not None and (ticket.future is not None or ticket.error is not None):
            waiting.setdefault(ticket.loop, []).append(ticket)
    for loop, tickets in waiting.items():
        try:
            loop.call_soon_threadsafe(_settle_all, tickets)
        except RuntimeError:  # the loop was closed while its callers waited: nobody is left to tell
            continue


def _settle_all(tickets: list[Ticket[Any]]) -> None:
    for ticket in tickets:
        ticket.settle()
