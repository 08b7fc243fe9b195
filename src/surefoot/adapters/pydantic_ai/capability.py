"""`Durable`: the capability by which an agent's operations become steps of a run.

What holds: outside a run of ours it does nothing; inside, each model request is a decision and each tool call an effect or
a read. Its idea and its contract are Pydantic AI's `durable_exec`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
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
    ToolsetGetInstructionsId,
    ToolsetGetToolsId,
    ToolsetValidateToolArgumentsId,
)
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults
from pydantic_ai.toolsets import AbstractToolset

from surefoot.adapters.pydantic_ai.approving import gate_of, let_through
from surefoot.adapters.pydantic_ai.conversations import conversations_of, decide
from surefoot.adapters.pydantic_ai.declarations import Declarations, Effects
from surefoot.adapters.pydantic_ai.mcp import carry, discover, reading
from surefoot.adapters.pydantic_ai.payloads import PAYLOAD, Codec, encoded
from surefoot.adapters.pydantic_ai.tools import (
    answer_of,
    call_declared,
    call_open,
    call_undeclared,
    declared,
    is_read,
)
from surefoot.journal import current_frame
from surefoot.runs import take_step
from surefoot.runs.live import LiveRun


class Durable(BaseDurabilityCapability[Any]):
    """Journals an agent's runs when they happen inside a run of Surefoot; transparent elsewhere.

    Args:
        reads: Names of tools that change nothing outside, for those not declared with `@sf.read`.
        effects: Tools by name, each with `sf.effect(...)`, for those whose author declared nothing: MCP tools above all.
        name: The agent's durable name; None: `agent.name`. A name is data on disk.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Surefoot",
        durable_unit_noun="step",
        durable_container_noun="run",
        codec=Codec(),
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
    )

    def __init__(self, *, reads: Iterable[str] = (), effects: Effects | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self.declarations = Declarations(reads, effects)
        self._served: dict[str, AbstractToolset[Any]] = {}
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

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Let calls that need approval go on, inside a run of ours, to where they wait for it."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await super().handle_deferred_tool_calls(ctx, requests=requests)
        return let_through(conversations_of(run).current(), ctx, requests)

    def get_durable_operation_backend(self) -> JournalCallableOperationBackend[None]:
        """Return what executes Pydantic AI's durable operations."""
        made_for = (self.name, self.default_model_id)
        if self._backend is None or self._backend.made_for != made_for:  # asked for at every request; copied with us
            self._backend = _Backend(made_for, self.declarations, self._served)
        return self._backend

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any] | None:
        """Let the calls of MCP toolsets go through us, then wrap them as Pydantic AI does."""
        if "pydantic_ai.mcp" in sys.modules:
            toolset.apply(self._carry)
        return super().get_wrapper_toolset(toolset)

    def _carry(self, toolset: AbstractToolset[Any]) -> None:
        carry(toolset)
        if toolset.id is not None:
            self._served[toolset.id] = toolset


class _Backend(JournalCallableOperationBackend[None]):
    """Executes each operation as a step of the current run."""

    def __init__(
        self,
        made_for: tuple[str, str | None],
        declarations: Declarations,
        served: Mapping[str, AbstractToolset[Any]],
    ) -> None:
        config = RoleBasedOperationConfig[None](model=None, event=None, capability=None, tool=None)
        super().__init__(agent_name=made_for[0], default_model_id=made_for[1], config=config)
        self.made_for = made_for
        self._declarations = declarations
        self._served = served

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
                return await self._call_tool(run, body, cache_key, is_served=operation_id.toolset_kind == "mcp")
            case ToolsetValidateToolArgumentsId() | EventStreamHandlerId():
                return await body()  # pure, or told live: nothing to remember
            case ToolsetGetToolsId() | ToolsetGetInstructionsId():
                # By decision, not by count: the framework asks its toolsets in tasks of their own each time.
                turn = str(conversations_of(run).current().decisions)
                ask = partial(discover, body, self._served.get(operation_id.toolset_id))
                return await take_step(name, turn, PAYLOAD, ask)
            case _:
                return await take_step(name, None, PAYLOAD, body)

    async def _call_tool(
        self, run: LiveRun, body: Callable[[], Awaitable[object]], cache_key: tuple[Any, ...], *, is_served: bool
    ) -> object:
        name, arguments, context, tool = str(cache_key[0]), cache_key[1], cache_key[2], cache_key[3]
        call_id = str(getattr(context, "tool_call_id", "") or name)
        conversation = conversations_of(run).current()
        with run.tool_call(conversation.call(call_id)):
            spec = declared(tool)
            if spec is not None:
                return await call_declared(spec, body, tool, gate_of(conversation, call_id, spec))
            seen_name = conversation.tool_name(call_id) or name
            if seen_name in self._declarations.reads or is_read(tool):

                async def read() -> Any:
                    return encoded(await reading(body))

                return await take_step(name, None, PAYLOAD, read)
            answer = partial(answer_of, body, tool, is_served=is_served)
            open_spec = self._declarations.effects.get(seen_name)
            gate = gate_of(conversation, call_id, open_spec)
            if open_spec is None:
                return await call_undeclared(name, arguments, answer, gate)
            return await call_open(open_spec, arguments, answer, gate)
