"""Holders that are stopped for longer than they may hold anything, and let go on: what comes of their writes."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.late import holder
from tests.late.service import Arrival, Service, serving

import surefoot as sf
from surefoot.runs.rows.tables import list_runs

PROCESSES = 3

LONGER_S = 1.0
"""How much longer than they may hold anything holders are stopped, at the longest; at the shortest, not at all."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came to the service.

    Attributes:
        writes: All writes.
        late: Those that came after one of a later holder of the same thing.
        refused: Those that the service has refused.
        stops: How often a holder was stopped.
    """

    writes: Sequence[Arrival]
    late: Sequence[Arrival]
    refused: Sequence[Arrival]
    stops: int


def late_ones(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return the writes that came after one of a later holder, by the number that holders have beside their token."""
    found, newest = [], defaultdict[str, float](float)
    for one in arrivals:
        _, number = one.more
        if number < newest[one.resource]:
            found.append(one)
        newest[one.resource] = max(newest[one.resource], number)
    return found


async def stop_holders(how: str, url: str, folder: Path, *, stops: int, late: int, seed: int, limit_s: float) -> Seen:
    """Let processes hold things and write; stop one after the other, and let it go on.

    Args:
        how: How they hold them, see `holder`.
        url: The store.
        folder: For files of this test.
        stops: How often, at least.
        late: Go on until so many writes have come late.
        seed: What decides who is stopped, and for how long.
        limit_s: Give up after so many seconds.
    """
    draws, done = random.Random(seed), 0
    hold_s = holder.TTL_S if how == "lease" else holder.LIFE_MS / 1_000
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(sf.Surefoot(url, is_worker=False))
        service = await stack.enter_async_context(serving(folder / "requests"))
        crew = [await _hire(stack, how, url, service, folder, f"p{n}") for n in range(PROCESSES)]
        if how != "lease":
            for resource in holder.RESOURCES:
                await app.start({"run": holder.run, "effect": holder.effect}[how], resource, id=resource)
        async with asyncio.timeout(limit_s):
            while done < stops or len(late_ones(service.arrivals())) < late:
                await asyncio.sleep(draws.uniform(0.2, 0.6))
                one = draws.choice(crew)
                one.send_signal(signal.SIGSTOP)
                await asyncio.sleep(hold_s + draws.uniform(0, LONGER_S))
                one.send_signal(signal.SIGCONT)
                done += 1
            (folder / "enough").touch()
            if how != "lease":
                await _check_runs(app, service)
            else:
                await asyncio.sleep(2 * holder.LATE_S)  # what is on its way arrives
        assert [one.returncode for one in crew] == [None] * PROCESSES
        arrivals = service.arrivals()
        return Seen(arrivals, late_ones(arrivals), [one for one in arrivals if one.is_refused], done)


async def _hire(
    stack: AsyncExitStack, how: str, url: str, service: Service, folder: Path, name: str
) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.late.holder", how, url, str(service.port), str(folder), name,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def dismiss() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(dismiss)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def _check_runs(app: sf.Surefoot, service: Service) -> None:
    """Every run ends, and each of its writes has been taken by the service."""
    turns = {resource: await (await app.run(resource)).result(timeout_s=60) for resource in holder.RESOURCES}
    taken = {(one.resource, int(one.more[1])) for one in service.arrivals() if not one.is_refused}
    assert taken == {(resource, turn) for resource, count in turns.items() for turn in range(count)}
    assert {row.state.name for row in app.store.read_now(list_runs)} == {"COMPLETED"}
