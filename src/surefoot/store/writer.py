"""The one ordered writer of a process: everything this process records goes through here, in the order it was asked.

What holds:

* *Prefix*: units are written in the order of `submit`; if one is on disk, all before it are. That is what lets an effect
  wait for one sync and know that every reason for it is durable too (output commit: Strom & Yemini 1985).
* *Group commit*: all units that wait share one transaction and one sync, and wake their callers with one call per loop.
  If more units wait by then, these are written first, and the callers woken while their commit waits for the disk: so the
  loop works while the disk does. Nobody waits for another process's turn with an answer that is there.
* *Bounded flush*: a unit that nobody waits for is on disk within `flush_s`; the writer wakes for it by itself.
* *A refused unit fails alone*: a batch whose unit raises is rolled back and written again, each unit in its own
  transaction. A unit must therefore do nothing but read and write through its `Tx`: it may run twice.
* *Many rows, few statements*: a batch is first written in a hurry (see `Tx.put`), and again without where that was wrong.
* *A failed write or sync stops the writer for good*: all that waits gets `StoreFailed`, later units too. What is at fault,
  the file or the unit, is decided by where it was raised: BEGIN, COMMIT and ROLLBACK speak of the file; a unit speaks of it
  only with SQLite's own words for a sick file, and never when it runs alone, since then it is the user's code.
* *Nobody hangs*: whatever ends the writer's thread is told to all who wait.

Units run in the writer's thread. Nothing else in the process writes to the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from surefoot.store.errors import InsideTransaction, StoreClosed, StoreError, UnitFailed
from surefoot.store.tx import Mistrusted, Tx

if TYPE_CHECKING:
    from surefoot.store.desk import Desk

T = TypeVar("T")

FLUSH_S = 0.005
"""Longest time a unit that nobody waits for stays in memory. 5 ms: far below a model call, far above one sync."""

BATCH_UNITS_MAX = 2_000
"""Units in one transaction. Bounds the time the write lock is held; a sync is already nearly free per unit at 100."""

CUT_OFF_MAX = 3
"""How often in a row a user's unit may be cut off by the store's limit of a transaction: once or twice its process may have
been stopped meanwhile; after that it is the unit that is too long, and would be done again for ever."""

BACKLOG_BYTES_MAX = 32 * 1024 * 1024
"""Unsynced bytes above which `has_room` says no. About 0.2 s of a slow cloud disk."""


class _SickFile(Exception):
    """Carries what says that the file is at fault to where the writer stops."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


_forks = 0
"""How many forks lie between this process and the first one that imported this; asking the system is slower."""


def _count_fork() -> None:
    global _forks  # noqa: PLW0603  a fact about the process
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)

Unit = Callable[[Tx], T]
OPEN_AGAIN = "open it again: `async with app:` in this process"


