"""What callers hold of a run: its result, its state, and ways to send it something."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from surefoot.journal import Forgotten, Kind, Record, insert_record
from surefoot.journal.records import NO_HEAD, Head
from surefoot.journal.tables import load_record, load_records
from surefoot.journal.texts import WORDS_CHARS_MAX, has_half_characters, require_text
from surefoot.people import PROGRAM, Deed
from surefoot.people import record as record_deed
from surefoot.runs.durable import ELSEWHERE, SIMULATED, UNDO, KindSpec, kind_of, kind_of_run, simulated
from surefoot.runs.errors import (
    CannotUndo,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    SignalRefused,
    UnknownKind,
    require_id,
)
from surefoot.runs.fork import Again, plan, write
from surefoot.runs.life import ENDED, RunState
from surefoot.runs.live.replay import History
from surefoot.runs.queueing import AT_ONCE, Queueing, require_seconds
from surefoot.runs.rows import inbox, queue, tables
from surefoot.runs.rows.inbox import CANCEL, WAKE
from surefoot.runs.rows.tables import RunRow
from surefoot.runs.signals import Signal, signal_for
from surefoot.runs.worker import Worker
from surefoot.store import Store, StoreError, Tx
from surefoot.store.connection import Connection

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run is.

    Attributes:
        state: pending, running, waiting, completed, failed or cancelled.
        waiting_for: For a waiting run: timer, signal, child, approval, doubt, budget, model or blocked.
        reason: Why it waits or how it ended, in words.
    """

    run_id: str
    kind: str
    state: str
    waiting_for: str | None
    reason: str


