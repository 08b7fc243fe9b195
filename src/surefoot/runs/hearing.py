"""Who waits in this process for what other processes do: for the ends of runs, and for work.

What holds: what is heard is a hint (see `Store.listen`); whoever is woken looks for himself, and looks unasked, too: often
where nothing is told, rarely where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator

from surefoot.runs.rows.tables import WORK
from surefoot.store import Store

POLL_S = 0.1
"""How often to look for what other processes have done where nobody tells."""

HEARING_POLL_S = 0.25
"""How often an idle worker looks where it is told: looking is the safety net then, and how dead and stopped workers are
found."""

LOOK_AGAIN_S = 5.0
"""How often a caller looks for the end of a run of which he would be told."""


class Hearing:
    """What one worker hears."""

    def __init__(self, store: Store, nudge: Callable[[], object]) -> None:
        self._store = store
        self._nudge = nudge
        self._is_listening = False
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}

    @property
    def is_hearing(self) -> bool:
        """Whether others' doings are told now."""
        return self._store.is_hearing

    def rest_s(self, *, is_waiting: bool) -> float:
        """Return how often to look.

        Args:
            is_waiting: Whether something in memory waits for what others settle: that is not told, as every batch does it.
        """
        return HEARING_POLL_S if self.is_hearing and not is_waiting else POLL_S

    def begin(self) -> None:
        """Listen from now on, for as long as the store is open."""
        if self._is_listening:
            return
        self._is_listening, loop = True, asyncio.get_running_loop()

        def ring(words: Collection[str]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the app was left without being closed
                loop.call_soon_threadsafe(self._hear, words)

        self._store.listen(ring)

    def _hear(self, words: Collection[str]) -> None:
        ended = [int(word) for word in words if word.isdigit()]
        for run in ended:
            self.wake(run)
        if WORK in words:
            self._nudge()
        if len(ended) < len(words) - (WORK in words):  # something may have been missed
            self.wake()
            self._nudge()

    @contextlib.contextmanager
    def of(self, run: int) -> Iterator[asyncio.Future[None]]:
        """Hear, while this lasts, when a run may have ended: from before the caller looks, so that nothing that happens
        between his look and his wait is missed."""
        self.begin()
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(run, set())
        waiting.add(told)
        try:
            yield told
        finally:
            waiting.discard(told)
            if not waiting:
                self._waiting.pop(run, None)

    async def wait(self, told: asyncio.Future[None]) -> None:
        """Return when it is time to look, again: something was told, or nothing for long."""
        await asyncio.wait([told], timeout=LOOK_AGAIN_S if self.is_hearing else POLL_S)

    def wake(self, run: int | None = None) -> None:
        """Let those who wait for a run's end look for it; those of all runs for None."""
        for waiting in [*self._waiting.values()] if run is None else [self._waiting.get(run, set())]:
            for future in waiting:
                if not future.done():
                    future.set_result(None)
