"""Workers of a run on Temporal are killed and stopped at each point of a call: nothing is done twice, nothing is lost.

The payments are counted by a service in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
from tests.mcp.conftest import Till
from tests.support.postgres import Postgres, schema
from tests.support.temporal import Temporal
from tests.temporal.conftest import Crew
from tests.temporal.service import ask
from tests.temporal.work import ORDERS, POINTS, Task, app_of

import surefoot as sf
from surefoot.effects.states import State
from surefoot.store import new_id

PATIENCE_S = 300.0
"""How long a test waits for what must come: leases run for 10 s, and heartbeats for 2."""

PAST_S = 14.0
"""How long a worker is stopped: past its heartbeat, and past its lease of 10 s."""

KILLS = [(service, point) for service in ("keys", "look-up") for point in POINTS]


class Scene:
    """A run of the agent, its workers and the service."""

    def __init__(self, crew: Crew, task: Task, app: sf.Surefoot, agent: Any) -> None:
        self.crew = crew
        self.task = task
        self.app = app
        self.agent = agent
        self.id = f"run-{new_id()}"

    def worker(self, point: str = "", end: int = signal.SIGKILL) -> Any:
        """Start a worker process."""
        task = msgspec.structs.replace(self.task, point=point, end=end)
        return self.crew.spawn("tests.temporal.work", msgspec.json.encode(task).decode())

    async def marked(self) -> None:
        """Wait until a worker has come to its point."""
        await self.until(Path(self.task.marker).exists)

    async def until(self, is_there: Any) -> None:
        """Wait for a condition."""
        until_s = monotonic() + PATIENCE_S
        while not is_there():
            assert monotonic() < until_s, self.crew.said()
            await asyncio.sleep(0.05)

    async def result(self, run: Any) -> Any:
        """Return a run's result."""
        try:
            return await run.result(timeout_s=PATIENCE_S)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.crew.said()}") from None

    async def paid(self) -> list[str]:
        """Return what the service has done."""
        if self.task.till:
            return sorted(entry["order"] for entry in Till(self.crew.folder).entries(what="pay"))
        found: list[str] = (await ask(self.task.port, {"do": "books"}))["paid"]
        return sorted(found)

    async def states(self) -> list[str]:
        """Return the state of each effect; of one whose claim was left before the act, that of the claim after it."""
        newest = "SELECT max(generation) FROM ledger g WHERE g.digest = l.digest"
        query = f"SELECT state FROM ledger l WHERE generation = ({newest}) ORDER BY id"
        rows = await self.app.store.read(lambda connection: connection.execute(query).fetchall())
        return [State(row[0]).name for row in rows]


@asynccontextmanager
async def scene(service: str, crew: Crew, postgres: Postgres, temporal: Temporal) -> AsyncIterator[Scene]:
    """Make the world of one test."""
    place, till = crew.folder / "port", ""
    if service == "till":
        till = str(Till(crew.folder).world)
        place.write_text("0")
    else:
        crew.spawn("tests.temporal.service", service, str(place))
    async with asyncio.timeout(PATIENCE_S):
        while not place.exists():
            await asyncio.sleep(0.02)
    with schema(postgres.url) as url:
        engine = temporal.url(f"queue-{new_id()}")
        task = Task(url, engine, int(place.read_text()), service, str(crew.folder / "marker"), till=till)
        app, agent = app_of(task, is_worker=False)
        async with app:
            yield Scene(crew, task, app, agent)
        for process in crew.processes:
            process.kill()


async def killed(service: str, point: str, crew: Crew, postgres: Postgres, temporal: Temporal) -> None:
    """Kill the worker of a run at a point; another one, that is there, goes on."""
    async with scene(service, crew, postgres, temporal) as stage:
        first = stage.worker(point)
        run = await stage.agent.start("go", id=stage.id)
        await stage.marked()
        stage.worker()
        await stage.result(run)
        assert first.wait(10) == -signal.SIGKILL
        assert await stage.paid() == sorted(ORDERS)
        assert await stage.states() == ["DONE"] * len(ORDERS)


