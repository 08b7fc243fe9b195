"""The shapes of what agents share: leases and events."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from surefoot.cli.shapes.parts import Advice


class LeaseShape(Struct, frozen=True):
    """One that holds a resource, or waits for it."""

    kind: Annotated[str, Meta(description="lease, election or semaphore")]
    resource: Annotated[str, Meta(description="its name")]
    state: Annotated[str, Meta(description="held, waiting, or left: its owner is gone, and the next one takes it")]
    places: Annotated[int, Meta(description="how many may hold it at once")]
    token: Annotated[int | None, Meta(description="the fencing token that goes out; null while it waits")]
    owner: Annotated[str, Meta(description="process, run or effect: what its end gives it back")]
    holder: Annotated[str, Meta(description="who that is")]
    run: Annotated[str | None, Meta(description="the run it is for")]
    process: Annotated[str, Meta(description="the process that acts for it, or did last")]
    pid: Annotated[int, Meta(description="that process")]
    life: Annotated[str, Meta(description="alive, expired (not renewed in time) or dead")]
    asked_at: Annotated[str, Meta(description="when it was asked for")]
    since: Annotated[str | None, Meta(description="since when it is held")]
    until: Annotated[str | None, Meta(description="when whoever waits gives up; null: never")]


class LeasesDocument(Struct, frozen=True):
    """`surefoot leases`."""

    leases: Annotated[list[LeaseShape], Meta(description="by kind and name; who waits, after who holds")]


class GroupShape(Struct, frozen=True):
    """A group that acts on the events of a topic."""

    topic: Annotated[str, Meta(description="the topic")]
    group: Annotated[str, Meta(description="its name")]
    behind: Annotated[int, Meta(description="events that it was not brought yet")]
    oldest_s: Annotated[float | None, Meta(description="how long ago the oldest of them was published, in seconds")]
    started: Annotated[int, Meta(description="events that its runs are at, or wait to be")]
    dead: Annotated[int, Meta(description="its dead letters")]


class LetterShape(Struct, frozen=True):
    """A dead letter: an event that a group could not act on."""

    event: Annotated[int, Meta(description="the event's number")]
    topic: Annotated[str, Meta(description="its topic")]
    id: Annotated[str, Meta(description="its id")]
    key: Annotated[str | None, Meta(description="what it is about")]
    group: Annotated[str, Meta(description="the group")]
    attempt: Annotated[int, Meta(description="how often the group was brought it")]
    run: Annotated[str | None, Meta(description="the run that failed; null where none could be started")]
    reason: Annotated[str, Meta(description="why, in words")]
    at: Annotated[str, Meta(description="when")]
    value: Annotated[Any, Meta(description="what the event says")]
    next: Annotated[list[Advice], Meta(description="what to do")]


class EventsDocument(Struct, frozen=True):
    """`surefoot events`."""

    groups: Annotated[list[GroupShape], Meta(description="all groups, by topic and name")]
    dead: Annotated[list[LetterShape], Meta(description="dead letters, oldest first")]


class LetterDocument(Struct, frozen=True):
    """`surefoot redeliver` and `surefoot discard`."""

    event: Annotated[int, Meta(description="the event's number")]
    group: Annotated[str, Meta(description="the group")]
    state: Annotated[str, Meta(description="again or discarded")]


class DroppedDocument(Struct, frozen=True):
    """`surefoot drop-group`."""

    topic: Annotated[str, Meta(description="the topic")]
    group: Annotated[str, Meta(description="the group that is no more")]
    behind: Annotated[int, Meta(description="events that it was never brought")]
    started: Annotated[int, Meta(description="events that its runs are at; the runs stay")]
    dead: Annotated[int, Meta(description="dead letters that went with it")]
