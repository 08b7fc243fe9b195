"""A process that holds things and writes under their tokens: `python -m tests.late.holder HOW URL PORT FOLDER NAME`.

    lease   sf.lease outside runs; the process's own
    run     sf.lease in a run, which another worker takes over with the run
    effect  an effect with resource=, which another worker takes over with its claim

Each write takes a while between the last check and the request, in a thread that nothing but a stop of the whole process
holds up: so one that is stopped meanwhile sends what it should not. With each request goes a number that grows with every
holder of the resource, and is not the token.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.histories.recording import now_s
from tests.late.service import send

import surefoot as sf
from surefoot.leases import Sessions

RESOURCES = [f"r{n}" for n in range(8)]

TTL_S = 1.0
"""Of a process's lease."""

LIFE_MS = 2_500
"""Of a worker's session, on which hang the leases of runs and effects."""

LATE_S = 0.4
"""How long a request is on its way at the longest, if nobody is stopped."""

threads = ThreadPoolExecutor(len(RESOURCES))
draws = random.Random()
folder, port, me = Path(), 0, ""


async def write(resource: str, token: int, holder: float) -> str:
    """Send a write; what was checked before may not be so any more when it arrives."""
    return await asyncio.get_running_loop().run_in_executor(threads, _write, resource, token, holder)


def _write(resource: str, token: int, holder: float) -> str:
    time.sleep(draws.uniform(0, LATE_S))
    return send(port, resource, token, [me, holder])


# -- a process ---------------------------------------------------------------------------------------------------------


async def holding(app: sf.Surefoot) -> None:
    """Take leases and write under them, until the process's session is lost."""
    await asyncio.gather(*(_hold(app, resource) for resource in RESOURCES))


async def _hold(app: sf.Surefoot, resource: str) -> None:
    while app.guard.duty.session.may_act():
        try:
            async with sf.lease(resource, ttl=TTL_S, timeout=60) as lease:
                since_s = now_s()
                lease.check()  # it was held then, and so by nobody else: these times grow with the holders
                await write(resource, lease.token, since_s)
        except sf.LeaseLost:
            continue


# -- runs --------------------------------------------------------------------------------------------------------------


@sf.step
async def is_enough() -> bool:
    """Whether the test has seen enough."""
    return (folder / "enough").exists()


async def _put(resource: str, turn: int, token: int) -> str:
    """Write, as a service's client does: what is refused was not done."""
    if (answer := await write(resource, token, turn + sf.current_effect().attempt / 1_000)) == "refused":
        raise sf.NotDone("the service has seen a higher token")
    return answer


@sf.effect(key="put:{resource}:{turn}", in_doubt=sf.Resend(key_ttl="24h"))
async def put(resource: str, turn: int) -> str:
    """Write under the token of the run's lease."""
    return await _put(resource, turn, sf.current_effect().tokens[resource])


@sf.effect(key="put alone:{resource}:{turn}", in_doubt=sf.Resend(key_ttl="24h"), resource="{resource}")
async def put_alone(resource: str, turn: int) -> str:
    """Write under the token of the effect's own lease."""
    return await _put(resource, turn, sf.current_effect().token)


@sf.durable
async def run(resource: str) -> int:
    """Hold a thing for two writes at a time, again and again; return how many there were."""
    turn = 0
    while not await is_enough():
        async with sf.lease(resource, timeout=60):
            await put(resource, turn)
            await put(resource, turn + 1)
        turn += 2
    return turn


@sf.durable
async def effect(resource: str) -> int:
    """Write again and again, holding the thing for each write; return how many there were."""
    turn = 0
    while not await is_enough():
        await put_alone(resource, turn)
        turn += 1
    return turn


async def serving(app: sf.Surefoot) -> None:
    """Execute runs until killed."""
    await app.serve()


HOW: dict[str, Callable[[sf.Surefoot], Awaitable[None]]] = {"lease": holding, "run": serving, "effect": serving}


async def main(how: str, url: str, the_port: str, the_folder: str, name: str) -> None:
    global folder, port, me
    folder, port, me = Path(the_folder), int(the_port), name
    if how != "lease":
        assert Sessions.open.__kwdefaults__ is not None
        Sessions.open.__kwdefaults__["ttl_ms"] = LIFE_MS
    while True:  # whoever has lost its session begins another
        async with sf.Surefoot(url, name=name, is_worker=how != "lease") as app:
            print("ready", flush=True)
            await HOW[how](app)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
