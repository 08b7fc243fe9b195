"""An effect, guarded, with no run and no agent around it: a web handler or a script can use just this."""

import asyncio
import tempfile
from decimal import Decimal

import surefoot as sf

SHOP: list[str] = []  # the world outside


@sf.effect(key="refund:{order_id}", free_text=("reason",), in_doubt=sf.Resend(key_ttl="24h"))
async def refund(order_id: str, amount: Decimal, reason: str) -> str:
    SHOP.append(sf.current_effect().idempotency_key)  # what a real call would send along
    if len(SHOP) == 1:
        raise TimeoutError("no answer from the shop")  # unknown: it may have been acted on
    return f"receipt for {order_id}: {amount}"


async def main(url: str) -> None:
    async with sf.Surefoot(url):
        print(await refund("A-4411", Decimal("12.50"), "arrived broken"))
        print("requests:", len(SHOP), "keys:", len(set(SHOP)))  # sent twice, under one key: the shop can tell

        again = await refund.outcome("A-4411", Decimal("12.5"), "it was in pieces")
        print(again.told, "|", again.value)
        print("requests:", len(SHOP))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# receipt for A-4411: 12.50
# requests: 2 keys: 1
# repeated | receipt for A-4411: 12.50
# requests: 2
