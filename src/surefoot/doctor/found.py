"""What a module brings: its kinds of runs, its agents, and every tool with what is declared of it.

What holds: nothing is called and nothing is asked over a network; only what importing the module has made is looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from surefoot.app import Surefoot
from surefoot.effects import SPEC, EffectSpec
from surefoot.effects.registry import all_specs
from surefoot.runs import KindSpec, kind_of, known_kinds


@dataclass(frozen=True, eq=False)
class Tool:
    """Something that acts or looks outside.

    Attributes:
        name: What ledger and journal call it.
        agents: The agents that may ask for it.
        function: Its code, without our decorator; None if it is not here (a tool of a server).
        spec: What is declared of it; None for nothing.
        is_named_read: Whether its agent lists it among the reads.
        origin: Where it comes from, if not from code: "MCP server ...".
    """

    name: str
    agents: tuple[str, ...]
    function: Callable[..., Any] | None
    spec: EffectSpec | None
    is_named_read: bool = False
    origin: str = ""

    @property
    def is_declared(self) -> bool:
        """Whether somebody has said what it is."""
        return self.spec is not None or self.is_named_read

    @property
    def is_read(self) -> bool:
        """Whether it is said to change nothing."""
        return self.is_named_read or (self.spec is not None and self.spec.is_read)

    @property
    def title(self) -> str:
        """It, and who asks for it."""
        asked = f" (agent {', '.join(self.agents)})" if self.agents else ""
        return f"{self.name}{asked}"


@dataclass(frozen=True)
class Code:
    """What was found in a module and the modules of the same package that it has imported."""

    module: ModuleType
    tools: tuple[Tool, ...]
    kinds: tuple[KindSpec, ...]
    nameless_agents: tuple[str, ...]
    plain_agents: tuple[str, ...]
    apps: tuple[Surefoot, ...]


def look(module: ModuleType) -> Code:
    """Return what is found in a module that was imported."""
    agents = [*_durable_agents()]
    tools = _tools(module, agents)
    plain = [*_plain_agents(module, [agent for _, agent, _ in agents])]
    return Code(
        module=module,
        tools=tuple(tools),
        kinds=tuple(kind for kind in _kinds() if is_of(module, kind.function) and not kind.name.startswith("agent ")),
        nameless_agents=tuple(variable for variable, agent in plain if not getattr(agent, "name", None)),
        plain_agents=tuple(variable for variable, agent in plain if getattr(agent, "name", None)),
        apps=tuple({id(app): app for app in vars(module).values() if isinstance(app, Surefoot)}.values()),
    )


def is_of(module: ModuleType, thing: Any) -> bool:
    """Whether something was defined in the module, or in its package."""
    return _package(getattr(thing, "__module__", "") or "") == _package(module.__name__)


def _package(name: str) -> str:
    return name.partition(".")[0]


def _kinds() -> Iterator[KindSpec]:
    return (kind_of(name) for name in known_kinds())


def _durable_agents() -> Iterator[tuple[str, Any, Any]]:
    """Yield name, agent and declarations of each agent that was made durable."""
    for kind in _kinds():
        inside = inspect.getclosurevars(kind.function).nonlocals if kind.name.startswith("agent ") else {}
        if "agent" in inside and "capability" in inside:
            yield kind.name.removeprefix("agent "), inside["agent"], inside["capability"].declarations


def _plain_agents(module: ModuleType, durable: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    made = {id(agent) for agent in durable}
    for variable, value in vars(module).items():
        is_agent = type(value).__module__.startswith("pydantic_ai.") and hasattr(value, "toolsets")
        if is_agent and hasattr(value, "run_sync") and id(value) not in made:
            yield variable, value


def _tools(module: ModuleType, agents: Iterable[tuple[str, Any, Any]]) -> list[Tool]:
    """Return each tool once, with all agents that have it."""
    found: dict[tuple[str, int], Tool] = {}
    for spec in all_specs():
        if is_of(module, spec.function):
            found[spec.name, id(spec)] = Tool(spec.name, (), spec.function, spec)
    for name, agent, declarations in agents:
        for tool in _of_agent(name, agent, declarations):
            key = (tool.name, id(tool.spec or tool.function or tool.origin))
            before = found.get(key)
            found[key] = tool if before is None else _shared(before, tool)
    return list(found.values())


def _shared(one: Tool, other: Tool) -> Tool:
    return Tool(one.name, (*one.agents, *other.agents), one.function, one.spec, other.is_named_read, one.origin)


def _of_agent(name: str, agent: Any, declarations: Any) -> Iterator[Tool]:
    for toolset in _leaves(agent):
        tools = getattr(toolset, "tools", None)
        if not isinstance(tools, dict):
            yield Tool(f"tools of {_server(toolset)}", (name,), None, None, origin=_server(toolset))
            continue
        for tool in tools.values():
            function = getattr(tool, "function", None)
            spec = getattr(function, SPEC, None) or declarations.effects.get(tool.name)
            is_read = tool.name in declarations.reads or (tool.metadata or {}).get("surefoot") == "read"
            code = spec.function if isinstance(getattr(function, SPEC, None), EffectSpec) else function
            yield Tool(tool.name if spec is None else spec.name, (name,), code, spec, is_read and spec is None)


def _leaves(agent: Any) -> list[Any]:
    """Return the toolsets an agent was given, without those that only wrap others."""
    leaves: list[Any] = []
    for toolset in agent.toolsets:
        toolset.apply(leaves.append)
    return [one for one in leaves if type(one).__name__ != "_AgentFunctionToolset" or one.tools]


def _server(toolset: Any) -> str:
    return f"{type(toolset).__name__} {getattr(toolset, 'id', None) or getattr(toolset, 'label', '')}".strip()
