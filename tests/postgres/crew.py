"""A worker process: `python -m tests.postgres.crew URL FOLDER NAME LIFE_MS`. The folder is a service that honours keys.

An act makes a file of its key's name with the order in it, once and at once; each request is a line in `requests`, with
who sent it.
"""

from __future__ import annotations

import asyncio
import os
import sys
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
