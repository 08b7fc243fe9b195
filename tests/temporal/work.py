"""An app with an agent that pays three orders, and a process that executes it and ends, or stops, where it is told to.

The points, of the second payment: before the claim; claimed, not sent; sent, not answered; answered, not recorded;
recorded, not told to Temporal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from tests.mcp.scenarios import ROOT
from tests.scenarios.stage import scripted
from tests.temporal.service import ask

import surefoot as sf
from surefoot.adapters.temporal import durability
from surefoot.adapters.temporal.performing import Performer

POINTS = ("before the claim", "claimed, not sent", "sent, not answered", "answered, not recorded", "recorded, not told")

ORDERS = ("A", "B", "C")


class Task(msgspec.Struct, frozen=True):
    """What a worker process is to do.

    Attributes:
        url: The store.
        engine: The cluster.
        port: The payment service.
        service: Its kind.
        marker: A file: whoever makes it comes to the point first, and meets its end there.
        point: Where, of the second payment; empty for nowhere.
        end: How: SIGKILL, or SIGSTOP to be continued.
        till: Where an MCP server over stdio keeps its books; empty: the tool is a function of the program's.
    """

    url: str
    engine: str | None
    port: int
    service: str
    marker: str = ""
    point: str = ""
    end: int = signal.SIGKILL
    till: str = ""


def app_of(task: Task, *, is_worker: bool) -> tuple[sf.Surefoot, Any]:
    """Return the app and its agent."""
    app = sf.Surefoot(task.url, engine=task.engine, is_worker=is_worker)
    if task.till:
        script = scripted([[("pay", {"order": order, "cents": 5}, f"c-{order}")] for order in ORDERS])
        toolset = _served(task)
        effects = {"pay": sf.effect(key="pay:{order}", in_doubt=sf.Probe(_asked(toolset), longest_life="1s"))}
        return app, app.agent(Agent(script, name="clerk", toolsets=[toolset]), effects=effects)
    script = scripted([[("pay", {"order": order}, f"c-{order}")] for order in ORDERS])
    return app, app.agent(Agent(script, name="clerk", tools=[_pay(task)]))


def _served(task: Task) -> MCPToolset[Any]:
    """Return the tools of a till that each worker starts for itself, on the same books."""
    where = StdioTransport(
        sys.executable, ["-m", "tests.mcp.server", task.till],
        env=dict(os.environ), cwd=str(ROOT), log_file=Path(task.till).parent / "server.log",
    )  # fmt: skip

    async def process(_context: Any, call_tool: Any, name: str, arguments: dict[str, Any]) -> Any:
        order = arguments["order"]
        meet(task, "claimed, not sent", order)
        waiting = asyncio.ensure_future(call_tool(name, arguments))
        if is_met(task, "sent, not answered", order):
            while f'"order": "{order}"' not in (Path(task.till) / "till.jsonl").read_text():
                await asyncio.sleep(0)
            meet(task, "sent, not answered", order)
        answer = await waiting
        meet(task, "answered, not recorded", order)
        return answer

    return MCPToolset(where, id="till", init_timeout=60, process_tool_call=process)


def _asked(toolset: MCPToolset[Any]) -> Callable[..., Awaitable[Any]]:
    async def ask_till(order: str) -> sf.Landed | sf.NotLanded:
        found = await toolset.direct_call_tool("payments", {"order": order})
        return sf.Landed(f"paid {order}") if found else sf.NotLanded()

    return ask_till


def _pay(task: Task) -> Any:
    in_doubt: Any = None
    if task.service == "keys":
        in_doubt = sf.Resend(key_ttl="24h")
    if task.service == "look-up":
        in_doubt = sf.Probe(_look(task), longest_life="1s")

    @sf.effect(name="pay", key="pay:{order}", in_doubt=in_doubt)
    async def pay(order: str) -> str:
        """Pay an order."""
        effect = sf.current_effect()
        meet(task, "claimed, not sent", order)
        request = {"do": "pay", "order": order, "key": effect.idempotency_key, "expires_at_ms": effect.expires_at_ms}
        if is_met(task, "sent, not answered", order):
            waiting = asyncio.ensure_future(ask(task.port, {**request, "hold": True}))
            while order not in (await ask(task.port, {"do": "books"}))["paid"]:
                await asyncio.sleep(0.01)
            meet(task, "sent, not answered", order)
            answer = await waiting
        else:
            answer = await ask(task.port, request)
        meet(task, "answered, not recorded", order)
        if "refused" in answer:
            raise sf.NotDone(answer["refused"])
        return str(answer["receipt"])

    return pay


def _look(task: Task) -> Callable[..., Awaitable[Any]]:
    async def look(order: str) -> sf.Landed | sf.NotLanded:
        answer = await ask(task.port, {"do": "look", "order": order})
        return sf.Landed(f"paid {order}") if answer["found"] else sf.NotLanded()

    return look


def is_met(task: Task, point: str, order: str) -> bool:
    """Whether this process meets its end here."""
    return task.point == point and order == "B" and not Path(task.marker).exists()


def meet(task: Task, point: str, order: str) -> None:
    """Meet it, if this is the place."""
    if is_met(task, point, order):
        Path(task.marker).touch()
        os.kill(os.getpid(), task.end)


class _Mortal(Performer):
    """Ends before the claim, or when all is recorded and Temporal not told."""

    task: Task

    async def _in_frame(self, guard: Any, call: Any, frame: Any, work: Any) -> Any:
        order = call.call_id.removeprefix("c-")
        meet(self.task, POINTS[0], order)
        result = await super()._in_frame(guard, call, frame, work)
        meet(self.task, POINTS[-1], order)
        return result


async def main(task: Task) -> None:
    """Execute runs until killed."""
    durability.HEARTBEAT_TIMEOUT = timedelta(seconds=2)
    _Mortal.task = task
    app, _ = app_of(task, is_worker=True)
    for kind in app._engine._kinds.values():  # type: ignore[union-attr]  # the app has an engine
        kind.capability._performer.__class__ = _Mortal
    async with app:
        print("ready", flush=True)
        await app.serve()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Task)))
