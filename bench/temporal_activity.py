"""What the ledger costs in a Temporal activity: time in our part of a tool call, beside what Temporal and the tool take.

Starts a PostgreSQL and a Temporal server of its own, runs agents that call tools one after another, and prints for each
kind of tool the time that a call takes from Pydantic AI's activity to its result: looking at the run, claim, settlement,
and the wait until both are on disk. The tools do nothing. Beside it: a bare commit of the same store.

    python -m bench.temporal_activity [RUNS]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from typing import Any

from pydantic_ai import Agent
from tests.scenarios.stage import scripted
from tests.support import postgres, temporal

import surefoot as sf
from surefoot.adapters.temporal import agents as agents_room
from surefoot.adapters.temporal.performing import Performer
from surefoot.store import new_id

CALLS = 4
"""Calls of each tool in one run."""

ours_s: defaultdict[str, list[float]] = defaultdict(list)


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


TOOLS = (declared, undeclared, read)


class Timed(Performer):
    """Notes the time of each call."""

    async def call_tool(self, handler: Any, kind: str, params: Any) -> Any:
        """See `Performer.call_tool`; the tools here do nothing, so all of its time is ours or the framework's."""
        began_s = time.perf_counter()
        try:
            return await super().call_tool(handler, kind, params)
        finally:
            ours_s[params.name].append(time.perf_counter() - began_s)


async def measure(url: str, engine: str, runs: int) -> list[float]:
    """Run the agents; return the times of bare commits on the same server."""
    agents_room.Performer = Timed  # type: ignore[misc]  # what agents of this process are performed by
    app = sf.Surefoot(url, engine=engine)
    calls = [[(tool.__name__, {"order": "{run}"}, f"{tool.__name__}-{n}")] for n in range(CALLS) for tool in TOOLS]
    agents = []
    for number in range(runs):
        own = [[(name, {"order": f"{number}-{id}"}, id)] for ((name, _, id),) in calls]
        agents.append(app.agent(Agent(scripted(own), name=f"clerk-{number}", tools=TOOLS)))
    commits_s = []
    async with app:
        for number, agent in enumerate(agents):
            run = await agent.start("go", id=f"{new_id()}")
            await run.result(timeout_s=300)
            if number == 0:
                ours_s.clear()  # the first run warms everything up
                continue
            for _ in range(CALLS):
                began_s = time.perf_counter()
                await app.store.commit(lambda tx: tx.row("SELECT 1"), label="bench")
                commits_s.append(time.perf_counter() - began_s)
    return commits_s


def line(name: str, times_s: list[float]) -> str:
    """Return a row of the table."""
    ordered = sorted(time_s * 1_000 for time_s in times_s)
    tenth = ordered[len(ordered) * 9 // 10]
    return f"{name:28} {statistics.median(ordered):7.2f} {tenth:7.2f} {ordered[-1]:7.2f} {len(ordered):6d}"


def main() -> None:
    """Measure, and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with postgres.server() as database, temporal.server() as cluster, postgres.schema(database.url) as url:
        commits_s = asyncio.run(measure(url, cluster.url("bench"), runs))
    print(f"{'our part, ms':28} {'median':>7} {'p90':>7} {'max':>7} {'calls':>6}")
    for name in sorted(ours_s):
        print(line(name, ours_s[name]))
    print(line("a bare commit", commits_s))


if __name__ == "__main__":
    main()
