"""The toolset around every leaf whose tools run in this process: each of their calls is a step of the run.

Whatever the leaf is (functions, a dynamic toolset, a class of the user's) and whenever it arrives (with the agent, with one
run, from a capability), its calls are guarded the same way. Listing tools is not recorded: it happens again on replay, and
what it changes in the model's request is compared as drift.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_ai import AbstractToolset, RunContext, ToolsetTool, WrapperToolset

from surefoot.adapters.pydantic_ai.approving import gate_of
from surefoot.adapters.pydantic_ai.conversations import conversations_of
from surefoot.adapters.pydantic_ai.declarations import Declarations
from surefoot.adapters.pydantic_ai.mcp import is_served
from surefoot.adapters.pydantic_ai.payloads import Returned
from surefoot.adapters.pydantic_ai.refusals import CONTROL, refused
from surefoot.adapters.pydantic_ai.tools import Call, perform_call, result_of
from surefoot.adapters.pydantic_ai.units import Unit
from surefoot.journal import current_frame
from surefoot.runs.live.run import LiveRun


@dataclass
class GuardedToolset(WrapperToolset[Any]):
    """Takes each call of a leaf's tools as a step of the current run; outside runs it is the leaf.

    Attributes:
        declarations: What the agent's owner says of tools that don't say it themselves.
    """

    declarations: Declarations = field(default_factory=Declarations)

    @property
    def id(self) -> str | None:
        """The leaf's."""
        return self.wrapped.id

    def visit_and_replace(self, visitor: Any) -> AbstractToolset[Any]:
        """Stay: it is guarded already."""
        return self

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """See `AbstractToolset.call_tool`."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)
        unit = Unit(run, f"tool {name}", ctx)

        async def body() -> object:
            try:
                return Returned(name, await self.wrapped.call_tool(name, tool_args, unit.context, tool))
            except CONTROL as error:
                refusal = refused(error)
                if refusal is None:
                    raise
                return refusal

        conversation, call_id = conversations_of(run).current(), ctx.tool_call_id or name
        known_as = conversation.recorded_name(call_id, name)
        seen = Call(known_as, conversation.tool_name(call_id) or name, tool_args)
        with run.tool_call(conversation.call(call_id)):
            live, gate = conversation.noting_news(call_id, body), partial(gate_of, conversation, call_id)
            served = is_served(self.wrapped)
            payload = await perform_call(seen, tool, live, self.declarations, is_served=served, gate=gate, unit=unit)
        return result_of(name, payload)
