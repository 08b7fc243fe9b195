"""What the soak's workers do: one kind of run for each way a run can live, and an effect of each class of doubt.

Served by `surefoot worker tests.soak.work:app`. Where the store and the books are is said by SOAK_DIRECTORY. Every run of
number n owes the books exactly the keys that `owed(kind, n)` lists, each once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.soak.books import Books

import surefoot as sf

DIRECTORY = Path(os.environ.get("SOAK_DIRECTORY", "."))
URL = f"sqlite:///{DIRECTORY}/agents.db"
CHILDREN = 4
LONGEST_ACT_S = 0.03
LOST_ANSWERS = 0.05
"""Of this part of the acts nobody hears that they were done."""

app = sf.Surefoot(URL)
_chance = Random()


@cache
def books() -> Books:
    """Return this process's connection to the books; used by its event loop's thread only."""
    return Books(DIRECTORY / "books.db")


async def _some_time() -> None:
    await asyncio.sleep(_chance.uniform(0, LONGEST_ACT_S))


async def _act(key: str, *, honours_keys: bool) -> int:
    await _some_time()
    row = books().act_once(key) if honours_keys else books().act(key)
    await _some_time()
    if _chance.random() < LOST_ANSWERS:
        raise TimeoutError("the answer got lost")
    return row


@sf.step
async def decide(about: str) -> str:
    """Take a decision of a model's size."""
    await _some_time()
    return f"{about}: " + "because " * 100


@sf.effect(key="paid:{key}", in_doubt=sf.Resend())
async def pay(key: str) -> int:
    """An effect of a service that honours keys."""
    return await _act(key, honours_keys=True)


async def _find(key: str) -> sf.Landed | sf.NotLanded:
    row = books().find(key)
    return sf.NotLanded() if row is None else sf.Landed(row)


@sf.effect(key="posted:{key}", in_doubt=sf.Probe(_find, longest_life="200ms"))
async def post(key: str) -> int:
    """An effect of a service that can be asked."""
    return await _act(key, honours_keys=False)


@sf.effect(key="told:{key}")
async def tell(key: str) -> int:
    """An effect of a service that offers nothing: a person looks into the books."""
    return await _act(key, honours_keys=False)


@sf.read
async def look(key: str) -> int | None:
    """A read."""
    return books().find(key)


@sf.durable(name="soak steps")
async def steps(n: int) -> int:
    """Decide and act, several times."""
    for turn in range(3):
        await decide(f"run {n}, turn {turn}")
        await pay(f"steps {n} pay {turn}")
    await look(f"steps {n} pay 0")
    return await post(f"steps {n} post")


@sf.durable(name="soak parallel")
async def parallel(n: int) -> int:
    """Act several times at once."""

    async def too() -> int:
        async with sf.branch("too"):
            return await pay(f"parallel {n} too")

    return sum(await asyncio.gather(pay(f"parallel {n} pay"), post(f"parallel {n} post"), too()))


@sf.durable(name="soak doubts")
async def doubts(n: int) -> int:
    """Act where only a person can end a doubt; what was not done is asked for again."""
    while True:
        try:
            return await tell(f"doubts {n} tell")
        except sf.NotDone:
            await decide(f"run {n}: once more")


@sf.durable(name="soak sleeps")
async def sleeps(n: int) -> int:
    """Wait for a timer, evicted."""
    await sf.sleep(1 + n // len(KINDS) % 20)
    return await pay(f"sleeps {n} pay")


@sf.durable(name="soak waits")
async def waits(n: int) -> int:
    """Wait for a signal, evicted."""
    answer: str | None = await sf.wait_signal("go", str, timeout="1h")
    assert answer == f"go {n}", answer
    return await pay(f"waits {n} pay")


@sf.durable(name="child of the soak")
async def one_child(n: int, nth: int) -> int:
    """One child."""
    return await post(f"family {n} child {nth}")


@sf.durable(name="soak family")
async def family(n: int) -> int:
    """Start children and wait for them."""
    return sum(await asyncio.gather(*(sf.child(one_child, n, nth, key=str(nth)) for nth in range(CHILDREN))))


def _scripted(messages: Sequence[ModelMessage], info: AgentInfo) -> ModelResponse:
    prompt = str(messages[0].parts[-1].content)  # type: ignore[union-attr]  # the user's prompt
    told = sum(isinstance(part, ToolReturnPart) for message in messages for part in message.parts)
    if told == 0:
        return ModelResponse(
            [ToolCallPart("pay", {"key": f"{prompt} pay"}), ToolCallPart("post", {"key": f"{prompt} post"})]
        )
    if told == 2:
        return ModelResponse([ToolCallPart("pay", {"key": f"{prompt} more"})])
    return ModelResponse([TextPart(f"{told} things done")])


agent = app.agent(Agent(FunctionModel(_scripted), name="soak clerk", tools=[pay, post]))

FUNCTIONS = {"steps": steps, "parallel": parallel, "doubts": doubts, "sleeps": sleeps, "waits": waits, "family": family}

OWED = {
    "steps": ("pay 0", "pay 1", "pay 2", "post"),
    "parallel": ("pay", "post", "too"),
    "doubts": ("tell",),
    "sleeps": ("pay",),
    "waits": ("pay",),
    "family": tuple(f"child {nth}" for nth in range(CHILDREN)),
    "agent": ("pay", "post", "more"),
}
"""What each kind of run owes the books."""

KINDS = tuple(OWED)


def kind_of(n: int) -> str:
    """Return the kind of run number n."""
    return KINDS[n % len(KINDS)]


def owed(n: int) -> list[str]:
    """Return the keys that run number n owes."""
    return [f"{kind_of(n)} {n} {what}" for what in OWED[kind_of(n)]]
