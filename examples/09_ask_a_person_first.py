"""Payments above 100 wait for somebody in finance. The run holds no memory meanwhile; who said yes, and why, is kept."""

import asyncio
import contextlib
import subprocess
import sys
import tempfile

import surefoot as sf

RULES = sf.People({"anna": ["finance"], "bob": []})


@sf.effect(key="pay:{invoice}", approve=sf.Approve(by="finance", deadline="4h", when=lambda amount: amount > 100))
async def pay(invoice: str, amount: int) -> str:
    return f"paid {amount} for {invoice}"


@sf.durable
async def settle(invoice: str, amount: int) -> str:
    outcome = await pay.outcome(invoice, amount)
    return str(outcome.value or f"{outcome.told}: {outcome.reason}")


def surefoot(*words: str) -> str:
    """Run a command as a person would in a terminal."""
    done = subprocess.run([sys.executable, "-m", "surefoot", *words], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


async def main(url: str) -> None:
    async with sf.Surefoot(url, people=RULES) as app:
        small = await app.start(settle, "I-1", 50, id="invoice-1")
        print(await small.result(timeout_s=10))

        big, wrong = [await app.start(settle, invoice, 900, id=invoice) for invoice in ("I-2", "I-3")]
        while len(asked := await app.approvals()) < 2:
            with contextlib.suppress(TimeoutError):
                await wrong.result(timeout_s=0.1)
        ids = {one.key: str(one.id) for one in asked}

        store = ("--store", url)
        tried = ("approve", ids["pay:I-2"], "--by", "bob", "--reason", "looks good", *store)
        print(await asyncio.to_thread(surefoot, *tried))
        await asyncio.to_thread(surefoot, "approve", ids["pay:I-2"], "--by", "anna", "--reason", "as agreed", *store)
        await asyncio.to_thread(surefoot, "deny", ids["pay:I-3"], "--by", "anna", "--reason", "paid last week", *store)
        print(await big.result(timeout_s=30))
        print((await wrong.result(timeout_s=30)).partition("was ")[2])


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# paid 50 for I-1
# error: bob may not approve this: it needs finance
# paid 900 for I-2
# denied by anna: paid last week
