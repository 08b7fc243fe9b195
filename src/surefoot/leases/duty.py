"""What a process acts under: its session, and the next one when that has run out.

What holds: what was taken for a session is not acted on under another; one session is opened, however many ask at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from surefoot.leases.session import LeaseLost, Session, Sessions
from surefoot.store import Store

LOOK_S = 0.02
"""Pause between two looks whether another in this process has opened the next session."""

NEW_SESSION_S = 10.0
"""How long a new session is waited for."""


class Duty:
    """The session of this process.

    Args:
        store: Where it is.
        sessions: Opens the next one.
        session: The first.
        is_acting: Whether something is being acted on: then the lock of a session that has run out is kept.

    Attributes:
        session: Today's.
        nudge: Tells the worker of this process, if it has one, to look now.
        is_tended: Whether a worker sees to the session.
    """

    def __init__(self, store: Store, sessions: Sessions, session: Session, is_acting: Callable[[], bool]) -> None:
        self._store = store
        self._sessions = sessions
        self.session = session
        self._is_acting = is_acting
        self.nudge: Callable[[], object] = lambda: None
        self.is_tended: Callable[[], bool] = lambda: False
        self._opening = threading.Lock()

    def may_act_for(self, session: int) -> bool:
        """Whether what was taken for this session is still ours: it is today's, and has not run out."""
        return session == self.session.id and self.session.may_act()

    async def take_up(self) -> None:
        """Return once this process has a session to act for, for whoever acts outside runs.

        One that has run out, because the process was stopped for long, is followed by a new one: of the worker, which lets
        go of its runs before that, or of the first who asks where no worker runs.

        Raises:
            StoreError: None can be opened.
            LeaseLost: The worker did not open one in time: code of a run does not let itself be ended.
        """
        until_s = self._store.clock.monotonic_s() + NEW_SESSION_S
        while not self.session.may_act():
            if self._store.clock.monotonic_s() > until_s:
                raise LeaseLost(
                    f"this process's lease ({self.session.name}) has run out; nothing was sent",
                    hint="its worker waits for the code of its runs to end; look for code that catches CancelledError",
                )
            if self.is_tended() or not self._opening.acquire(blocking=False):
                self.nudge()
                await asyncio.sleep(LOOK_S)
                continue
            try:
                if not self.session.may_act():
                    await self.begin_anew()
            finally:
                self._opening.release()

    async def begin_anew(self) -> None:
        """Open a new session. All that the old one held may be another's by now: nothing that was begun under it acts."""
        lost, self.session = self.session, await self._sessions.open(self.session.name)
        await asyncio.to_thread(lost.close, is_acting=self._is_acting())
