"""Events: each group acts once on an order, and what it could not act on finds its way back."""

import asyncio
import tempfile
from typing import Any

import surefoot as sf

ORDERS: sf.Topic[dict[str, Any]] = sf.Topic("orders", dict)
limits, mails = [100], list[str]()


@sf.on(ORDERS, group="fraud", since="beginning")
async def check(order: dict[str, Any]) -> None:
    if order["amount"] > limits[-1]:
        raise ValueError(f"no rule for {order['amount']}")
    print("checked", order["number"])


@sf.on(ORDERS, group="mail", since="beginning", concurrency=5)
async def confirm(order: dict[str, Any], about: sf.Event) -> None:
    mails.append(about.id)


@sf.durable
async def sell(number: str, amount: int) -> None:
    await ORDERS.publish(
        {"number": number, "amount": amount}, key=number
    )  # part of the run: a replay publishes it once


async def settled(app: sf.Surefoot) -> None:
    while any(group.behind or group.started for group in await app.groups()):  # noqa: ASYNC110  maybe elsewhere
        await asyncio.sleep(0.01)


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        for _ in range(2):  # a webhook that is delivered twice
            await ORDERS.publish({"number": "A-1", "amount": 12}, id="shop/1", key="A-1")
        await (await app.start(sell, "A-2", 999, id="sale 2")).result()
        await settled(app)
        (letter,) = await app.dead_letters()
        print(sorted(mails))
        print(f"group {letter.group}, {letter.id}: {letter.reason}")
        limits.append(1_000)
        await app.redeliver(letter.event, group="fraud", by="ann", reason="there is a rule now")
        await settled(app)


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# checked A-1
# ['sale 2/publish orders[A-2]', 'shop/1']
# group fraud, sale 2/publish orders[A-2]: ValueError: no rule for 999
# checked A-2
