"""Child runs: started by a run, with a life of their own, and waited for like a timer.

    first     -> the child's id is recorded, then it is started; a parent that comes here again finds it
    waiting   -> in memory, or parked: the child's end wakes its parent (many of them together: `waiters.MANY`)
    end       -> what it came to is recorded in the parent; a large value stays the child's, and is read when asked for
    left      -> a wait that is cancelled, or whose parent ends without it, asks the child to stop

A simulated parent uses what is recorded of the same children, and starts others as simulated ones, under ids of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from surefoot.effects.classify import describe
from surefoot.journal import Kind, Record, Undecodable, load_record
from surefoot.journal.records import Head
from surefoot.journal.tables import BLOB_ABOVE
from surefoot.journal.texts import without_surrogates
from surefoot.journal.values import Value
from surefoot.problem import SurefootError
from surefoot.runs.durable import KindSpec, kind_of
from surefoot.runs.errors import RunCancelled, RunFailed, StepFailed, name_of, require_id
from surefoot.runs.handle import read_end, start_run
from surefoot.runs.life import ENDED, WaitFor
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.taken import LiveStep
from surefoot.runs.queueing import deadline_of
from surefoot.runs.rows import inbox, tables
from surefoot.runs.rows.inbox import CANCEL
from surefoot.runs.steps import live_run, load_recorded
from surefoot.store import Tx
from surefoot.store.connection import Connection

LEFT = ("cancel", "go_on")
"""What may become of a child whose parent no longer waits for it."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A child as its parent asks for it."""

    kind: KindSpec
    body: Value
    digest: bytes
    run_id: str | None
    deadline_s: float | None


async def child(
    function: Callable[..., Any],
    *args: Any,
    id: str | None = None,
    key: str | None = None,
    deadline_s: float | None = None,
    when_left: str = "cancel",
) -> Any:
    """Run another durable function as a child and return its result.

    Thousands at once are fine: a worker executes `worker.ROOM` runs at a time, and the others wait for room.

    Args:
        function: A durable function.
        args: Its arguments.
        id: The child's business id; None: the parent's id and the step.
        key: The caller's distinction between children of one name in parallel tasks.
        deadline_s: Seconds from its start after which the child's next step raises `DeadlinePassed`; None for none.
        when_left: What becomes of the child when its parent waits no more (cancelled, timed out, or ended): "cancel" asks
            it to stop; "go_on" leaves it.

    Raises:
        BadRunId: The id is none.
        StepFailed: The child failed, with the type and words of its error; or it was cancelled.
    """
    run = live_run("child")
    if when_left not in LEFT:
        raise SurefootError(f"child: when_left={when_left!r}", hint='use "cancel" (default) or "go_on"')
    if id is not None:
        require_id(id)
    deadline_of(run.store.clock.wall_ms(), deadline_s)  # refused here, in every execution, not in the midst of the step
    kind = kind_of(function)
    asked = _Asked(kind, *kind.dump_input(args, {}), id, deadline_s)
    taken = run.open_step(kind.name, key)
    try:
        if taken.ended is None:
            await _run_child(run, taken, asked)
        record = taken.ended
        assert record is not None, "the child has ended"
        if record.kind is Kind.INTERRUPTED:
            await run.meet_again()
    except BaseException as error:
        taken.interrupt(describe(error))
        ended = None if taken.ended is None else taken.ended.kind
        if ended in (Kind.INTERRUPTED, Kind.EXPIRED) and run.stopped is None and when_left == "cancel":
            run.append(partial(_stop_child, run, _child_id(run, taken, id), taken.key), "cancel child", 0)
        if ended is Kind.RAISED:  # as it will be raised on replay
            raise StepFailed(taken.key, name_of(error), without_surrogates(str(error))) from error
        raise
    finally:
        taken.close()
    if record.kind is Kind.RAISED or record.head.state != "completed":
        kind_text = [record.head.state, record.head.reason] if record.body is None else msgspec.json.decode(record.body)
        raise StepFailed(taken.key, *kind_text)
    return load_recorded(run, kind.result, await _value_of(run, record))


async def _value_of(run: LiveRun, record: Record) -> bytes:
    if record.body is None and record.head.record:
        kept = await run.store.read(lambda connection: load_record(connection, record.head.record))
        if kept.body is None:
            hint = "it is gone for ever; start the work again under another id"
            raise run.stop(Undecodable(f"what {record.head.run} came to was deleted by retention", hint=hint))
        return kept.body
    return record.body or b"null"


