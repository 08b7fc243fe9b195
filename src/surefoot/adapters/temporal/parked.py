"""What a call waits for that cannot end now: said by the activity, waited for by the workflow, kept in the run's row.

What holds: an activity never waits for a person or a fence; it ends with `Parked`, and the call is made again, under the
same identity, when what it waits for has changed. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from surefoot.runs import Suspend

PARKED = "surefoot.Parked"
"""The type of the application error by which an activity says so."""


class Wait(msgspec.Struct, frozen=True):
    """What is waited for.

    Attributes:
        wait_for: As a run's state says it: doubt, approval or blocked.
        reason: The same in words.
        targets: The rows whose end wakes it, as ("effect", 7).
        wake_at_ms: When to look again at the latest, wall clock; None for never.
    """

    wait_for: str
    reason: str
    targets: tuple[tuple[str, int], ...] = ()
    wake_at_ms: int | None = None


class Parked(Suspend):
    """Unwinds the code of a call that has to wait; a `BaseException`, which no `except Exception` of a tool stops."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.reason)
        self.wait = wait


def dumped(wait: Wait) -> dict[str, Any]:
    """Return a wait as data."""
    found: dict[str, Any] = msgspec.to_builtins(wait)
    return found


def loaded(data: Any) -> Wait:
    """Return a wait from data."""
    return msgspec.convert(data, Wait)
