"""Worker processes of the tests' own, the service they act on, and what is counted at it in the end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.postgres import crew
from tests.support.postgres import Cut

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.runs.rows.tables import RunRow, list_runs
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

    async def hire(self, name: str, url: str = "", *, tries: int = 1) -> None:
        """Start a worker, and again if it could not begin: that a supervisor does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.postgres.crew", url or self.url, str(self.folder), name, str(LIFE_MS),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        if await asyncio.wait_for(process.stdout.readline(), 60) != b"ready\n":
            assert await process.wait() == 1
            assert tries > 1, "it could not begin"
            await self.hire(name, url, tries=tries - 1)
            return
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

    async def until(self, is_so: Callable[[], bool], within_s: float = 60, *, is_stopped: bool = False) -> None:
        """Wait for a condition, while all workers live, unless one was ended by a signal."""
        async with asyncio.timeout(within_s):
            while not await asyncio.to_thread(is_so):
                gone = [name for name, one in self.workers.items() if one.returncode is not None]
                assert gone == [] or (is_stopped and {self.workers[name].returncode for name in gone} == {-9})
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
