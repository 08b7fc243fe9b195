"""Pydantic AI's Temporal capability, with places in the run told to its activities and our ledger inside them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import copy
from datetime import timedelta
from typing import Any

from pydantic_ai import DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.agent import AbstractAgent, EventStreamHandler
from pydantic_ai.capabilities import AbstractCapability, WrapModelRequestHandler
from pydantic_ai.durable_exec import BaseDurabilityCapability, DurableOperationBackend
from pydantic_ai.durable_exec.temporal import TemporalDurability, TemporalRunContext
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import DeferredToolApprovalResult
from pydantic_ai.toolsets import AbstractToolset
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from surefoot.adapters.pydantic_ai.approving import let_through
from surefoot.adapters.pydantic_ai.mcp import carry
from surefoot.adapters.pydantic_ai.outputs import gives
from surefoot.adapters.temporal import here
from surefoot.adapters.temporal.backend import LedgerBackend, refuse_in_workflow
from surefoot.adapters.temporal.continuing import continue_as_new
from surefoot.adapters.temporal.performing import Performer
from surefoot.journal.values import Unserializable, ValueTooLarge
from surefoot.problem import SurefootError

HEARTBEAT_TIMEOUT = timedelta(seconds=5)
"""After which Temporal begins another attempt of an activity whose worker is not heard of. An attempt too many does no
harm: the ledger lets it wait for the first."""

TOOL_TIMEOUT = timedelta(hours=1)
"""Longest time of one attempt at a tool call; dead workers are known by their heartbeat, long before."""

MODEL_TIMEOUT = timedelta(minutes=10)
"""Longest time of one attempt at a model request."""

ATTEMPTS_MAX = 20
"""Attempts at one activity: reads and model requests that fail, for about six minutes, and whatever kills its worker. Those
that are lost with a stopped worker, which may have been handed five, count too."""

RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=ATTEMPTS_MAX,
    non_retryable_error_types=[ValueTooLarge.__name__, Unserializable.__name__],
)
"""A pause of 0.2 s that doubles up to half a minute. A value that can't be kept is not asked for again."""


class PlacedContext(TemporalRunContext[Any]):
    """Carries to an activity which place in the run it has."""

    @classmethod
    def serialize_run_context(cls, ctx: RunContext[Any]) -> dict[str, Any]:
        """See `TemporalRunContext`."""
        data = super().serialize_run_context(ctx)
        told = here.told()
        return data if told is None else {**data, here.FIELD: told}


class LedgerDurability(TemporalDurability[Any]):
    """Makes the runs of one agent durable on Temporal; bound once, and given to each of its runs.

    Args:
        performer: Does what the activities are asked for.
        name: The agent's durable name.
        deps_type: What its dependencies are sent to the activities as.
        event_stream_handler: Sees the agent's events, as with Pydantic AI on Temporal.
    """

    def __init__(
        self,
        performer: Performer,
        *,
        name: str,
        deps_type: Any = None,
        event_stream_handler: EventStreamHandler[Any] | None = None,
    ) -> None:
        tool = ActivityConfig(
            start_to_close_timeout=TOOL_TIMEOUT, heartbeat_timeout=HEARTBEAT_TIMEOUT, retry_policy=RETRIES
        )
        model = ActivityConfig(start_to_close_timeout=MODEL_TIMEOUT)
        super().__init__(
            name=name,
            deps_type=deps_type,
            event_stream_handler=event_stream_handler,
            activity_config=tool,
            model_activity_config=model,
            run_context_type=PlacedContext,
            continue_as_new=continue_as_new,
        )
        self._performer = performer
        self._bound_to: AbstractAgent[Any, Any] | None = None

    def for_agent(self, agent: AbstractAgent[Any, Any]) -> AbstractCapability[Any]:
        """Bind, outside a workflow and once; in a workflow what was bound is used."""
        if self._bound_to is agent:
            return self
        own = BaseDurabilityCapability.from_agent(agent)
        if own is not None:
            raise SurefootError(
                f"agent {self.name!r} has a {type(own).__name__} of its own, and one engine executes a run",
                hint="leave it out: app.agent(...) brings what is needed",
            )
        unbound = copy(self)
        unbound._bound_to = agent
        for toolset in agent.toolsets:
            toolset.apply(_check)
        try:
            bound = super(LedgerDurability, unbound).for_agent(agent)
        except UserError as error:
            raise SurefootError(
                f"agent {self.name!r} can't run on Temporal: {error}", hint='FunctionToolset(id="money"), for example'
            ) from error
        return bound

    def get_durable_operation_backend(self) -> DurableOperationBackend[Any]:  # type: ignore[override]  # wider on purpose
        """Return Pydantic AI's backend, with our ledger in it."""
        return LedgerBackend(super().get_durable_operation_backend(), self._performer)

    def _bind_model_operations(self, backend: Any, **options: Any) -> Any:
        return super()._bind_model_operations(LedgerBackend(backend, self._performer), **options)

    async def wrap_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Count the decision, and note the calls it asks for."""
        now = here.here.get()
        if now is None or not workflow.in_workflow():
            return await super().wrap_model_request(ctx, request_context=request_context, handler=handler)
        now.decide()
        messages = list(request_context.messages)
        response = await super().wrap_model_request(ctx, request_context=request_context, handler=handler)
        now.note(response, messages)
        return response

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Let calls that need approval go on to where they wait for it, unless the agent's own code sees to them."""
        now = here.here.get()
        if now is None or gives(self.agent, DeferredToolRequests):
            return await super().handle_deferred_tool_calls(ctx, requests=requests)
        approvals: dict[str, bool | DeferredToolApprovalResult] = let_through(now.conversation, requests)
        return DeferredToolResults(approvals=approvals) if approvals else None

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """What a worker registers for the agent."""
        found = self.get_durable_operation_backend().registrations()
        return [registration for registration in found if not isinstance(registration, type)]


def _check(leaf: AbstractToolset[Any]) -> None:
    """Refuse tools that would run in the workflow; let calls of MCP tools carry their key."""
    for name, tool in getattr(leaf, "tools", {}).items():
        refuse_in_workflow(tool, name)
    if "pydantic_ai.mcp" in sys.modules:
        carry(leaf)
