"""A run waits for a signal with a time limit, and for a timer; both survive a restart of the process."""

import asyncio
import tempfile

import surefoot as sf


@sf.durable
async def approve(amount: int) -> str:
    answer = await sf.wait_signal("approval", str, timeout="24h")
    if answer is None:
        return "nobody answered"
    await sf.sleep("300ms")  # a crash doesn't start it anew
    return f"{amount}: {answer}"


@sf.durable
async def impatient() -> str | None:
    answer: str | None = await sf.wait_signal("approval", str, timeout="50ms")
    return answer


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        await app.start(approve, 250, id="invoice-7")

    async with sf.Surefoot(url) as app:  # "the next day", in what could be another process
        run = await app.run("invoice-7")
        for _ in range(2):
            print("new:", await run.signal("approval", "yes", by="ann", dedupe="ann's click"))
        print(await run.result(timeout_s=10))
        print(await (await app.start(impatient, id="invoice-8")).result(timeout_s=10))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# new: True
# new: False
# 250: yes
# None
