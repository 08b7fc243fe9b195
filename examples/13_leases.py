"""Two agents, one order: the runtime holds it around each act, and the service refuses whoever comes with an old token."""

import asyncio
import tempfile

import surefoot as sf

SEEN: dict[str, int] = {}  # the service's: the highest token of each order
ORDERS = {"7": ["bought"]}


def put(order: str, what: str, token: int) -> None:
    if token < SEEN.get(order, 0):
        raise sf.NotDone(f"refused: token {token % 2**40} is behind {SEEN[order] % 2**40}")
    SEEN[order] = token
    ORDERS[order].append(what)


@sf.effect(key="{what}:{order}", resource="order/{order}")  # the model knows nothing of this
async def change(order: str, what: str) -> None:
    before = list(ORDERS[order])
    await asyncio.sleep(0.05)  # nobody else changes it meanwhile
    assert ORDERS[order] == before
    put(order, what, sf.current_effect().token)


async def main(url: str) -> None:
    async with sf.Surefoot(url):
        await asyncio.gather(change("7", "refund"), change("7", "coupon"))
        print(sorted(ORDERS["7"]))
        async with sf.lease("order/7", "customer/3") as lease:  # several are taken together, or not at all
            old = lease.token
            await change("7", "note")  # under this lease: it is not asked for again
            print("held:", lease.is_held, *lease.resources)
        async with sf.lease("order/7") as lease:
            put("7", "letter", lease.token)
            try:
                put("7", "late", old)  # as a process would that was stopped for too long
            except sf.NotDone as refused:
                print(refused)

            async def ask() -> None:
                async with sf.lease("order/7", timeout=0.1):
                    raise AssertionError

            try:
                await asyncio.create_task(ask())
            except sf.ResourceBusy as busy:
                print(busy.message.partition("; ")[2].partition(" by ")[0])


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# ['bought', 'coupon', 'refund']
# held: True customer/3 order/7
# refused: token 4 is behind 5
# held: order/7
