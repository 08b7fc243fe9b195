"""Makes a golden file: a store as a format leaves it on disk, with open runs and open effects.

Run once per format, with the code of that format; the file of the coming format may be made again until it is released.

python tests/golden/make.py tests/golden/format-2.db
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
from surefoot.runs.live import LiveRun


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


WAITS = {"waits": WaitFor.SIGNAL, "unknown": WaitFor.DOUBT, "parent": WaitFor.CHILD}
"""Runs that are open in the file, and what they wait for. One more, "dies", is running, its process dead in an act."""


async def die(url: str) -> None:
    """Leave a run and a claim behind, as a killed process does."""
    async with sf.Surefoot(url, name="killed") as app:
        await (await app.start(golden, "dies", id="dies")).result()


async def main(target: Path) -> None:
    """Write the file."""
    assert LiveRun.wait.__kwdefaults__ is not None
    LiveRun.wait.__kwdefaults__["grace_s"] = 0.05
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agents.db"
        url = f"sqlite:///{path}"
        async with sf.Surefoot(url, name="golden") as app:
            await (await app.start(golden, "done", id="done")).result()
            for order, wanted in WAITS.items():
                run = await app.start(golden, order, id=order)
                while (await run.status()).waiting_for != wanted.value:
                    await asyncio.sleep(0.01)
        ended = await asyncio.to_thread(subprocess.run, [sys.executable, __file__, "--die", url], check=False)
        assert ended.returncode == 9, "the process was to die in its act"
        async with sf.Surefoot(url, name="golden", is_worker=False):
            pass  # the last to close it writes the log of the killed one back
        target.write_bytes(path.read_bytes())


if __name__ == "__main__":
    asyncio.run(die(sys.argv[2]) if sys.argv[1] == "--die" else main(Path(sys.argv[1])))
