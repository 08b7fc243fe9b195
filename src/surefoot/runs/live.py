"""A run in progress in this process: where its code stands in its journal, and how the next record gets there.

One `LiveRun` per run and epoch. Its code calls in through `open_step`; everything it records goes through `append` or the
store's `commit`, guarded by the epoch. When the run is parked or taken away, every call in raises `Suspend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import msgspec

from surefoot.journal import Kind, Place, Record, insert_record
from surefoot.journal.records import NO_HEAD, Head
from surefoot.journal.values import Value
from surefoot.leases import LeaseLost
from surefoot.runs import tables
from surefoot.runs.errors import AmbiguousStep, DeadlinePassed, Divergence, Suspend
from surefoot.runs.life import WaitFor
from surefoot.runs.replay import History, Recorded, step_key
from surefoot.runs.tables import CANCEL, Letter, RunRow
from surefoot.store import Store, Tx

WAIT_IN_PLACE_S = 5.0
"""How long a run waits in memory for a timer, a signal or a child before it is evicted."""


class Strand:
    """One task of a run: the record it has seen last, under each parent it is in."""

    __slots__ = ("after", "is_fork", "task")

    def __init__(self, task: asyncio.Task[Any] | None, after: int, *, is_fork: bool) -> None:
        self.task = task
        self.after = after
        self.is_fork = is_fork


_strand: ContextVar[Strand | None] = ContextVar("surefoot_strand", default=None)
_parent: ContextVar[str] = ContextVar("surefoot_parent", default="")
_place: ContextVar[Place | None] = ContextVar("surefoot_place", default=None)


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call of a model. See `journal.frame.Place`.

    Attributes:
        decision: The step of the decision that asked for it.
        call_id: The call's id in that decision.
    """

    decision: str
    call_id: str
    twin: str | None = None
    previous: str | None = None
    times: int = 0

    @property
    def path(self) -> str:
        """Return the path its steps stand under: the same on every replay, whatever the order of parallel calls."""
        return step_key(self.decision, self.call_id, None, 1)


@dataclass(slots=True, eq=False)
class Waiting:
    """One thing the run's code waits for."""

    step: str
    wait_for: WaitFor
    reason: str
    wake_at_ms: int | None
    future: asyncio.Future[Any]
    is_evictable: bool = False


@dataclass(slots=True)
class _Names:
    """Who counts a name under a parent, and how far."""

    strand: Strand
    count: int = 0


@dataclass(slots=True)
class Parking:
    """Why and until when a run is parked."""

    wait_for: WaitFor
    reason: str
    wake_at_ms: int | None


