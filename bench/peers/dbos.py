"""DBOS: one workflow of two async steps, each run started by its workflow id, on DBOS's default SQLite store.

Variant `wal`: the same code, the file switched to WAL before DBOS opens it (the mode is a property of the file);
`synchronous` stays as DBOS leaves it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSConfig, SetWorkflowID

from bench import driver
from bench.observer import observer
from bench.workload import act, decide


@DBOS.step()
async def decide_step(run: int, cycle: int) -> dict[str, Any]:
    await observer.gate(cycle)
    return decide(run, cycle)


@DBOS.step()
async def act_step(decision: dict[str, Any]) -> dict[str, Any]:
    return act(decision, observer.world)


@DBOS.workflow()
async def agent(run: int, cycles: int) -> None:
    observer.run_began(run)
    for cycle in range(cycles):
        await act_step(await decide_step(run, cycle))
        observer.cycle_ended(run)
    observer.run_ended(run)


class Dbos:
    """DBOS as a `driver.System`."""

    def __init__(self, variant: str) -> None:
        self._variant = variant

    async def open(self, directory: Path) -> None:
        path = directory / "dbos.sqlite"
        if self._variant == "wal":
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": f"sqlite:///{path}",
            "log_level": "WARNING",
        }
        self._dbos = DBOS(config=config)
        DBOS.launch()

    async def durability(self) -> dict[str, str]:
        with self._dbos._sys_db.engine.connect() as connection:  # a connection of the pool the steps use

            def look_up(what: str) -> str:
                return str(connection.execute(sqlalchemy.text(what)).scalar())

            return {
                "journal_mode": look_up("PRAGMA journal_mode"),
                "synchronous": look_up("PRAGMA synchronous"),
                "sqlite_version": look_up("SELECT sqlite_version()"),
                "awaited": "every step",
                "versions": f"dbos {version('dbos')}, SQLAlchemy {version('SQLAlchemy')}",
            }

    async def run(self, run: int, cycles: int) -> None:
        with SetWorkflowID(f"run-{run}"):
            handle = await DBOS.start_workflow_async(agent, run, cycles)
        await handle.get_result()

    async def resume(self, runs: range, cycles: int) -> None:
        """Wait for what `launch` recovers by itself."""
        while len(observer.finishes) < len(runs):
            await asyncio.sleep(0.01)
        while await DBOS.list_workflows_async(status=["PENDING", "ENQUEUED"], limit=1):
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        DBOS.destroy()


if __name__ == "__main__":
    driver.main(Dbos, variants=("default", "wal"))
