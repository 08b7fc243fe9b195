"""When a run may begin: its priority, its time and its lane. Pure.

    priority -> of the runs that wait for a worker the one with the lowest number is taken first; of equals the oldest
    time     -> a run that was started for later is `scheduled` until then
    lane     -> runs of one kind and one key: as many as the kind allows go on at a time, the rest are `queued` in order

What holds: a run has its place in its lane from when it may begin to its end, waits included, so that with one place the
next run of a key begins when the one before it has ended. A kind's own limit counts what is being executed: a run that
waits has left memory, and lets others in.

Priorities are Temporal's (1 to 5, the lowest first), so that moving there changes none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from surefoot.effects.doubt import LONGEST_MS
from surefoot.journal.texts import require_text
from surefoot.problem import SurefootError

FIRST, NORMAL, LAST = 1, 3, 5
"""Priorities."""


@dataclass(frozen=True, slots=True)
class Queueing:
    """When a run may begin.

    Attributes:
        priority: From 1 (first) to 5 (last).
        at_ms: Not before this wall-clock time; None for at once.
        lane: Where it waits for its turn; None where nothing waits for another.
        places: How many runs of its lane go on at a time.
    """

    priority: int = NORMAL
    at_ms: int | None = None
    lane: str | None = None
    places: int = 1


AT_ONCE = Queueing()
"""What `start` means when nothing is said."""


def queueing(
    kind: str, *, priority: int = NORMAL, at_ms: int | None = None, key: str | None = None, places: int | None = None
) -> Queueing:
    """Return when a run may begin, as its starter asks for it.

    Args:
        kind: Its kind.
        priority: See `Queueing`.
        at_ms: See `Queueing`.
        key: What its lane is about; None for none.
        places: How many runs of one key its kind allows at a time; None where it says nothing of keys.

    Raises:
        SurefootError: The priority or the key is none; or the kind has no lanes.
    """
    if not isinstance(priority, int) or isinstance(priority, bool) or not FIRST <= priority <= LAST:
        raise SurefootError(f"priority={priority!r}", hint="from 1 (first) to 5 (last); 3 is the default")
    if key is None:
        return Queueing(priority, at_ms)
    if places is None:
        raise SurefootError(
            f"{kind} has no limit per key, so key={key!r} would mean nothing",
            hint="@sf.durable(concurrency_per_key=1): the runs of one key go one after another",
        )
    require_key(key)
    return Queueing(priority, at_ms, lane_of(kind, key), places)


def when(now_ms: int, delay_ms: int | None, at: datetime | None) -> int | None:
    """Return before which wall-clock time a run may not begin.

    Raises:
        SurefootError: Both were given, or what is no moment, or one without time zone.
    """
    if at is None:
        return None if delay_ms is None else now_ms + delay_ms
    if delay_ms is not None:
        raise SurefootError("delay and at were both given", hint="one of them says when")
    if not isinstance(at, datetime):
        raise SurefootError(
            f"at={at!r} is no moment", hint='datetime(..., tzinfo=UTC); delay= takes texts such as "15m"'
        )
    if at.tzinfo is None:
        raise SurefootError(f"at={at!r} has no time zone", hint="datetime(..., tzinfo=UTC)")
    return int(at.timestamp() * 1_000)


def deadline_of(now_ms: int, deadline_s: float | None) -> int | None:
    """Return the wall-clock time of a deadline; None for none.

    Raises:
        SurefootError: It is no number of seconds, or none that leads to a time.
    """
    if deadline_s is None:
        return None
    require_seconds("deadline_s", deadline_s)
    if not 0 <= now_ms + deadline_s * 1_000 <= LONGEST_MS:
        raise SurefootError(f"deadline_s={deadline_s!r} leads to no time of the calendar", hint="None: no deadline")
    return now_ms + int(deadline_s * 1_000)


def require_seconds(what: str, seconds: object) -> None:
    """Refuse what is no number of seconds.

    Raises:
        SurefootError: It is none.
    """
    if not isinstance(seconds, int | float) or seconds != seconds:  # noqa: PLR0124  not a number is not itself
        raise SurefootError(f"{what}={seconds!r} is no number of seconds", hint="write 30, or 0.5; None for no limit")


def require_key(key: str) -> None:
    """Refuse what can't be a key that runs take turns by.

    Raises:
        BadText: It is no text that can be kept, empty or too long.
    """
    require_text("key", key, example=", such as an order's number")


def lane_of(kind: str, key: str) -> str:
    """Return the lane of a kind's runs of one key."""
    return f"{kind}\n{key}"


def limit_of(name: str, limit: int | None) -> int | None:
    """Return a limit as it was given.

    Raises:
        SurefootError: It is none.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise SurefootError(f"{name}={limit!r}", hint="a number of runs from 1 on, or None for no limit")
    return limit
