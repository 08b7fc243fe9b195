"""Lets blocking code of an example run inside a run: what it would run a loop for is awaited by the run's own task.

Examples are modules: they call `agent.run_sync(...)` and `asyncio.run(main())`. A run is a coroutine. So the module is
executed in a greenlet of the task that executes the run; a loop it would start is the run's, which goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from greenlet import getcurrent, greenlet


class _Blocking(greenlet):
    """Blocking code that a coroutine waits for."""


async def call(function: Callable[[], Any]) -> Any:
    """Call a blocking function in the present task, and do there what it waits for."""
    driver = getcurrent()
    child = _Blocking(function, driver)
    child.gr_context = driver.gr_context
    wanted = child.switch()
    while not child.dead:
        try:
            value = await wanted
        except BaseException:
            wanted = child.throw(*sys.exc_info())
        else:
            wanted = child.switch(value)
    return wanted


def wait_for(awaitable: Awaitable[Any]) -> Any:
    """Wait for something in blocking code that `call` has called."""
    child = getcurrent()
    assert isinstance(child, _Blocking), "called by `call`"
    return child.parent.switch(awaitable)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Let `asyncio.run` and `loop.run_until_complete` wait in the run's task where they are called by such code."""
    run, run_until_complete = asyncio.run, asyncio.BaseEventLoop.run_until_complete

    def nested_run(main: Any, **options: Any) -> Any:
        return wait_for(main) if isinstance(getcurrent(), _Blocking) else run(main, **options)

    def nested_run_until_complete(self: Any, future: Any) -> Any:
        return wait_for(future) if isinstance(getcurrent(), _Blocking) else run_until_complete(self, future)

    asyncio.run, asyncio.BaseEventLoop.run_until_complete = nested_run, nested_run_until_complete
    try:
        yield
    finally:
        asyncio.run, asyncio.BaseEventLoop.run_until_complete = run, run_until_complete
