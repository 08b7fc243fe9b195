"""What a run waits for: in memory, and as it is written when the run is parked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypeAlias

from surefoot.runs.life import WaitFor

Target: TypeAlias = tuple[str, int]
"""What a wait is for, as a row: ("effect", id) of the ledger, or ("run", id)."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One thing the run's code waits for."""

    step: str
    wait_for: WaitFor
    reason: str
    wake_at_ms: int | None
    future: asyncio.Future[Any]
    target: Target | None
    task: asyncio.Task[Any] | None
    is_evictable: bool = False


@dataclass(slots=True)
class Parking:
    """Why and until when a run is parked."""

    wait_for: WaitFor
    reason: str
    wake_at_ms: int | None
    targets: tuple[Target, ...] = ()
