"""A worker process of the sweep: an agent whose scripted model calls one MCP server's tools."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.mcp.faults import Books
from tests.mcp.scenarios import ROOT, Call, Scenario
from tests.worlds.kills import Point, Trap
from tests.worlds.tap import Tap

import surefoot as sf
from surefoot.effects.rows.desk import EffectView
from surefoot.journal import current_frame
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import ToolCall
from surefoot.store import Store, open_store

Report = dict[str, Any]


def label_now() -> str | None:
    """Return the label of the call that is being carried out."""
    frame = current_frame.get()
    place = frame.place if isinstance(frame, LiveRun) else None
    return place.call_id if isinstance(place, ToolCall) else None


def server_of(scenario: Scenario, world: Path, trap: Trap | None = None) -> MCPToolset[Any]:
    """Return the server as a toolset; its calls cross the trap."""

    async def process(context: Any, call_tool: Any, name: str, arguments: dict[str, Any]) -> Any:
        if trap is None:
            return await call_tool(name, arguments)
        trap.reached(Point.AFTER_CLAIM, context.tool_call_id)
        value = await call_tool(name, arguments)
        trap.reached(Point.AFTER_REPLY, context.tool_call_id)
        return value

    if scenario.is_http:
        where: Any = f"http://127.0.0.1:{(world.parent / 'port').read_text()}/mcp"
    else:
        relayed = ["-m", "tests.mcp.relay", str(world.parent), *scenario.command(world)]
        environment = {**os.environ, **scenario.environment(world)}
        log = world.parent / "server.log"
        where = StdioTransport(sys.executable, relayed, env=environment, cwd=str(ROOT), log_file=log)
    return MCPToolset(where, id="server", process_tool_call=process, init_timeout=60)


def agent_of(scenario: Scenario, world: Path, server: MCPToolset[Any]) -> Agent[Any, str]:
    """Return the agent: its model asks for each call until it is told that it is done."""
    calls = scenario.calls(world)

    def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        told = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        done = {part.tool_call_id.rstrip("'") for part in told if _said(part) in ("done", "repeated")}
        for call in calls:
            if call.label not in done:
                tries = sum(part.tool_call_id.rstrip("'") == call.label for part in told)
                return ModelResponse([ToolCallPart(call.tool, dict(call.arguments), call.label + "'" * tries)])
        return ModelResponse([TextPart(json.dumps([(part.tool_call_id, _said(part)) for part in told]))])

    return Agent(FunctionModel(respond), name="clerk", toolsets=[server])


def _said(part: ToolReturnPart) -> str:
    told: Any = part.content
    return str(told["outcome"]) if isinstance(told, dict) and told.keys() >= {"outcome", "meaning"} else "done"


def work(scenario: Scenario, folder: Path, trap: Trap, landed: Mapping[str, bool] | None) -> Report:
    """Start the run, or go on with it; first say as a person what landed, if that is known."""
    Books(folder).be_worker()
    report: Report = asyncio.run(_work(scenario, folder, trap, landed))
    return report


async def _work(scenario: Scenario, folder: Path, trap: Trap, landed: Mapping[str, bool] | None) -> Report:
    world, taps = folder / "world", []

    def opened(*args: Any, **kwargs: Any) -> Store:
        store = open_store(*args, **kwargs)
        taps.append(Tap(store, trap, label_now))
        return store

    server = server_of(scenario, world, trap)
    app = sf.Surefoot(f"sqlite:///{folder}/store.db")
    effects = scenario.effects(server, world)
    clerk = app.agent(agent_of(scenario, world, server), reads=scenario.reads(world), effects=effects)
    with mock.patch("surefoot.app.face.open_store", opened):
        await app.open()
    try:
        for doubt in await app.unknowns() if landed is not None else ():
            assert landed is not None
            is_done = landed[label_of(doubt, scenario.calls(world))]
            await app.resolve(doubt.id, is_done=is_done, by="ann", reason="looked", is_fence_passed=True)
        run = await clerk.start("go", id="r")
        while True:
            status = await run.status()
            if status.state == "completed":
                return {"finished": True, "told": json.loads(await run.result())}
            if status.waiting_for == "doubt":
                doubts = await app.unknowns()
                if all(doubt.doubt == "ask a person" for doubt in doubts):
                    parked = [label_of(doubt, scenario.calls(world)) for doubt in doubts]
                    return {"finished": False, "parked": parked}
            elif status.state not in ("pending", "running"):
                raise RuntimeError(f"run is {status.state} ({status.waiting_for}): {status.reason}")
            await asyncio.sleep(0.02)
    finally:
        await app.close()
        await server.client.close()  # type: ignore[no-untyped-call]


def label_of(doubt: EffectView, calls: list[Call]) -> str:
    """Return which call an effect is."""
    arguments = doubt.arguments.get("arguments", doubt.arguments)
    return next(call.label for call in calls if (call.tool, call.arguments) == (doubt.name, arguments))
