"""A saga: a trip is booked all together or not at all; a lost answer is found out before anything is given back."""

import asyncio
import tempfile

import surefoot as sf


@sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
async def cancel_booking(what: str, outcome: str) -> None:
    print(f"  cancel {what} ({outcome})")


@sf.effect(key="book:{what}", compensate=cancel_booking, in_doubt=sf.Resend(key_ttl="24h"))
async def book(what: str) -> str:
    if what == "hotel":
        raise sf.NotDone("no room left")
    effect = sf.current_effect()
    print(f"  book {what}, attempt {effect.attempt}")
    if what == "flight" and effect.attempt == 1:
        raise ConnectionError("the answer was lost")  # booked or not? the same key again tells
    return f"ref-{what}"


@sf.durable
async def travel() -> str:
    try:
        async with sf.saga("trip") as trip:
            for what in ("train", "flight", "hotel"):
                await book(what)
    except sf.NotDone as error:
        return f"stay at home: {error}; undone: {', '.join(trip.undone)}"
    return "have a nice trip"


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(travel, id="rome")
        print(await run.result(timeout_s=30))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

#   book train, attempt 1
#   book flight, attempt 1
#   book flight, attempt 2
#   cancel flight (ref-flight)
#   cancel train (ref-train)
# stay at home: no room left; undone: book:flight, book:train
