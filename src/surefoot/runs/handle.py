"""What callers hold of a run: its result, its state, and ways to send it something."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import Any

import apsw
import msgspec

from surefoot.journal import Kind, Record, codec_of, insert_record
from surefoot.journal.records import NO_HEAD
from surefoot.journal.tables import load_record, load_records
from surefoot.problem import SurefootError
from surefoot.runs import tables
from surefoot.runs.durable import UNDO, KindSpec, kind_of
from surefoot.runs.errors import CannotUndo, RunCancelled, RunConflict, RunFailed, RunNotFound, UnknownKind
from surefoot.runs.life import ENDED, RunState
from surefoot.runs.replay import History
from surefoot.runs.tables import CANCEL, WAKE, RunRow
from surefoot.runs.worker import Worker
from surefoot.store import Store, StoreError, Tx

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
        record = None
        if self._worker.is_live(self.row):  # executed here, so there is nothing to look for before its task ends
            record = await self._worker.wait_change(self.row)
        while record is None and (record := await self._store.read(self._read_end)) is None:
            if self._worker.failure is not None:
                raise self._worker.failure
            record = await self._worker.wait_change(self.row)
        return record

    def _read_end(self, connection: apsw.Connection) -> Record | None:
        row = tables.get_run(connection, self.row)
        return None if row.state not in ENDED else load_record(connection, row.ended or 0)

    async def signal(self, name: str, payload: Any = None, *, by: str = "api", dedupe: str | None = None) -> bool:
        """Send a signal.

        Args:
            name: Its name; what starts with "$" is ours.
            payload: A JSON value.
            by: Who sends it.
            dedupe: The same name and dedupe reach the run once; None: each call is a signal of its own.

        Returns:
            Whether it was new.
        """
        if name.startswith("$"):
            raise SurefootError(
                f"signal {name!r}: names that start with $ are Surefoot's own", hint="pick another name"
            )
        body, _ = codec_of(object, f"signal {name}").dump(payload)
        return await self._post(name, body, by, dedupe)

    async def cancel(self, reason: str, *, by: str = "api") -> None:
        """Ask the run to stop: its code sees CancelledError. It ends once no effect of it is in doubt."""
        await self._post(CANCEL, _encode(reason), f"{by}: {reason}", None)

    async def wake(self, *, by: str = "api") -> None:
        """Let a waiting run look again: after a blocked run's code was mended, say."""
        await self._post(WAKE, None, by, None)

    async def undo(self, reason: str, *, id: str | None = None) -> Run:
        """Compensate what the run has done, its last effect first; the undo is a run of its own.

        Args:
            reason: Why; kept with the undo.
            id: The undo's business id; None: this run's id and "/undo", and a number when an earlier undo has failed.

        Raises:
            CannotUndo: The run still goes on: cancel it first.
            RunConflict: It has been undone, or is being undone, for another reason.
        """
        row = await self.look()
        if row.state not in ENDED:
            raise CannotUndo(
                f"run {self.id} is {row.state.name.lower()}; only a run that has ended is undone",
                hint=f"surefoot cancel {self.id} --reason ...",
            )
        run_id = await self._store.read(lambda connection: free_undo_id(connection, self.id)) if id is None else id
        kind = kind_of(UNDO)
        body, digest = kind.dump_input((self.id, reason), {})
        return await start_run(self._store, self._worker, kind, body, digest, run_id=run_id, deadline_ms=None)

    async def _post(self, name: str, payload: bytes | None, by: str, dedupe: str | None) -> bool:
        def unit(tx: Tx) -> int | None:
            return tables.post(tx, self.row, name, payload, sent_by=by, dedupe=dedupe)

        letter = await self._store.commit(unit, label="post")
        self._worker.nudge()
        return letter is not None

    async def look(self) -> RunRow:
        """Return the run's row."""
        return await self._store.read(lambda connection: tables.get_run(connection, self.row))


def free_undo_id(connection: apsw.Connection, run_id: str) -> str:
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
    if state == "failed":
        error_type, text = msgspec.json.decode(body)
        raise RunFailed(run_id, error_type, text)
    if state == "cancelled":
        raise RunCancelled(
            f"run {run_id} was cancelled by {msgspec.json.decode(body)[0]}", hint=f"surefoot show {run_id}"
        )
    try:
        return kind_of(kind).result.load(body)
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
) -> Run:
    """Start a run, or return the one of that id.

    Raises:
        RunConflict: The id belongs to a run with another kind or input.
    """
    is_ours = worker.may_execute and len(worker.live) < worker.room
    begun: RunRow | None = None

    def unit(tx: Tx) -> tuple[RunRow, Record | None]:
        nonlocal begun
        begun, there = None, tables.find_run(tx.connection, run_id)
        if there is not None:
            return there, None
        holder = worker.session.id if is_ours and worker.may_execute else None
        row = tables.insert_run(tx, run_id, kind.name, digest, holder=holder, parent=parent, deadline_ms=deadline_ms)
        record = Record(row, 1, Kind.STARTED, "", 0, NO_HEAD, body)
        insert_record(tx, record)
        begun = tables.get_run(tx.connection, row)
        return begun, record

    def let_go(tx: Tx) -> None:
        if begun is not None and tables.is_held(tx, begun.id, begun.epoch):
            tables.hand_back_run(tx, begun.id, is_counted=False)

    try:
        row, started = await store.commit(unit, label="start", size=len(body))
    except asyncio.CancelledError:  # it may be on disk as ours, and nobody is left to launch it: any worker may
        with contextlib.suppress(StoreError):  # without a store our session ends, and with it our hold on the run
            store.append(let_go, label="start", on_error=_ignore)
        raise
    if started is None:
        if row.digest != digest:
            recorded = await store.read(lambda connection: _input_of(connection, row.id))
            raise RunConflict(
                f"run {run_id} exists with another input: {row.kind}({recorded}); asked for {kind.name}({body.decode()})",
                hint="use another id for other work; the same id with the same input returns the same run",
            )
    elif worker.may_execute and row.holder == worker.session.id:  # else it is taken over, from a session that was lost
        worker.launch(row, History(last_seq=1, started=started), [])
    return Run(store, worker, row.id, run_id, row.kind)


def _ignore(_error: BaseException) -> None:
    """The writer stopped: every later call is told so."""


def _input_of(connection: apsw.Connection, run: int) -> str:
    for record in load_records(connection, run):
        if record.kind is Kind.STARTED:
            return (record.body or b"").decode()
    return "?"


async def find(store: Store, worker: Worker, run_id: str) -> Run:
    """Return the handle of an existing run."""
    row = await store.read(lambda connection: tables.find_run(connection, run_id))
    if row is None:
        raise RunNotFound(f"there is no run {run_id!r} in {store.path}", hint="surefoot runs")
    return Run(store, worker, row.id, run_id, row.kind)


RUN_STATES = {state.name.lower(): state for state in RunState}
"""The states by the names that people use."""