def _child_id(run: LiveRun, taken: LiveStep, run_id: str | None) -> str:
    """Return the child's id: the recorded one, the caller's, or one of its place. A simulated child never takes an id that
    a real run might want."""
    if taken.opened is not None:
        return taken.opened.head.run
    return f"{run.run_id}/{taken.key}" if run.is_simulated or run_id is None else run_id


async def _run_child(run: LiveRun, taken: LiveStep, asked: _Asked) -> None:
    source = (asked.run_id or f"{run.source}/{taken.key}") if run.is_simulated else None
    end = None if source is None else await run.store.read(partial(_recorded_end, asked, source))
    if end is None:
        end = await _await_end(run, taken, asked, source)
    head, body = _as_told(end, asked.kind.name)
    record = taken.draft(Kind.CHILD_ENDED, head=head, body=body)
    taken.record(record, "child")
    taken.end(record)


@dataclass(frozen=True, slots=True)
class _End:
    run_id: str
    record: Record


def _recorded_end(asked: _Asked, source: str, connection: Connection) -> _End | None:
    """Return the end of a real child of the same kind and input, for a simulated parent."""
    row = tables.find_run(connection, source)
    if row is None or row.kind != asked.kind.name or row.digest != asked.digest:
        return None
    return _end_of(connection, row.id)


async def _await_end(run: LiveRun, taken: LiveStep, asked: _Asked, source: str | None) -> _End:
    child_id, row, end = _child_id(run, taken, asked.run_id), None, None
    if taken.opened is not None:  # an earlier execution was here
        row, end = await run.store.read(lambda connection: _look(connection, child_id, asked))
    if row is None:
        row = await _start(run, taken, asked, child_id, source)
        if not run.worker.is_live(row):
            end = await run.store.read(lambda connection: _end_of(connection, row))
    while end is None:
        await run.wait(taken.key, WaitFor.CHILD, f"child {child_id}", None, target=("run", row))
        end = await run.store.read(lambda connection: _end_of(connection, row))
    return end


async def _start(run: LiveRun, taken: LiveStep, asked: _Asked, child_id: str, source: str | None) -> int:
    if taken.opened is None:
        asked_ms = deadline_of(run.store.clock.wall_ms(), asked.deadline_s)
        taken.opened = taken.draft(Kind.CHILD, head=Head(name=asked.kind.name, run=child_id, wake_at_ms=asked_ms or 0))
        taken.record(taken.opened, "child")
    handle = await start_run(
        run.store,
        run.worker,
        asked.kind,
        asked.body,
        asked.digest,
        run_id=child_id,
        deadline_ms=taken.opened.head.wake_at_ms or None,
        parent=run.row.id,
        source=source,
    )
    return handle.row


def _look(connection: Connection, run_id: str, asked: _Asked) -> tuple[int | None, _End | None]:
    """Return row and end of a child that was begun; None for one that was not, or is another's: starting it tells."""
    row = tables.find_run(connection, run_id)
    if row is None or row.digest != asked.digest:
        return None, None
    return row.id, _end_of(connection, row.id)


def _end_of(connection: Connection, run: int) -> _End | None:
    row = tables.get_run(connection, run)
    return _End(row.run_id, load_record(connection, row.ended or 0)) if row.state in ENDED else None


def _as_told(end: _End, kind: str) -> tuple[Head, bytes | None]:
    """Return what the parent records of its child's end: a copy, but for large values, which stay where they are."""
    record, state = end.record, end.record.head.state
    try:
        read_end(end.run_id, kind, record)
    except (RunFailed, RunCancelled) as error:
        body = record.body if state == "failed" else None
        return Head(name=kind, run=end.run_id, state=state, reason=error.message), body
    if len(record.body or b"") > BLOB_ABOVE:
        return Head(name=kind, run=end.run_id, state=state, record=record.id), None
    return Head(name=kind, run=end.run_id, state=state), record.body


def _stop_child(run: LiveRun, child_id: str, step: str, tx: Tx) -> None:
    """Ask a child that nobody waits for to stop, if it is ours and goes on. Said twice, it is one."""
    run.require(tx)
    row = tables.find_run(tx.connection, child_id)
    if row is not None and row.parent == run.row.id and row.state not in ENDED:
        by = f"run {run.run_id} waits no more in {step}"
        inbox.post(tx, row.id, CANCEL, None, sent_by=by, dedupe=by)
