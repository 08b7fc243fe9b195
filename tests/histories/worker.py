"""A process that takes leases and writes under them, and records what it called and what it was told.

    python -m tests.histories.worker URL FOLDER NAME SEED PORT

It is stopped and killed from outside. Its wall clock jumps by itself, forward and back.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from tests.histories.recording import Recorder
from tests.late.service import send

import surefoot as sf
from surefoot.store import SystemClock

TTL_S = 1.0
RESOURCES = 12
TASKS = 6


class JumpyClock(SystemClock):
    """A clock that somebody sets now and then, by up to an hour."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draws = random.Random(seed)
        self._jump_ms, self._until_s = 0, 0.0

    def wall_ms(self) -> int:
        now_s = self.monotonic_s()
        if now_s > self._until_s:
            self._until_s = now_s + self._draws.random()
            self._jump_ms = self._draws.randrange(-3_600_000, 3_600_000)
        return super().wall_ms() + self._jump_ms


@sf.effect(name="put", in_doubt=sf.Transactional())
def put(register: str, value: str) -> None:
    """Write a register in the store itself: in one commit with the check that the lease around is still held."""
    sf.current_effect().execute(
        "INSERT INTO registers (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (register, value),
    )


class Agent:
    """One task of the process."""

    def __init__(self, app: sf.Surefoot, recorder: Recorder, name: str, port: int, seed: str) -> None:
        self._app = app
        self._recorder = recorder
        self._name = name
        self._port = port
        self._draws = random.Random(seed)
        self._values = 0

    async def work(self) -> None:
        while self._app.guard.duty.session.may_act():  # without it nothing is to be had: another process goes on
            resource = f"r{self._draws.randrange(RESOURCES)}"
            if self._draws.random() < 0.2:
                await self._read(resource)
            else:
                await self._edit(resource)

    async def _read(self, resource: str) -> None:
        call = self._recorder.call("read", resource)
        rows = await self._app.store.read(
            lambda connection: connection.execute("SELECT value FROM registers WHERE name = ?", (resource,)).fetchall()
        )
        self._recorder.answer(call, rows[0][0] if rows else None)

    async def _edit(self, resource: str) -> None:
        leaving = None
        asking = self._recorder.call("acquire", resource)
        try:
            async with sf.lease(resource, ttl=TTL_S, timeout=20) as lease:
                token = lease.token
                self._recorder.answer(asking, token)
                for _ in range(self._draws.randrange(1, 4)):
                    await self._put(resource, token)
                if self._draws.random() < 0.25:
                    await self._send(resource, token)
                leaving = self._recorder.call("release", resource, token)
            self._recorder.answer(leaving, "ok")
        except sf.ResourceBusy:
            return
        except sf.LeaseLost:
            if leaving is not None:
                self._recorder.answer(leaving, "lost")

    async def _put(self, resource: str, token: int) -> None:
        self._values += 1
        value = f"{self._name}-{self._values}"
        call = self._recorder.call("write", resource, [token, value])
        try:
            await sf.in_thread(put, resource, value)
        except sf.LeaseLost:
            self._recorder.answer(call, "lost")
            raise
        self._recorder.answer(call, "ok")

    async def _send(self, resource: str, token: int) -> None:
        """Send the token to a service that compares it. Nothing checks the lease in between: that is the service's part."""
        call = self._recorder.call("send", f"service {resource}", token)
        self._recorder.answer(call, await asyncio.to_thread(_sent, self._port, resource, token, self._draws.random()))


def _sent(port: int, resource: str, token: int, slowness: float) -> str:
    """Call the service as a synchronous client does, in a thread that no cancellation stops."""
    time.sleep(slowness * 0.4)
    return send(port, resource, token)


async def main(url: str, folder: str, name: str, seed: str, port: str) -> None:
    async with sf.Surefoot(url, name=name, is_worker=False, clock=JumpyClock(int(seed))) as app:
        recorder = Recorder(Path(folder) / f"{name}.log", name)
        agents = [Agent(app, recorder, f"{name}.{n}", int(port), f"{seed}.{n}") for n in range(TASKS)]
        await asyncio.gather(*(agent.work() for agent in agents))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
