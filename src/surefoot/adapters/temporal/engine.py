"""The part of an app that is connected to Temporal: its client, its worker, and the bridge between the two stores of
truth."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from pydantic_ai.durable_exec.temporal import PydanticAIPayloadConverter, PydanticAIPlugin
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker import Worker as TemporalWorker

from surefoot.adapters.pydantic_ai import DurableAgent
from surefoot.adapters.temporal.address import Address
from surefoot.adapters.temporal.agents import TemporalAgent, TemporalRun
from surefoot.adapters.temporal.bridge import Bridge
from surefoot.adapters.temporal.payloads import StoreCodec
from surefoot.adapters.temporal.rows import Rows
from surefoot.adapters.temporal.workflow import AgentKind, AgentWorkflow, agents
from surefoot.problem import SurefootError
from surefoot.runs import KindSpec, RunState, Worker, start_run
from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.queueing import AT_ONCE, Queueing
from surefoot.runs.worker import GRACE_S
from surefoot.store.codec import Codec

STICKY_TIMEOUT = timedelta(seconds=1)
"""How long Temporal waits for the worker that has a workflow in memory before it asks any other."""


_logger = logging.getLogger("surefoot")


class Engine:
    """An app's connection to a Temporal cluster.

    Args:
        address: Where it is.
        worker: Gives the app's embedded worker, now; its failure is this worker's too.
        codec: How values lie in Temporal's history; None: as they are.
    """

    def __init__(self, address: Address, worker: Callable[[], Worker], codec: Codec | None) -> None:
        self.address = address
        self._codec = codec
        self._worker = worker
        self._client: Client | None = None
        self._bridge: Bridge | None = None
        self._kinds: dict[str, AgentKind] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._temporal: TemporalWorker | None = None

    @property
    def agent(self) -> Callable[..., DurableAgent]:
        """What makes an agent durable on this engine."""
        return partial(TemporalAgent, engine=self)

    @property
    def bridge(self) -> Bridge:
        """What tells Temporal of our store."""
        assert self._bridge is not None, "the app is open"
        return self._bridge

    @property
    def client(self) -> Client:
        """The client, while the app is open."""
        assert self._client is not None, "the app is open"
        return self._client

    def add(self, kind: AgentKind) -> None:
        """Note an agent, before the worker begins.

        Raises:
            SurefootError: It has begun: Temporal's workers know their activities from the start.
        """
        if self._temporal is not None:
            raise SurefootError(
                f"agent {kind.name!r} was made durable after the app was opened",
                hint="call app.agent(...) before `async with app:`; Temporal's workers know their agents from the start",
            )
        address = self.address
        self._kinds[kind.spec.name] = agents[address.namespace, address.task_queue, kind.spec.name] = kind

    def executes(self, kind: KindSpec) -> bool:
        """Whether runs of this kind are workflows here."""
        return kind.name in self._kinds

    async def start(
        self,
        kind: KindSpec,
        body: bytes,
        digest: bytes,
        run_id: str,
        deadline_s: float | None,
        how: Queueing = AT_ONCE,
    ) -> TemporalRun:
        """Start a run, or return the one of that id; see `runs.start_run`.

        It is on disk in our store when this returns, and its workflow is started, now or by the next worker that
        reaches Temporal.
        """
        if deadline_s is not None:
            raise SurefootError(
                f"run {run_id!r}: deadline_s={deadline_s!r} is not supported on Temporal",
                hint="leave it out; limit the agent with usage_limits, its tools with timeout_s",
            )
        if how != AT_ONCE:
            raise SurefootError(
                f"run {run_id!r}: priority, delay, at and key are the embedded engine's; a run on Temporal begins at once",
                hint="leave them out; start it from a Temporal schedule, or limit its workers",
            )
        worker = self._worker()
        run = await start_run(
            worker.store, worker, kind, body, digest, run_id=run_id, deadline_ms=None, is_elsewhere=True
        )
        found = TemporalRun(worker.store, worker, run.row, run.id, run.kind, self.bridge)
        row = await found.look()
        if row.state is RunState.PENDING and row.kind.startswith(ELSEWHERE):
            try:
                await self.bridge.tell(row)
            except RPCError as error:
                text = "run %s is on disk; its workflow is started once Temporal is reached: %s"
                _logger.warning(text, run_id, error)
        return found

    async def open(self, *, is_worker: bool) -> None:
        """Connect and, unless `is_worker` is False, begin to execute runs."""
        self._client = await self._connect()
        self._bridge = Bridge(self._client, self.address.task_queue, self._worker, self._names)
        if not is_worker:
            return
        for kind in self._kinds.values():
            kind.spec.prepare()  # in a workflow it would be taken for a deadlock, where it takes 2 s
        self._temporal = TemporalWorker(
            self._client,
            task_queue=self.address.task_queue,
            workflows=[AgentWorkflow],
            activities=[
                *Rows(self._worker).activities,
                *(one for kind in self._kinds.values() for one in kind.capability.activities),
            ],
            workflow_runner=UnsandboxedWorkflowRunner(),
            sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
            graceful_shutdown_timeout=timedelta(seconds=GRACE_S),
        )
        for work, name in ((self._temporal.run(), "worker"), (self._watch(self._bridge, self._temporal), "bridge")):
            task = asyncio.create_task(work, name=f"surefoot-temporal-{name}")
            task.add_done_callback(self._note_end)
            self._tasks.append(task)

    async def close(self) -> None:
        """Take no more, let acts in progress end, and disconnect."""
        temporal, tasks = self._temporal, self._tasks
        self._temporal, self._tasks, self._client, self._bridge = None, [], None, None
        if temporal is not None:
            with contextlib.suppress(Exception):  # it has failed before, and said so
                await temporal.shutdown()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _watch(self, bridge: Bridge, temporal: TemporalWorker) -> None:
        """Watch our store; once it records nothing more, take nothing more from Temporal: others can do it."""
        await bridge.watch()
        _logger.warning("the store has failed: this process takes no more work from Temporal")
        await temporal.shutdown()

    def _names(self) -> list[str]:
        return [ELSEWHERE + name for name in self._kinds]

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        worker = self._worker()
        if worker.failure is None:
            worker.failure = task.exception()

    async def _connect(self) -> Client:
        address = self.address
        converter = DataConverter(
            payload_converter_class=PydanticAIPayloadConverter,
            payload_codec=StoreCodec(lambda: self._worker().store, self._codec),
        )
        try:
            client = await Client.connect(
                address.host,
                namespace=address.namespace,
                tls=address.is_tls,
                api_key=os.environ.get("TEMPORAL_API_KEY"),
                data_converter=converter,
                plugins=[PydanticAIPlugin()],
            )
            await client.count_workflows("WorkflowId = ''")
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise SurefootError(
                    f"there is no namespace {address.namespace!r} at {address.host}",
                    hint=f"temporal operator namespace create --namespace {address.namespace}",
                ) from error
            raise SurefootError(f"Temporal at {address.host} refuses: {error}") from error
        except RuntimeError as error:
            raise SurefootError(
                f"Temporal can't be reached at {address.host}: {error}",
                hint="is it running? is it the frontend's port?",
            ) from error
        return client
