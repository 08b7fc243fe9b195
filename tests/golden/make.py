"""Makes a golden file: a store as a released format leaves it on disk. Run once per format, with the code of that format.

python tests/golden/make.py tests/golden/format-1.db
"""

from __future__ import annotations

import asyncio
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
    return str(await pay(order))


async def main(target: Path) -> None:
    """Write the file."""
    assert LiveRun.wait.__kwdefaults__ is not None
    LiveRun.wait.__kwdefaults__["grace_s"] = 0.05
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agents.db"
        async with sf.Surefoot(f"sqlite:///{path}", name="golden") as app:
            await (await app.start(golden, "done", id="done")).result()
            waits = await app.start(golden, "waits", id="waits")
            while (await waits.status()).waiting_for != WaitFor.SIGNAL.value:
                await asyncio.sleep(0.01)
        target.write_bytes(path.read_bytes())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
