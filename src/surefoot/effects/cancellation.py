"""A cancellation that comes out of users' code though nobody has cancelled its task: it awaited something that was
cancelled, or raised it itself.

What holds: it is an error like any other. A task that was cancelled is cancelled again when its run is replayed, and waits
there for that; this one would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class EngineCancellation(asyncio.CancelledError):
    """A cancellation that the engine raises where a task stands, without cancelling it."""


class CancelledItself(Exception):
    """What such a cancellation is taken for."""


def own_cancellation(error: BaseException) -> CancelledItself | None:
    """Return what an error out of users' code is taken for, if it is a cancellation of their own; asked in its task."""
    if not isinstance(error, asyncio.CancelledError) or isinstance(error, EngineCancellation):
        return None
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return None
    return CancelledItself(str(error) or "it awaited something that was cancelled, or raised CancelledError")


async def of_users(work: Awaitable[T]) -> T:
    """Await users' code.

    Raises:
        CancelledItself: It was cancelled, and not by us.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        own = own_cancellation(error)
        if own is None:
            raise
        raise own from error
