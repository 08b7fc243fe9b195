"""`Durable`: the capability by which an agent's operations become steps of a run.

What holds: outside a run of ours it does nothing; inside, each model request is a decision and each tool call an effect or
a read. Its idea and its contract are Pydantic AI's `durable_exec`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from copy import copy
from functools import partial
from typing import Any

from pydantic_ai import Agent, AgentRunResult, DeferredToolRequests, DeferredToolResults, ExternalToolset, RunContext
from pydantic_ai.agent import AbstractAgent, EventStreamHandler
from pydantic_ai.capabilities import (
    AbstractCapability,
    WrapModelRequestHandler,
    WrapOutputProcessHandler,
    WrapRunHandler,
)
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
from pydantic_ai.messages import AgentStreamEvent, ModelResponse
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.output import OutputContext
from pydantic_ai.tools import DeferredToolApprovalResult
from pydantic_ai.toolsets import AbstractToolset

from surefoot.adapters.pydantic_ai.approving import gate_of, let_through
from surefoot.adapters.pydantic_ai.conversations import conversations_of, decide
from surefoot.adapters.pydantic_ai.declarations import Declarations, Effects
from surefoot.adapters.pydantic_ai.given import GIVEN, GivenModel, standing_in
from surefoot.adapters.pydantic_ai.live import Channel, can_stream, channel_of
from surefoot.adapters.pydantic_ai.mcp import carry, discover
from surefoot.adapters.pydantic_ai.names import Names
from surefoot.adapters.pydantic_ai.outputs import gives, process_output
from surefoot.adapters.pydantic_ai.payloads import PAYLOAD, Codec
from surefoot.adapters.pydantic_ai.tools import Call, perform_call
from surefoot.adapters.pydantic_ai.toolsets import GuardedToolset
from surefoot.adapters.pydantic_ai.waits import wait_for_results, waiting_for_events
from surefoot.journal import current_frame
from surefoot.runs import take_step
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import _parent


class Durable(BaseDurabilityCapability[Any]):
    """Journals an agent's runs when they happen inside a run of Surefoot; transparent elsewhere.

    Args:
        reads: Names of tools that change nothing outside, for those not declared with `@sf.read`.
        effects: Tools by name, each with `sf.effect(...)`, for those whose author declared nothing: MCP tools above all.
        name: The agent's durable name; None: `agent.name`. A name is data on disk.
        was: The agent's earlier names, under which open runs know it.
        tools_were: Earlier names of its tools, each with today's: `{"refund": "refund_order"}`.
        event_stream_handler: Sees the agent's events live, once: Pydantic AI's own kind of handler. What it is shown of a
            model's answer is provisional, and shown again when the attempt is repeated.
        models: Other models the agent may use, by name, as for Pydantic AI's durable capabilities.
        waits_for_tools: Whether the run waits for signals with the results of tools that run elsewhere; None: unless the
            agent gives `DeferredToolRequests` as its output, for code of yours to see to.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Surefoot",
        durable_unit_noun="step",
        durable_container_noun="run",
        codec=Codec(),
        wrapped_toolset_kinds=frozenset({"mcp"}),  # all others are guarded by a toolset of ours
        toolset_lifecycles={"mcp": "enter-in-durable-unit"},
    )

    def __init__(
        self,
        *,
        reads: Iterable[str] = (),
        effects: Effects | None = None,
        name: str | None = None,
        was: Iterable[str] = (),
        tools_were: Mapping[str, str] | None = None,
        event_stream_handler: EventStreamHandler[Any] | None = None,
        models: Mapping[str, Model] | None = None,
        waits_for_tools: bool | None = None,
    ) -> None:
        self._stand_in = GivenModel()
        self._models: tuple[object, ...] = tuple((models or {}).values())
        super().__init__(name=name, models={**(models or {}), GIVEN: self._stand_in}, event_stream_handler=self._show)
        self._handler = event_stream_handler
        self._waits_for_tools = waits_for_tools
        self.declarations = Declarations(reads, effects)
        self._were = (was, tools_were)
        self._served: dict[str, AbstractToolset[Any]] = {}
        self._backend: _Backend | None = None

    def for_agent(self, agent: AbstractAgent[Any, Any]) -> AbstractCapability[Any]:
        """Bind to an agent, and remember the model it was built with."""
        bound = copy(self)
        bound._models = (agent.model, *self._models)
        if agent.model is not None or not isinstance(agent, Agent):
            return super(Durable, bound).for_agent(agent)
        agent.model = self._stand_in  # its runs are given a model each; other engines must refuse such an agent
        try:
            return super(Durable, bound).for_agent(agent)
        finally:
            agent.model = None

    async def wrap_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Make the request durable, by whichever model."""
        if not self.in_durable_context:
            return await handler(request_context)
        with standing_in(request_context, self._models, self._stand_in):
            return await super().wrap_model_request(ctx, request_context=request_context, handler=handler)

    @property
    def in_durable_context(self) -> bool:
        """Whether the agent runs inside a run of Surefoot."""
        return isinstance(current_frame.get(), LiveRun)

    @property
    def has_wrap_run_event_stream(self) -> bool:
        """Whether the agent's events are shown to anybody; only then are its models asked for streams."""
        if self._handler is not None:
            return True
        return self._is_watched() and can_stream(getattr(self.agent, "model", None))

    def _is_watched(self) -> bool:
        run = current_frame.get()
        return isinstance(run, LiveRun) and channel_of(run) is not None

    def wrap_run_event_stream(
        self, ctx: RunContext[Any], *, stream: AsyncIterable[AgentStreamEvent]
    ) -> AsyncIterable[AgentStreamEvent]:
        """Show the agent's events, if anybody sees them."""
        is_seen = self._handler is not None or self._is_watched()
        return super().wrap_run_event_stream(ctx, stream=stream) if is_seen else stream

    async def _show(self, ctx: RunContext[Any], stream: AsyncIterable[AgentStreamEvent]) -> None:
        """Show events to the handler and to whoever watches the run."""
        run = current_frame.get()
        channel = channel_of(run) if isinstance(run, LiveRun) else None
        if channel is not None and isinstance(run, LiveRun):
            stream = _shown(stream, channel, conversations_of(run).deciding(), run.row.epoch)
        if self._handler is not None:
            await self._handler(ctx, stream)
        async for _ in stream:  # what the handler left, or all of it
            pass

    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Count the steps of one run of the agent apart from those of the next."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await super().wrap_run(ctx, handler=handler)
        with conversations_of(run).enter(run, Names(self.name, *self._were)), waiting_for_events(run):
            return await super().wrap_run(ctx, handler=handler)

    def get_durable_operation_backend(self) -> JournalCallableOperationBackend[None]:
        """Return what executes Pydantic AI's durable operations."""
        made_for = (self.name, self.default_model_id)
        if self._backend is None or self._backend.made_for != made_for:  # asked for at every request; copied with us
            self._backend = _Backend(made_for, self.declarations, self._served)
        return self._backend

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Let calls that need approval go on to where they wait for it; wait for the results of tools that run elsewhere.

        An agent that may give the requests as its output is left to its own code, unless it says otherwise.
        """
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await super().handle_deferred_tool_calls(ctx, requests=requests)
        is_users = gives(self.agent, DeferredToolRequests)
        waits = not is_users if self._waits_for_tools is None else self._waits_for_tools
        approvals: dict[str, bool | DeferredToolApprovalResult] = (
            {} if is_users else let_through(conversations_of(run).current(), requests)
        )
        calls = await wait_for_results(requests) if waits else {}
        return DeferredToolResults(approvals=approvals, calls=calls) if approvals or calls else None

    async def wrap_output_process(
        self,
        ctx: RunContext[Any],
        *,
        output_context: OutputContext,
        output: Any,
        handler: WrapOutputProcessHandler,
    ) -> Any:
        """Take an output function, and the output's validators, as one step."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await handler(output)
        return await process_output(run, self.agent, ctx, output_context, output, handler)

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Guard every toolset, whenever it was added: MCP toolsets as Pydantic AI does, the others by one of ours.

        This is also the one call that comes in the task that runs the agent, where it is known what comes next.
        """
        run = current_frame.get()
        if isinstance(run, LiveRun):
            Names(self.name, *self._were).check(run, _parent.get())
        if "pydantic_ai.mcp" in sys.modules:
            toolset.apply(self._carry)
        return (super().get_wrapper_toolset(toolset) or toolset).visit_and_replace(self._guard)

    def _guard(self, leaf: AbstractToolset[Any]) -> AbstractToolset[Any]:
        is_elsewhere = isinstance(leaf, ExternalToolset)
        return leaf if is_elsewhere else GuardedToolset(leaf, declarations=self.declarations)

    def _carry(self, toolset: AbstractToolset[Any]) -> None:
        carry(toolset)
        if toolset.id is not None:
            self._served[toolset.id] = toolset


async def _shown(
    stream: AsyncIterable[AgentStreamEvent], channel: Channel, step: str, attempt: int
) -> AsyncIterator[AgentStreamEvent]:
    async for event in stream:
        channel.publish(step, attempt, event)
        yield event


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
                return await decide(run, operation_id.model_name, body, cache_key)
            case ToolsetCallToolId():
                return await self._call_tool(run, body, cache_key, is_served=operation_id.toolset_kind == "mcp")
            case ToolsetValidateToolArgumentsId():
                return await body()  # pure: nothing to remember
            case EventStreamHandlerId():
                is_news = conversations_of(run).current().is_news(cache_key[0])
                return await body() if is_news else None  # a replay has nothing new to show
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
            seen_name = conversation.tool_name(call_id) or name
            call = Call(conversation.recorded_name(call_id, name), seen_name, arguments)
            live, gate = conversation.noting_news(call_id, body), partial(gate_of, conversation, call_id)
            return await perform_call(call, tool, live, self._declarations, is_served=is_served, gate=gate)
