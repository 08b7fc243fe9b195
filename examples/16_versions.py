"""Read, decide, act: what has changed in between is told with its difference, and nothing is sent."""

import asyncio
import tempfile

import surefoot as sf

ORDER = {"status": "open", "amount": 40, "etag": "v1"}  # the service's
SENT: list[object] = []


@sf.versioned("order/{order_id}", version="etag")
async def get_order(order_id: str) -> dict[str, object]:
    return dict(ORDER)


@sf.effect(key="refund:{order_id}", match=(), unchanged="order/{order_id}")
async def refund(order_id: str, amount: int) -> str:
    SENT.append((amount, sf.current_effect().versions))  # send it as If-Match: it closes the gap that is left
    return f"refunded {amount}"


@sf.durable
async def support(order_id: str) -> list[str]:
    said = []
    unread = await refund.outcome(order_id, 40)
    said.append(f"{unread.told}: {unread.reason}")
    order = await get_order(order_id)
    ORDER.update(amount=15, etag="v2")  # another agent, meanwhile
    stale = await refund.outcome(order_id, order["amount"])
    said += [f"{stale.told}: {change}" for change in stale.detail["changes"]]
    order = await get_order(order_id)
    said.append(await refund(order_id, order["amount"]))
    return said


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(support, "7", id="ticket-1")
        print("\n".join(await run.result(timeout_s=10)))
        print("sent:", SENT)


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# stale: order/7 was not read in this run: read it first, then decide
# stale: {'path': 'amount', 'read': 40, 'now': 15}
# stale: {'path': 'etag', 'read': 'v1', 'now': 'v2'}
# refunded 15
# sent: [(15, {'order/7': 'v2'})]
