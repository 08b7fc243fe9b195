"""A worker process: `python -m tests.postgres.crew URL FOLDER NAME LIFE_MS`. The folder is a service that honours keys.

An act makes a file of its key's name with the order in it, once and at once; each request is a line in `requests`, with
who sent it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import surefoot as sf
from surefoot.leases import Sessions

ACTS = 2
"""Effects of one run."""

world, me = Path(), ""


@sf.effect(key="act:{order}", in_doubt=sf.Resend(key_ttl="24h"))
async def act(order: str) -> str:
    """Do something in the world."""
    key = sf.current_effect().idempotency_key
    with (world / "requests").open("a") as requests:
        requests.write(f"{me} {order}\n")
    await asyncio.sleep(0.01)
    made = world / f"{me}-{key}"
    made.write_text(order)
    try:
        os.link(made, world / "done" / key)  # with what it says: a worker may be killed at any place
    except FileExistsError:
        return "again"
    finally:
        made.unlink()
    return "done"


@sf.durable
async def booking(order: str) -> str:
    """A run with several effects."""
    for n in range(ACTS):
        await act(f"{order}/{n}")
    return order


@sf.effect(key="last:{order}", in_doubt=sf.Resend(key_ttl="24h"))
async def last(order: str) -> str:
    """Act until killed; the second time, at once."""
    with (world / "requests").open("a") as requests:
        requests.write(f"{me} {order}\n")
    if me != "keeps":
        await asyncio.sleep(3_600)
    return order


@sf.durable
async def lasting(order: str) -> str:
    """A run that ends once another worker has it."""
    return await last(order)


def find(service: str) -> sf.Landed | sf.NotLanded:
    """Say whether it is there."""
    found = [path.read_text() for path in (world / "done").iterdir()]
    return sf.Landed(found[0]) if found else sf.NotLanded()


@sf.effect(key="post:{service}", in_doubt=sf.Probe(find, longest_life="500ms"))
async def post(service: str) -> str:
    """Stop before it is sent, for longer than a request may live; a service that checks takes no expired one."""
    expires_at_ms = sf.current_effect().expires_at_ms
    with (world / "requests").open("a") as requests:
        requests.write(f"{me} {service}\n")
    if me == "first":
        os.kill(os.getpid(), signal.SIGSTOP)
    is_expired = expires_at_ms is not None and time.time() * 1_000 > expires_at_ms
    if not (service == "checking" and is_expired):
        (world / "done" / me).write_text(f"from {me}")
    (world / f"answered-{me}").touch()
    if service == "checking" and is_expired:
        raise sf.NotDone("expired")
    return f"from {me}"


@sf.durable
async def posting(service: str) -> str:
    """A run whose worker is stopped in the middle of its act."""
    return await post(service)


async def main(url: str, folder: str, name: str, life_ms: int) -> None:
    """Execute runs until killed."""
    global world, me
    world, me = Path(folder), name
    assert Sessions.open.__kwdefaults__ is not None
    Sessions.open.__kwdefaults__["ttl_ms"] = life_ms
    async with sf.Surefoot(url, name=name) as app:
        print("ready", flush=True)
        await app.serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
