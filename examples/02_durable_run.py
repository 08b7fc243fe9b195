"""A run survives kill -9: a worker is killed in the middle of it, a second one goes on where it stood."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import surefoot as sf


@sf.step
async def decide(question: str) -> str:
    print(f"  deciding: {question}", flush=True)
    return "blue"


@sf.effect(in_doubt=sf.Resend(key_ttl="24h"))  # the paint shop dedupes on our key
async def paint(colour: str) -> str:
    print(f"  painting {colour}", flush=True)
    if os.environ["WORKER"] == "first":
        os.kill(os.getpid(), signal.SIGKILL)  # after the act, before its outcome is recorded: the worst moment
    return f"painted {colour}"


@sf.durable
async def decorate(room: str) -> str:
    colour = await decide(f"which colour for the {room}?")
    return await paint(colour)


async def work(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(decorate, "kitchen", id="kitchen-1")  # the same id is the same run
        print("  result:", await run.result(timeout_s=30), flush=True)


if len(sys.argv) > 1:
    asyncio.run(work(sys.argv[1]))
else:
    with tempfile.TemporaryDirectory() as folder:
        for worker in ("first", "second"):
            print(f"{worker} worker", flush=True)
            command = [sys.executable, str(Path(__file__)), f"sqlite:///{folder}/agents.db"]
            done = subprocess.run(command, env={**os.environ, "WORKER": worker}, check=False)
            print("  killed" if done.returncode == -signal.SIGKILL else "  ended", flush=True)

# first worker
#   deciding: which colour for the kitchen?
#   painting blue
#   killed
# second worker
#   painting blue
#   result: painted blue
#   ended
