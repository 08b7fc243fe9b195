"""Tells Temporal what has changed in our store: runs to be started, waits that are over, cancellations.

Our store is where people and programs decide; Temporal is where runs go on. What holds: what is told is told again
until the workflow has acted on it, so a worker that dies in between loses nothing; a run whose workflow is gone in
Temporal ends here, too, and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from surefoot.adapters.temporal.rows import write_end
from surefoot.adapters.temporal.workflow import WAKE
from surefoot.runs import Worker
from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.rows import inbox, tables
from surefoot.runs.rows.tables import RunRow
from surefoot.store import StoreError
from surefoot.store.connection import Connection

LOOK_S = 0.2
"""How often the store is looked at."""

TELL_AGAIN_S = 5.0
"""How soon a run that is still due, or cancelled and still open, is told again."""

COMPARE_S = 30.0
"""How often open runs are compared with their workflows, `ELSEWHERE_AT_ONCE` of them, in turn."""

EVENTS = 10
"""Events of a history that are looked through for why its last task has failed."""

MEMO = "surefoot"
"""The field of a workflow's memo that says to which run it belongs."""

_logger = logging.getLogger("surefoot")

_GONE = {
    WorkflowExecutionStatus.TERMINATED: ("cancelled", "terminated in Temporal"),
    WorkflowExecutionStatus.CANCELED: ("cancelled", "cancelled in Temporal"),
    WorkflowExecutionStatus.TIMED_OUT: ("failed", "its workflow has timed out in Temporal"),
    WorkflowExecutionStatus.FAILED: ("failed", "its workflow has failed in Temporal"),
    WorkflowExecutionStatus.COMPLETED: ("failed", "its workflow has completed in Temporal without an end of ours"),
}


