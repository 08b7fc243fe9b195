"""What a key means: one act, its first outcome for whoever asks again, and a conflict for other values."""

import asyncio
import tempfile

import surefoot as sf


class OutOfStock(Exception):
    """The warehouse's own refusal."""


STOCK = {"mug": 0}


@sf.effect(key="ship:{order}", free_text=("note",), refused_on=(OutOfStock,))
async def ship(order: str, item: str, note: str = "") -> str:
    if not STOCK[item]:
        raise OutOfStock(item)
    return f"parcel of {order}"


@sf.effect(key="remind:{customer}", occurrence="day")
async def remind(customer: str, day: str) -> str:
    return f"reminded {customer} on {day}"


async def main(url: str) -> None:
    async with sf.Surefoot(url):
        print(await ship.outcome("A-1", "mug"))  # refused: known not to have happened, so the key is free again
        STOCK["mug"] = 5
        print(await ship("A-1", "mug"))
        print((await ship.outcome("A-1", "mug", note="please hurry")).told)
        try:
            await ship("A-1", "lamp")
        except sf.KeyConflict as conflict:
            print(conflict.outcome.reason)

        for day in ("monday", "monday", "tuesday"):  # repetition on purpose comes from a parameter
            print((await remind.outcome("ann", day)).told)


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# Outcome(told='not_done', value=None, reason='refused by the service: OutOfStock: mug', effect=1, detail=None, is_forgotten=False)
# parcel of A-1
# repeated
# key 'ship:A-1' was used with other values: item='lamp' (recorded 'mug')
# done
# repeated
# done
