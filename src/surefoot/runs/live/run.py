"""A run in progress in this process: where its code stands in its journal, and how the next record gets there.

One `LiveRun` per run and epoch. Its code calls in through `open_step`; everything it records goes through `append` or the
store's `commit`, guarded by the epoch. When the run is parked or taken away, every call in raises `Suspend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import get_ident
from typing import Any, NoReturn

import msgspec

from surefoot.effects.cancellation import EngineCancellation
from surefoot.effects.keys import BadEffect
from surefoot.journal import Kind, Place, Record, insert_record
from surefoot.journal.records import NO_HEAD, Head
from surefoot.journal.texts import without_surrogates
from surefoot.journal.values import Value
from surefoot.leases import LeaseLost
from surefoot.runs.durable import SIMULATED
from surefoot.runs.errors import Divergence, RecordRefused, Suspend
from surefoot.runs.life import WaitFor
from surefoot.runs.live.cancelling import Cancels
from surefoot.runs.live.deadline import Deadline
from surefoot.runs.live.eviction import Eviction
from surefoot.runs.live.naming import Names
from surefoot.runs.live.replay import History, Recorded, parent_of
from surefoot.runs.live.strand import Strand, ToolCall, _parent, _place, _saga, _strand, lent
from surefoot.runs.live.taken import LiveStep, writable
from surefoot.runs.live.unread import Unread
from surefoot.runs.live.waiting import Target, Waiting
from surefoot.runs.rows import inbox, tables
from surefoot.runs.rows.inbox import CANCEL, Letter
from surefoot.runs.rows.tables import RunRow
from surefoot.store import Store, Tx

WAIT_IN_PLACE_S = 5.0
"""How long a run waits in memory for a timer, a signal or a child before it is evicted."""

UNDOING = "$undo"
"""The name, below a saga's path, under which its compensations stand."""


class _Writing(msgspec.Struct, gc=False):
    """The unit that writes one record of a run, if this process still holds it."""

    run: LiveRun
    record: Record

    def __call__(self, tx: Tx) -> None:
        self.run.require(tx)
        insert_record(tx, self.record)


