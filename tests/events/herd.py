"""Many workers and one topic: who acts on what, how long it waits, and what that costs."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.events.crew import WORK

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.coordination.events.invariants import INVARIANTS
from surefoot.store import looking_at
from surefoot.store.finding import Severity, broken

AT_ONCE = 500
"""Events published at a time."""


@dataclass(frozen=True)
class Cost:
    """What the workers did in a scenario.

    Attributes:
        takes: Transactions in which they looked for work, events included.
        commits: All their transactions.
        cpu_s: Seconds of processor, starting included.
    """

    takes: int = 0
    commits: int = 0
    cpu_s: float = 0.0


class Herd:
    """Worker processes, and the service they act on."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        (folder / "done").mkdir(parents=True)
        self.workers: dict[str, asyncio.subprocess.Process] = {}
        self.published: dict[int, str] = {}

    async def hire(self, name: str, places: int) -> None:
        """Start a worker."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.events.crew", self.url, str(self.folder), name, str(places),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        self.workers[name] = process

    async def kill(self, name: str) -> None:
        """Kill a worker where it stands."""
        process = self.workers.pop(name)
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def restart(self, name: str, new: str, places: int) -> None:
        """Stop a worker in order, and start another in its place."""
        process = self.workers.pop(name)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0
        await self.hire(new, places)

    async def dismiss(self) -> Cost:
        """Let all workers end in order; return what they did."""
        costs = []
        for process in self.workers.values():
            process.send_signal(signal.SIGTERM)
        for process in self.workers.values():
            out, _ = await asyncio.wait_for(process.communicate(), 60)
            costs.append(json.loads(out))
        self.workers.clear()
        return Cost(*(sum(one[name] for one in costs) for name in ("takes", "commits", "cpu_s")))

    async def publish(self, count: int, *, keys: int = 0) -> None:
        """Publish events, each of one of so many keys, or of none; all of a key in the order of their numbers."""
        first = len(self.published)
        async with sf.Surefoot(self.url, is_worker=False, name="publisher"):
            for start in range(first, first + count, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, first + count))
                of = {number: f"k{number % keys}" if keys else None for number in numbers}
                await asyncio.gather(*(WORK.publish({"number": n}, id=f"e{n}", key=key) for n, key in of.items()))
                self.published.update({number: key or "-" for number, key in of.items()})

    def lines(self, name: str) -> list[list[str]]:
        """Return what is written in a file of the service."""
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    async def settled(self, within_s: float = 600) -> None:
        """Wait until every event has been acted on, and every run has ended."""
        async with asyncio.timeout(within_s):
            while len(self.lines("log")) < len(self.published) or self._count("runs WHERE state <= 3"):
                assert [name for name, one in self.workers.items() if one.returncode is not None] == []
                await asyncio.sleep(0.02)

    def _count(self, what: str) -> int:
        with looking_at(self.url, MIGRATIONS) as connection:
            return int(str(connection.execute(f"SELECT count(*) FROM {what}").fetchall()[0][0]))

    def check(self) -> None:
        """Each event was acted on once; those of a key in their order; and the tables hold together."""
        log = [(key, int(number)) for key, number in self.lines("log")]
        assert Counter(number for _, number in log) == Counter(dict.fromkeys(self.published, 1))
        of_key = defaultdict(list)
        for key, number in log:
            of_key[key].append(number)
        assert [key for key, numbers in of_key.items() if key != "-" and numbers != sorted(numbers)] == []
        assert self._count("runs") == self._count("runs WHERE state = 4") == len(self.published)
        with looking_at(self.url, MIGRATIONS) as looking:
            connection: Any = looking
            found = [one for one in broken(connection, INVARIANTS) if one.severity is Severity.ERROR]
        assert found == []

    def waits_ms(self) -> list[int]:
        """Return how long each event waited, in order of length."""
        return sorted(int(wait) for _, _, wait in self.lines("requests"))


@asynccontextmanager
async def hired(url: str, folder: Path, workers: int, places: int) -> AsyncIterator[Herd]:
    """Have workers, and kill those that are left in the end."""
    herd = Herd(url, folder)
    try:
        await asyncio.gather(*(herd.hire(f"w{number}", places) for number in range(workers)))
        yield herd
    finally:
        for name in list(herd.workers):
            await herd.kill(name)


@dataclass(frozen=True)
class Found:
    """What a scenario showed.

    Attributes:
        events: Events published.
        took_s: From the first publication until the last run had ended.
        requests: How often an act was begun.
        actors: How many workers acted.
        waits_ms: How long each event waited, from its publication to the first line of the function, in order of length.
        cost: What the workers did.
        kills: How many workers were killed.
    """

    events: int
    took_s: float
    requests: int
    actors: int
    waits_ms: list[int]
    cost: Cost
    kills: int = 0

    def wait_ms(self, share: float) -> int:
        """Return the wait that this share of the events does not exceed."""
        return self.waits_ms[min(len(self.waits_ms) - 1, int(share * len(self.waits_ms)))]


async def one_event(url: str, folder: Path, *, workers: int = 8, places: int = 25) -> Found:
    """Publish one event to workers that wait for one."""
    async with hired(url, folder, workers, places) as herd:
        return await _act(herd, 1, keys=0)


async def many_events(url: str, folder: Path, count: int, *, workers: int = 8, places: int = 25) -> Found:
    """Publish many events, of a hundred keys and more."""
    async with hired(url, folder, workers, places) as herd:
        return await _act(herd, count, keys=max(10, count // 10))


async def _act(herd: Herd, count: int, *, keys: int) -> Found:
    begun_s = time.monotonic()
    await herd.publish(count, keys=keys)
    await herd.settled()
    took_s = time.monotonic() - begun_s
    cost = await herd.dismiss()
    herd.check()
    requests = herd.lines("requests")
    return Found(count, took_s, len(requests), len({who for who, *_ in requests}), herd.waits_ms(), cost)


async def rolling(url: str, folder: Path, count: int, *, workers: int = 3) -> Found:
    """Restart each worker in turn while events are acted on, as a deployment does; no act is tried twice."""
    restarts = 0
    async with hired(url, folder, workers, 25) as herd:
        begun_s = time.monotonic()
        publishing = asyncio.create_task(herd.publish(count, keys=max(10, count // 10)))
        while not publishing.done() or len(herd.lines("log")) < count:
            if publishing.done():
                publishing.result()
            restarts += 1
            await herd.restart(next(iter(herd.workers)), f"v{restarts}", 25)
        await publishing
        await herd.settled()
        took_s = time.monotonic() - begun_s
        cost = await herd.dismiss()
        herd.check()
        tried = Counter(number for _, number in herd.lines("acts"))
        assert [number for number, times in tried.items() if times > 1] == []
        requests = herd.lines("requests")
        actors = len({who for who, *_ in requests})
        return Found(count, took_s, len(requests), actors, herd.waits_ms(), cost, restarts)


async def kills(url: str, folder: Path, count: int, *, workers: int = 4, seed: int = 1, pause_s: float = 0.3) -> Found:
    """Kill workers at random, each replaced by another, while events are acted on."""
    chance, killed = random.Random(seed), 0
    async with hired(url, folder, workers, 25) as herd:
        begun_s = time.monotonic()
        publishing = asyncio.create_task(herd.publish(count, keys=max(10, count // 10)))
        while not publishing.done() or len(herd.lines("log")) < count:
            if publishing.done():
                publishing.result()
            await asyncio.sleep(pause_s * chance.random() * 2)
            await herd.kill(chance.choice(sorted(herd.workers)))
            killed += 1
            await herd.hire(f"x{killed}", 25)
        await publishing
        await herd.settled()
        took_s = time.monotonic() - begun_s
        cost = await herd.dismiss()
        herd.check()
        requests = herd.lines("requests")
        actors = len({who for who, *_ in requests})
        return Found(count, took_s, len(requests), actors, herd.waits_ms(), cost, killed)
