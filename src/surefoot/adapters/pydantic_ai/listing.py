"""The tools of an agent, each with the class it is declared with, or the one its server's hints propose.

What holds: hints are somebody else's word and change nothing: a tool that is only proposed as a read is an effect whose
doubts a person ends, until its owner declares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic_ai import Agent, RunContext
from pydantic_ai.models.test import TestModel
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_ai.usage import RunUsage

from surefoot.adapters.pydantic_ai.declarations import Declarations
from surefoot.adapters.pydantic_ai.tools import declared, function_of, is_marked_read
from surefoot.effects import AskPerson, EffectSpec, Overwrite, Read
from surefoot.effects.classify import describe

_HINTS: tuple[tuple[str, bool, str, str], ...] = (
    ("readOnlyHint", True, Read.name, "its server says that it changes nothing"),
    ("idempotentHint", True, Overwrite.name, "its server says that the same call again changes nothing more"),
    ("destructiveHint", True, AskPerson.name, "its server says that it may destroy something"),
)
"""Hints of MCP, the first that fits: its name, its value, what it proposes, and why. A missing hint says nothing."""


class ToolClass(msgspec.Struct, frozen=True):
    """One tool.

    Attributes:
        name: As the model sees it; empty for a toolset that could not be asked.
        toolset: Where it comes from, in words; empty for a declaration that no tool answers to.
        declared: The class that is declared, as `surefoot unknowns` calls it; None: nothing is, and a person is asked.
        key: The declared key, or None.
        proposed: The class that its hints propose; None where a class is declared, or without hints.
        why: Where the class, or the proposal, comes from, in words.
        parameters: What it takes.
    """

    name: str
    toolset: str
    declared: str | None = None
    key: str | None = None
    proposed: str | None = None
    why: str = ""
    parameters: tuple[str, ...] = ()


async def tool_classes(agent: Agent[Any, Any], declarations: Declarations) -> list[ToolClass]:
    """Return an agent's tools; its MCP servers are started, or connected to, and asked.

    Args:
        agent: The agent.
        declarations: What its owner says of tools by name.
    """
    context = RunContext[Any](deps=None, model=TestModel(), usage=RunUsage())
    found: list[ToolClass] = []
    for toolset in agent.toolsets:
        try:
            tools = await _tools_of(toolset, context)
        except Exception as error:  # one server that is down hides no other
            found.append(ToolClass("", toolset.label, why=f"it can't be asked: {describe(error)}"))
            continue
        found += [_class_of(tool, toolset.label, declarations) for tool in tools.values()]
    known = {tool.name for tool in found}
    unmet = [name for name in (*declarations.reads, *declarations.effects) if name not in known]
    return [*found, *(ToolClass(name, "", why="declared, and there is no tool of this name") for name in sorted(unmet))]


async def _tools_of(toolset: AbstractToolset[Any], context: RunContext[Any]) -> Mapping[str, ToolsetTool[Any]]:
    run_toolset = await toolset.for_run(context)
    async with run_toolset:
        return await (await run_toolset.for_run_step(context)).get_tools(context)


def _class_of(tool: ToolsetTool[Any], toolset: str, declarations: Declarations) -> ToolClass:
    name = tool.tool_def.name
    parameters = tuple(tool.tool_def.parameters_json_schema.get("properties", ()))
    spec, for_agent = declared(function_of(tool)), declarations.effects.get(name)
    why = "declared for the agent" if spec is None else "declared on the function"
    if spec is not None and for_agent is not None:
        why += "; what is declared for the agent is not used"
    if (spec := spec or for_agent) is not None:
        return ToolClass(name, toolset, spec.in_doubt.name, _key_of(spec), None, why, parameters)
    if name in declarations.reads or is_marked_read(tool):
        return ToolClass(name, toolset, Read.name, None, None, "declared for the agent", parameters)
    hints = (tool.tool_def.metadata or {}).get("annotations") or {}
    for hint, value, proposed, why in _HINTS:
        if hints.get(hint) is value:
            return ToolClass(name, toolset, None, None, proposed, f"{hint}: {why}", parameters)
    return ToolClass(name, toolset, why="nothing is declared or hinted", parameters=parameters)


def _key_of(spec: EffectSpec) -> str | None:
    return None if spec.template is None else spec.template.text