class LiveStep:
    """One step being taken. See `journal.frame.Step`."""

    __slots__ = ("_after", "_is_fork", "_strand", "ended", "key", "name", "opened", "run")

    def __init__(self, run: LiveRun, key: str, name: str, recorded: Recorded | None, strand: Strand) -> None:
        self.run = run
        self.key = key
        self.name = name
        self.opened = None if recorded is None else recorded.opened
        self.ended = None if recorded is None else recorded.ended
        self._strand = strand
        self._after = strand.after
        self._is_fork = strand.is_fork
        if self.ended is not None:
            self._seen(self.ended)
        else:
            run.open_steps[key] = self

    def draft(self, kind: Kind, *, head: Head = NO_HEAD, body: Value | None = None) -> Record:
        """See `Step.draft`."""
        run = self.run
        run.check()
        run.seq += 1
        after = -self._after - 1 if self._is_fork else self._after
        return Record(run.row.id, run.seq, kind, self.key, after, head, body)

    def write(self, tx: Tx, record: Record) -> int:
        """See `Step.write`."""
        self.run.require(tx)
        return insert_record(tx, record)

    def is_held(self, tx: Tx) -> bool:
        """See `Step.is_held`."""
        return tables.is_held(tx, self.run.row.id, self.run.row.epoch)

    def append(self, unit: Callable[[Tx], object], label: str, size: int) -> None:
        """See `Step.append`."""
        self.run.append(unit, label, size)

    def end(self, record: Record) -> None:
        """See `Step.end`."""
        self.ended = record
        self.run.open_steps.pop(self.key, None)
        self._seen(record)
        self.run.consider_eviction()

    def close(self) -> None:
        """Note that nobody works on the step any more, whether it ended or not."""
        self.run.open_steps.pop(self.key, None)

    def _seen(self, record: Record) -> None:
        self._strand.after = record.seq
        self._strand.is_fork = False

    def interrupt(self, reason: str) -> None:
        """See `Step.interrupt`."""
        if self.ended is None and self.run.stopped is None:
            record = self.draft(Kind.INTERRUPTED, head=Head(name=self.name, reason=reason))
            self.run.record(record, "interrupted")
            self.end(record)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """See `Step.inside`."""
        token = _parent.set(self.key)
        try:
            yield
        finally:
            _parent.reset(token)

    def stop(self, error: BaseException) -> BaseException:
        """See `Step.stop`."""
        self.run.stop(error)
        return Suspend(error)

    def raise_divergence(self, asked: str, recorded: str) -> NoReturn:
        """See `Step.raise_divergence`."""
        raise self.run.stop(Divergence(self.run.run_id, self.key, asked, recorded))

    async def park(self, reason: str, wake_at_ms: int | None, effect: int) -> NoReturn:
        """See `Step.park`."""
        await self.run.wait(self.key, WaitFor.DOUBT, reason, wake_at_ms, grace_s=0.0)
        raise Suspend(reason)


