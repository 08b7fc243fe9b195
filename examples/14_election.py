"""A report that one of many makes: the leader; the others stand by, and one of them goes on when it is gone."""

import asyncio
import tempfile

import surefoot as sf


async def report(name: str, said: list[str]) -> None:
    async with sf.elect("nightly-report") as term:
        said.append(f"{name} leads, above all terms before: {term.token > max(TERMS, default=0)}")
        TERMS.append(term.token)
        await asyncio.sleep(0.05)  # were it lost meanwhile, LeaseLost would come out of this block


TERMS: list[int] = []


async def main(url: str) -> None:
    said: list[str] = []
    async with sf.Surefoot(url):
        first = asyncio.create_task(report("first", said))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(report("second", said))
        try:
            async with sf.elect("nightly-report", timeout=0):  # not at all interested in standing by
                raise AssertionError
        except sf.ResourceBusy:
            said.append("somebody leads already")
        await asyncio.gather(first, second)
    print("\n".join(said))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# first leads, above all terms before: True
# somebody leads already
# second leads, above all terms before: True