async def test_a_worker_is_killed_between_the_answer_and_its_record(
    crew: Crew, postgres: Postgres, temporal: Temporal
) -> None:
    """Would catch an attempt that acts although its predecessor may have acted."""
    await killed("keys", "answered, not recorded", crew, postgres, temporal)


@pytest.mark.slow
@pytest.mark.parametrize(("service", "point"), KILLS)
async def test_a_worker_is_killed_at_any_point(
    service: str, point: str, crew: Crew, postgres: Postgres, temporal: Temporal
) -> None:
    """Would catch a point at which a payment is made twice, or never."""
    await killed(service, point, crew, postgres, temporal)


@pytest.mark.slow
@pytest.mark.parametrize(("service", "point"), KILLS)
async def test_a_worker_is_stopped_past_its_heartbeat_and_goes_on(
    service: str, point: str, crew: Crew, postgres: Postgres, temporal: Temporal
) -> None:
    """Would catch two attempts of one call that are alive at once, and both act or both record."""
    async with scene(service, crew, postgres, temporal) as stage:
        first = stage.worker(point, signal.SIGSTOP)
        run = await stage.agent.start("go", id=stage.id)
        await stage.marked()
        stage.worker()
        await asyncio.sleep(PAST_S)
        os.kill(first.pid, signal.SIGCONT)
        await stage.result(run)
        await asyncio.sleep(2.0)  # whoever was stopped has time to do harm
        assert await stage.paid() == sorted(ORDERS)
        assert await stage.states() == ["DONE"] * len(ORDERS)
        assert await contradictions(stage.app) == 0


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_is_killed_with_its_mcp_server(
    point: str, crew: Crew, postgres: Postgres, temporal: Temporal
) -> None:
    """Would catch a call over stdio that is made twice, or never, or that isn't asked about of the next server."""
    await killed("till", point, crew, postgres, temporal)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS[1:4])
async def test_nobody_knows_and_a_person_looks(point: str, crew: Crew, postgres: Postgres, temporal: Temporal) -> None:
    """Would catch an effect of the default class that is sent again, and a run that doesn't wait for the person."""
    async with scene("nothing", crew, postgres, temporal) as stage:
        stage.worker(point)
        run = await stage.agent.start("go", id=stage.id)
        await stage.marked()
        stage.worker()
        async with asyncio.timeout(PATIENCE_S):
            while (await run.status()).waiting_for != "doubt":
                await asyncio.sleep(0.05)
        (unknown,) = await stage.app.unknowns()
        is_done = "B" in await stage.paid()
        await stage.app.resolve(unknown.id, is_done=is_done, by="anna", reason="looked", is_fence_passed=True)
        await stage.result(run)
        assert await stage.paid() == (sorted(ORDERS) if is_done else ["A", "C"])


@pytest.mark.slow
async def test_the_server_is_killed_and_started_again(crew: Crew, postgres: Postgres, temporal: Temporal) -> None:
    """Would catch a worker, a starter or a bridge that doesn't outlive its server."""
    async with scene("keys", crew, postgres, temporal) as stage:
        stage.worker("sent, not answered", signal.SIGSTOP)
        run = await stage.agent.start("go", id=stage.id)
        await stage.marked()
        temporal.kill()
        os.kill(crew.processes[-1].pid, signal.SIGCONT)
        await asyncio.sleep(1.0)
        later = asyncio.create_task(stage.agent.start("go", id=f"{stage.id}-later"))
        await asyncio.to_thread(temporal.start)
        await stage.result(run)
        await stage.result(await later)
        assert await stage.paid() == sorted(ORDERS)


async def contradictions(app: sf.Surefoot) -> int:
    """Return how many late answers disagree with what is recorded."""
    rows = await app.store.read(
        lambda connection: connection.execute("SELECT count(*) FROM evidence WHERE is_open = 1").fetchall()
    )
    return int(rows[0][0])
