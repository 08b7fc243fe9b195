"""A service that stands three callers at a time, whichever processes they are in."""

import asyncio
import tempfile

import surefoot as sf

inside: set[int] = set()
most: list[int] = []


async def call(number: int) -> int:
    async with sf.semaphore("crm", limit=3, timeout="1m"):
        inside.add(number)
        most.append(len(inside))
        await asyncio.sleep(0.01)
        inside.remove(number)
    return number


async def main(url: str) -> None:
    async with sf.Surefoot(url):
        done = await asyncio.gather(*(call(number) for number in range(12)))
    print(len(done), "calls, at most", max(most), "at a time")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# 12 calls, at most 3 at a time
