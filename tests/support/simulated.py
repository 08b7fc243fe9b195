"""One simulated host: its time, and an event loop per process, all in one thread and in an order that a seed decides.

The shipped engine runs in it unchanged. Replaced are only the four places where the host would decide the order:

* *time*: every clock and every timer reads `Host.now_s`, which moves only when nothing is left to do at this moment;
* *the event loop*: `Loop` runs one callback when it is told to, so that processes interleave callback by callback;
* *threads*: the writer's and the lease's threads are real ones, but one at a time: a thread runs when the schedule says so,
  until it waits for something, and time-outs are counted in simulated time;
* *reads off the loop*: run at a step of their own.

No power loss is simulated, so nothing is synced: that is another test's matter.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

EPOCH_MS = 1_700_000_000_000
"""The wall clock at the beginning: any day will do."""


class Host:
    """A machine: one time, one boot, one wall clock that may jump."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.booted_s = 0.0
        self.boots = 1
        self.wall_jump_ms = 0
        self.writing: object | None = None

    def reboot(self) -> None:
        """Begin a new boot; whoever calls it has killed all processes."""
        self.boots += 1
        self.booted_s = self.now_s


class HostClock:
    """The clock of a process of this host (`surefoot.store.Clock`)."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def wall_ms(self) -> int:
        return EPOCH_MS + round(self._host.now_s * 1_000) + self._host.wall_jump_ms

    def monotonic_s(self) -> float:
        return self._host.now_s

    def boot_ms(self) -> int:
        return round((self._host.now_s - self._host.booted_s) * 1_000)

    def boot_id(self) -> str:
        return f"boot-{self._host.boots}"


_EventLoop: Any = asyncio.AbstractEventLoop


class Loop(_EventLoop):  # type: ignore[misc]  # of its 60 methods we need a dozen
    """The event loop of one process: runs one callback per call of `run_one`, never by itself."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self.tasks: list[asyncio.Task[Any]] = []
        self.complaints: list[str] = []
        self.threads: list[Thread] = []

    # -- what the schedule sees ------------------------------------------------------------------------------------

    def is_busy(self) -> bool:
        """Whether a callback could run now."""
        when_s = self.next_s()
        return bool(self._ready) or (when_s is not None and when_s <= self.host.now_s)

    def next_s(self) -> float | None:
        """Return when the next timer is due."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def run_one(self) -> None:
        """Run the oldest callback that is ready."""
        while (when_s := self.next_s()) is not None and when_s <= self.host.now_s:
            self._ready.append(heapq.heappop(self._timers)[2])
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                with self.running():
                    handle._run()
                return

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the running loop of the thread."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def bury(self) -> None:
        """Drop what the process left, without letting any of it do anything more."""
        for task in self.tasks:
            if not task.done():
                _close(task.get_coro())
        self.tasks.clear()
        self._ready.clear()
        self._timers.clear()

    # -- what asyncio asks of a loop -------------------------------------------------------------------------------

    def time(self) -> float:
        return self.host.now_s

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.host.now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when they come up."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()

        def run() -> None:
            if future.done():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_soon(run)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False


def _close(coroutine: Coroutine[Any, Any, Any] | Any) -> None:
    try:
        coroutine.close()
    except BaseException:  # whatever its `finally` blocks would still do: a killed process does none of it
        return


class _Killed(BaseException):
    """Ends a thread whose process was killed, where it waits."""


_current = threading.local()


class Thread:
    """A thread of a simulated process: it runs only when told to, until it waits for an `Event`."""

    def __init__(self, target: Callable[[], Any], name: str = "", daemon: bool = False) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop), "only simulated processes start threads"
        self.host = loop.host
        self.name = name
        self.daemon = daemon
        self.ident: int | None = None
        self.waits_for: Event | None = None
        self.until_s: float | None = None
        self.has_ended = False
        self._target = target
        self._is_killed = False
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._real = threading.Thread(target=self._run, name=name, daemon=True)
        self._is_begun = False
        self.siblings = loop.threads
        self.siblings.append(self)

    def start(self) -> None:
        """From now on it may be told to run."""

    def is_alive(self) -> bool:
        return not self.has_ended

    def can_run(self) -> bool:
        """Whether what it waits for has come."""
        if self.has_ended or self.waits_for is None:
            return not self.has_ended
        return self.waits_for.is_set() or (self.until_s is not None and self.until_s <= self.host.now_s)

    def run_on(self) -> None:
        """Let it run until it waits again or ends."""
        if not self._is_begun:
            self._is_begun = True
            self._real.start()
        self._mine.release()
        self._theirs.acquire()

    def kill(self) -> None:
        """End it where it waits."""
        if self.has_ended:
            return
        self._is_killed = True
        if self._is_begun:
            self.run_on()
        self.has_ended = True

    def join(self, timeout: float | None = None) -> None:
        """Run it, and whatever threads of its process it waits for, to its end."""
        _run_until(self.siblings, lambda: self.has_ended)

    def park(self, event: Event, timeout: float | None) -> bool:
        """Wait: called in the thread itself."""
        self.waits_for = event
        self.until_s = None if timeout is None else self.host.now_s + timeout
        self._theirs.release()
        self._mine.acquire()
        self.waits_for = None
        if self._is_killed:
            raise _Killed
        return event.is_set()

    def _run(self) -> None:
        self._mine.acquire()
        _current.thread, self.ident = self, threading.get_ident()
        try:
            self._target()
        except _Killed:
            pass
        finally:
            self.has_ended = True
            self._theirs.release()


class Event:
    """What threads of a simulated process wait for."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in simulated time."""
        thread: Thread | None = getattr(_current, "thread", None)
        if self._is_set:
            return True
        if thread is not None:
            return thread.park(self, timeout)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop), "only simulated processes wait"
        _run_until(loop.threads, self.is_set)
        return True


def pause() -> None:
    """Let others run, in the middle of what a thread does."""
    thread: Thread | None = getattr(_current, "thread", None)
    if thread is not None:
        thread.park(Event(), 0.0)


def _run_until(threads: list[Thread], is_over: Callable[[], bool]) -> None:
    while not is_over():
        able = next((one for one in threads if one.can_run()), None)
        assert able is not None, "the process waits for itself for ever"
        able.run_on()


@contextmanager
def simulated_threads() -> Iterator[None]:
    """Let the threads of the engine be simulated ones."""
    simulated = SimpleNamespace(**{**vars(threading), "Thread": Thread, "Event": Event})
    with (
        mock.patch("surefoot.store.writer.threading", simulated),
        mock.patch("surefoot.store.checkpoint.threading", simulated),
        mock.patch("surefoot.leases.session.threading", simulated),
        _on_one_processor(),
    ):
        yield


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """Keep to the processor it is on: only one thread runs at a time, and handing over to another processor is five times
    slower on a busy machine."""
    allowed = os.sched_getaffinity(0)
    here = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[36])
    os.sched_setaffinity(0, {here})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