class LiveRun:
    """A run in progress. See `journal.frame.Frame`."""

    is_one_step = False

    def __init__(self, store: Store, worker: Any, row: RunRow, history: History, letters: Iterable[Letter]) -> None:
        self.store = store
        self.worker = worker
        self.row = row
        self.run = row.id
        self._hold = (row.id, row.epoch)
        self.run_id = row.run_id
        self.history = history
        self.seq = history.last_seq
        self.loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self.task: asyncio.Task[Any] | None = None
        self.open_steps: dict[str, LiveStep] = {}
        self.acting: dict[str, LiveStep] = {}
        self.siblings: set[asyncio.Task[Any]] = set()
        self.closing = asyncio.Event()
        self.is_closing = False
        self.refused: BaseException | None = None
        self.waits: list[Waiting] = []
        self.unread = Unread()
        self.last_letter = 0
        self.eviction = Eviction(self)
        self.stopped: BaseException | None = None
        self.cancels = Cancels(self)
        self._on_error, self._on_refused = self.stop_refused, self.refuse  # bound once, not at every record
        self._is_in_code = False
        self.deadline = Deadline(self)
        self.ending: Record | None = None
        self.notes: dict[type, object] = {}
        self.unknown_steps: set[str] = set()
        self.seen: dict[str, Any] = {}
        self.same_as: dict[str, str] = {}
        self.sagas = 0
        self.is_simulated = row.kind.startswith(SIMULATED)
        self.source = "" if history.started is None else history.started.head.run
        self.aborted: dict[str, asyncio.Task[Any] | None] = {}
        self.names = Names(self)
        for letter in letters:
            self.receive(letter)

    @property
    def place(self) -> Place | None:
        """The decision that asks, inside a tool call of a model."""
        return _place.get()

    # -- taking steps ---------------------------------------------------------------------------------------------

    def open_step(self, name: str, key: str | None) -> LiveStep:
        """See `Frame.open_step`."""
        if self.stopped is not None:
            self.check()
        strand, parent, history = self._strand(), _parent.get(), self.history
        identity, task = self.names.next(parent, name, key, strand), strand.task
        step = LiveStep(self, identity, name, task, strand, -strand.after - 1 if strand.is_fork else strand.after)
        if history.steps:
            self._find(step, parent, strand)
        if self.cancels.pending or self.is_closing or self.aborted:
            self._come_to(step)
        if step.ended is None:
            self.open_steps[identity] = step
        else:
            strand.after, strand.is_fork = step.ended.seq, False
            if self.cancels.pending:
                self.cancels.note_replay(step)
        if self.deadline.is_over or history.expired is not None:
            self.deadline.check(step)
        return step

    def _find(self, step: LiveStep, parent: str, strand: Strand) -> None:
        """Give the step what is recorded of it, if this is its place in the journal."""
        recorded = self.history.steps.get(step.key)
        if not strand.is_fork and self.history.followers.get((parent, strand.after)) != step.key:
            self._check_order(strand, parent, step.key, recorded)
        if recorded is not None:
            step.opened, step.ended = recorded.opened, recorded.ended
            recorded.is_asked = True

    def _come_to(self, step: LiveStep) -> None:
        """Note that the code of a run that is being cancelled, or has ended, or of an aborted saga, asks for this step."""
        recorded = self.history.steps.get(step.key)
        if self.aborted and recorded is None:
            self._refuse_aborted(step)
        if self.cancels.pending:
            self.cancels.come_to(step.key, recorded)
        if self.is_closing:
            if recorded is None:
                raise Suspend("the run's code has ended")
            self.closing.set()

    def _refuse_aborted(self, step: LiveStep) -> None:
        """Begin nothing new in a saga that is being undone, but what undoes it: it would not be undone."""
        for path, owner in self.aborted.items():
            if step.key.startswith(f"{path}/") and not step.key.startswith(f"{path}/{UNDOING}/"):
                if step.task is owner:  # on replay: what made it fail has not happened again
                    step.raise_divergence(f"step {step.key}", f"the undoing of saga {path}")
                raise EngineCancellation(f"surefoot: saga {path} is being undone")

    def refuse_in_saga(self, name: str) -> None:
        """See `Frame.refuse_in_saga`."""
        if saga := _saga.get():
            raise BadEffect(
                f"effect {name} is asked for in saga {saga}, and nothing undoes it; it was not done",
                hint="declare compensate= on it, or compensate=sf.nothing_to_undo; or call it after the saga",
            )

    def enter(self, name: str, key: str | None) -> str:
        """Return the path of a branch: steps under it are counted apart."""
        self.check()
        parent = _parent.get()
        return self.names.next(parent, name, key, self._strand())

    @contextmanager
    def tool_call(self, call: ToolCall) -> Iterator[None]:
        """Take the steps inside as those of a tool call: under its decision, by its id, whatever the order."""
        self.check()
        self.stand_alone()
        path = _parent.set(call.path)
        place = _place.set(call)
        try:
            yield
        finally:
            _place.reset(place)
            _parent.reset(path)

    def adopted(self) -> AbstractContextManager[None]:
        """See `Frame.adopted`."""
        return lent()

    def stand_alone(self) -> None:
        """See `Frame.stand_alone`."""
        self._strand()

    def _strand(self) -> Strand:
        strand = _strand.get()
        assert strand is not None, "it comes with the frame"
        # Who knows the loop need not ask the system for it, which costs more than all the rest here.
        task = asyncio.current_task(self.loop if get_ident() == self._thread else None)
        if strand.task is not task:
            strand = Strand(task, strand.after, is_fork=True)
            _strand.set(strand)
            if task is not None and task is not self.task:
                self.siblings.add(task)
                task.add_done_callback(self._note_done)
        return strand

    def _note_done(self, task: asyncio.Task[Any]) -> None:
        """Forget a task; one that we unwound ended as it should, and asyncio need not complain of it."""
        self.siblings.discard(task)
        self.closing.set()
        if (self.stopped is not None or self.is_closing) and not task.cancelled():
            task.exception()

    def next_inside(self, parent: str) -> str | None:
        """Return the recorded step that the asking task comes to next, two levels below a parent; None where it can't be
        told: in a task that was forked off, or at the end of what is recorded."""
        strand = self._strand()
        return None if strand.is_fork else self.history.next_inside(parent, strand.after)

    def _check_order(self, strand: Strand, parent: str, identity: str, recorded: Recorded | None) -> None:
        expected = self.history.expected(parent, strand.after)
        if expected == identity:
            return
        if expected is not None:
            raise self.stop(Divergence(self.run_id, expected, f"step {identity}", f"step {expected}"))
        if recorded is not None and not recorded.is_fork:
            raise self.stop(Divergence(self.run_id, identity, f"step {identity} here", "it elsewhere"))

    # -- recording ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what stopped the run, if anything did: no call into a stopped run does or records a thing."""
        if self.stopped is not None:
            raise self.stopped if isinstance(self.stopped, Suspend) else Suspend(self.stopped)

    def require(self, tx: Tx) -> None:
        """Raise unless this process still holds the run, and all it recorded before is written; called in the
        transaction that writes.

        Raises:
            LeaseLost: Another holds it.
            RecordRefused: An earlier record could not be written: what follows it stands on nothing.
        """
        if self.is_held(tx):
            return
        if isinstance(self.refused, LeaseLost):
            raise self.refused
        if self.refused is not None:
            raise RecordRefused(
                f"run {self.run_id}: an earlier record was refused: {without_surrogates(str(self.refused))}",
                hint="nothing after it is recorded; mend the cause, then wake the run",
            ) from self.refused
        raise LeaseLost(
            f"run {self.run_id}: another worker holds it (our epoch was {self.row.epoch})",
            hint="nothing was recorded; the other worker goes on",
        )

    def is_held(self, tx: Tx) -> bool:
        """Whether `require` would pass."""
        return self.refused is None and (self._hold in tx.held or tables.is_held(tx, *self._hold))

    def refuse(self, error: BaseException) -> None:
        """Note, in the writer, that a record was not written: whatever is queued behind it is refused too."""
        self.refused = self.refused or error

    def append(self, unit: Callable[[Tx], object], label: str, size: int) -> None:
        """Record in order without waiting; a refusal stops the run, and all that it records after."""
        self.store.append(
            unit, label=label, on_error=self._on_error, on_refused=self._on_refused, size=size, loop=self.loop
        )

    def record(self, record: Record, label: str) -> None:
        """Append one record of the run."""
        size = 0 if record.body is None else len(record.body)
        self.store.append(
            _Writing(self, record),
            label=label,
            on_error=self._on_error,
            on_refused=self._on_refused,
            size=size,
            loop=self.loop,
        )

    def about_run(self, kind: Kind, *, step: str = "", head: Head = NO_HEAD, body: Value | None = None) -> Record:
        """Return the next record about the run itself."""
        self.seq += 1
        return Record(self.run, self.seq, kind, step, 0, writable(head), body)

    def stop_refused(self, error: BaseException) -> None:
        """Stop the run, which can't record what it is doing."""
        self.stop(error)
        self.interrupt()

    def stop(self, why: BaseException) -> BaseException:
        """Let every further call into the run raise; return `why`, to be raised. The first reason stays."""
        if self.stopped is None:
            self.stopped = why
        return why

    def interrupt(self, *, is_final: bool = False) -> None:
        """Let the code unwind, in all its tasks; `is_final`: also what is in the middle of an act."""
        for waiting in self.waits:
            if not waiting.future.done():
                waiting.future.set_exception(Suspend(self.stopped))
        spared = {asyncio.current_task(), *(waiting.task for waiting in self.waits)}
        if not is_final:
            spared.update(step.task for step in self.acting.values())
        for task in (self.task if self._is_in_code else None, *self.siblings):
            if task is not None and task not in spared:
                task.cancel("surefoot: the run was stopped")
        if self.is_closing:  # its end waits for its other tasks
            self.closing.set()

    # -- waiting --------------------------------------------------------------------------------------------------

    async def wait(
        self,
        step: str,
        wait_for: WaitFor,
        reason: str,
        wake_at_ms: int | None,
        target: Target | None = None,
        *,
        grace_s: float = WAIT_IN_PLACE_S,
    ) -> Any:
        """Wait in memory until resumed; after `grace_s`, and when nothing else goes on, the run is evicted.

        Args:
            step: The waiting step.
            wait_for: What for.
            reason: The same in words.
            wake_at_ms: When to look again at the latest, wall clock; None for never.
            target: The row whose end wakes it, or None.
            grace_s: Seconds to wait in memory; 0 for none.
        """
        return await self.wait_for(self.waiting(step, wait_for, reason, wake_at_ms, target), grace_s=grace_s)

    def waiting(
        self, step: str, wait_for: WaitFor, reason: str, wake_at_ms: int | None, target: Target | None = None
    ) -> Waiting:
        """Return a wait of the asking task, to be waited for by `wait_for`."""
        self.check()
        future: asyncio.Future[Any] = self.loop.create_future()
        return Waiting(step, wait_for, reason, wake_at_ms, future, target, asyncio.current_task())

    async def wait_for(self, waiting: Waiting, *, grace_s: float) -> Any:
        """See `wait`."""
        self.waits.append(waiting)
        self.worker.note_wait(waiting.target, 1)
        grace = self.loop.call_later(grace_s, self.eviction.allow, waiting) if grace_s > 0 else None
        if grace is None:
            self.loop.call_soon(self.eviction.allow, waiting)
        if self.is_closing:
            self.closing.set()
        try:
            return await waiting.future
        finally:
            if grace is not None:
                grace.cancel()
            self.waits.remove(waiting)
            self.worker.note_wait(waiting.target, -1)

    async def meet_again(self) -> NoReturn:
        """Wait, in a step that was interrupted when it was first executed, for the same to happen again."""
        await self.loop.create_future()
        raise AssertionError("nobody resolves this future")

    # -- letters --------------------------------------------------------------------------------------------------

    def receive(self, letter: Letter) -> None:
        """Take a signal, a cancellation or a wake-up that was sent to the run.

        A run that is being suspended takes none: what comes now must find it as one that has not seen it.
        """
        if letter.id <= self.last_letter or self.stopped is not None or self.is_closing:
            return
        self.last_letter = letter.id
        if letter.name == CANCEL:
            if letter.id not in self.history.cancels:
                self.cancel(letter.sent_by, letter.id)
        elif letter.id not in self.history.signals_taken:
            self.unread.add(letter)
            self._hand_out(letter)

    def _hand_out(self, letter: Letter) -> None:
        for waiting in self.waits:
            is_meant = waiting.wait_for in (WaitFor.SIGNAL, WaitFor.CHILD) or letter.name == inbox.WAKE
            if is_meant and not waiting.future.done():
                waiting.future.set_result(None)

    def cancel(self, by: str, letter: int = 0) -> None:
        """Cancel the run's code: it sees asyncio.CancelledError where it stands; in a replay, once it is up to date."""
        self.cancels.add(by, letter)

    # -- beginning and end -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Note that the code starts now."""
        self._is_in_code = True
        self.cancels.begin()

    def finish(self) -> None:
        """Note that the main code has ended: what the task does now is the worker's, and is not cancelled."""
        self._is_in_code = False
        self.cancels.finish()
        self.closing.set()
        self.is_closing = True

    def steps_in_progress(self) -> list[str]:
        """Return the open steps that do something: neither wait nor enclose a step that does."""
        waiting, enclosing = {waiting.step for waiting in self.waits}, set[str]()
        for key in self.open_steps:
            outer = parent_of(key)
            while outer and outer not in enclosing:
                enclosing.add(outer)
                outer = parent_of(outer)
        return [key for key in self.open_steps if key not in waiting and key not in enclosing]

    def is_busy(self) -> bool:
        """Whether, after the end of the main code, something of the run still does what must be waited for."""
        if self.steps_in_progress():
            return True
        history = self.history
        return self.stopped is None and bool(self.siblings or history.has_late_tasks()) and bool(history.left_over())

    def end_tasks(self) -> set[asyncio.Task[Any]]:
        """Cancel what still runs of the code's other tasks; return them."""
        found = {*self.siblings, *(step.task for step in self.open_steps.values())} - {self.task, None}
        tasks = {task for task in found if task is not None and not task.done()}
        for task in tasks:
            task.cancel("surefoot: the run has ended")
        return tasks

    def note_closed(self, step: LiveStep) -> None:
        """Note that nobody works on a step any more."""
        self.open_steps.pop(step.key, None)
        if self.cancels.pending:
            self.cancels.note_closed(step)
        if self.is_closing:
            self.closing.set()
