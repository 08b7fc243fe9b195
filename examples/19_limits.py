"""Limits: two runs of a kind at a time, one of each customer, the urgent ones first, and one not before its time."""

import asyncio
import tempfile

import surefoot as sf

going_on, at_a_time, order = set[str](), [0], list[str]()


@sf.durable(concurrency=2, concurrency_per_key=1)
async def serve(customer: str, what: str) -> None:
    assert customer not in going_on
    going_on.add(customer)
    at_a_time.append(len(going_on))
    await asyncio.sleep(0.01)
    order.append(f"{customer} {what}")
    going_on.discard(customer)


async def main(url: str) -> None:
    async with sf.Surefoot(url, is_worker=False) as app:  # what comes in while no worker is there
        for number, what in enumerate(["asks", "asks again", "gives up"]):
            await app.start(serve, "ann", what, id=f"ann {number}", key="ann")
        await app.start(serve, "bob", "waits", id="bob", key="bob", priority=5)
        await app.start(serve, "eve", "is on fire", id="eve", key="eve", priority=1)
        await app.start(serve, "joe", "comes later", id="joe", key="joe", delay="500ms")
        print({row.run_id: row.state.name.lower() for row in await app.runs() if row.state.name != "PENDING"})

    async with sf.Surefoot(url) as app:
        for run in await app.runs():
            await (await app.run(run.run_id)).result(timeout_s=10)
    print(max(at_a_time), "at a time; first", order[0], "and last", order[-1])
    print([one for one in order if one.startswith("ann")])


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# {'joe': 'scheduled', 'ann 2': 'queued', 'ann 1': 'queued'}
# 2 at a time; first eve is on fire and last joe comes later
# ['ann asks', 'ann asks again', 'ann gives up']
