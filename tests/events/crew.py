"""A worker process: `python -m tests.events.crew URL FOLDER NAME PLACES`. The folder is a service that honours keys.

It serves one group of the topic `work`. An act makes a file of its key's name, once, and a line in `log`. Each request is a
line in `requests`: who sent it, for which event, and how many milliseconds after that was published; each try of an act one
in `acts`.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import surefoot as sf

WORK: sf.Topic[dict[str, Any]] = sf.Topic("work", dict)
world, me = Path(), ""


@sf.effect(key="act:{number}", in_doubt=sf.Resend(key_ttl="24h"))
async def act(number: int, about: str) -> None:
    """Do something in the world, once per key; it takes a moment."""
    with (world / "acts").open("a") as acts:
        acts.write(f"{me} {number}\n")
    await asyncio.sleep(0.005)
    try:
        os.close(os.open(world / "done" / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    with (world / "log").open("a") as log:
        log.write(f"{about} {number}\n")


async def work(said: dict[str, Any], event: sf.Event) -> None:
    """Act on an event."""
    wait_ms = time.time_ns() // 1_000_000 - event.at_ms
    with (world / "requests").open("a") as requests:
        requests.write(f"{me} {said['number']} {wait_ms}\n")
    await act(said["number"], event.key or "-")


async def main(url: str, folder: str, name: str, places: int) -> None:
    """Execute runs until told to stop; then say what it took."""
    global world, me
    world, me = Path(folder), name
    sf.on(WORK, group="crew", since="beginning")(work)  # here: whoever imports this serves nothing
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with sf.Surefoot(url, name=name, concurrency=places) as app:
        takes = 0
        take = app.worker.claiming._take

        async def counted(*arguments: Any) -> Any:
            nonlocal takes
            takes += 1
            return await take(*arguments)

        app.worker.claiming._take = counted  # type: ignore[method-assign, assignment]  # is counted
        print("ready", flush=True)
        await stop.wait()
        syncs = app.store.writer.syncs
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"takes": takes, "commits": syncs, "cpu_s": used.ru_utime + used.ru_stime}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