class Ticket(msgspec.Struct, Generic[T], gc=False):
    """A unit on its way to the disk."""

    unit: Unit[T]
    label: str
    size: int
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[T] | None = None
    on_error: Callable[[BaseException], None] | None = None
    on_refused: Callable[[BaseException], None] | None = None
    done: threading.Event | None = None
    is_alone: bool = False
    result: T | None = None
    error: BaseException | None = None

    def refuse(self, error: BaseException) -> None:
        """Note that the unit raised, in the writer, before anything queued behind it is looked at."""
        if not isinstance(error, Exception) or isinstance(error, StopIteration):  # a future can't carry these
            refused = UnitFailed(f"{self.label}: raised {type(error).__name__}: {error}")
            refused.__cause__ = error
            error = refused
        self.error = error
        if self.on_refused is not None:
            self.on_refused(error)

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

    def __init__(self, desk: Desk, *, flush_s: float = FLUSH_S) -> None:
        self._desk = desk
        self._flush_s = flush_s
        self._tx = Tx(desk.connection, desk.execute, desk.write, desk.query)
        self._queue: deque[Ticket[Any]] = deque()
        self._wake = threading.Event()
        self._is_asked = False  # whether somebody waits for a commit
        self._is_asleep = False
        self._is_closing = False
        self._failure: StoreError | None = None
        self._backlog = 0
        self._owed: list[Ticket[Any]] = []  # committed, and not told yet
        self._lock = threading.Lock()  # around the queue's two ends: putting, and ending for good
        self._born = _forks
        self._own_ident = 0  # of the writer's thread while it lives: idents are given out again
        self.syncs = 0
        desk.before_waiting = self._tell
        self._thread = threading.Thread(target=self._run, name="surefoot-writer", daemon=True)
        self._thread.start()

    def append(
        self,
        unit: Unit[T],
        *,
        label: str,
        on_error: Callable[[BaseException], None] | None,
        on_refused: Callable[[BaseException], None] | None = None,
        size: int = 0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Record in order, without waiting.

        Args:
            unit: What to write.
            label: What this is, for traces and fault injection: "decision", "settle", ...
            on_error: Called in the loop if the unit is refused or the store fails; None where nobody needs to hear of
                it: once the writer has stopped, every later call is told so.
            on_refused: Called in the writer's thread if the unit is refused, before any later unit runs.
            size: Bytes of the unit, for the backlog's bound.
            loop: The running loop, if the caller knows it; None to ask.
        """
        self._put(Ticket(unit, label, size, loop or asyncio.get_running_loop(), None, on_error, on_refused))
        if self._is_asleep:
            self._wake.set()

    def commit(
        self,
        unit: Unit[T],
        *,
        label: str,
        size: int = 0,
        is_alone: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Awaitable[T]:
        """Record in order, asked for at once; awaited, return the unit's result once it, and all before it, is on disk.

        Args:
            unit: What to write.
            label: See `append`.
            size: See `append`.
            is_alone: Give the unit a transaction of its own, for units that must not run twice. It still does where a
                broken connection has undone it.
            loop: See `append`.

        Raises:
            StoreFailed: The write or its sync failed; whether it is on disk is unknown.
        """
        loop = loop or asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(Ticket(unit, label, size, loop, future, is_alone=is_alone))
        self._ask()
        return future if self._backlog < BACKLOG_BYTES_MAX else self._with_room(future)

    async def _with_room(self, future: asyncio.Future[T]) -> T:
        """Hold back a caller whose own unit is on disk, until what others have queued is no longer too much."""
        result = await future
        while not self.has_room and self._failure is None and not self._is_closing:
            with contextlib.suppress(StoreError):  # the caller's own unit is recorded; its next one is told
                await self.commit(_nothing, label="room")
        return result

    def commit_blocking(self, unit: Unit[T], *, label: str) -> T:
        """As `commit`, for threads without a loop."""
        done = threading.Event()
        ticket = Ticket(unit, label, 0, done=done)
        self._put(ticket)
        self._ask()
        done.wait()
        if ticket.error is not None:
            raise ticket.error
        return cast(T, ticket.result)

    @property
    def has_room(self) -> bool:
        """Whether less than `BACKLOG_BYTES_MAX` waits for the disk; when not, await `barrier` before appending more."""
        return self._backlog < BACKLOG_BYTES_MAX

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is a unit, or something a unit calls: it must not wait for the writer it holds up."""
        return get_ident() == self._own_ident

    def close(self) -> None:
        """Write what is queued, then stop. Safe to call twice."""
        self._is_closing = True
        if self._born != _forks:
            return
        self._ask()
        self._thread.join()

    def _ask(self) -> None:
        """Let the writer begin now; it clears both before it looks at the queue, so what is in the queue is seen."""
        self._is_asked = True
        if not self._wake.is_set():
            self._wake.set()

    def _put(self, ticket: Ticket[Any]) -> None:
        if self._born != _forks:
            raise StoreClosed("the store was opened before this process was forked", hint=OPEN_AGAIN)
        if get_ident() == self._own_ident:
            raise InsideTransaction(
                f"{ticket.label}: asked for from inside a transaction, which would wait for itself",
                hint="inside a Transactional effect, write through sf.current_effect().transaction only",
            )
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._is_closing:
                raise StoreClosed("the store is closed", hint=OPEN_AGAIN)
            self._backlog += ticket.size
            self._queue.append(ticket)

    def _run(self) -> None:
        batch: list[Ticket[Any]] = []
        self._own_ident = get_ident()
        try:
            while not self._is_done():
                is_asked = self._wake.wait(self._flush_s)
                if not is_asked and not self._queue and not self._is_closing:
                    self._sleep()
                    continue
                self._wake.clear()
                self._is_asked = False
                while self._queue and self._failure is None:
                    batch.clear()
                    self._write_batch(batch)
                self._tell()
        except BaseException as error:
            self._fail([ticket for ticket in batch if ticket.error is None], error)
        finally:
            self._own_ident = 0

    def _sleep(self) -> None:
        """Return when something is queued. If nobody waits for it, it has its time to be joined by what soon follows."""
        self._is_asleep = True
        if not self._queue:  # an append that came before it saw us asleep is in the queue now
            self._wake.wait()
        self._is_asleep = False
        self._wake.clear()
        if self._is_asked:
            self._wake.set()

    def _tell(self) -> None:
        """Wake the callers of what is on disk."""
        owed, self._owed = self._owed, []
        if owed:
            _wake_callers(owed)

    def _is_done(self) -> bool:
        """Whether nothing is left to write, and nothing can come: after this, `_put` refuses."""
        with self._lock:
            return self._failure is not None or (self._is_closing and not self._queue)

    def _write_batch(self, batch: list[Ticket[Any]]) -> None:
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
        except _SickFile as sick:
            self._fail(batch, sick.error)
            return
        size = sum([ticket.size for ticket in batch])  # before the lock: the loop would wait for it
        with self._lock:
            self._backlog -= size
        self._owed += batch  # behind those whose commit was followed by nothing but refusals
        batch.clear()  # they have their answer, whatever comes now
        if not self._queue or self._desk.is_due:
            self._tell()
        self._desk.after_commit()

    def _transact(self, batch: list[Ticket[Any]]) -> None:
        """Write the batch in one transaction; if a unit raises, each of its units in one of its own.

        Raises:
            _SickFile: Nobody knows any more what is on disk.
        """
        if not self._has_answered(batch):
            for ticket in batch:
                self._transact([ticket])

    def _has_answered(self, batch: list[Ticket[Any]]) -> bool:
        """Write the batch in one transaction, as often as faults leave nothing of it; return whether each unit has its
        answer."""
        cuts = 0
        while True:
            try:
                with self._desk:
                    is_hurried = len(batch) > 1 or (self._desk.is_far and not batch[0].is_alone)
                    return self._transact_at_desk(batch, is_hurried=is_hurried)
            except BaseException as error:
                if not self._desk.is_at_fault(error):
                    raise
                self._tx.forget()
                has_landed = self._desk.has_landed(error)
                if has_landed is None:
                    raise _SickFile(error) from error
                if has_landed:
                    return True
                cuts = cuts + 1 if batch[0].is_alone and self._desk.was_cut_off() else 0
                if cuts == CUT_OFF_MAX:
                    batch[0].refuse(_too_long(batch[0]))
                    return True

    def _transact_at_desk(self, batch: list[Ticket[Any]], *, is_hurried: bool) -> bool:
        """Return whether every unit of the batch has its answer."""
        desk = self._desk
        self._tx.begin(desk.begin(self._tx.numbered, is_owing=bool(self._owed)), is_hurried=is_hurried)
        try:
            self._write(batch)
        except BaseException as error:
            desk.rollback()
            self._tx.forget()
            if desk.is_sick(error, is_alone=batch[0].is_alone):
                raise
            if isinstance(error, Mistrusted):
                return self._transact_at_desk(batch, is_hurried=False)
            if len(batch) > 1:
                return False
            batch[0].refuse(error)
            return True
        self._tell()  # now: what follows is the disk's work
        try:
            desk.commit(self._tx.newest)
        except Mistrusted:
            desk.rollback()
            self._tx.forget()
            return self._transact_at_desk(batch, is_hurried=False)
        self.syncs += 1
        return True

    def _write(self, batch: list[Ticket[Any]]) -> None:
        tx = self._tx
        for ticket in batch:
            ticket.result = ticket.unit(tx)
        self._desk.finish(tx.take_waiting(), tx.rings)

    def _fail(self, batch: list[Ticket[Any]], error: BaseException) -> None:
        """Stop for good, and tell all who wait."""
        self._tell()
        failure = self._desk.named(error)
        with self._lock:
            self._failure = failure
            batch = [*batch, *self._queue]
            self._queue.clear()
            self._backlog = 0
        for ticket in batch:
            ticket.error = ticket.error or failure
        _wake_callers(batch)

    @property
    def failure(self) -> StoreError | None:
        """Why the writer stopped, or None while it works."""
        return self._failure


def _too_long(ticket: Ticket[Any]) -> UnitFailed:
    return UnitFailed(
        f"{ticket.label}: {CUT_OFF_MAX} times the server has ended its transaction, in which everybody waits for it",
        hint="do nothing slow between its statements: prepare before, and leave what takes long to another effect",
    )


def _nothing(_tx: Tx) -> None:
    return None


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
