"""Child runs: started by a run, with a life of their own, and waited for like a timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from surefoot.effects.classify import describe
from surefoot.journal import Kind, Record, load_record
from surefoot.journal.records import Head
from surefoot.runs import tables
from surefoot.runs.durable import kind_of
from surefoot.runs.errors import RunCancelled, RunFailed, StepFailed
from surefoot.runs.handle import Run, read_end, start_run
from surefoot.runs.life import ENDED, WaitFor
from surefoot.runs.live import LiveRun
from surefoot.runs.steps import live_run, load_recorded
from surefoot.runs.taken import LiveStep


async def child(function: Callable[..., Any], *args: Any, id: str | None = None, key: str | None = None) -> Any:
    """Run another durable function as a child and return its result.

    Args:
        function: A durable function.
        args: Its arguments.
        id: The child's business id; None: the parent's id and the step.
        key: The caller's distinction between children of one name in parallel tasks.

    Raises:
        StepFailed: The child failed or was cancelled.
    """
    run = live_run("child")
    kind = kind_of(function)
    given = kind.dump_input(args, {})
    taken = run.open_step(kind.name, key)
    try:
        if taken.ended is None:
            await _run_child(run, taken, kind.name, given, id)
        record = taken.ended
        assert record is not None, "the child has ended"
        if record.kind is Kind.INTERRUPTED:
            await run.meet_again()
    except BaseException as error:
        taken.interrupt(describe(error))
        raise
    finally:
        taken.close()
    if record.head.state != "completed":
        raise StepFailed(taken.key, record.head.state, record.head.reason)
    return load_recorded(run, kind.result, record.body or b"null")


async def _run_child(run: LiveRun, taken: LiveStep, name: str, given: tuple[bytes, bytes], run_id: str | None) -> None:
    worker, source = run.worker, None
    child_id = taken.opened.head.run if taken.opened is not None else run_id or f"{run.run_id}/{taken.key}"
    if run.is_simulated:
        source = run_id or f"{run.source}/{taken.key}"
        if await _use_recorded(run, taken, name, given, source):
            return
        child_id = f"{run.run_id}/{taken.key}"  # never an id that a real run might want
    if taken.opened is None:
        opened = taken.draft(Kind.CHILD, head=Head(name=name, run=child_id))
        taken.record(opened, "child")
    handle = await start_run(
        run.store,
        worker,
        kind_of(name),
        *given,
        run_id=child_id,
        deadline_ms=None,
        parent=run.row.id,
        source=source,
    )
    head, body = await _await_end(run, taken, handle)
    record = taken.draft(Kind.CHILD_ENDED, head=head, body=body)
    taken.record(record, "child")
    taken.end(record)


async def _use_recorded(run: LiveRun, taken: LiveStep, name: str, given: tuple[bytes, bytes], source: str) -> bool:
    """In a simulated run: take the end of the real child of the same input, if there is one; return whether there was."""

    def query(connection: apsw.Connection) -> Record | None:
        row = tables.find_run(connection, source)
        is_same = row is not None and row.kind == name and row.digest == given[1] and row.state in ENDED
        return load_record(connection, row.ended or 0) if row is not None and is_same else None

    ended = await run.store.read(query)
    if ended is None:
        return False
    head, body = _end_as_told(source, name, ended)
    record = taken.draft(Kind.CHILD_ENDED, head=head, body=body)
    taken.record(record, "child")
    taken.end(record)
    return True


async def _await_end(run: LiveRun, taken: LiveStep, handle: Run) -> tuple[Head, bytes | None]:
    while True:
        record = await run.store.read(lambda connection: _end_of(connection, handle))
        if record is not None:
            return _end_as_told(handle.id, handle.kind, record)
        await run.wait(taken.key, WaitFor.CHILD, f"child {handle.id}", None, target=("run", handle.row))


def _end_as_told(run_id: str, kind: str, record: Record) -> tuple[Head, bytes | None]:
    """Return what the parent records of its child's end."""
    try:
        read_end(run_id, kind, record)
    except (RunFailed, RunCancelled) as error:
        return Head(name=kind, run=run_id, state=record.head.state, reason=error.message), None
    return Head(name=kind, run=run_id, state="completed"), record.body


def _end_of(connection: apsw.Connection, handle: Run) -> Record | None:
    row = tables.get_run(connection, handle.row)
    return load_record(connection, row.ended or 0) if row.state in ENDED else None
