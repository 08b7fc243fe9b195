r"""The life of one generation of an effect, as a table. Pure: no clock, no store.

    claimed --done--------> done -----------compensated--> compensated
       |  \----not done---> not done
       |  \----takeover---> claimed (the token grows; what may be done then is `doubt`'s matter)
       \---in doubt-------> unknown --done / not done--> (evidence, a probe, a person)
                               \------takeover---------> claimed

An outcome is written once: no event leads from done, not done or compensated back. Late evidence that disagrees opens a
contradiction beside the row. After not done or compensated the same key may act again, as the next generation.
The numbers are data on disk; all are of one byte in SQLite, so that settling never makes a row grow.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class State(IntEnum):
    """What the ledger knows of one generation of an effect."""

    CLAIMED = 2
    UNKNOWN = 3
    DONE = 4
    NOT_DONE = 5
    COMPENSATED = 6


class Event(Enum):
    """What can happen to it."""

    TAKEOVER = "takeover"
    IN_DOUBT = "in doubt"
    DONE = "done"
    NOT_DONE = "not done"
    COMPENSATED = "compensated"


TABLE: dict[State, dict[Event, State]] = {
    State.CLAIMED: {
        Event.TAKEOVER: State.CLAIMED,
        Event.IN_DOUBT: State.UNKNOWN,
        Event.DONE: State.DONE,
        Event.NOT_DONE: State.NOT_DONE,
    },
    State.UNKNOWN: {
        Event.TAKEOVER: State.CLAIMED,
        Event.DONE: State.DONE,
        Event.NOT_DONE: State.NOT_DONE,
    },
    State.DONE: {Event.COMPENSATED: State.COMPENSATED},
    State.NOT_DONE: {},
    State.COMPENSATED: {},
}

OPEN = frozenset({State.CLAIMED, State.UNKNOWN})
"""The states that still wait for an outcome."""

ENDS_GENERATION = frozenset({State.NOT_DONE, State.COMPENSATED})
"""The states after which the same key may act again."""


def next_state(state: State, event: Event) -> State | None:
    """Return the state after the event, or None where the table has no such way: the first outcome stands."""
    return TABLE[state].get(event)
