"""One worker process of the simulated host: it can be killed, stopped and continued, and its disk can fail.

How this corresponds to reality:

=============  ========================================  ============================================================
what happens   to a real process                         here
=============  ========================================  ============================================================
SIGKILL        its memory is gone, the kernel drops its  its loop is never run again, its queue of unwritten units is
               file locks, files stay as they are        dropped, the lock file's descriptor is closed; no `finally`
                                                         of it runs while the schedule goes on
SIGSTOP        nothing of it runs, its locks stay, the   neither its loop, nor its writer, nor its lease's renewal is
               host's clocks go on                       run; answers wait for it in its loop
SIGTERM        `async with app:` ends                    `app.close()` in its loop
disk full      a commit fails, and nothing is written    the transaction is refused before it begins, or rolled back at
                                                         its end
I/O error      the commit's answer is lost: it may be    the transaction is committed, then an error is raised
               on disk or not
slow disk      commits wait                              its writer is not run for a while
=============  ========================================  ============================================================

A thread can be killed where it waits: between transactions, or before a transaction is committed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import apsw
from tests.support.simulated import Host, HostClock, Loop, Thread, pause

import surefoot as sf
from surefoot.effects.binding import remove_open
from surefoot.leases import session as session_room
from surefoot.runs import Worker
from surefoot.store import SqliteStore
from surefoot.store.sqlite_desk import SqliteDesk

WRITER = "surefoot-writer"
"""The name of the thread that takes the write lock."""


class Process:
    """A process that runs one app."""

    def __init__(self, host: Host, url: str, name: str) -> None:
        self.host = host
        self.name = name
        self.loop = Loop(host)
        self.app = sf.Surefoot(url, name=name, clock=HostClock(host))
        self.is_alive = True
        self.is_stopped = False
        self.slow_until_s = 0.0
        self.fault: str | None = None
        self._sessions: set[int] = set()
        self._worker: Worker | None = None
        self._locks: set[str] = set()
        self._opening = self.spawn(self._open())
        self._closing: asyncio.Task[Any] | None = None

    async def _open(self) -> None:
        await self.app.open()
        self._worker = self.app.worker
        desk = self.app.store.writer._desk
        assert isinstance(desk, SqliteDesk)
        desk.connection = _Disk(desk.connection, self)  # type: ignore[assignment]  # looks like one

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task in the process."""
        with self.loop.running():
            return self.loop.create_task(work)

    # -- what can run ----------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether its app is open."""
        if self._opening.done():
            self._opening.result()  # an app that can't be opened is no part of any schedule
        return self.is_alive and self._opening.done() and self._closing is None

    @property
    def has_failed(self) -> bool:
        """Whether its store has failed, so that its supervisor will start it anew."""
        return self.is_open and self.app.store.writer.failure is not None

    @property
    def sessions(self) -> set[int]:
        """The numbers of its sessions: it opens another when it has lost one."""
        opened = self.app._opened
        self._worker = self._worker or (None if opened is None else opened.worker)
        if self._worker is not None:
            self._sessions.add(self._worker.session.id)
        return self._sessions

    def can_run(self) -> bool:
        """Whether a callback of its loop could run now. One that opens or closes its app would wait for the write lock."""
        is_waiting = self.is_locked_out() and (not self._opening.done() or self._closing is not None)
        return self.is_alive and not self.is_stopped and not is_waiting and self.loop.is_busy()

    def is_locked_out(self) -> bool:
        """Whether another process is in the middle of a transaction."""
        return self.host.writing not in (None, self)

    def run_one(self) -> None:
        """Run one callback of its loop."""
        before = set(session_room._OWN_LOCKS)
        self.loop.run_one()
        self._locks |= session_room._OWN_LOCKS - before

    def threads(self) -> list[Thread]:
        """Return its threads that could run now."""
        is_able = self.is_alive and not self.is_stopped and self.slow_until_s <= self.host.now_s
        able = [one for one in self.loop.threads if one.can_run()] if is_able else []
        return [one for one in able if one.name != WRITER] if self.is_locked_out() else able

    def wakes_s(self) -> list[float]:
        """Return when something of it will be due."""
        if not self.is_alive or self.is_stopped:
            return []
        times = [
            self.loop.next_s(),
            self.slow_until_s,
            *(one.until_s for one in self.loop.threads if not one.has_ended),
        ]
        return [when for when in times if when is not None and when > self.host.now_s]

    # -- what is done to it ----------------------------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL."""
        if not self.is_alive:
            return
        self.is_alive = False
        worker, opened = self._worker, self.app._opened
        for session in {None if opened is None else opened.session, None if worker is None else worker.session}:
            if session is not None and str(session._lock_file) in session_room._OWN_LOCKS:
                os.close(session._lock)
        session_room._OWN_LOCKS.difference_update(self._locks)
        if worker is not None:
            remove_open(worker.guard)
        for thread in self.loop.threads:
            thread.kill()
        if self.host.writing is self:
            self.host.writing = None
        if opened is not None:
            store = opened.store
            assert isinstance(store, SqliteStore)
            for connection in (store._connection, store._reader, store._checkpointer._own):
                connection.close()
            store._turnstile.close()

    def close(self) -> None:
        """SIGTERM."""
        if self._closing is None and self._opening.done():
            self._closing = self.spawn(self.app.close())

    @property
    def is_closed(self) -> bool:
        """Whether it has ended by itself."""
        return self._closing is not None and self._closing.done()


class _Disk:
    """Stands around the writer's connection, and fails when it was told to."""

    def __init__(self, connection: apsw.Connection, process: Process) -> None:
        self._connection = connection
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *rest: Any) -> Any:
        process, fault = self._process, self._process.fault
        if fault == "full" and sql.startswith("BEGIN"):
            process.fault = None
            raise apsw.FullError("database or disk is full")
        if sql != "COMMIT":
            return self._connection.execute(sql, *rest)
        process.host.writing = process
        pause()  # a sync takes its time: the loop goes on meanwhile
        process.host.writing = None
        if fault == "full late":
            process.fault = None
            self._connection.execute("ROLLBACK")
            raise apsw.FullError("database or disk is full")
        result = self._connection.execute(sql, *rest)
        if fault == "lost":
            process.fault = None
            raise apsw.IOError("disk I/O error")
        return result
