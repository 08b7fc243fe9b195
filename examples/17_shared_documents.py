"""A plan that several agents write: each write says what it was decided on, so none is lost."""

import asyncio
import tempfile

import surefoot as sf

plan = sf.document("plan/7", list[str])


@sf.durable
async def planner(name: str) -> int:
    tries = 0
    while True:
        tries += 1
        seen = await plan.read()
        await asyncio.sleep(0.02)  # decides
        try:
            await plan.write([*(seen.value or []), name], seen)
        except sf.Stale:  # .difference says what another has written
            continue
        return tries


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        runs = [await app.start(planner, name, id=name) for name in ("ann", "bob", "eve")]
        tries = [await run.result(timeout_s=10) for run in runs]
        seen = await plan.read(consistency="available")  # also when the store doesn't answer
        print(sorted(seen.value), "in version", seen.version)
        print("decided again:", sum(tries) - 3 > 0)


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# ['ann', 'bob', 'eve'] in version 3
# decided again: True