class Run:
    """A handle of one run; many may exist of the same."""

    def __init__(self, store: Store, worker: Worker, row: int, run_id: str, kind: str) -> None:
        self._store = store
        self._worker = worker
        self.row = row
        self.id = run_id
        self.kind = kind

    def __repr__(self) -> str:
        return f"<Run {self.id!r} of {self.kind}>"

    async def status(self) -> RunStatus:
        """Return where the run is."""
        row = await self.look()
        return RunStatus(row.run_id, row.kind, row.state.name.lower(), row.waiting_for, row.reason)

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for the run's end and return its result.

        Args:
            timeout_s: Seconds until TimeoutError, the run going on; None to wait as long as it takes.

        Raises:
            RunFailed, RunCancelled: It ended so.
            TimeoutError: It has not ended yet; the message says what it waits for.
        """
        if timeout_s is not None:
            require_seconds("timeout_s", timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                record = await self._end()
        except TimeoutError:
            row = await self.look()
            reason = row.reason.removeprefix(f"{row.waiting_for}: ")
            waits = f"waiting for {row.waiting_for}: {reason}" if row.waiting_for else row.state.name.lower()
            raise TimeoutError(
                f"run {self.id} has not ended within {timeout_s} s; it is {waits}\n"
                f"  hint: surefoot show {self.id} says what lets it go on"
            ) from None
        return read_end(self.id, self.kind, record)

    async def _end(self) -> Record:
        """Return the record of the run's end once there is one."""
        worker = self._worker
        while True:
            if (record := await worker.end_here(self.row)) is not None:
                return record
            with worker.hearing.of(self.row) as told:
                if (record := await self._store.read(self._read_end)) is not None:
                    return record
                if worker.failure is not None:
                    raise worker.failure
                if not worker.is_executed(self.row):
                    await worker.hearing.wait(told)

    def _read_end(self, connection: Connection) -> Record | None:
        row = tables.get_run(connection, self.row)
        return None if row.state not in ENDED else load_record(connection, row.ended or 0)

    async def signal(
        self, name: str | Signal[Any], payload: Any = None, *, by: str = PROGRAM, dedupe: str | None = None
    ) -> bool:
        """Send a signal. One that comes before the run waits for it is kept.

        Args:
            name: The signal, or its name; what starts with "$" is ours.
            payload: A JSON value, or one of the declared type.
            by: Who sends it; a person's signal is part of the trail, a program's ("api") is not.
            dedupe: The same name and dedupe reach the run once, also when it has ended since; None: each call is a signal
                of its own.

        Returns:
            Whether it was new.

        Raises:
            SignalRefused: The run has ended; or its kind, as far as this process knows it, takes no such signal; or
                another engine executes it.
            BadText: Its name, dedupe, or who sends it is no text that can be kept.
        """
        if self.kind.startswith(ELSEWHERE):
            raise SignalRefused(
                f"run {self.id} is executed by Temporal, and its agent waits for no signals; nothing was sent",
                hint="use a tool with sf.Approve, or an effect that a person resolves",
            )
        title, body = signal_for(name, payload, declared=self._declared(), run_id=self.id)
        deed = self._told(by, title)
        if dedupe is not None:
            require_text("dedupe", dedupe)

        def unit(tx: Tx) -> int | None:
            if inbox.is_posted(tx, self.row, title, dedupe):
                return None
            state = tables.get_run(tx.connection, self.row).state
            if state in ENDED:
                raise SignalRefused(
                    f"run {self.id} is {state.name.lower()}: signal {title} does not reach it any more",
                    hint=f"surefoot show {self.id}; nothing was sent",
                )
            if deed is not None:
                record_deed(tx, deed)
            return inbox.post(tx, self.row, title, body, sent_by=by, dedupe=dedupe)

        letter = await self._store.commit(unit, label="post", size=len(body))
        self._worker.nudge()
        return letter is not None

    def _declared(self) -> Iterable[Signal[Any]]:
        """Return the signals that the run's kind declares, if its code is in this process."""
        try:
            return kind_of_run(self.kind).signals.values()
        except UnknownKind:
            return ()

    async def cancel(self, reason: str, *, by: str = PROGRAM) -> None:
        """Ask the run to stop: its code sees CancelledError. It ends once no effect of it is in doubt.

        Raises:
            NotAllowed: This person may not (`sf.People`).
            BadText: The reason, or who asks, is no text that can be kept.
        """
        require_text("reason", reason, chars_max=WORDS_CHARS_MAX)
        await self._post(CANCEL, _encode(reason), f"{by}: {reason}", self._deed("cancel", by, reason))

    async def wake(self, *, by: str = PROGRAM) -> None:
        """Let a waiting run look again: after a blocked run's code was mended, say."""
        await self._post(WAKE, None, by, self._told(by, "wake"))

    def _deed(self, act: str, by: str, reason: str) -> Deed:
        """Return what the trail is told.

        Raises:
            BadText: Who does it is no name that can be kept.
        """
        require_text("by", by, example=": a name")
        return Deed(act=act, who=by, target=f"run {self.id}", reason=reason)

    def _told(self, by: str, what: str) -> Deed | None:
        """Return what the trail is told of a signal; nothing of those that programs send all day."""
        return None if by == PROGRAM else self._deed("signal", by, what)

    async def undo(self, reason: str, *, id: str | None = None, by: str = PROGRAM) -> Run:
        """Compensate what the run has done, its last effect first; the undo is a run of its own.

        Args:
            reason: Why; kept with the undo.
            id: The undo's business id; None: this run's id and "/undo", and a number when an earlier undo has failed.
            by: Who says so.

        Raises:
            NotAllowed: This person may not (`sf.People`).
            CannotUndo: The run still goes on: cancel it first.
            RunConflict: It has been undone, or is being undone, for another reason.
            BadText: The reason, or who says so, is no text that can be kept.
        """
        require_text("reason", reason, chars_max=WORDS_CHARS_MAX)
        row = await self.look()
        if row.state not in ENDED:
            raise CannotUndo(
                f"run {self.id} is {row.state.name.lower()}; only a run that has ended is undone",
                hint=f"surefoot cancel {self.id} --reason ...",
            )
        run_id = await self._store.read(lambda connection: free_undo_id(connection, self.id)) if id is None else id
        kind = kind_of(UNDO)
        body, digest = kind.dump_input((self.id, reason), {})
        return await start_run(
            self._store, self._worker, kind, body, digest, run_id=run_id, deadline_ms=None,
            deed=self._deed("undo", by, reason),
        )  # fmt: skip

    async def done_after(self, at: str | int) -> list[Again]:
        """Return what the run has done from a step on, and what a fork at that step would do about it.

        Args:
            at: The step's identity, or the number of its first record.
        """
        return (await self._store.read(lambda connection: plan(connection, self.id, at))).again

    async def fork(self, at: str | int, *, id: str, act: bool = False, by: str = PROGRAM) -> Run:
        """Make a new run that has this one's journal up to a step, and goes on by itself from there.

        Args:
            at: The step from which on it goes on: its identity, or the number of its first record.
            id: The fork's business id; the same id with the same step is the same fork.
            act: False: its effects are simulated: they give what is recorded of the same effect, and where nothing is,
                the fork stands. True: it acts as any run does; look at `done_after` first.
            by: Who makes it; kept with it.

        Raises:
            BadRunId: The id is none.
            NotAllowed: This person may not (`sf.People`).
            CannotFork: There is no such step; or it would act, and this run is simulated.
            RunConflict: The id belongs to another run.
        """
        require_id(id)
        deed = self._deed("fork", by, f"at {at}, as {id}, {'acting' if act else 'simulated'}")

        def unit(tx: Tx) -> RunRow:
            record_deed(tx, deed)
            return write(tx, plan(tx.connection, self.id, at), id, is_acting=act, by=by)

        row = await self._store.commit(unit, label="fork")
        self._worker.nudge()
        return Run(self._store, self._worker, row.id, row.run_id, row.kind)

    async def _post(self, name: str, payload: bytes | None, by: str, deed: Deed | None) -> None:
        def unit(tx: Tx) -> None:
            if deed is not None:
                record_deed(tx, deed)
            inbox.post(tx, self.row, name, payload, sent_by=by)

        await self._store.commit(unit, label="post")
        self._worker.nudge()

    async def look(self) -> RunRow:
        """Return the run's row."""
        return await self._store.read(lambda connection: tables.get_run(connection, self.row))


