"""A fan-out for the kill sweep: `python -m tests.support.fan_out STEPS TWICE`. Each child acts once, whatever is killed."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.support.sweeping import World, sweep

import surefoot as sf

CHILDREN = 4
here: list[World] = []


@sf.effect(key="fan:{number}", in_doubt=sf.Resend(key_ttl="24h"))
async def act(number: int) -> int:
    here[0].act(f"+{number}", sf.current_effect().idempotency_key)
    return number


@sf.durable(name="fan kid")
async def kid(number: int) -> int:
    return await act(number)


@sf.durable(name="fan")
async def fan() -> int:
    return sum(await asyncio.gather(*(sf.child(kid, number, key=str(number)) for number in range(CHILDREN))))


async def program(world: World, app: sf.Surefoot) -> None:
    here[:] = [world]
    run = await app.start(fan, id="fan")
    assert await run.result(timeout_s=30) == sum(range(CHILDREN))


def check(world: World) -> None:
    """Raise unless each child has acted once."""
    acted = sorted(world.acted())
    assert acted == [f"+{number}" for number in range(CHILDREN)], f"{world.place.name}: {acted}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        kills = sweep(Path(folder), program, check, steps=int(sys.argv[1]), twice=int(sys.argv[2]))
    print(f"{kills} kills")
