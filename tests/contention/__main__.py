"""`python -m tests.contention`: agents that contend for few accounts; `--write-docs` puts the figures into the docs."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.contention.agents import DECIDE_S, TIMEOUT_S
from tests.contention.workload import MODES, Measured, Plan, measure

PAGE = Path(__file__).parents[2] / "docs" / "contention.md"


def page(plan: Plan, found: Sequence[Measured]) -> str:
    """Return the page of the docs."""
    rows = "\n".join(
        f"| {MODES[one.mode]} | {one.lost} of {one.updates} | {one.per_s:,.0f} | {one.took_ms(50):,.0f} ms |"
        f" {one.took_ms(99):,.0f} ms | {one.took_ms(100):,.0f} ms | {one.again} |"
        for one in found
    )
    agents = plan.processes * plan.agents
    return f"""# Contention

{agents} agents in {plan.processes} processes share one SQLite store and {plan.accounts} accounts of a service. Each reads
an account, decides for {DECIDE_S * 1_000:.0f} ms, and writes what it read plus one, {plan.updates} times; a seed decides
who wants which account when. An update is lost when another overwrites it without having seen it: then the account is
behind the number of its writes. Each agent is a durable run, so every write is claimed and recorded.

Made by `python -m tests.contention --write-docs`, seed {plan.seed}.

| how | lost updates | updates kept per s | median | 99 % | longest | decided again |
|---|---:|---:|---:|---:|---:|---:|
{rows}

Times are from the wish to the outcome of one update, waits and new decisions included. A wait for a lease ends after
{TIMEOUT_S:.0f} s at the latest. [Share things between agents](how-to/share-things.md) says what each way promises.
"""


async def run(url: str | None, plan: Plan) -> list[Measured]:
    """Measure all ways, each on a store of its own unless one is given."""
    found = []
    for mode in MODES:
        with tempfile.TemporaryDirectory(prefix="contention-") as directory:
            found.append(await measure(url or f"sqlite:///{directory}/agents.db", mode, plan))
        print(f"{mode}: {found[-1].lost} lost, {found[-1].per_s:.0f} per s", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Measure as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.contention", description=__doc__)
    parser.add_argument("--updates", type=int, default=30, help="of each agent")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a store instead of one file each")
    parser.add_argument("--write-docs", action="store_true")
    asked = parser.parse_args()
    plan = Plan(updates=asked.updates, seed=asked.seed)
    found = asyncio.run(run(asked.url, plan))
    text = page(plan, found)
    print(text)
    if asked.write_docs:
        PAGE.write_text(text)
    return 1 if any(one.lost for one in found if one.mode != "none") else 0


sys.exit(main())
