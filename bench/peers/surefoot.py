"""Surefoot: a durable function of a recorded step and an effect with a business key, with the defaults a user gets.

Per cycle the decision is an `@sf.step` nobody waits for, and the act an `@sf.effect` whose claim is on disk before it
acts; both records, and the outcome, follow in order. After a kill the runs come back by themselves: the new process
takes them over from the dead one's session, without a list of ids.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw

import surefoot as sf
from bench import driver
from bench.aging import multiply
from bench.observer import observer
from bench.workload import act, decide
from surefoot.store import Tx

FILE = "surefoot.db"
AGED_RUNS = 250
FIRST_AGED_RUN = 8_000_000


@sf.step
async def decide_step(run: int, cycle: int) -> dict[str, Any]:
    await observer.gate(cycle)
    return decide(run, cycle)


@sf.effect(key="refund:{order_id}", in_doubt=sf.Resend())
async def refund(order_id: str, amount: str, reason: str) -> dict[str, Any]:
    return act({"tool_call": {"arguments": {"order_id": order_id, "amount": amount}}}, observer.world)


@sf.durable
async def agent(run: int, cycles: int) -> None:
    observer.run_began(run)
    for cycle in range(cycles):
        decision = await decide_step(run, cycle)
        await refund(**decision["tool_call"]["arguments"])
        observer.cycle_ended(run)
    observer.run_ended(run)


_ON_SQLITE = {
    "journal_mode": "PRAGMA journal_mode",
    "synchronous": "PRAGMA synchronous",
    "sqlite_version": "SELECT sqlite_version()",
}
_ON_POSTGRES = {
    "fsync": "SHOW fsync",
    "synchronous_commit": "SHOW synchronous_commit",
    "server_version": "SHOW server_version",
}


def _driver(url: str) -> str:
    return f"psycopg {version('psycopg')}" if url else f"apsw {apsw.apsw_version()}"


class Surefoot:
    """Surefoot as a `driver.System`, on a file or, with a URL, on a server."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self, directory: Path) -> None:
        self._app = sf.Surefoot(self._url or f"sqlite:///{directory / FILE}")
        await self._app.open()

    async def durability(self) -> dict[str, str]:
        def look_up(tx: Tx, what: str) -> str:
            found = tx.row(what)
            assert found is not None
            return str(found[0])

        return await self._app.store.commit(  # a unit runs on the writer's own connection
            lambda tx: {
                **{name: look_up(tx, what) for name, what in (_ON_POSTGRES if self._url else _ON_SQLITE).items()},
                "awaited": "the claim, before each act; start and end of the run",
                "versions": f"surefoot {version('surefoot')}, {_driver(self._url)}",
            },
            label="durability",
        )

    async def run(self, run: int, cycles: int) -> None:
        started = await self._app.start(agent, run, cycles, id=f"run-{run}")
        await started.result()

    async def resume(self, runs: range, cycles: int) -> None:
        """Wait for what the app takes over by itself."""
        while len(observer.finishes) < len(runs):
            await asyncio.sleep(0.01)
        while await self._app.runs(state="running", limit=1):
            await asyncio.sleep(0.01)

    async def age(self, directory: Path, effects: int) -> None:
        await self.open(directory)
        await asyncio.gather(*(self.run(FIRST_AGED_RUN + run, 20) for run in range(AGED_RUNS)))
        await self.close()
        multiply(directory / FILE, effects)

    async def close(self) -> None:
        await self._app.close()


if __name__ == "__main__":
    driver.main(lambda options: Surefoot(options.url), variants=("default", "postgres"))
