"""Several worker processes on one PostgreSQL: killed, stopped, cut off, and the server killed under them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.postgres import crew
from tests.support.postgres import Cut, Postgres, Proxy

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.runs.tables import RunRow, list_runs
from surefoot.store import looking_at

LIFE_MS = 2_500
"""Of a session: above the margin by which a holder counts it shorter, and short enough to wait for."""


class Crew:
    """Worker processes, and the service they act on."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        (folder / "done").mkdir()
        self.workers: dict[str, asyncio.subprocess.Process] = {}

    async def hire(self, name: str, url: str = "") -> None:
        """Start a worker."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.postgres.crew", url or self.url, str(self.folder), name, str(LIFE_MS),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        self.workers[name] = process

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a worker."""
        os.kill(self.workers[name].pid, number)

    async def dismiss(self, name: str) -> None:
        """Kill a worker."""
        worker = self.workers.pop(name)
        if worker.returncode is None:
            worker.kill()
        await worker.wait()

    async def start(self, ids: range) -> None:
        """Start runs."""
        async with sf.Surefoot(self.url, is_worker=False) as app:
            for n in ids:
                await app.start(crew.booking, f"o{n}", id=f"r{n}")

    def runs(self) -> list[RunRow]:
        """Return all runs."""
        with looking_at(self.url, MIGRATIONS) as connection:
            return list_runs(connection, limit=10_000)

    def ended(self) -> int:
        """Return how many runs have ended."""
        return sum(row.state.name == "COMPLETED" for row in self.runs())

    async def until(self, is_so: Callable[[], bool], within_s: float = 60) -> None:
        """Wait for a condition, while all workers live."""
        async with asyncio.timeout(within_s):
            while not await asyncio.to_thread(is_so):
                assert [name for name, one in self.workers.items() if one.returncode is not None] == []
                await asyncio.sleep(0.05)

    def requests(self) -> list[list[str]]:
        """Return who has sent which order."""
        path = self.folder / "requests"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def check(self, runs: int) -> None:
        """Nothing is lost, and nothing done twice."""
        assert {row.state.name for row in self.runs()} == {"COMPLETED"}
        assert len(self.runs()) == runs
        done = [path.read_text() for path in (self.folder / "done").iterdir()]
        assert sorted(done) == sorted(f"o{n}/{part}" for n in range(runs) for part in range(crew.ACTS))


@asynccontextmanager
async def hired(url: str, folder: Path, *names: str, way: str = "") -> AsyncIterator[Crew]:
    """Have workers, and kill those that are left in the end."""
    found = Crew(url, folder)
    try:
        for name in names:
            await found.hire(name, way)
        yield found
    finally:
        for name in list(found.workers):
            await found.dismiss(name)


async def test_a_killed_and_a_stopped_worker_are_taken_over_and_the_stopped_one_goes_on(
    url: str, tmp_path: Path
) -> None:
    """Catches runs that nobody takes over, and a worker that wakes up and records for what is no longer its own."""
    async with hired(url, tmp_path, "a", "b", "c") as team:
        await team.start(range(40))
        await team.until(lambda: {name for name, _ in team.requests()} >= {"a", "b", "c"} or team.ended() == 40)
        team.signal("a", signal.SIGSTOP)
        await team.dismiss("b")
        await team.start(range(40, 60))
        await team.until(lambda: team.ended() == 60)
        team.signal("a", signal.SIGCONT)
        team.check(60)
        await team.dismiss("c")
        await team.start(range(60, 70))
        await team.until(lambda: team.ended() == 70)  # by the one that was stopped, in a session of its own
        team.check(70)
        assert {name for name, order in team.requests() if int(order[1:].split("/")[0]) >= 60} == {"a"}


@pytest.mark.slow
async def test_workers_outlive_their_server(own: Postgres, tmp_path: Path) -> None:
    """Catches a run lost or an effect doubled by a crash of the server, and a worker that gives up."""
    async with hired(own.url, tmp_path, "a", "b") as team:
        await team.start(range(30))
        for least in (5, 15):
            await team.until(lambda least=least: team.ended() >= least)  # type: ignore[misc]  # bound here
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
        await team.until(lambda: team.ended() == 30)
        team.check(30)


def cuts(draw: random.Random, bytes_max: int) -> Cut:
    """Return what breaks ways after random numbers of bytes."""
    left = draw.randint(1, bytes_max)

    def cut(data: bytes) -> int | None:
        nonlocal left
        left -= len(data)
        if left > 0:
            return None
        at = len(data) + left
        left = draw.randint(1, bytes_max)
        return at

    return cut


@pytest.mark.slow
async def test_workers_whose_ways_break_lose_and_double_nothing(url: str, proxy: Proxy, tmp_path: Path) -> None:
    """Catches a broken connection, at whatever byte, that loses a run, doubles an effect, or ends a worker."""
    draw = random.Random(7)
    async with hired(url, tmp_path, "a", "b", way=proxy.url(url)) as team:
        proxy.asks, proxy.answers = cuts(draw, 40_000), cuts(draw, 40_000)
        await team.start(range(30))
        await team.until(lambda: team.ended() == 30)
        assert proxy.breaks > 3
        team.check(30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_all_of_it_at_once(own: Postgres, tmp_path: Path, seed: int) -> None:
    """Catches what only comes of several faults together: kills, stops, broken ways, and a server killed."""
    draw, names = random.Random(seed), iter(f"w{n}" for n in range(1_000))
    (tmp_path / "way").mkdir()
    with Proxy(own.socket, tmp_path / "way") as proxy:
        way = proxy.url(own.url)
        async with hired(own.url, tmp_path, *(next(names) for _ in range(3)), way=way) as team:
            proxy.asks, proxy.answers = cuts(draw, 400_000), cuts(draw, 400_000)
            await team.start(range(150))
            faults = ["kill", "stop", "stop", "server"]
            while not await asyncio.to_thread(lambda: team.ended() == 150):
                name, fault = draw.choice(list(team.workers)), draw.choice(faults)
                if fault == "kill":
                    await team.dismiss(name)
                    await team.hire(next(names), way)
                elif fault == "stop":
                    team.signal(name, signal.SIGSTOP)
                    await asyncio.sleep(draw.uniform(0, 2 * LIFE_MS / 1_000))
                    team.signal(name, signal.SIGCONT)
                else:
                    await asyncio.to_thread(own.kill)
                    await asyncio.to_thread(own.start)
                await asyncio.sleep(draw.uniform(0, 1))
                assert [one for one in team.workers.values() if one.returncode is not None] == []
            team.check(150)
