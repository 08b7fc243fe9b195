"""Topics, and publishing to them: outside runs a commit, in a run a step.

In a run an event is an output like any other: it is committed with the record that says so, after all that the run has
recorded before, and a replay that comes to the step again publishes nothing. A simulated run publishes nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from surefoot.coordination.events import groups, tables
from surefoot.coordination.events.states import identified, named
from surefoot.effects.binding import open_guard
from surefoot.effects.classify import describe
from surefoot.journal import Kind, Record, Unserializable, codec_of, current_frame
from surefoot.journal.records import Head
from surefoot.journal.values import Value
from surefoot.problem import SurefootError
from surefoot.runs.errors import StepFailed
from surefoot.runs.live.naming import id_of_place
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import _saga
from surefoot.runs.live.taken import LiveStep
from surefoot.runs.queueing import require_key
from surefoot.runs.signals import misfit, type_words
from surefoot.runs.steps import live_run
from surefoot.store import Tx, new_id

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class EventConflict(SurefootError):
    """The topic has an event of this id that says something else. Nothing was published."""


@dataclass(frozen=True, slots=True)
class Event:
    """What is known of an event besides what it says.

    Attributes:
        topic: Its topic.
        id: Its id.
        key: What it is about; None for nothing.
        at_ms: When it was published, wall clock.
    """

    topic: str
    id: str
    key: str | None
    at_ms: int


class Topic(Generic[T]):
    """A kind of events: its name, and what its events say.

    Args:
        name: Its name, data on disk: letters, digits, points, dashes and underscores.
        type: The type of what its events say; every JSON value fits `object`.
    """

    def __init__(self, name: str, type: type[T] | Any = object) -> None:
        self.name = named("topic", name)
        self.type = type
        self._codec = codec_of(type, f"topic {name}")

    def __repr__(self) -> str:
        return f"<Topic {self.name!r} of {type_words(self.type)}>"

    async def publish(self, event: T, *, key: str | None = None, id: str | None = None) -> str:
        """Publish an event: once it is on disk, each group of the topic will be brought it.

        Args:
            event: What it says.
            key: What it is about, such as an order's number: a group acts on the events of one key one after another, in
                the order in which they were published. None: in any order.
            id: Its id: the same id is the same event, however often it is published. None: in a run, one made of the
                run's and the step's, so that a replay publishes it once; outside runs a new one each time.

        Returns:
            Its id.

        Raises:
            EventConflict: There is an event of this id that says something else, or has another key. In a run it comes as
                `StepFailed`.
            Unserializable: It doesn't fit the topic's type.
            SurefootError: The key or the id is none; or it is published in a saga, which could not take it back.
        """
        body = self._dump(event)
        if key is not None:
            require_key(key)
        if id is not None:
            identified(self.name, id)
        publishing = _Publishing(self.name, key, tables.digest_of(key, msgspec.json.decode(body)), body)
        if isinstance(current_frame.get(), LiveRun):
            return await self._publish_in_run(publishing, key, id)
        guard = await open_guard(self.name, "topic")
        event_id = id or new_id()
        conflict = await guard.store.commit(partial(publishing.write, event_id, None), label="publish", size=len(body))
        if conflict is not None:
            raise conflict
        guard.duty.nudge()
        return event_id

    def _dump(self, event: T) -> Value:
        body = self._codec.dump(event)[0]
        if problem := misfit(self._codec, self.type, body):
            raise Unserializable(
                f"topic {self.name}: {problem}", hint=f"it takes {type_words(self.type)}; nothing was published"
            )
        return body

    async def _publish_in_run(self, publishing: _Publishing, key: str | None, id: str | None) -> str:
        run = live_run("publish", self.name)
        if saga := _saga.get():
            raise SurefootError(
                f"an event to {self.name} is published in saga {saga}, and nothing could take it back; it was not",
                hint="publish it after the saga",
            )
        taken = run.open_step(f"publish {self.name}", id or key)
        try:
            if taken.ended is None:
                await self._publish_now(run, taken, publishing, id)
                run.worker.nudge()
            return await self._as_recorded(run, taken, publishing)
        except BaseException as error:
            taken.interrupt(describe(error))
            raise
        finally:
            taken.close()

    async def _publish_now(self, run: LiveRun, taken: LiveStep, publishing: _Publishing, id: str | None) -> None:
        event_id = id or id_of_place(run.run_id, taken.key)
        head = Head(name=self.name, detail={"digest": publishing.digest.hex()})
        drafted = taken.draft(Kind.PUBLISHED, head=head, body=_encode(event_id))
        taken.end(
            await taken.commit(partial(_write, taken, drafted, publishing, event_id), "publish", len(publishing.body))
        )

    async def _as_recorded(self, run: LiveRun, taken: LiveStep, publishing: _Publishing) -> str:
        record = taken.ended
        assert record is not None, "it has just ended"
        if record.kind is Kind.INTERRUPTED:
            await run.meet_again()
        if record.kind is Kind.RAISED:
            raise StepFailed(taken.key, *msgspec.json.decode(record.body or b""))
        if record.kind is not Kind.PUBLISHED:
            taken.raise_divergence(f"an event to {self.name}", f"a {record.kind.name} of that name")
        if (record.head.detail or {}).get("digest") != publishing.digest.hex():
            taken.raise_divergence(f"another event to {self.name}", "one that says something else, or has another key")
        event_id: str = msgspec.json.decode(record.body or b"")
        return event_id


def _write(taken: LiveStep, drafted: Record, publishing: _Publishing, event_id: str, tx: Tx) -> Record:
    """Write the event and the record that says so; or the record alone, of why there is none."""
    run = taken.run
    conflict = None if run.is_simulated else publishing.write(event_id, run.run, tx)
    record = drafted
    if conflict is not None:
        body = _encode([type(conflict).__name__, str(conflict)])
        record = replace(drafted, kind=Kind.RAISED, head=Head(name=drafted.head.name), body=body)
    taken.write(tx, record)
    return record


@dataclass(frozen=True, slots=True)
class _Publishing:
    """An event on its way to its topic."""

    topic: str
    key: str | None
    digest: bytes
    body: Value

    def write(self, event_id: str, run: int | None, tx: Tx) -> EventConflict | None:
        """Write it, and the groups that this process knows, so that none of them begins behind it."""
        groups.ensure(tx, self.topic)
        found = tables.insert_event(tx, self.topic, event_id, self.key, self.digest, self.body, run=run)
        if found == self.digest:
            return None
        return EventConflict(
            f"topic {self.topic} has an event {event_id!r} that says something else, or has another key",
            hint="the same id is the same event; give another event another id. Nothing was published",
        )
