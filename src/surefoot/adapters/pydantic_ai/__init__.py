"""Pydantic AI agents, durable: model requests are decisions, tool calls are effects or reads, on its public contract.

    capability      `Durable`: give it to an `Agent`, and runs of that agent inside a run of ours are journaled
    agents          `DurableAgent`, what `app.agent(agent)` returns: starts runs of the agent under business ids
    conversations   the runs of agents inside one run of ours: their decisions, and the calls these asked for
    names           what agents and tools were called when a run was begun
    toolsets        the guard around every toolset
    tools           one tool call as an effect, a read or a step
    declarations    what an agent's owner says of tools that somebody else wrote
    mcp             what MCP calls carry, and what an answer or its absence says
    approving       tools that the framework says need approval
    listing         the tools of an agent with their classes, declared or proposed
    outputs         output functions and validators
    units           what a tool's code does beside its result
    refusals        exceptions by which Pydantic AI is told something, as data
    payloads        what Pydantic AI gives us to record, encoded once
    requests        digests of what a model was asked, for drift
    live            events for who watches;  waits   for results and answers from outside;  transcripts   what is left

What holds: a model's response is recorded before any effect it causes is claimed; a tool call is identified by the
decision that asked for it and its `tool_call_id`, so parallel calls stay parallel; a declared effect guards itself, an
undeclared tool is an effect of the default class (a person resolves its doubts) unless it is declared a read.
"""

from surefoot.problem import SurefootError

try:
    from pydantic_ai import durable_exec as _contract  # noqa: F401  the newest part of what we need
except ImportError as missing:
    raise SurefootError(
        f"Pydantic AI 2.36 or newer is needed ({missing})", hint='pip install "surefoot[pydantic-ai]"'
    ) from missing

from surefoot.adapters.pydantic_ai.agents import AgentRun, DurableAgent, NameTaken, durable_agent
from surefoot.adapters.pydantic_ai.capability import Durable
from surefoot.adapters.pydantic_ai.listing import ToolClass, tool_classes
from surefoot.adapters.pydantic_ai.live import Elsewhere, LiveEvent
from surefoot.adapters.pydantic_ai.tools import tell
from surefoot.adapters.pydantic_ai.transcripts import Transcript
from surefoot.adapters.pydantic_ai.units import DepsChanged
from surefoot.adapters.pydantic_ai.waits import AskedCall, fail_external_event, resolve_external_event

__all__ = [
    "AgentRun",
    "AskedCall",
    "DepsChanged",
    "Durable",
    "DurableAgent",
    "Elsewhere",
    "LiveEvent",
    "NameTaken",
    "ToolClass",
    "Transcript",
    "durable_agent",
    "fail_external_event",
    "resolve_external_event",
    "tell",
    "tool_classes",
]
