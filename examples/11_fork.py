"""A fork: what would another decision have done? Recorded outcomes answer; what nobody has done is not done."""

import asyncio
import tempfile

import surefoot as sf

policy = {"limit": 100}


@sf.step
async def decide(amount: int) -> str:
    return "refund" if amount <= policy["limit"] else "ask"


@sf.effect(key="refund:{order}", in_doubt=sf.Resend(key_ttl="24h"))
async def refund(order: str) -> str:
    print("  refunded for real")
    return f"refunded {order}"


@sf.effect(key="ask:{order}", in_doubt=sf.Resend(key_ttl="24h"))
async def ask(order: str) -> str:
    print("  asked for real")
    return "asked"


@sf.durable
async def handle(order: str, amount: int) -> str:
    return await (refund(order) if await decide(amount) == "refund" else ask(order))


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(handle, "A-1", 80, id="ticket")
        print(await run.result(timeout_s=30))
        same = await run.fork("decide", id="ticket, same policy")
        print(await same.result(timeout_s=30), "in", same.kind)
        policy["limit"] = 50
        other = await run.fork("decide", id="ticket, new policy")
        while (status := await other.status()).state != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        print(status.reason.splitlines()[0])


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

#   refunded for real
# refunded A-1
# refunded A-1 in simulated handle
# simulated: run ticket, new policy would do ask({"order":"A-1"}), key ask:A-1; no outcome of it is recorded
