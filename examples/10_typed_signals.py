"""A signal with a type: what the run could not take is refused where it is sent, and nothing is sent."""

import asyncio
import tempfile
from dataclasses import dataclass

import surefoot as sf


@dataclass
class Answer:
    is_agreed: bool
    amount: int


ANSWER: sf.Signal[Answer] = sf.Signal("answer", Answer)


@sf.durable(signals=[ANSWER])
async def invoice(number: str) -> str:
    answer = await sf.wait_signal(ANSWER, timeout="24h")
    if answer is None or not answer.is_agreed:
        return "not paid"
    return f"{number}: {answer.amount} agreed"


async def main(url: str) -> None:
    async with sf.Surefoot(url) as app:
        run = await app.start(invoice, "7", id="invoice-7")
        for name, payload in (("anser", {}), ("answer", {"is_agreed": True})):
            try:
                await run.signal(name, payload)
            except sf.SignalRefused as error:
                print(str(error).splitlines()[0])
        await run.signal(ANSWER, Answer(is_agreed=True, amount=250), by="ann", dedupe="ann's click")
        print(await run.result(timeout_s=30))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

# run invoice-7 takes no signal 'anser'
# signal answer to run invoice-7: amount: Field required
# 7: 250 agreed
