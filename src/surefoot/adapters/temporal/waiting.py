"""Waits of a workflow: for the end of a doubt, a person's approval, a mended program.

The run's row in our store says what is waited for, so that whoever settles it, or a person, wakes the run there as any
other; a worker then signals the workflow (`bridge`). One keeper writes the row, so that parking and waking never cross.
What holds: a wake-up between a call's end and its being parked is not lost, because parking looks at targets and
letters again.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

from surefoot.adapters.temporal.parked import Wait, dumped

PARK, UNPARK = "surefoot__park", "surefoot__unpark"
"""The activities that write the run's row."""

ROW_TIMEOUT = timedelta(seconds=30)
"""For one attempt at writing the run's row."""

ROW_RETRIES = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=30))
"""Writing the run's row is tried until it succeeds: without our store the run can do nothing anyway."""


class Waits:
    """What the calls of one workflow wait for now."""

    def __init__(self, run: int, last_letter: int) -> None:
        self._run = run
        self._last_letter = last_letter
        self._waiting: list[Wait] = []
        self._wakes = 0
        self._is_changed = False
        self._is_signalled = False
        self._keeper: asyncio.Task[None] | None = None

    def signal(self) -> None:
        """Note that something may have changed."""
        self._is_signalled = True

    async def until_woken(self, wait: Wait) -> None:
        """Return when what is waited for may have changed."""
        self._waiting.append(wait)
        self._is_changed, before = True, self._wakes
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        keeper = self._keeper
        await workflow.wait_condition(lambda: self._wakes > before or keeper.done())
        if self._wakes == before:
            keeper.result()  # it has failed: whoever waits is told

    async def _keep(self) -> None:
        """Write what is waited for until all of it is woken."""
        while self._waiting:
            self._is_changed = self._is_signalled = False
            await self._write(PARK, {"waits": [dumped(wait) for wait in self._waiting]})
            await workflow.wait_condition(lambda: self._is_signalled or self._is_changed)
            if self._is_signalled:
                found = await self._write(UNPARK, {})
                self._last_letter = found["last_letter"]
                self._waiting.clear()
                self._wakes += 1

    async def _write(self, name: str, more: dict[str, Any]) -> Any:
        asked = {"run": self._run, "last_letter": self._last_letter, **more}
        return await workflow.execute_activity(
            name, asked, start_to_close_timeout=ROW_TIMEOUT, retry_policy=ROW_RETRIES, result_type=dict
        )


_waits: ContextVar[Waits] = ContextVar("surefoot_waits")


def waits() -> Waits:
    """Return the waits of this workflow."""
    return _waits.get()


def keep_waits(found: Waits) -> None:
    """Let the tasks of this workflow find its waits."""
    _waits.set(found)
