"""Processes that take leases while they are stopped and killed, and the history that comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.histories.models import LeasedRegister, TokenService
from tests.histories.recording import now_s, read
from tests.histories.worker import TTL_S
from tests.late.service import serving

import surefoot as sf
from surefoot.coordination.rules import margin_ms
from surefoot.testing import Operation, Verdict, check_all

STOPS_S = (0.05, 2.5)
"""How long a process is stopped, from and to: shorter and longer than its leases live."""


@dataclass
class Recorded:
    """A history, and what was done to those who made it. `late` counts writes that a service has refused: those who sent
    them have mostly been told that their lease is lost before they heard of it."""

    operations: list[Operation] = field(default_factory=list)
    stops: int = 0
    kills: int = 0
    late: int = 0

    def count(self, action: str, result: object = ...) -> int:
        """Return how many operations of a kind returned."""
        return sum(
            1
            for one in self.operations
            if one.action == action and one.returned is not None and (result is ... or one.result == result)
        )

    def verdicts(self) -> list[Verdict[object]]:
        """Return the verdict on each lease and on each service."""
        of_services = [one for one in self.operations if one.action == "send"]
        of_leases = [one for one in self.operations if one.action != "send"]
        return [*check_all(of_leases, LeasedRegister()).values(), *check_all(of_services, TokenService()).values()]  # type: ignore[list-item]  # one kind of state or the other


class Crew:
    """The processes."""

    def __init__(self, url: str, folder: Path, port: int, draws: random.Random) -> None:
        self._url = url
        self._folder = folder
        self._port = port
        self._draws = draws
        self._started = 0
        self.members: dict[str, asyncio.subprocess.Process] = {}
        self.killed: dict[str, float] = {}

    async def start(self) -> None:
        self._started += 1
        name = f"p{self._started}"
        self.members[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.histories.worker", self._url, str(self._folder), name,
            str(self._draws.randrange(1 << 30)), str(self._port),
        )  # fmt: skip

    def operations(self) -> int:
        """Return how many operations have returned so far."""
        return sum(one.returned is not None for file in self._folder.glob("*.log") for one in read(file))

    async def replace_ended(self) -> None:
        """Start another for each that has ended by itself, because its session was not renewed in time."""
        for name in [name for name, process in self.members.items() if process.returncode is not None]:
            assert self.members.pop(name).returncode == 0
            await self.start()

    async def stop_one(self) -> None:
        """Stop one for a while, and let it go on."""
        process = self.members[self._draws.choice(sorted(self.members))]
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self._draws.uniform(*STOPS_S))
            process.send_signal(signal.SIGCONT)

    async def kill_one(self) -> None:
        """Kill one, and start another in its place."""
        name = self._draws.choice(sorted(self.members))
        await self._kill(name)
        await self.start()

    async def _kill(self, name: str) -> None:
        process = self.members.pop(name)
        self.killed[name] = now_s()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def kill_all(self) -> None:
        for name in list(self.members):
            await self._kill(name)

    def history(self) -> list[Operation]:
        """Return what they have recorded, with the ends of leases that nobody gave back."""
        found = [one for file in sorted(self._folder.glob("*.log")) for one in read(file)]
        given_back = {one.argument for one in found if one.action == "release" and one.result == "ok"}
        expiries = [
            Operation(one.process, "expire", one.result, self._ends_at(one), None, None, one.key)
            for one in found
            if one.action == "acquire" and one.returned is not None and one.result not in given_back
        ]
        # Of an acquisition that nobody was told of nothing is known; whether it came or not, nobody has seen it.
        return [one for one in found if one.action != "acquire" or one.returned is not None] + expiries

    def _ends_at(self, acquired: Operation) -> float:
        """Return from when on a lease may be another's: at the kill of its holder, or when a holder that was not heard of
        gives up by itself, a margin before its life after the grant is over."""
        gives_up_s = acquired.called + TTL_S - margin_ms(int(TTL_S * 1_000)) / 1_000
        return min(self.killed.get(acquired.process, gives_up_s), gives_up_s)


async def record(url: str, folder: Path, *, operations: int, processes: int, seed: int, limit_s: float) -> Recorded:
    """Record a history of at least so many operations.

    Args:
        url: The store.
        folder: Where the processes write.
        operations: How many.
        processes: How many processes at a time.
        seed: What decides who is stopped and killed, and when.
        limit_s: Give up after so many seconds.
    """
    draws, recorded = random.Random(seed), Recorded()
    async with sf.Surefoot(url, is_worker=False) as app:
        await app.store.commit(
            lambda tx: tx.execute("CREATE TABLE registers (name TEXT PRIMARY KEY, value TEXT NOT NULL)"), label="test"
        )
    async with serving(folder / "requests") as service:
        crew = Crew(url, folder, service.port, draws)
        try:
            for _ in range(processes):
                await crew.start()
            async with asyncio.timeout(limit_s):
                while crew.operations() < operations:
                    await asyncio.sleep(draws.uniform(0.1, 0.6))
                    await crew.replace_ended()
                    await _harm(crew, recorded, draws)
        finally:
            await crew.kill_all()
    recorded.operations = crew.history()
    recorded.late = sum(one.is_refused for one in service.arrivals())
    return recorded


async def _harm(crew: Crew, recorded: Recorded, draws: random.Random) -> None:
    if draws.random() < 0.25:
        recorded.kills += 1
        await crew.kill_one()
    else:
        recorded.stops += 1
        await crew.stop_one()


def problems(recorded: Recorded) -> Sequence[str]:
    """Return what is wrong with a history, in words."""
    return [str(one) for one in recorded.verdicts() if not one.is_linearizable]