class Bridge:
    """Watches the runs of some kinds in one store.

    Args:
        client: The namespace their workflows are in.
        task_queue: The queue of the workers that know them.
        worker: Gives the embedded worker, now.
        kinds: Gives the kinds, as the store names them.
    """

    def __init__(
        self, client: Client, task_queue: str, worker: Callable[[], Worker], kinds: Callable[[], Sequence[str]]
    ) -> None:
        self._client = client
        self._task_queue = task_queue
        self._worker = worker
        self._kinds = kinds
        self._told: dict[int, float] = {}
        self._cancelled: dict[int, float] = {}
        self._last_letter = self._compared_to = 0
        self._compared_s = 0.0
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Look now."""
        self._nudged.set()

    async def watch(self) -> None:
        """Look until cancelled, or until our store records nothing more. Temporal that can't be reached is tried again, and
        said."""
        while self._worker().store.writer.failure is None:
            try:
                await self._look()
            except StoreError:  # every caller of the store is told
                return
            except RPCError as error:
                _logger.warning("Temporal can't be told what has changed: %s; tried again", error)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._nudged.wait()
            except TimeoutError:
                pass
            self._nudged.clear()

    async def _look(self) -> None:
        store = self._worker().store
        due, cancelled, newest = await store.read(partial(self._due, now_ms=store.clock.wall_ms()))
        now_s = store.clock.monotonic_s()
        await _tell_each(due, self._told, now_s, self.tell)
        await _tell_each(cancelled, self._cancelled, now_s, self._cancel)
        self._last_letter = newest
        if now_s - self._compared_s >= COMPARE_S:
            self._compared_s = now_s
            rows = await store.read(self._next_to_compare)
            self._compared_to = rows[-1].id if len(rows) == tables.ELSEWHERE_AT_ONCE else 0
            for row in rows:
                await self.compare(row)

    def _next_to_compare(self, connection: Connection) -> list[RunRow]:
        return tables.list_elsewhere(connection, self._kinds(), 0, is_due=False, after=self._compared_to)

    def _due(self, connection: Connection, now_ms: int) -> tuple[list[RunRow], list[RunRow], int]:
        """Return the open runs that are due, those that are cancelled, and the newest letter that was looked at."""
        kinds = self._kinds()
        due = tables.list_elsewhere(connection, kinds, now_ms, is_due=True)
        runs, newest = inbox.cancels_since(connection, self._last_letter)
        cancelled = [tables.get_run(connection, run) for run in dict.fromkeys([*self._cancelled, *runs])]
        return due, [row for row in cancelled if row.kind in kinds and row.ended is None], newest

    async def tell(self, row: RunRow) -> None:
        """Start the workflow of a run, or signal it that something has changed."""
        try:
            await self._start(row)
        except WorkflowAlreadyStartedError:
            if await self.compare(row):
                await self._client.get_workflow_handle(row.run_id).signal(WAKE)
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            await self._end(row, "failed", f"Temporal refuses it: {error}")  # whoever asks again hears the same

    async def _start(self, row: RunRow) -> None:
        await self._client.start_workflow(
            row.kind.removeprefix(ELSEWHERE),
            id=row.run_id,
            task_queue=self._task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={MEMO: _owner(row)},
        )

    async def _cancel(self, row: RunRow) -> None:
        try:
            await self._client.get_workflow_handle(row.run_id).cancel()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            await self.compare(row)

    async def compare(self, row: RunRow) -> bool:
        """Return whether a run's workflow goes on; end a run whose workflow has ended without it.

        What it owns in doubt stays listed, and ends first. A workflow that Temporal has lost is begun anew: what the run
        has decided and done is recorded, and is given to it again.
        """
        try:
            found = await self._client.get_workflow_handle(row.run_id).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            if row.ended is None:
                with contextlib.suppress(WorkflowAlreadyStartedError):
                    await self._start(row)
            return False
        state, why = _GONE.get(found.status, ("", "")) if found.status is not None else ("", "")
        if await found.memo_value(MEMO, None) != _owner(row):
            state = "failed"
            why = f"in Temporal's namespace {found.namespace} its id belongs to a workflow {found.workflow_type} of others"
        if not why:
            return True
        await self._end(row, state, why)
        return False

    async def _end(self, row: RunRow, state: str, why: str) -> None:
        asked = {"run": row.id, "state": state, "by": why, "error": ["WorkflowGone", why]}
        worker = self._worker()
        await worker.store.commit(partial(write_end, worker, asked), label="temporal")

    async def stuck(self, run_id: str, attempts: int) -> str | None:
        """Return why a workflow does not go on; None if it does, or is not there.

        Args:
            run_id: Its id.
            attempts: From which attempt at a workflow task on it is said to be stuck.
        """
        try:
            found = await self._client.get_workflow_handle(run_id).describe()
        except RPCError:
            return None
        task = found.raw_description.pending_workflow_task
        if task.attempt < attempts:
            return None
        return f"its workflow's code fails, attempt {task.attempt}: {await self._failure(run_id)}; mend it, or roll it back"

    async def _failure(self, run_id: str) -> str:
        """Return in words why a workflow task has failed last."""
        asked = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=run_id),
            maximum_page_size=EVENTS,
        )
        found = await self._client.workflow_service.get_workflow_execution_history_reverse(asked)
        for event in found.history.events:
            if event.HasField("workflow_task_failed_event_attributes"):
                return str(event.workflow_task_failed_event_attributes.failure.message)
        return "no worker answers in time"


async def _tell_each(
    rows: Sequence[RunRow], told: dict[int, float], now_s: float, tell: Callable[[RunRow], Awaitable[object]]
) -> None:
    """Tell of each run that was not told of lately, and note when; forget the others: they need it no more."""
    for gone in told.keys() - {row.id for row in rows}:
        del told[gone]
    for row in rows:
        if now_s - told.get(row.id, -TELL_AGAIN_S) >= TELL_AGAIN_S:
            await tell(row)
            told[row.id] = now_s


def _owner(row: RunRow) -> str:
    """Return what a workflow carries to say whose it is: stores may share a namespace."""
    return f"{row.id} of {row.created_at_ms}"
