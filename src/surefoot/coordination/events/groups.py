"""Consumer groups: which functions act on the events of which topics, in this process and as rows.

A group is known by its topic and its name; any number of processes serve it, and each event is brought to one of them. Its
runs are of a kind of its own, so limits and lanes are those of kinds.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from surefoot.coordination.events import tables
from surefoot.coordination.events.states import State, kind_name, named
from surefoot.journal import Record
from surefoot.journal.values import Value
from surefoot.problem import SurefootError
from surefoot.runs import KindSpec, RunState, register
from surefoot.store import Tx

if TYPE_CHECKING:
    from surefoot.coordination.events.tables import EventRow
    from surefoot.coordination.events.topic import Topic

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

Since = Literal["beginning", "now"]

SINCE = ("beginning", "now")
"""Where a group begins that is new."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Subscription:
    """A group, as the code of this process has it."""

    topic: str
    group: str
    kind: KindSpec
    is_from_beginning: bool

    def input_of(self, event: EventRow, body: Value) -> Value:
        """Return the input of the run that acts on an event; nothing of it is looked at here."""
        first, *more = self.kind.signature.parameters
        given: dict[str, Any] = {first: msgspec.Raw(body)}
        if more:
            given[more[0]] = {"topic": event.topic, "id": event.event_id, "key": event.key, "at_ms": event.at_ms}
        return _encode(given)


_subscriptions: dict[tuple[str, str], Subscription] = {}


def served() -> dict[tuple[str, str], Subscription]:
    """Return the groups that this process serves, by topic and name."""
    return _subscriptions


def ensure(tx: Tx, topic: str | None = None) -> None:
    """Write the rows of this process's groups, of a topic or of all, that are not there."""
    missing = _subscriptions.keys() - tables.known_groups(tx.connection) if _subscriptions else ()
    for one in [_subscriptions[group] for group in sorted(missing)]:
        if topic is None or one.topic == topic:
            tables.ensure_group(tx, one.topic, one.group, is_from_beginning=one.is_from_beginning)


def on(topic: Topic[Any], *, group: str, since: Since, concurrency: int | None = None) -> Callable[[F], F]:
    """Let a function act on the events of a topic, as one of a group: each event is acted on once in the group.

    The function is durable: everything that `@sf.durable` says of its code holds. It takes what the event says, and, if it
    has a second parameter, an `sf.Event`. If its run fails, or is cancelled, or the event doesn't fit, the event is a dead
    letter of the group.

    Args:
        topic: The topic.
        group: The group's name, data on disk. Every process that serves it must have the same function for it.
        since: Where a group begins that has never been there: "beginning", with all events that are kept; or "now", with
            the first that is published after it became known to any process that publishes or works. Without default: one
            may act on what is long past, the other may miss what was published before the first deployment.
        concurrency: How many of its runs are executed at a time, by all workers together; None for any number.
    """
    named("group", group)
    if since not in SINCE:
        raise SurefootError(f"group {group} of {topic.name}: since={since!r}", hint='use "beginning" or "now"')

    def decorate(function: F) -> F:
        subscribe(topic, function, group=group, since=since, concurrency=concurrency)
        return function

    return decorate


def subscribe(
    topic: Topic[Any],
    function: Callable[..., Awaitable[Any]],
    *,
    group: str,
    since: Since,
    concurrency: int | None = None,
) -> None:
    """Register a group; see `on`."""
    kind = KindSpec(kind_name(topic.name, group), function, concurrency=concurrency, concurrency_per_key=1)
    parameters = list(kind.signature.parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not 1 <= len(parameters) <= 2 or any(one.kind not in plain for one in parameters):
        raise SurefootError(
            f"{function!r} acts on events of {topic.name}, and takes {kind.signature}",
            hint="it takes what the event says, and perhaps an sf.Event: async def check(order: Order, about: sf.Event)",
        )
    kind.fails_unfit = True
    kind.on_end = _note_end
    register(kind)
    _subscriptions[topic.name, group] = Subscription(topic.name, group, kind, since == "beginning")


def delivered(group: int, event: int) -> dict[str, int]:
    """Return what the first record of a run says of the delivery that it is."""
    return {"group": group, "event": event}


def _note_end(tx: Tx, started: Record, run: int, state: RunState) -> None:
    """Note what became of a delivery, in the transaction that ends its run. A fork of such a run is no delivery."""
    detail = started.head.detail
    if isinstance(detail, dict) and detail.keys() == delivered(0, 0).keys():
        outcome = State.DONE if state is RunState.COMPLETED else State.DEAD
        tables.end_delivery(tx, detail["group"], detail["event"], run, outcome)
