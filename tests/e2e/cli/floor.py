"""A shop floor for the command line's tests: its world is a file of lines, its tools can be held up.

Everything lies in the current directory: `world` has a line for each act that reached the world; while `hold` exists, acts
and steps that have begun do not end.
"""

import asyncio
import os
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import surefoot as sf

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31m[bold red]refunded[/] \u202etxt\u2066 \x9b31m\x7f [link=http://x.example]x[/link]"
)
"""What a tool might bring back from the web."""


def note(line: str) -> None:
    with Path("world").open("a") as world:
        world.write(f"{line}\n")


async def held() -> None:
    while Path("hold").exists():
        await asyncio.sleep(0.01)


@sf.effect(key="post:{order}", free_text=("words",))
async def post(order: str, words: str = "") -> str:
    note(f"posted {order}")
    await held()
    return f"posted {order}"


@sf.effect(key="stamp:{order}")
def stamp(order: str) -> str:
    note(f"stamped {order}")
    while Path("hold").exists():
        threading.Event().wait(0.01)
    return f"stamped {order}"


@sf.effect(key="take back:{order}", in_doubt=sf.Resend())
async def take_back(order: str, outcome: str) -> None:
    await held()
    note(f"took back {order}: {outcome}")


@sf.effect(key="send:{order}", compensate=take_back)
async def send(order: str) -> str:
    note(f"sent {order}")
    return f"parcel {order}"


@sf.effect(key="label:{order}")
async def label(order: str) -> str:
    return HOSTILE


class Receipt(BaseModel):
    number: int


@sf.effect(key="bill:{order}")
async def bill(order: str) -> Receipt:
    raise TimeoutError("no answer")


@sf.effect(key="pay:{order}")
async def pay(order: str) -> str:
    raise TimeoutError(f"no answer {HOSTILE}")


@sf.effect(key="call:{order}", in_doubt=sf.AskPerson(deadline="1ms"))
async def call(order: str) -> str:
    raise TimeoutError("no answer")


@sf.effect(key="wire:{order}", approve=sf.Approve(by="finance", when=lambda amount: amount > 100), redact=("iban",))
async def wire(order: str, amount: int, iban: str = "DE02 1203", api_key: str = "hunter2") -> str:
    note(f"wired {order} {amount}")
    return f"wired with sk-live-{'a' * 24}"


@sf.effect(key="secret:{order}", redact=("return", "code"))
async def fetch(order: str, code: int = 4711) -> dict[str, str]:
    return {"plain": f"vault {order}"}


@sf.durable
async def wire_parcel(order: str, amount: int = 500) -> str:
    return await wire(order, amount)


@sf.durable
async def fetch_parcel(order: str, password: str = "hunter2") -> int:
    return len(await fetch(order))


@sf.step
async def plan(order: str) -> dict[str, Any]:
    note(f"planned {order} {os.getpid()}")
    await held()
    return {"order": order, "long": "x" * 5_000}


@sf.durable
async def send_parcel(order: str, amount: Decimal = Decimal("1.50"), tags: list[str] | None = None) -> str:
    print("a print of the user's code is no data")
    return await post(order, words=f"{amount} {tags}")


@sf.durable
async def keep_parcel(order: str) -> str:
    await sf.sleep("1h")
    return order


@sf.durable
async def stamp_parcel(order: str) -> str:
    return await sf.in_thread(stamp, order)


@sf.durable
async def label_parcel(order: str) -> str:
    return str(await label.keyed(HOSTILE)(order))


@sf.durable
async def pay_parcel(order: str) -> str:
    return await pay(order)


@sf.durable
async def bill_parcel(order: str) -> int:
    return (await bill(order)).number


@sf.durable
async def send_two(order: str) -> str:
    return f"{await send(order + '-1')}, {await send(order + '-2')}"


@sf.durable
async def call_parcel(order: str) -> str:
    return await call(order)


@sf.durable
async def plan_parcel(order: str) -> str:
    return str((await plan(order))["order"])


@sf.durable
async def ask_parcel(order: str) -> Any:
    return [order, await sf.wait_signal("approve")]


@sf.durable
async def break_parcel(order: str) -> str:
    raise ValueError(f"{HOSTILE} {order}")


@sf.durable
async def change_parcel(order: str) -> str:
    """Takes another step once the file `changed` exists."""
    await (sf.uuid() if Path("changed").exists() else sf.random())
    return str(await sf.wait_signal("go"))
