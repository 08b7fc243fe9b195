"""Pydantic AI agents, durable: model requests are decisions, tool calls are effects or reads, on its public contract.

    capability      `Durable`: give it to an `Agent`, and runs of that agent inside a run of ours are journaled
    agents          `DurableAgent`, what `app.agent(agent)` returns: starts runs of the agent under business ids
    conversations   the runs of agents inside one run of ours: their decisions, and the calls these asked for
    tools           one tool call as an effect or a read
    declarations    what an agent's owner says of tools that somebody else wrote
    mcp             what MCP calls carry, and what an answer or its absence says
    listing         the tools of an agent with their classes, declared or proposed
    payloads        what Pydantic AI gives us to record, encoded once
    requests        digests of what a model was asked, for drift

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

from surefoot.adapters.pydantic_ai.agents import DurableAgent, durable_agent
from surefoot.adapters.pydantic_ai.capability import Durable
from surefoot.adapters.pydantic_ai.listing import ToolClass, tool_classes
from surefoot.adapters.pydantic_ai.tools import tell

__all__ = ["Durable", "DurableAgent", "ToolClass", "durable_agent", "tell", "tool_classes"]
