"""What the ledger costs in a Temporal activity: the time of our part of a tool call, beside a bare commit.

Our part is all that `Performer.call_tool` does around the tool's code: claim, settlement, and the wait until both are on
disk. It is measured in Temporal's own activity environment on a PostgreSQL server that is started for it,
one call after another, so that no other server takes the processor meanwhile. The tools do nothing.

    python -m bench.temporal_activity [CALLS]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

from pydantic_ai import FunctionToolset, RunContext
from pydantic_ai.durable_exec import JSON_CODEC, CallToolResult, ToolsetCallToolParams
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage
from temporalio.testing import ActivityEnvironment
from tests.support import postgres

import surefoot as sf
from surefoot.adapters.pydantic_ai.declarations import Declarations
from surefoot.adapters.temporal.here import FIELD
from surefoot.adapters.temporal.performing import Performer

WARM = 5
"""Calls before those that are counted."""


@sf.effect(key="pay:{order}", in_doubt=sf.Resend(key_ttl="24h"))
async def declared(order: str) -> str:
    """Pay an order."""
    return f"paid {order}"


async def undeclared(order: str) -> str:
    """Note an order."""
    return f"noted {order}"


@sf.read
async def read(order: str) -> str:
    """Look at an order."""
    return f"{order} is open"


@sf.durable
async def nothing() -> None:
    """Give the calls a run to belong to."""
    await sf.wait_signal("never")


async def measure(url: str, calls: int) -> dict[str, list[float]]:
    """Return the times of each kind of tool, and of bare commits between them."""
    toolset: FunctionToolset[None] = FunctionToolset([declared, undeclared, read], id="tools")
    times: dict[str, list[float]] = {"declared": [], "undeclared": [], "read": [], "a bare commit": []}
    async with sf.Surefoot(url, is_worker=False) as app:
        run = await app.start(nothing, id="bench")
        performer = Performer(lambda: app.guard, Declarations(), None)

        async def handler(params: Any) -> Any:
            value = await toolset.call_tool(params.name, params.tool_args, params.ctx, params.tool)
            return JSON_CODEC.load(CallToolResult, {"kind": "tool_return", "result": value})

        for number in range(calls + WARM):
            for name in ("declared", "undeclared", "read"):
                context: RunContext[None] = RunContext(deps=None, model=TestModel(), usage=RunUsage())
                step, call_id = f"bench/decision[{number}]", f"{name}-{number}"
                place = {"decision": step, "call_id": call_id, "twin": None, "previous": None, "times": 0}
                vars(context)[FIELD] = {"run": run.row, "step": step, "call": place, "tool": name, "is_gated": False}
                tool = (await toolset.get_tools(context))[name]
                params = ToolsetCallToolParams(name, tool_args={"order": call_id}, ctx=context, tool=tool)
                began_s = time.perf_counter()
                await ActivityEnvironment().run(performer.call_tool, handler, "function", params)
                times[name].append(time.perf_counter() - began_s)
            began_s = time.perf_counter()
            await app.store.commit(lambda tx: tx.row("SELECT 1"), label="bench")
            times["a bare commit"].append(time.perf_counter() - began_s)
    return {name: found[WARM:] for name, found in times.items()}


def main() -> None:
    """Measure, and print."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with postgres.server() as database, postgres.schema(database.url) as url:
        times = asyncio.run(measure(url, calls))
    print(f"{'ms':16} {'median':>7} {'p90':>7} {'max':>7} {'calls':>6}")
    for name, found in times.items():
        ordered = sorted(time_s * 1_000 for time_s in found)
        tenth = ordered[len(ordered) * 9 // 10]
        print(f"{name:16} {statistics.median(ordered):7.2f} {tenth:7.2f} {ordered[-1]:7.2f} {len(ordered):6d}")


if __name__ == "__main__":
    main()