class LiveRun:
    """A run in progress. See `journal.frame.Frame`."""

    def __init__(self, store: Store, worker: Any, row: RunRow, history: History, letters: Iterable[Letter]) -> None:
        self.store = store
        self.worker = worker
        self.row = row
        self.run = row.id
        self.run_id = row.run_id
        self.history = history
        self.seq = history.last_seq
        self.loop = asyncio.get_running_loop()
        self.task: asyncio.Task[Any] | None = None
        self.open_steps: dict[str, LiveStep] = {}
        self.waits: list[Waiting] = []
        self.letters: list[Letter] = []
        self.last_letter = 0
        self.parking: Parking | None = None
        self.stopped: BaseException | None = None
        self.is_cancelling = False
        self.cancelled_by = ""
        self.is_overdue = False
        self.notes: dict[type, object] = {}
        self.unknown_steps: set[str] = set()
        self.same_as: dict[str, str] = {}
        self._names: dict[tuple[str, str, str | None], _Names] = {}
        for letter in letters:
            self.receive(letter)

    @property
    def place(self) -> Place | None:
        """The decision that asks, inside a tool call of a model."""
        return _place.get()

    # -- taking steps ---------------------------------------------------------------------------------------------

    def open_step(self, name: str, key: str | None) -> LiveStep:
        """See `Frame.open_step`."""
        self.check()
        strand = self._strand()
        parent = _parent.get()
        identity = step_key(parent, name, key, self._count(parent, name, key, strand))
        recorded = self.history.steps.get(identity)
        self._check_order(strand, parent, identity, recorded)
        if recorded is not None:
            recorded.is_asked = True
        self._check_deadline(identity, recorded)
        return LiveStep(self, identity, name, recorded, strand)

    def enter(self, name: str, key: str | None) -> str:
        """Return the path of a branch: steps under it are counted apart."""
        self.check()
        parent = _parent.get()
        return step_key(parent, name, key, self._count(parent, name, key, self._strand()))

    @contextmanager
    def tool_call(self, call: ToolCall) -> Iterator[None]:
        """Take the steps inside as those of a tool call: under its decision, by its id, whatever the order."""
        self.check()
        path = _parent.set(call.path)
        place = _place.set(call)
        try:
            yield
        finally:
            _place.reset(place)
            _parent.reset(path)

    @contextmanager
    def adopted(self) -> Iterator[None]:
        """See `Frame.adopted`."""
        strand = _strand.get()
        if strand is None:
            yield
            return
        owner, strand.task = strand.task, asyncio.current_task()
        try:
            yield
        finally:
            strand.task = owner

    def _strand(self) -> Strand:
        strand, task = _strand.get(), asyncio.current_task()
        if strand is None:
            strand = Strand(task, 0, is_fork=False)
            _strand.set(strand)
        elif strand.task is not task:
            strand = Strand(task, strand.after, is_fork=True)
            _strand.set(strand)
        return strand

    def _count(self, parent: str, name: str, key: str | None, strand: Strand) -> int:
        names = self._names.get((parent, name, key))
        if names is None:
            names = self._names[parent, name, key] = _Names(strand)
        elif names.strand is not strand:
            where = f" under {parent}" if parent else ""
            raise AmbiguousStep(
                f"run {self.run_id}: two tasks ask for step {name!r}{where}"
                + (f" with key {key!r}" if key is not None else ""),
                hint=f"tell them apart: {name}.keyed(...), or `async with sf.branch(...)` around each task's part",
            )
        names.count += 1
        return names.count

    def _check_order(self, strand: Strand, parent: str, identity: str, recorded: Recorded | None) -> None:
        if strand.is_fork:
            return
        expected = self.history.follower(parent, strand.after)
        if expected == identity:
            return
        if expected is not None:
            raise self.stop(Divergence(self.run_id, expected, f"step {identity}", f"step {expected}"))
        if recorded is not None and _began_in_order(recorded):
            raise self.stop(Divergence(self.run_id, identity, f"step {identity} here", "it elsewhere"))

    def _check_deadline(self, step: str, recorded: Recorded | None) -> None:
        """Raise `DeadlinePassed` once, at the step that comes first after the deadline; on replay at the same one."""
        expired = self.history.expired
        if expired is not None and expired.step == step:
            raise self._overdue()
        if self.is_overdue and expired is None and (recorded is None or recorded.ended is None):
            self._note_expired(step)
            raise self._overdue()

    def _note_expired(self, step: str) -> None:
        record = self.about_run(Kind.EXPIRED, step=step)
        self.history.expired = record
        self.record(record, "expired")

    def _overdue(self) -> DeadlinePassed:
        return DeadlinePassed(
            f"run {self.run_id}: its deadline has passed", hint="catch sf.DeadlinePassed to finish in order"
        )

    # -- recording ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what stopped the run, if anything did: no call into a stopped run does or records a thing."""
        if self.stopped is not None:
            raise self.stopped if isinstance(self.stopped, Suspend) else Suspend(self.stopped)

    def require(self, tx: Tx) -> None:
        """Raise LeaseLost unless this process still holds the run; called in the transaction that writes."""
        if not tables.is_held(tx, self.row.id, self.row.epoch):
            raise LeaseLost(
                f"run {self.run_id}: another worker holds it (our epoch was {self.row.epoch})",
                hint="nothing was recorded; the other worker goes on",
            )

    def append(self, unit: Callable[[Tx], object], label: str, size: int) -> None:
        """Record in order without waiting; a refusal stops the run."""
        self.store.append(unit, label=label, size=size, on_error=self._refused)

    def record(self, record: Record, label: str) -> None:
        """Append one record of the run."""
        self.append(partial(self._write, record), label, len(record.body or b""))

    def _write(self, record: Record, tx: Tx) -> None:
        self.require(tx)
        insert_record(tx, record)

    def about_run(self, kind: Kind, *, step: str = "", head: Head = NO_HEAD, body: Value | None = None) -> Record:
        """Return the next record about the run itself."""
        self.seq += 1
        return Record(self.row.id, self.seq, kind, step, 0, head, body)

    def _refused(self, error: BaseException) -> None:
        self.stop(error)
        self._interrupt()

    def stop(self, why: BaseException) -> BaseException:
        """Let every further call into the run raise; return `why`, to be raised. The first reason stays."""
        if self.stopped is None:
            self.stopped = why
        return why

    def _interrupt(self) -> None:
        """Wake whatever waits inside, so that the code unwinds."""
        for waiting in self.waits:
            if not waiting.future.done():
                waiting.future.set_exception(Suspend(self.stopped))
        if self.task is not None and not self.waits:
            self.task.cancel("surefoot: the run was stopped")

    # -- waiting --------------------------------------------------------------------------------------------------

    async def wait(
        self, step: str, wait_for: WaitFor, reason: str, wake_at_ms: int | None, *, grace_s: float = WAIT_IN_PLACE_S
    ) -> Any:
        """Wait in memory until resumed; after `grace_s`, and when nothing else goes on, the run is evicted."""
        self.check()
        waiting = Waiting(step, wait_for, reason, wake_at_ms, self.loop.create_future())
        self.waits.append(waiting)
        grace = self.loop.call_later(grace_s, self._allow_eviction, waiting) if grace_s > 0 else None
        if grace is None:
            self.loop.call_soon(self._allow_eviction, waiting)
        try:
            return await waiting.future
        finally:
            if grace is not None:
                grace.cancel()
            self.waits.remove(waiting)

    def _allow_eviction(self, waiting: Waiting) -> None:
        waiting.is_evictable = True
        self.consider_eviction()

    def consider_eviction(self) -> None:
        """Evict the run when all that goes on in it is waiting, and has waited long enough."""
        if not self.waits or self.stopped is not None or any(not waiting.is_evictable for waiting in self.waits):
            return
        waiting_steps = {waiting.step for waiting in self.waits}
        for key in self.open_steps:
            is_outer = any(other.startswith(f"{key}/") for other in self.open_steps)
            if key not in waiting_steps and not is_outer:
                return
        self.evict()

    def evict(self) -> None:
        """Unwind the code; the worker then writes the run as waiting for the most important of its waits."""
        order = list(WaitFor)
        first = min(self.waits, key=lambda waiting: order.index(waiting.wait_for))
        times = [waiting.wake_at_ms for waiting in self.waits if waiting.wake_at_ms is not None]
        self.parking = Parking(first.wait_for, first.reason, min(times, default=None))
        self.stop(Suspend(first.reason))
        self._interrupt()

    # -- letters --------------------------------------------------------------------------------------------------

    def receive(self, letter: Letter) -> None:
        """Take a signal, a cancellation or a wake-up that was sent to the run."""
        if letter.id <= self.last_letter:
            return
        self.last_letter = letter.id
        if letter.name == CANCEL:
            self.cancel(letter.sent_by)
        elif letter.id not in self.history.signals_taken:
            self.letters.append(letter)
            self._hand_out(letter)

    def _hand_out(self, letter: Letter) -> None:
        for waiting in self.waits:
            is_meant = waiting.wait_for in (WaitFor.SIGNAL, WaitFor.CHILD) or letter.name == tables.WAKE
            if is_meant and not waiting.future.done():
                waiting.future.set_result(None)

    def take_letter(self, name: str) -> Letter | None:
        """Return the oldest unread signal of this name, and remove it."""
        for letter in self.letters:
            if letter.name == name:
                self.letters.remove(letter)
                return letter
        return None

    def cancel(self, by: str) -> None:
        """Cancel the run's code: it sees asyncio.CancelledError where it stands."""
        self.is_cancelling, self.cancelled_by = True, by
        if self.task is not None:
            self.task.cancel(f"cancelled by {by}")

    def expire(self) -> None:
        """Note that the deadline has passed: what waits now raises, or else the next step."""
        self.is_overdue = True
        for waiting in self.waits:
            is_free = waiting.wait_for is not WaitFor.DOUBT and not waiting.future.done()
            if is_free and self.history.expired is None and self.stopped is None:
                self._note_expired(waiting.step)
                waiting.future.set_exception(self._overdue())


def _began_in_order(recorded: Recorded) -> bool:
    first = recorded.opened or recorded.ended
    return first is not None and first.after >= 0