def free_undo_id(connection: Connection, run_id: str) -> str:
    """Return the id of the undo that goes on or is done, else the next one: a failed undo may be tried again."""
    for attempt in itertools.count(1):
        undo_id = f"{run_id}/undo" if attempt == 1 else f"{run_id}/undo#{attempt}"
        there = tables.find_run(connection, undo_id)
        if there is None or there.state not in (RunState.FAILED, RunState.CANCELLED):
            return undo_id
    raise AssertionError("itertools.count has no end")


def read_end(run_id: str, kind: str, record: Record) -> Any:
    """Return the result an ENDED record holds, or raise what it says."""
    state, body = record.head.state, record.body or b"null"
    if record.head.forgotten_at_ms:
        raise Forgotten(
            f"run {run_id} is {state}, and retention has deleted what it came to",
            hint="its id stays taken, and its effects stay done; keep results that matter for longer outside",
        )
    if state == "failed":
        error_type, text = msgspec.json.decode(body)
        raise RunFailed(run_id, error_type, text)
    if state == "cancelled":
        raise RunCancelled(
            f"run {run_id} was cancelled by {msgspec.json.decode(body)[0]}", hint=f"surefoot show {run_id}"
        )
    try:
        return kind_of_run(kind).result.load(body)
    except UnknownKind:  # its code is not in this process: the result as plain data
        return msgspec.json.decode(body)


