"""`Durable`: the capability by which an agent's operations become steps of a run.

What holds: outside a run of ours it does nothing; inside, each model request is a decision and each tool call an effect or
a read. Its idea and its contract are Pydantic AI's `durable_exec`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pydantic_ai import AgentRunResult, RunContext
from pydantic_ai.capabilities import WrapRunHandler
from pydantic_ai.durable_exec import (
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationId,
    EventStreamHandlerId,
    JournalCallableOperationBackend,
    ModelRequestId,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetValidateToolArgumentsId,
)

from surefoot.adapters.pydantic_ai.conversations import conversations_of, decide
from surefoot.adapters.pydantic_ai.payloads import PAYLOAD, Codec, encoded
from surefoot.adapters.pydantic_ai.tools import call_declared, call_undeclared, declared, is_read
from surefoot.journal import current_frame
from surefoot.runs import take_step
from surefoot.runs.live import LiveRun


class Durable(BaseDurabilityCapability[Any]):
    """Journals an agent's runs when they happen inside a run of Surefoot; transparent elsewhere.

    Args:
        reads: Names of tools that change nothing outside, for those not declared with `@sf.read`.
        name: The agent's durable name; None: `agent.name`. A name is data on disk.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Surefoot",
        durable_unit_noun="step",
        durable_container_noun="run",
        codec=Codec(),
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
    )

    def __init__(self, *, reads: Iterable[str] = (), name: str | None = None) -> None:
        super().__init__(name=name)
        self._reads = frozenset(reads)
        self._backend: _Backend | None = None

    @property
    def in_durable_context(self) -> bool:
        """Whether the agent runs inside a run of Surefoot."""
        return isinstance(current_frame.get(), LiveRun)

    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Count the steps of one run of the agent apart from those of the next."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await super().wrap_run(ctx, handler=handler)
        with conversations_of(run).enter(run, self.name):
            return await super().wrap_run(ctx, handler=handler)

    def get_durable_operation_backend(self) -> JournalCallableOperationBackend[None]:
        """Return what executes Pydantic AI's durable operations."""
        made_for = (self.name, self.default_model_id)
        if self._backend is None or self._backend.made_for != made_for:  # asked for at every request; copied with us
            self._backend = _Backend(made_for, self._reads)
        return self._backend


class _Backend(JournalCallableOperationBackend[None]):
    """Executes each operation as a step of the current run."""

    def __init__(self, made_for: tuple[str, str | None], reads: frozenset[str]) -> None:
        config = RoleBasedOperationConfig[None](model=None, event=None, capability=None, tool=None)
        super().__init__(agent_name=made_for[0], default_model_id=made_for[1], config=config)
        self.made_for = made_for
        self._reads = reads

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: None,
    ) -> object:
        """Run one operation durably; see `CallableOperationBackend.execute`."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await body()
        match operation_id:
            case ModelRequestId():
                return await decide(run, body, cache_key)
            case ToolsetCallToolId():
                return await self._call_tool(run, body, cache_key)
            case ToolsetValidateToolArgumentsId() | EventStreamHandlerId():
                return await body()  # pure, or told live: nothing to remember
            case _:
                return await take_step(name, None, PAYLOAD, body)

    async def _call_tool(
        self, run: LiveRun, body: Callable[[], Awaitable[object]], cache_key: tuple[object, ...]
    ) -> object:
        tool_name, arguments, context, tool = str(cache_key[0]), cache_key[1], cache_key[2], cache_key[3]
        call_id = str(getattr(context, "tool_call_id", "") or tool_name)
        with run.tool_call(conversations_of(run).current().call(call_id)):
            spec = declared(tool)
            if spec is not None:
                return await call_declared(spec, body, tool)

            async def work() -> Any:
                return encoded(await body())

            if tool_name in self._reads or is_read(tool):
                return await take_step(tool_name, None, PAYLOAD, work)
            return await call_undeclared(tool_name, arguments, work)
