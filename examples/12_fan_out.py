"""A fan-out: five hundred children of one run, each with a life of its own; one of them fails."""

import asyncio
import tempfile

import surefoot as sf


@sf.durable
async def check(number: int) -> int:
    if number == 13:
        raise ValueError("unlucky")
    return number


@sf.durable
async def check_all(count: int) -> str:
    total, failed = 0, []
    children = [sf.child(check, number, key=str(number)) for number in range(count)]
    for one in asyncio.as_completed(children):
        try:
            total += await one
        except sf.StepFailed as error:  # as the child ended, with its own error
            failed.append(f"{error.step}: {error.error_type}: {error.error}")
    return f"{total}; failed: {failed}"


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(check_all, 500, id="all")
        print(await run.result(timeout_s=120))
        print(len(await app.runs(kind="check", limit=1_000)), "children")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# 124737; failed: ['check[13]: ValueError: unlucky']
# 500 children