async def start_run(
    store: Store,
    worker: Worker,
    kind: KindSpec,
    body: bytes,
    digest: bytes,
    *,
    run_id: str,
    deadline_ms: int | None,
    parent: int | None = None,
    deed: Deed | None = None,
    source: str | None = None,
    how: Queueing = AT_ONCE,
    is_elsewhere: bool = False,
) -> Run:
    """Start a run, or return the one of that id.

    Args:
        store: Where.
        worker: Who executes it, if it has room.
        kind: Its kind.
        body: Its input.
        digest: The digest of kind and input.
        run_id: Its business id.
        deadline_ms: Its deadline, wall clock; None for none.
        parent: The row of the run that starts it as its child; None for none.
        deed: What a person did by it, for the audit; None for none.
        source: For a child of a simulated run, the run whose outcomes it uses: it is simulated too. None for a real run.
        how: When it may begin. It is no part of the input: the run that is there keeps its own.
        is_elsewhere: Whether another engine executes it, so that no worker of ours takes it.

    Raises:
        BadRunId: The id is none.
        RunConflict: The id belongs to a run with another kind or input.
    """
    require_id(run_id)
    name = kind.name
    if source is not None:
        name, digest = f"{SIMULATED}{name}", simulated(digest)
    if is_elsewhere:
        name = f"{ELSEWHERE}{name}"
    has_place = not is_elsewhere and worker.take_place()
    begun: RunRow | None = None

    def unit(tx: Tx) -> tuple[RunRow, Record | None]:
        nonlocal begun
        begun, there = None, tables.find_run(tx.connection, run_id)
        if deed is not None:
            record_deed(tx, deed)
        if there is not None:
            return there, None
        state = queue.place(tx, how)
        may_begin = state is RunState.PENDING and has_place and worker.may_execute
        holder = worker.session.id if may_begin and queue.may_begin(tx, name, kind.concurrency) else None
        row = tables.insert_run(
            tx, run_id, name, digest, holder=holder, parent=parent, deadline_ms=deadline_ms, how=how, state=state
        )
        record = Record(row, 1, Kind.STARTED, "", 0, NO_HEAD if source is None else Head(run=source), body)
        insert_record(tx, record)
        begun = tables.get_run(tx.connection, row)
        return begun, record

    def let_go(tx: Tx) -> None:
        if begun is not None and tables.is_held(tx, begun.id, begun.epoch):
            tables.hand_back_run(tx, begun.id, is_counted=False)

    try:
        row, started = await store.commit(unit, label="start", size=len(body))
        is_ours = started is not None and worker.may_execute and row.holder == worker.session.id
        if is_ours:  # else it waits, or it is taken over, from a session that was lost
            worker.launch(row, History(last_seq=1, started=started), [])
    except asyncio.CancelledError:  # it may be on disk as ours, and nobody is left to launch it: any worker may
        with contextlib.suppress(StoreError):  # without a store our session ends, and with it our hold on the run
            store.append(let_go, label="start", on_error=None)
        raise
    finally:
        if has_place:
            worker.give_place_back()
    if started is None:
        if row.digest != digest:
            recorded = await store.read(lambda connection: _input_of(connection, row.id))
            raise RunConflict(
                f"run {run_id} exists with another input: {row.kind}({recorded}); asked for {kind.name}({body.decode()})",
                hint="use another id for other work; the same id with the same input returns the same run",
            )
    elif not is_ours:
        worker.nudge()
    return Run(store, worker, row.id, run_id, row.kind)


def _input_of(connection: Connection, run: int) -> str:
    for record in load_records(connection, run):
        if record.kind is Kind.STARTED:
            return (record.body or b"").decode()
    return "deleted by retention"


async def find(store: Store, worker: Worker, run_id: str) -> Run:
    """Return the handle of an existing run."""
    is_id = isinstance(run_id, str) and not has_half_characters(run_id)
    row = await store.read(lambda connection: tables.find_run(connection, run_id)) if is_id else None
    if row is None:
        raise RunNotFound(f"there is no run {run_id!r} in {store.path}", hint="surefoot runs")
    return Run(store, worker, row.id, run_id, row.kind)
