"""One measurement: many agents in several processes, few accounts, one way to keep out of each other's way."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from tests.contention.service import Service

MODES = {
    "none": "no coordination",
    "lease": "`sf.lease` around read, decide, write",
    "precondition": "`unchanged=`, the version sent as a precondition",
    "resource": "`unchanged=` and `resource=`",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what.

    Attributes:
        processes: Processes.
        agents: Agents in each.
        updates: Updates of each agent.
        accounts: Accounts.
        seed: What decides which agent wants which account when.
    """

    processes: int = 4
    agents: int = 5
    updates: int = 30
    accounts: int = 5
    seed: int = 1

    @property
    def total(self) -> int:
        """All updates."""
        return self.processes * self.agents * self.updates


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it.

    Attributes:
        mode: Which way.
        updates: Updates that were told as done.
        written: Updates that the service has got.
        lost: Of these, how many were overwritten unseen.
        again: How often an agent had to decide again.
        seconds: How long the slowest agent worked.
        took_s: How long each update took.
    """

    mode: str
    updates: int
    written: int
    lost: int
    again: int
    seconds: float
    took_s: list[float]

    @property
    def per_s(self) -> float:
        """Updates per second that were not lost."""
        return (self.updates - self.lost) / self.seconds

    def took_ms(self, percent: int) -> float:
        """A percentile of how long an update took."""
        return 1_000 * (max(self.took_s) if percent == 100 else quantiles(self.took_s, n=100)[percent - 1])


async def measure(url: str, mode: str, plan: Plan) -> Measured:
    """Let all agents work in one way."""
    async with Service(plan.accounts) as service:
        told = await asyncio.gather(
            *(_process(url, service.port, mode, f"{plan.seed}.{n}", plan) for n in range(plan.processes))
        )
        updates = [update for process in told for agent in process for update in agent]
        return Measured(
            mode=mode,
            updates=len(updates),
            written=service.writes.total(),
            lost=service.lost,
            again=int(sum(again for _, again in updates)),
            seconds=max(sum(took for took, _ in agent) for process in told for agent in process),
            took_s=[took for took, _ in updates],
        )


async def _process(url: str, port: int, mode: str, seed: str, plan: Plan) -> list[list[list[float]]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contention.agents", url, str(port), mode, seed, str(plan.agents),
        str(plan.updates), str(plan.accounts), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"agents of {mode} ended with {process.returncode}")
    return [json.loads(line) for line in out.splitlines()]
