"""When a run leaves memory: all that goes on in it is waiting, and has waited long enough."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surefoot.runs.errors import Suspend
from surefoot.runs.life import WaitFor
from surefoot.runs.live.waiting import Parking, Waiting

if TYPE_CHECKING:
    from surefoot.runs.live.run import LiveRun

QUIET_S = 1.0
"""How long after a step's end a run whose other tasks wait is left in memory for the next step."""


class Eviction:
    """Watches over the waits of one run.

    Attributes:
        parking: Why and until when the run was evicted; None while it was not.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self.parking: Parking | None = None
        self._quiet: asyncio.TimerHandle | None = None

    def allow(self, waiting: Waiting) -> None:
        """This one has waited long enough."""
        waiting.is_evictable = True
        self.consider()

    def note_ended(self) -> None:
        """A step has ended while others wait: what its task does next is seen only by its next step."""
        run = self._run
        if run.is_closing:
            run.closing.set()
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = run.loop.call_later(QUIET_S, self.consider)

    def consider(self) -> None:
        """Evict the run when all that goes on in it is waiting, and has waited long enough.

        What has been told that its wait is over goes on: the letter that told it counts as seen, and wakes no run again.
        """
        run = self._run
        if run.is_closing or run.stopped is not None or not run.waits:
            return
        if any(waiting.future.done() or not waiting.is_evictable for waiting in reversed(run.waits)):
            return
        if not run.acting and not run.steps_in_progress():
            self.evict(run.waits)

    def evict(self, waits: Sequence[Waiting]) -> None:
        """Unwind the code; the worker then writes the run as waiting for the most important of its waits."""
        run = self._run
        if run.stopped is not None:
            return
        order = list(WaitFor)
        first = min(waits, key=lambda waiting: order.index(waiting.wait_for))
        times = [waiting.wake_at_ms for waiting in waits if waiting.wake_at_ms is not None]
        is_free = any(waiting.wait_for is not WaitFor.DOUBT for waiting in waits)
        if is_free and run.row.deadline_ms is not None and run.history.expired is None:
            times.append(run.row.deadline_ms)
        targets = tuple(waiting.target for waiting in waits if waiting.target is not None)
        self.parking = Parking(first.wait_for, first.reason, min(times, default=None), targets)
        run.stop(Suspend(first.reason))
        run.interrupt()
