"""Executing until done or told to stop: Ctrl-C and SIGTERM, and threads that can't be stopped.

What holds: the first signal lets acts in progress get their answer and hands the rest back; the second ends the
process where it stands, which loses nothing that was recorded: it is a crash, and crashes are what the store is for.
The handlers are plain signal handlers, so that they work while a user's code blocks the event loop. A synchronous tool
that never returns keeps its claim, and doesn't keep the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType, TracebackType
from typing import Any, NoReturn, TypeVar

from surefoot.app import Surefoot
from surefoot.cli.exits import ExitCode
from surefoot.store import StoreBusy, shown

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)

NOTICE_S = 1.0
"""When a command says that it waits for the store to open, which takes milliseconds, also while others write."""


class Stopping:
    """Whether somebody has asked this process to stop, as something to wait for.

    Args:
        words: What happens now, told at the first signal.
    """

    def __init__(self, words: str) -> None:
        self.by: signal.Signals | None = None
        self._words = words
        self._asked = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        self._loop = asyncio.get_running_loop()
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Runs between any two instructions of the main thread: it must not print through buffers."""
        if self.by is not None:
            _write("leaving at once; what was recorded stays")
            os._exit(ExitCode.INTERRUPTED)
        self.by = signal.Signals(number)
        _write(f"stopping: {self._words}; again to leave at once, nothing recorded is lost")
        self._loop.call_soon_threadsafe(self._asked.set)

    async def wait(self, timeout_s: float) -> bool:
        """Return whether somebody has asked, at the latest after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        return True


def _write(words: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(2, f"{words}\n".encode())


class _Pool(ThreadPoolExecutor):
    """The threads of synchronous tools and of the store, and which of them still run."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="surefoot-tool")
        self.running: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.running.add(future)
        future.add_done_callback(self.running.discard)
        return future


_pools: list[_Pool] = []


def execute(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run async work in an event loop of its own, as `asyncio.run` does, but without waiting for stuck threads."""
    pool = _Pool()
    _pools.append(pool)
    runner = asyncio.Runner()

    async def whole() -> T:
        asyncio.get_running_loop().set_default_executor(pool)
        return await work()

    try:
        return runner.run(whole())
    finally:
        if not pool.running:
            runner.close()


async def opened(app: Surefoot, limit_s: float) -> None:
    """Open an app whose store should answer at once: say so when it does not, and give up in the end.

    Raises:
        StoreBusy: The limit has passed.
    """
    task = asyncio.ensure_future(app.open())
    await asyncio.wait({task}, timeout=min(NOTICE_S, limit_s))
    if not task.done():
        _write("waiting for the store, which another process holds; Ctrl-C leaves")
        await asyncio.wait({task}, timeout=limit_s - NOTICE_S)
    if not task.done():
        raise StoreBusy(
            f"{shown(app.url)}: no answer within {limit_s:.0f} s: another process holds its write lock",
            hint="is a worker stopped (SIGSTOP, a debugger) or the disk stuck? continue it or end it",
        )
    task.result()


def leave(code: int) -> NoReturn:
    """End the process, even if a thread never returns: an effect that runs in it keeps its claim, and is unknown."""
    if any(pool.running for pool in _pools):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
