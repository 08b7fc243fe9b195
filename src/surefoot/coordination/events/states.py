r"""The life of a delivery, an event on its way through one group, as a table; and its run's id. Pure.

    (the group's place comes to it) -> started --run completed--> done
                                          |  ^
                       run failed, or cancelled  \--delivered anew-- again <--redelivered-- dead
                                          +--> dead --discarded--> discarded

An event that a group has not come to has no delivery. The numbers are data on disk; those up to 3 are open: somebody, or a
person, has yet to do something.
"""

from __future__ import annotations

import re
from enum import Enum, IntEnum

from surefoot.journal.texts import require_text
from surefoot.problem import SurefootError

NAME_MAX = 64
"""Characters of a topic's or a group's name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DELIVERY = re.compile(rf"(?P<group>{_NAME.pattern})(#\d+)?/(?P<topic>{_NAME.pattern})/(?P<event>.+)", re.DOTALL)


class State(IntEnum):
    """Where a delivery is."""

    STARTED = 1
    AGAIN = 2
    DEAD = 3
    DONE = 4
    DISCARDED = 5


class Move(Enum):
    """What moves it."""

    COMPLETED = "its run completed"
    FAILED = "its run failed"
    REDELIVERED = "redelivered"
    DELIVERED = "delivered anew"
    DISCARDED = "discarded"


TABLE: dict[State, dict[Move, State]] = {
    State.STARTED: {Move.COMPLETED: State.DONE, Move.FAILED: State.DEAD},
    State.AGAIN: {Move.DELIVERED: State.STARTED},
    State.DEAD: {Move.REDELIVERED: State.AGAIN, Move.DISCARDED: State.DISCARDED},
    State.DONE: {},
    State.DISCARDED: {},
}


def named(what: str, name: str) -> str:
    """Return the name of a topic or a group.

    Raises:
        SurefootError: It is none. Ids of runs are made of it, so it has none of the characters that divide these.
    """
    if not is_name(name):
        raise SurefootError(
            f"{what} {name!r:.100}", hint=f"1 to {NAME_MAX} letters, digits, points, dashes and underscores: it is data"
        )
    return name


def is_name(name: object) -> bool:
    """Whether a topic or a group may be called so."""
    return isinstance(name, str) and len(name) <= NAME_MAX and _NAME.fullmatch(name) is not None


def identified(topic: str, event_id: str) -> str:
    """Return an event's id.

    Raises:
        BadText: It is none.
    """
    require_text(f"topic {topic}: id", event_id)
    return event_id


def kind_name(topic: str, group: str) -> str:
    """Return the kind of a group's runs. It doesn't name the function, which may be renamed."""
    return f"on {topic} {group}"


def run_id_of(topic: str, group: str, event_id: str, attempt: int) -> str:
    """Return the id of the run that acts on an event: no other group, topic, event or attempt has the same."""
    return f"{group}/{topic}/{event_id}" if attempt == 1 else f"{group}#{attempt}/{topic}/{event_id}"


def acted_on(kind: str, run_id: str) -> tuple[str, str] | None:
    """Return topic and id of the event that a run acts on, by its kind and its id; None for any other run."""
    match = _DELIVERY.fullmatch(run_id)
    if match is None or kind != kind_name(match["topic"], match["group"]):
        return None
    return match["topic"], match["event"]
