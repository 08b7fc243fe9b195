"""One activity as a place in a run: what the effects room sees of a run that Temporal executes.

An activity may have several attempts alive (a worker that was stopped past its heartbeat and goes on). What holds: they are
told apart by what they have written. Each write of a step asks, in its own transaction, whether anything is recorded of the
step that this attempt has neither read nor written; who finds such a record writes nothing more, and whoever comes next
begins from what is there. So what is recorded need not be read before a call that is made for the first time: it is taken
for nothing, and where that is wrong nothing is claimed or sent. Outcomes of effects are guarded by the ledger's tokens
besides, as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, TypeVar

from surefoot.adapters.temporal.parked import Parked, Wait
from surefoot.effects.keys import BadEffect
from surefoot.effects.live.case import Claim
from surefoot.journal import Kind, Place, Record, insert_record
from surefoot.journal.records import ENDS_STEP, NEXT, NO_HEAD, OPENS_STEP, Head
from surefoot.journal.tables import load_records_under, next_record_id
from surefoot.journal.values import Value
from surefoot.leases import LeaseLost
from surefoot.runs import AmbiguousStep, Divergence
from surefoot.runs.live.replay import step_key
from surefoot.runs.live.strand import Strand, _parent, _place, _strand, lent
from surefoot.runs.live.taken import writable
from surefoot.store import Check, Store, Tx
from surefoot.store.connection import Connection

T = TypeVar("T")

Seen = dict[str, list[Record]]
"""What the journal held of some steps of a run, each with its records in order."""

_GOES_ON = Check(
    4,
    "run, step, seen, before",
    "SELECT count(*) AS found FROM asked JOIN runs ON runs.id = asked.run AND runs.state <= 3 WHERE NOT EXISTS ("
    "SELECT 1 FROM journal WHERE run = asked.run AND step = asked.step AND id + 0 > asked.seen AND id + 0 < asked.before"
    " AND seq > coalesce((SELECT seq FROM journal WHERE id = asked.seen), 0))",
    is_each=True,
)
"""`before` leaves out what the asking unit is about to write itself. `seq` only tells the index of runs where to begin; the
one of ids, which `+ 0` rules out, would lead through the records of all runs."""


def look(connection: Connection, run: int, path: str) -> Seen:
    """Return what is recorded of a step of a run, and of the steps under it."""
    found: Seen = {}
    for record in load_records_under(connection, run, path):
        found.setdefault(record.step, []).append(record)
    return found


def goes_on(tx: Tx, run: int, step: str, seen: int) -> bool:
    """Whether a run has not ended, and nothing is recorded of one of its steps after the record `seen`; 0 for none.

    In a hurry it is taken to be so, and checked with what is written (see `Tx.trusts`). It must be asked before ids are
    taken for the records that are written on the strength of it.
    """
    values = (run, step, seen, next_record_id(tx))
    if tx.trusts(_GOES_ON, *values):
        return True
    found = tx.row(_GOES_ON.forms[1], values)
    return found is not None and found[0] == _GOES_ON.expected(1)


class CallFrame:
    """A run as one activity of it sees it. See `journal.frame.Frame`.

    Attributes:
        recorded: What the journal held of the call's steps, or was taken to hold.
        is_mistaken: Whether it holds more of a step of which nothing was known.
    """

    is_one_step = True
    source = ""
    sagas = 0

    def __init__(self, store: Store, run: int, run_id: str, recorded: Seen) -> None:
        self.store = store
        self.run = run
        self.run_id = run_id
        self.recorded = recorded
        self.is_mistaken = False
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
        records = frame.recorded.get(key, [])
        self.opened = next((record for record in reversed(records) if record.kind in OPENS_STEP), None)
        self.ended = next((record for record in records if record.kind in ENDS_STEP), None)
        self._seen = records[-1].id if records else 0

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
        if goes_on(tx, self.frame.run, self.key, self._seen):
            return True
        self.frame.is_mistaken = self.frame.is_mistaken or self._seen == 0
        return False

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

    def commit(self, unit: Callable[[Tx], T], label: str, size: int = 0, *, is_alone: bool = False) -> Awaitable[T]:
        """See `Step.commit`."""
        return self._noting(self.frame.store.commit(unit, label=label, size=size, is_alone=is_alone))

    async def _noting(self, committed: Awaitable[T]) -> T:
        """Note the record of a claim that is ours: what else is recorded of a step by its own attempt ends it."""
        found = await committed
        if isinstance(found, Claim) and found.is_ours:
            self._seen = found.row.claim
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

    def begin_anew(self) -> None:
        """See `Step.begin_anew`; deadlines are Temporal's."""

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
