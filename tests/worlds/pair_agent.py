"""One of two agents in one bank: `python -m tests.worlds.pair_agent URL SOCKET FOLDER HOW NAME TASK OTHER`.

    apart      the tools as they are
    together   the reads are versioned, and each tool that changes a thing declares it `unchanged=` and as its `resource=`

It decides only once the other has read, too, what both are about: so whatever can go wrong does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.worlds.client import Client
from tests.worlds.pairs import CHANGES, READS, TASKS

import surefoot as sf

world: list[Client] = []
folder: list[Path] = []
IN_DOUBT = sf.Resend(key_ttl="24h")


def _read(thing: str) -> Any:
    tool, arguments = READS[thing]

    @sf.versioned(thing, name=tool)
    async def look() -> Any:
        return await world[0].call(tool, arguments)

    return look


def _change(tool: str, **declared: Any) -> Any:
    @sf.effect(name=tool, in_doubt=IN_DOUBT, **declared)
    async def change(arguments: dict[str, Any]) -> Any:
        return await world[0].call(tool, arguments, key=sf.current_effect().idempotency_key, label="effect")

    return change


LOOKS = {thing: _read(thing) for thing in READS}
TOOLS = {
    "apart": {tool: _change(tool) for tool in CHANGES},
    "together": {tool: _change(tool, unchanged=thing, resource=thing) for tool, thing in CHANGES.items()},
}


@sf.step
async def meet(who: str, thing: str) -> None:
    """Wait until both have read a thing."""
    (folder[0] / f"{who} {thing}").touch()
    while len(list(folder[0].glob(f"? {thing}"))) < 2:
        await asyncio.sleep(0.005)


@sf.durable
async def agent_of_two(how: str, who: str, task: str, other: str) -> list[str]:
    """Do a task; return what was told of each of its effects."""
    told, shared = [], {stage.thing for stage in TASKS[other]}
    for stage in TASKS[task]:
        while True:
            seen = await LOOKS[stage.thing]()
            if stage.thing in shared:
                await meet(who, stage.thing)
            arguments = stage.decide(seen)
            if arguments is None:
                told.append("nothing to do")
                break
            outcome = await TOOLS[how][stage.tool].outcome(arguments)
            told.append(outcome.told)
            if outcome.told != "stale":
                break
    return told


async def main(url: str, socket: str, the_folder: str, how: str, name: str, task: str, other: str) -> None:
    """Begin a task, and work until killed: also on what another leaves."""
    world.append(Client(socket))
    folder.append(Path(the_folder))
    async with sf.Surefoot(url, name=name) as app:
        await app.start(agent_of_two, how, name, task, other, id=name)
        print("started", flush=True)
        await app.serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
