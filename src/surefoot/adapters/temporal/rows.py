"""The activities by which a workflow writes its run's row: begun, waiting, running again, ended.

The row is what the command line, approvals and resolutions see of the run. What holds: each may be done twice; an end is
written once, and not while the run owns an effect whose outcome nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from temporalio import activity

from surefoot.adapters.pydantic_ai.payloads import PAYLOAD
from surefoot.adapters.pydantic_ai.transcripts import RESULT
from surefoot.adapters.temporal.parked import loaded
from surefoot.adapters.temporal.waiting import PARK, UNPARK
from surefoot.adapters.temporal.workflow import BEGIN, END
from surefoot.effects.rows import ledger
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, insert_record
from surefoot.journal.records import NEXT, Head
from surefoot.journal.tables import load_records
from surefoot.journal.texts import without_surrogates
from surefoot.leases import Life
from surefoot.runs import RunNotFound, Worker
from surefoot.runs.life import ENDED, RunState, WaitFor
from surefoot.runs.rows import claims, inbox, tables, waiters
from surefoot.store import Tx

_encode = msgspec.json.Encoder().encode


class Rows:
    """Writes the rows of one store.

    Args:
        worker: Gives the embedded worker, now: it knows which sessions live, and whom to tell of an end.
    """

    def __init__(self, worker: Callable[[], Worker]) -> None:
        self._worker = worker

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """What a worker registers."""

        async def begin(asked: dict[str, Any]) -> dict[str, Any]:
            return await self._commit(partial(_begin, asked["run_id"]))

        async def park(asked: dict[str, Any]) -> dict[str, Any]:
            return await self._commit(partial(_park, asked))

        async def unpark(asked: dict[str, Any]) -> dict[str, Any]:
            return await self._commit(partial(_unpark, asked["run"]))

        async def end(asked: dict[str, Any]) -> dict[str, Any]:
            return await self._commit(partial(write_end, self._worker(), asked))

        named = {BEGIN: begin, PARK: park, UNPARK: unpark, END: end}
        return [activity.defn(name=name)(function) for name, function in named.items()]

    async def _commit(self, unit: Callable[[Tx], dict[str, Any]]) -> dict[str, Any]:
        return await self._worker().store.commit(unit, label="temporal")


def _begin(run_id: str, tx: Tx) -> dict[str, Any]:
    row = tables.find_run(tx.connection, run_id)
    if row is None:
        raise RunNotFound(f"there is no run {run_id!r} in this store", hint="was the workflow started by another app?")
    if row.state in ENDED:
        return {"ended": row.state.name.lower()}
    started = next(record for record in load_records(tx.connection, row.id) if record.kind is Kind.STARTED)
    return {"run": row.id, "input": (started.body or b"{}").decode(), **_unpark(row.id, tx)}


def _unpark(run: int, tx: Tx) -> dict[str, Any]:
    if not _has_ended(tx, run):
        tables.set_running_elsewhere(tx, run)
    newest = tx.row("SELECT coalesce(max(id), 0) FROM inbox WHERE run = ?", (run,))
    assert newest is not None, "an aggregate has a row"
    return {"last_letter": int(newest[0])}


def _park(asked: dict[str, Any], tx: Tx) -> dict[str, Any]:
    run, waits = asked["run"], [loaded(one) for one in asked["waits"]]
    if _has_ended(tx, run):
        return {}
    order = list(WaitFor)
    first = min(waits, key=lambda wait: order.index(WaitFor(wait.wait_for)))
    times = [wait.wake_at_ms for wait in waits if wait.wake_at_ms is not None]
    targets = tuple({target for wait in waits for target in wait.targets})
    reason = without_surrogates(first.reason)
    wake_at_ms = min(times, default=None)
    waiters.park_run(tx, run, WaitFor(first.wait_for), reason, wake_at_ms, asked["last_letter"], targets=targets)
    return {}


def _has_ended(tx: Tx, run: int) -> bool:
    return tables.get_run(tx.connection, run).state in ENDED


def write_end(worker: Worker, asked: dict[str, Any], tx: Tx) -> dict[str, Any]:
    """Write the end of a run, unless it owns effects without outcome: then return those, to be waited for.

    Args:
        worker: See `Rows`.
        asked: run; state; for completed body and transcript, for failed error.
        tx: The transaction.
    """
    run = asked["run"]
    if _has_ended(tx, run):
        return {}
    if left := claims.open_effects(tx, run):
        for effect in left:
            _doubt_left(worker, tx, effect)
        return {"open": left}
    state = RunState[asked["state"].upper()]
    body, reason = _body(tx, run, asked)
    if asked.get("transcript") is not None:
        transcript = PAYLOAD.dump(asked["transcript"])[0]
        insert_record(tx, Record(run, NEXT, Kind.DECIDED, RESULT, 0, body=transcript))
    record = insert_record(tx, Record(run, NEXT, Kind.ENDED, "", 0, Head(state=asked["state"]), body))
    tables.end_run(tx, run, state, record, reason)
    worker.tell(tx, ("run", run))
    return {}


def _body(tx: Tx, run: int, asked: dict[str, Any]) -> tuple[bytes, str]:
    """Return the value and the words of an end."""
    match asked["state"]:
        case "completed":
            return asked["body"].encode(), ""
        case "failed":
            name, text = asked["error"]
            return _encode([name, text]), f"{name}: {text}"
        case _:
            by = tx.row("SELECT sent_by FROM inbox WHERE run = ? AND name = ? ORDER BY id LIMIT 1", (run, inbox.CANCEL))
            who = asked.get("by") or (str(by[0]) if by else "somebody in Temporal")
            return _encode([who]), f"cancelled by {who}"


def _doubt_left(worker: Worker, tx: Tx, effect: int) -> None:
    """Note that nobody acts on a claim any more, if that is so."""
    row = ledger.get(tx.connection, effect)
    if row is None or row.state is not State.CLAIMED or effect in worker.guard.acting | worker.guard.resolving:
        return
    is_ours = row.holder == worker.session.id
    if is_ours or worker.sessions.holder(tx.connection, row.holder).life is not Life.ALIVE:
        boot_ms = worker.store.clock.boot_ms()
        claims.doubt_claim(tx, row, worker.session.id, boot_ms, "its run has ended")
