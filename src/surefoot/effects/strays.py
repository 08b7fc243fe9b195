"""Cancellations that come out of users' code although nobody has cancelled the task that calls it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from surefoot.problem import SurefootError


@contextlib.contextmanager
def strays_as_errors() -> Iterator[None]:
    """Let a cancellation that nobody has asked of this task be an error: something that users' code waited for was
    cancelled. As a cancellation it would end all that the task does beside it, without a word.

    Raises:
        SurefootError: In place of such a cancellation.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise SurefootError("something that it waited for was cancelled") from error
