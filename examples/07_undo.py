"""Undo: a trip fails half way, and what was booked is given back, the last booking first."""

import asyncio
import tempfile

import surefoot as sf


@sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
async def cancel_booking(what: str, outcome: str) -> None:
    print(f"  cancel {what} ({outcome})")


@sf.effect(key="book:{trip}:{what}", compensate=cancel_booking, in_doubt=sf.Resend(key_ttl="24h"))
async def book(trip: str, what: str) -> str:
    if what == "hotel":
        raise sf.NotDone("no room left")
    print(f"  book {what}")
    return f"ref-{what}"


@sf.durable
async def travel(trip: str) -> str:
    for what in ("train", "flight", "hotel"):
        await book(trip, what)
    return "have a nice trip"


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(travel, "rome", id="rome")
        try:
            await run.result(timeout_s=10)
        except sf.RunFailed as failed:
            print(failed.error)
        undo = await run.undo("no hotel, no trip")  # a run of its own, which survives crashes too
        print(await undo.result(timeout_s=10))
        print(await book("rome", "train"))  # undone: the key may act again


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

#   book train
#   book flight
# no room left
#   cancel flight (ref-flight)
#   cancel train (ref-train)
# ['book:rome:flight', 'book:rome:train']
#   book train
# ref-train
