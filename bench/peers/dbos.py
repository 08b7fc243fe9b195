"""DBOS: one workflow of two async steps, each run started by its workflow id, on DBOS's default SQLite store.

Variant `wal`: the same code, the file switched to WAL before DBOS opens it (the mode is a property of the file);
`synchronous` stays as DBOS leaves it. Variant `postgres`: a server; each process is an executor of its own, so that none
takes another's runs for its own left-overs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
from contextlib import closing
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


class Dbos:
    """DBOS as a `driver.System`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._variant = options.variant
        self._url = options.url

    async def open(self, directory: Path) -> None:
        path = directory / "dbos.sqlite"
        if self._variant == "wal":
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": self._url or f"sqlite:///{path}",
            "log_level": "WARNING",
        }
        if self._url:
            config["executor_id"] = f"bench-{os.getpid()}"
        self._dbos = DBOS(config=config)
        DBOS.launch()

    async def durability(self) -> dict[str, str]:
        with self._dbos._sys_db.engine.connect() as connection:  # a connection of the pool the steps use

            def look_up(what: str) -> str:
                return str(connection.execute(sqlalchemy.text(what)).scalar())

            return {
                **{name: look_up(what) for name, what in (_ON_POSTGRES if self._url else _ON_SQLITE).items()},
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
    driver.main(Dbos, variants=("default", "wal", "postgres"))
