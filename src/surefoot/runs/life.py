r"""The life of a run, as a table. Pure: no clock, no store.

    scheduled --due--> queued --its turn--> pending      (only where a time or a lane was asked for: `queueing`)

    pending --claimed--> running --parked---> waiting(timer | signal | child | lease | approval | doubt | budget | model |
       ^                    |                         blocked)
       |                    |  \---handed back, taken over---> pending
       |                    |                                       |
       +--------------------|------------------woken----------------+
                            +--> completed, failed, cancelled

No run ends while an effect of it is open: it waits in doubt instead. A run whose code and journal disagree is blocked:
visible, and resumable after a fix; never failed, never retried blindly. The numbers are data on disk.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class RunState(IntEnum):
    """Where a run is."""

    SCHEDULED = -1
    QUEUED = 0
    PENDING = 1
    RUNNING = 2
    WAITING = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6


class RunEvent(Enum):
    """What moves it."""

    DUE = "due"
    TURN = "its turn"
    CANCELLED_BEFORE = "cancelled before it began"
    CLAIMED = "claimed"
    TAKEN_OVER = "taken over"
    PARKED = "parked"
    HANDED_BACK = "handed back"
    WOKEN = "woken"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TABLE: dict[RunState, dict[RunEvent, RunState]] = {
    RunState.SCHEDULED: {
        RunEvent.DUE: RunState.QUEUED,
        RunEvent.CANCELLED_BEFORE: RunState.PENDING,
    },
    RunState.QUEUED: {
        RunEvent.TURN: RunState.PENDING,
        RunEvent.CANCELLED_BEFORE: RunState.PENDING,
    },
    RunState.PENDING: {RunEvent.CLAIMED: RunState.RUNNING, RunEvent.PARKED: RunState.WAITING},
    RunState.RUNNING: {
        RunEvent.TAKEN_OVER: RunState.PENDING,
        RunEvent.PARKED: RunState.WAITING,
        RunEvent.HANDED_BACK: RunState.PENDING,
        RunEvent.COMPLETED: RunState.COMPLETED,
        RunEvent.FAILED: RunState.FAILED,
        RunEvent.CANCELLED: RunState.CANCELLED,
    },
    RunState.WAITING: {RunEvent.WOKEN: RunState.PENDING},
    RunState.COMPLETED: {},
    RunState.FAILED: {},
    RunState.CANCELLED: {},
}

ENDED = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})


class WaitFor(Enum):
    """What a waiting run waits for; the order is that of importance when it waits for several things."""

    BLOCKED = "blocked"
    DOUBT = "doubt"
    APPROVAL = "approval"
    BUDGET = "budget"
    MODEL = "model"
    LEASE = "lease"
    SIGNAL = "signal"
    CHILD = "child"
    TIMER = "timer"


SUSPECT_AFTER = 3
"""Takeovers of a run without a new record after which it is on probation: executed only when no other suspect is, so that
a run that kills its worker is counted for it, and the runs that die beside it are not."""

TAKEOVERS_MAX = 8
"""Takeovers without a new record after which a run is blocked: it kills its workers."""


def next_state(state: RunState, event: RunEvent) -> RunState | None:
    """Return the state after the event, or None where the table has no such way."""
    return TABLE[state].get(event)
