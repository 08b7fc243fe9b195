"""One activity as a place in a run: what the effects room sees of a run that Temporal executes.

An activity may have several attempts alive (a worker that was stopped past its heartbeat and goes on). What holds: they are
told apart by what they have written. A step is read when the activity begins; who then finds a record of it that is not its
own writes nothing more, and the next attempt begins from what is there. Outcomes of effects are guarded by the ledger's
tokens besides, as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, TypeVar

import msgspec

from surefoot.adapters.temporal.parked import Parked, Wait
from surefoot.effects.guard import Claim
from surefoot.effects.keys import BadEffect
from surefoot.journal import Kind, Place, Record, insert_record
from surefoot.journal.records import ENDS_STEP, NEXT, NO_HEAD, OPENS_STEP, Head
from surefoot.journal.tables import load_records_under
from surefoot.journal.values import Value
from surefoot.leases import LeaseLost
from surefoot.runs import AmbiguousStep, Divergence
from surefoot.runs.life import ENDED
from surefoot.runs.replay import step_key
from surefoot.runs.strand import Strand, _parent, _place, _strand, lent
from surefoot.runs.taken import writable
from surefoot.store import Store, Tx
from surefoot.store.connection import Connection

T = TypeVar("T")

_ENDED = frozenset(int(state) for state in ENDED)


class Seen(msgspec.Struct, frozen=True):
    """What the journal held of a part of a run when an activity began.

    Attributes:
        seq: The number of the run's newest record.
        steps: The records of each step, in order.
    """

    seq: int
    steps: dict[str, list[Record]]


def look(connection: Connection, run: int, path: str) -> Seen:
    """Return what is recorded of a step of a run, and of the steps under it."""
    newest = next(connection.execute("SELECT coalesce(max(seq), 0) FROM journal WHERE run = ?", (run,)))
    steps: dict[str, list[Record]] = {}
    for record in load_records_under(connection, run, path):
        steps.setdefault(record.step, []).append(record)
    return Seen(int(newest[0]), steps)


class CallFrame:
    """A run as one activity of it sees it. See `journal.frame.Frame`."""

    is_one_step = True
    source = ""
    sagas = 0

    def __init__(self, store: Store, run: int, run_id: str, recorded: Seen) -> None:
        self.store = store
        self.run = run
        self.run_id = run_id
        self.recorded = recorded
        self.seen: dict[str, Any] = {}
        self.loop = asyncio.get_running_loop()
        self.unknown_steps: set[str] = set()
        self.same_as: dict[str, str] = {}
        self.refused: BaseException | None = None
        self._names: dict[tuple[str, str, str | None], tuple[Strand, int]] = {}

    @property
    def place(self) -> Place | None:
        """The decision that asks."""
        return _place.get()

    def refuse_in_saga(self, name: str) -> None:
        """See `Frame.refuse_in_saga`; there are no sagas in an activity."""
        raise BadEffect(f"effect {name} is asked for in a saga, which an activity has none of")

    def adopted(self) -> AbstractContextManager[None]:
        """See `Frame.adopted`."""
        return lent()

    def stand_alone(self) -> None:
        """See `Frame.stand_alone`."""
        self._asking()

    def _asking(self) -> Strand:
        strand, task = _strand.get(), asyncio.current_task()
        assert strand is not None, "it comes with the frame"
        if strand.task is not task:
            strand = Strand(task, 0, is_fork=True)
            _strand.set(strand)
        return strand

    def open_step(self, name: str, key: str | None) -> CallStep:
        """See `Frame.open_step`."""
        strand, parent = self._asking(), _parent.get()
        owner, count = self._names.get((parent, name, key), (strand, 0))
        if owner is not strand:
            raise AmbiguousStep(
                f"run {self.run_id}: two tasks ask for step {name!r} under {parent}",
                hint=f"tell them apart: {name}.keyed(...)",
            )
        self._names[parent, name, key] = (strand, count + 1)
        return CallStep(self, step_key(parent, name, key, count + 1), name)

    def refuse(self, error: BaseException) -> None:
        """Note, in the writer, that something was not recorded: what the activity gives back stands on nothing."""
        self.refused = self.refused or error


class CallStep:
    """One step of a run, taken in an activity. See `journal.frame.Step`."""

    def __init__(self, frame: CallFrame, key: str, name: str) -> None:
        self.frame = frame
        self.key = key
        self.name = name
        records = frame.recorded.steps.get(key, [])
        self.opened = next((record for record in reversed(records) if record.kind in OPENS_STEP), None)
        self.ended = next((record for record in records if record.kind in ENDS_STEP), None)
        self._claim: int | None = None

    def draft(self, kind: Kind, *, head: Head = NO_HEAD, body: Value | None = None) -> Record:
        """See `Step.draft`; its number is given when it is written."""
        return Record(self.frame.run, NEXT, kind, self.key, 0, head if head is NO_HEAD else writable(head), body)

    def write(self, tx: Tx, record: Record) -> int:
        """See `Step.write`."""
        if not self.is_held(tx):
            raise self._lost()
        return insert_record(tx, record)

    def is_held(self, tx: Tx) -> bool:
        """Whether the run goes on, and nobody else has recorded anything of this step since it was read."""
        if self.frame.refused is not None:
            return False
        rows = tx.execute(
            "SELECT r.state, j.id FROM runs r LEFT JOIN journal j ON j.run = r.id AND j.seq > ? AND j.step = ?"
            " WHERE r.id = ?",
            (self.frame.recorded.seq, self.key, self.frame.run),
        ).fetchall()
        return all(state not in _ENDED and record in (None, self._claim) for state, record in rows) and bool(rows)

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"run {self.frame.run_id}: another attempt has gone on with {self.key}, or the run has ended",
            hint="nothing was recorded; the other attempt goes on",
        )

    def append(self, unit: Callable[[Tx], object], label: str, size: int) -> None:
        """See `Step.append`; whoever answers Temporal waits until it is on disk."""
        self.frame.store.append(
            unit,
            label=label,
            on_error=None,
            on_refused=self.frame.refuse,
            size=size,
            loop=self.frame.loop,
        )

    def commit(self, unit: Callable[[Tx], T], label: str, size: int = 0) -> Awaitable[T]:
        """See `Step.commit`."""
        return self._noting(self.frame.store.commit(unit, label=label, size=size))

    async def _noting(self, committed: Awaitable[T]) -> T:
        """Note the record of a claim that is ours: what else is recorded of a step by its own attempt ends it."""
        found = await committed
        if isinstance(found, Claim) and found.is_ours:
            self._claim = found.row.claim
        return found

    def refuse(self, error: BaseException) -> None:
        """See `Step.refuse`."""
        self.frame.refuse(error)

    def end(self, record: Record) -> None:
        """See `Step.end`."""
        self.ended = record

    def close(self) -> None:
        """See `Step.close`."""

    def interrupt(self, reason: str) -> None:
        """See `Step.interrupt`; the call is made again, so nothing is recorded."""

    def inside(self) -> AbstractContextManager[None]:
        """See `Step.inside`."""
        return inside(self.key)

    def stop(self, error: BaseException) -> BaseException:
        """See `Step.stop`."""
        self.frame.refuse(error)
        return error

    def raise_divergence(self, asked: str, recorded: str) -> NoReturn:
        """See `Step.raise_divergence`."""
        raise Divergence(self.frame.run_id, self.key, asked, recorded)

    async def wait(self, wait_for: str, reason: str, target: tuple[str, int]) -> None:
        """See `Step.wait`: the activity ends, and the workflow waits."""
        raise Parked(Wait(wait_for, reason, (target,)))

    async def park(self, reason: str, wake_at_ms: int | None, effect: int) -> NoReturn:
        """See `Step.park`: the activity ends, and the workflow waits."""
        raise Parked(Wait("doubt", reason, (("effect", effect),), wake_at_ms))


@contextmanager
def inside(path: str) -> Iterator[None]:
    """Take the steps inside as those under a path."""
    token = _parent.set(path)
    try:
        yield
    finally:
        _parent.reset(token)


def enter(place: Place, task: asyncio.Task[Any] | None) -> None:
    """Take the steps of this context as those of a tool call."""
    _strand.set(Strand(task, 0, is_fork=False))
    _parent.set(place.path)
    _place.set(place)
