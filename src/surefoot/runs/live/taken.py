"""A step being taken: what the journal holds of it, and how its next record is drafted.

What holds: a step that is asked for ends in exactly one record, unless the run is suspended while it goes on; then its next
execution asks for it again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import Token
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec
from msgspec.structs import replace

from surefoot.journal import Kind, Record, insert_record
from surefoot.journal.records import ENDS_STEP, NO_HEAD, Head, encode_head
from surefoot.journal.texts import without_surrogates
from surefoot.journal.values import Value
from surefoot.runs.errors import Divergence, Suspend, name_of
from surefoot.runs.life import WaitFor
from surefoot.runs.live.strand import Strand, _parent
from surefoot.store import Tx

if TYPE_CHECKING:
    from surefoot.runs.live.run import LiveRun

T = TypeVar("T")

_FACTS = frozenset({Kind.DONE, Kind.NOT_DONE, Kind.UNKNOWN, Kind.INTERRUPTED})
_encode = msgspec.json.Encoder().encode


class LiveStep(msgspec.Struct, eq=False):
    """One step being taken. See `journal.frame.Step`.

    Attributes:
        run: The run.
        key: See `Step`.
        name: Its name.
        task: The task that takes it.
        _after: The record that its task had seen last; negative (-n - 1) for the first step of a task that was forked off.
        opened: See `Step`.
        ended: See `Step`.
    """

    run: LiveRun
    key: str
    name: str
    task: asyncio.Task[Any] | None
    _strand: Strand
    _after: int
    opened: Record | None = None
    ended: Record | None = None
    _outer: Token[str] | None = None
    _drafted: int = 0

    def draft(self, kind: Kind, *, head: Head = NO_HEAD, body: Value | None = None) -> Record:
        """See `Step.draft`. What an act came to is a fact, and is drafted though the run was stopped meanwhile."""
        run = self.run
        if run.stopped is not None and kind not in _FACTS:
            run.check()
        run.seq = self._drafted = seq = run.seq + 1
        return Record(run.run, seq, kind, self.key, self._after, head if head is NO_HEAD else writable(head), body)

    def write(self, tx: Tx, record: Record) -> int:
        """See `Step.write`."""
        self.run.require(tx)
        return insert_record(tx, record)

    def is_held(self, tx: Tx) -> bool:
        """See `Step.is_held`."""
        return self.run.is_held(tx)

    def append(self, unit: Callable[[Tx], object], label: str, size: int) -> None:
        """See `Step.append`."""
        self.run.append(unit, label, size)

    def commit(self, unit: Callable[[Tx], T], label: str, size: int = 0, *, is_alone: bool = False) -> Awaitable[T]:
        """See `Step.commit`."""
        loop = None if self.task is None else self.task.get_loop()
        return self.run.store.commit(unit, label=label, size=size, is_alone=is_alone, loop=loop)

    def record(self, record: Record, label: str) -> None:
        """Append a drafted record."""
        self.run.record(record, label)

    def refuse(self, error: BaseException) -> None:
        """See `Step.refuse`."""
        self.run.refuse(error)

    def end(self, record: Record) -> None:
        """See `Step.end`."""
        self.ended = record
        run, strand = self.run, self._strand
        run.open_steps.pop(self.key, None)
        strand.after = record.seq
        strand.is_fork = False
        if run.waits or run.is_closing:
            run.eviction.note_ended()

    def close(self) -> None:
        """See `Step.close`."""
        run = self.run
        if self.key in run.open_steps or run.cancels.pending or run.is_closing:
            run.note_closed(self)

    def interrupt(self, reason: str) -> None:
        """See `Step.interrupt`. Called while the error that left the step is handled: an error of the code's own is
        recorded as such, and is raised again on replay; a cancellation comes again by itself. A step of a run that is
        being suspended stays as it is: its next execution asks for it again."""
        if self.ended is not None or self.run.stopped is not None:
            return
        error, drafted = sys.exception(), self._drafted
        if isinstance(error, Exception):
            body = _encode([name_of(error), without_surrogates(str(error))])
            record = self.draft(Kind.RAISED, head=Head(name=self.name, reason=reason), body=body)
        else:
            record = self.draft(Kind.INTERRUPTED, head=Head(name=self.name, reason=reason))
        self.append(partial(self._write_left, record, drafted), "interrupted", 0)
        self.end(record)

    def _write_left(self, record: Record, drafted: int, tx: Tx) -> None:
        """Write that the code left the step, which may have got its outcome in a commit that was left with it.

        Then that is the step's one outcome, and that the code has not seen it is a fact about the run.
        """
        self.run.require(tx)
        found = tx.row(
            "SELECT kind FROM journal WHERE run = ? AND seq = ? AND step = ?", (record.run, drafted, self.key)
        )
        if found is None or found[0] not in ENDS_STEP:
            insert_record(tx, record)
        else:
            assert record.kind is Kind.INTERRUPTED, "only a cancellation comes between a commit and who waits for it"
            insert_record(tx, replace(record, step="", after=0, head=replace(record.head, name=self.key)))

    def inside(self) -> AbstractContextManager[None]:
        """See `Step.inside`. While it lasts the asking task is not interrupted: what it does is under way outside."""
        return self

    def __enter__(self) -> None:
        self._outer = _parent.set(self.key)
        self.run.acting[self.key] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.acting.pop(self.key, None)
        assert self._outer is not None, "it was entered"
        _parent.reset(self._outer)

    def begin_anew(self) -> None:
        """See `Step.begin_anew`."""
        if self.run.deadline.is_over:
            self.run.deadline.check(self)

    def stop(self, error: BaseException) -> BaseException:
        """See `Step.stop`."""
        self.run.stop(error)
        return Suspend(error)

    def raise_divergence(self, asked: str, recorded: str) -> NoReturn:
        """See `Step.raise_divergence`."""
        raise self.run.stop(Divergence(self.run.run_id, self.key, asked, recorded))

    async def wait(self, wait_for: str, reason: str, target: tuple[str, int]) -> None:
        """See `Step.wait`."""
        await self.run.wait(self.key, WaitFor(wait_for), reason, None, target, grace_s=0.0)

    async def park(self, reason: str, wake_at_ms: int | None, effect: int) -> NoReturn:
        """See `Step.park`."""
        waiting = self.run.waiting(self.key, WaitFor.DOUBT, reason, wake_at_ms, ("effect", effect))
        await self.run.wait_for(waiting, grace_s=0.0)
        waiting.wake_at_ms = self.run.store.clock.wall_ms()  # woken while the rest of the run went on:
        self.run.eviction.evict([waiting])  # it looks again from the start, at once
        raise Suspend(reason)


def writable(head: Head) -> Head:
    """Return the head as it can be written: proven here, in the code's own task, where an error has an owner."""
    try:
        encode_head(head)
    except UnicodeEncodeError:
        texts = {name: value for name in head.__struct_fields__ if isinstance(value := getattr(head, name), str)}
        clean = {name: without_surrogates(value) for name, value in texts.items()}
        head = replace(head, **clean)
        encode_head(head)
    return head
