r"""The life of an approval, as a table. Pure: no clock, no store.

    pending --approved--> approved --used-----> used --returned--> approved
       | \               |      | \--lapsed--> lapsed
       |  \---denied-----+------+---denied---> denied
       \---withdrawn----> withdrawn

An approval is used by one claim, in the claim's transaction. A claim that is left before the act has sent nothing, and
returns it: used, it is approved again. What was approved can be denied until it is used. What was approved
and not used in time has lapsed, and is asked for anew. What nobody waits for any more is withdrawn. A deadline changes no
state. The numbers are data on disk.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class State(IntEnum):
    """Where an approval is."""

    PENDING = 1
    APPROVED = 2
    DENIED = 3
    USED = 4
    WITHDRAWN = 5
    LAPSED = 6


class Event(Enum):
    """What moves it."""

    APPROVED = "approved"
    DENIED = "denied"
    USED = "used"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


TABLE: dict[State, dict[Event, State]] = {
    State.PENDING: {
        Event.APPROVED: State.APPROVED,
        Event.DENIED: State.DENIED,
        Event.WITHDRAWN: State.WITHDRAWN,
    },
    State.APPROVED: {
        Event.USED: State.USED,
        Event.DENIED: State.DENIED,
        Event.LAPSED: State.LAPSED,
    },
    State.DENIED: {},
    State.USED: {
        Event.RETURNED: State.APPROVED,
    },
    State.WITHDRAWN: {},
    State.LAPSED: {},
}


def next_state(state: State, event: Event) -> State | None:
    """Return the state after the event, or None where the table has no such way: what was decided stands."""
    return TABLE[state].get(event)
