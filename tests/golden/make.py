"""Makes a golden file: a store as a format leaves it on disk, with open runs and open effects.

Run once per format, with the code of that format; the file of the coming format may be made again until it is released.

python tests/golden/make.py tests/golden/format-4.db
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import surefoot as sf
from surefoot.runs.life import WaitFor
from surefoot.runs.live.run import LiveRun


@sf.effect(key="golden:{order}")
async def pay(order: str) -> str:
    """Do something to the world outside."""
    return f"paid {order}"


@sf.effect(key="golden doubt:{order}")
async def doubt(order: str) -> str:
    """Do something nobody knows the outcome of; its process dies for some."""
    if order == "dies":
        os._exit(9)
    raise TimeoutError("no answer")


@sf.step
async def think(question: str) -> dict[str, str]:
    """Decide something."""
    return {"answer": question}


@sf.durable
async def golden(order: str) -> str:
    """Take one step of each common kind."""
    await think(order)
    if order == "waits":
        await sf.wait_signal("go")
    if order in ("unknown", "dies"):
        return str(await doubt(order))
    if order == "parent":
        return str(await sf.child(golden, "waits", id="child"))
    return str(await pay(order))


@sf.durable
async def golden_holder(order: str) -> str:
    """Hold something while waiting."""
    async with sf.lease("golden thing"):
        await sf.wait_signal("go")
        return str(await pay(order))


@sf.durable(concurrency_per_key=1)
async def golden_limited(order: str) -> str:
    """Wait for a turn before the first step."""
    return str(await pay(order))


ORDERS: sf.Topic[dict[str, str]] = sf.Topic("golden-orders", dict)


def act_on_orders(shipped: list[str], *, is_mended: bool = True) -> None:
    """Let this process act on events, and note them; until it is mended, an odd one is a dead letter."""

    @sf.on(ORDERS, group="golden", since="beginning")
    async def golden_ships(order: dict[str, str]) -> str:
        if order["number"] == "odd" and not is_mended:
            raise ValueError("an odd number")
        shipped.append(order["number"])
        return str(await pay(order["number"]))


WAITS = {"waits": WaitFor.SIGNAL, "unknown": WaitFor.DOUBT, "parent": WaitFor.CHILD, "holds": WaitFor.SIGNAL}
"""Runs that are open in the file, and what they wait for. One more, "dies", is running, its process dead in an act; of
"first", "second" and "later" one is due, one waits for its turn and one for its time. One event is a dead letter, and one
nobody has seen."""


async def die(url: str) -> None:
    """Leave a run and a claim behind, as a killed process does."""
    act_on_orders([], is_mended=False)
    async with sf.Surefoot(url, name="killed") as app:
        await (await app.start(golden, "dies", id="dies")).result()


async def main(target: Path) -> None:
    """Write the file."""
    assert LiveRun.wait.__kwdefaults__ is not None
    LiveRun.wait.__kwdefaults__["grace_s"] = 0.05
    act_on_orders([], is_mended=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agents.db"
        url = f"sqlite:///{path}"
        async with sf.Surefoot(url, name="golden") as app:
            await (await app.start(golden, "done", id="done")).result()
            for order, wanted in WAITS.items():
                run = await app.start(golden_holder if order == "holds" else golden, order, id=order)
                while (await run.status()).waiting_for != wanted.value:
                    await asyncio.sleep(0.01)
            await ORDERS.publish({"number": "odd"}, id="odd")
            while not await app.dead_letters():
                await asyncio.sleep(0.01)
        ended = await asyncio.to_thread(subprocess.run, [sys.executable, __file__, "--die", url], check=False)
        assert ended.returncode == 9, "the process was to die in its act"
        async with sf.Surefoot(url, name="golden", is_worker=False) as app:  # it writes the log of the killed one back
            await ORDERS.publish({"number": "even"}, id="even")
            for order in ("first", "second"):
                await app.start(golden_limited, order, id=order, key="ann")
            await app.start(golden_limited, "later", id="later", key="bob", delay="1s")
        target.write_bytes(path.read_bytes())


if __name__ == "__main__":
    asyncio.run(die(sys.argv[2]) if sys.argv[1] == "--die" else main(Path(sys.argv[1])))
