"""Ctrl-C and SIGTERM for commands that execute runs: the first asks, the second leaves at once.

What holds: the first lets acts in progress get their answer and hands the rest back; the second ends the process where it
stands, which loses nothing that was recorded: it is a crash, and crashes are what the store is for. The handlers are
plain signal handlers, so that they work while a user's code blocks the event loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
from types import FrameType, TracebackType
from typing import Any

from surefoot.cli.exits import ExitCode
from surefoot.cli.screen import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Whether somebody has asked this process to stop, as something to wait for."""

    def __init__(self, what_goes_on: str) -> None:
        self.by: signal.Signals | None = None
        self._what_goes_on = what_goes_on
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
        if self.by is not None:
            os.write(2, b"leaving at once; what was recorded stays\n")
            os._exit(ExitCode.INTERRUPTED)
        self.by = signal.Signals(number)
        self._loop.call_soon_threadsafe(self._ask)

    def _ask(self) -> None:
        say(f"stopping: {self._what_goes_on}. Again to leave at once: nothing recorded is lost")
        self._asked.set()

    async def wait(self, timeout_s: float) -> bool:
        """Return whether somebody has asked, at the latest after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        return True

    @property
    def is_asked(self) -> bool:
        """Whether somebody has asked."""
        return self._asked.is_set()
