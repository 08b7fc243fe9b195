"""A shop, a sound agent, and six with one mistake each: what users get wrong, in the few lines in which they do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import surefoot as sf


class Shop:
    """A service that pays money back, writes letters, and dedupes only where it says so."""

    def __init__(self) -> None:
        self.refunds: list[str] = []
        self.letters: list[str] = []
        self._answers: dict[str, str] = {}

    async def refund(self, order: str) -> str:
        """Pay, each time it is asked."""
        await asyncio.sleep(0)
        self.refunds.append(order)
        return f"paid {order}"

    async def refund_once(self, order: str, key: str) -> str:
        """Pay once for a key."""
        if key not in self._answers:
            self._answers[key] = await self.refund(order)
        return self._answers[key]

    def find(self, order: str) -> bool:
        """Say whether an order was paid back."""
        return order in self.refunds

    def write(self, order: str) -> str:
        """Send a letter."""
        self.letters.append(order)
        return "sent"

    def price(self, order: str) -> int:
        """Say what an order has cost."""
        return len(order)


def paid_once(shop: Shop) -> None:
    """The invariant: nothing is paid twice, no letter goes out twice."""
    assert len(shop.refunds) <= 1, f"{len(shop.refunds)} refunds for one order"
    assert len(shop.letters) <= 1, f"{len(shop.letters)} letters for one order"


def books(shop: Shop) -> tuple[list[str], list[str]]:
    """What counts of the shop."""
    return shop.refunds, shop.letters


def scripted(*calls: ToolCallPart) -> FunctionModel:
    """A model that asks for these calls one after another, then is done."""

    def answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(one, ModelResponse) for one in messages)
        return ModelResponse([calls[turn] if turn < len(calls) else TextPart("all done")])

    return FunctionModel(answer)


REFUND = ToolCallPart("refund", {"order": "A-1"}, tool_call_id="call-1")
PRICE = ToolCallPart("price", {"order": "A-1"}, tool_call_id="call-0")


def _agent(tools: list[Callable[..., Any]], *calls: ToolCallPart) -> Agent[None, str]:
    return Agent(scripted(*calls), name="support", tools=tools)


def sound(url: str, shop: Shop) -> sf.Surefoot:
    """An agent as it should be."""

    @sf.read
    async def price(order: str) -> int:
        return shop.price(order)

    @sf.effect(key="refund:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def refund(order: str) -> str:
        return await shop.refund_once(order, sf.current_effect().idempotency_key)

    return _with_agent(url, _agent([price, refund], PRICE, REFUND))


def resends_what_is_not_deduped(url: str, shop: Shop) -> sf.Surefoot:
    """`Resend`, and the service never sees the key."""

    @sf.effect(key="refund:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def refund(order: str) -> str:
        return await shop.refund(order)

    return _with_function(url, refund)


def asks_without_a_fence(url: str, shop: Shop) -> sf.Surefoot:
    """A look-up that is believed while the first request may still be on its way."""

    async def ask(order: str) -> sf.Landed | sf.NotLanded:
        return sf.Landed(f"paid {order}") if shop.find(order) else sf.NotLanded()

    @sf.effect(key="refund:{order}", in_doubt=sf.Probe(ask, longest_life="1ms"))
    async def refund(order: str) -> str:
        return await shop.refund(order)

    return _with_function(url, refund)


def does_two_things(url: str, shop: Shop) -> sf.Surefoot:
    """Two acts in one effect, and only the first of them is deduped."""

    @sf.effect(key="refund:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def refund(order: str) -> str:
        paid = await shop.refund_once(order, sf.current_effect().idempotency_key)
        shop.write(order)
        return paid

    return _with_function(url, refund)


def remembers_in_memory(url: str, shop: Shop) -> sf.Surefoot:
    """What a step has found is kept in the process, not in what it returns."""
    found: dict[str, int] = {}

    @sf.step
    async def look(order: str) -> None:
        found[order] = shop.price(order)

    @sf.effect(key="refund:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def refund(order: str) -> str:
        return await shop.refund_once(order, sf.current_effect().idempotency_key)

    @sf.durable(name="support")
    async def support(order: str) -> int:
        await look(order)
        await refund(order)
        return found.get(order, 0)

    return sf.Surefoot(url)


def throws_dice(url: str, shop: Shop) -> sf.Surefoot:
    """Code that takes another way each time."""

    @sf.effect(key="refund:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def refund(order: str) -> str:
        return await shop.refund_once(order, sf.current_effect().idempotency_key)

    @sf.read
    async def price_on(order: str, day: float) -> int:
        return shop.price(order)

    @sf.durable(name="support")
    async def support(order: str) -> str:
        await price_on(order, random.SystemRandom().random())
        return await refund(order)

    return sf.Surefoot(url)


def calls_an_act_a_read(url: str, shop: Shop) -> sf.Surefoot:
    """A tool that acts, listed among the reads."""

    async def refund(order: str) -> str:
        return await shop.refund(order)

    return _with_agent(url, _agent([refund], REFUND), reads=["refund"])


def _with_function(url: str, refund: Callable[[str], Any]) -> sf.Surefoot:
    @sf.durable(name="support")
    async def support(order: str) -> str:
        paid: str = await refund(order)
        return paid

    return sf.Surefoot(url)


_agents: list[Any] = []


def _with_agent(url: str, agent: Agent[None, str], reads: list[str] | None = None) -> sf.Surefoot:
    app = sf.Surefoot(url)
    _agents[:] = [app.agent(agent, reads=reads or [])]
    return app


async def start_agent(_app: sf.Surefoot) -> sf.Run:
    """Start the run of the agent."""
    run: sf.Run = await _agents[0].start("Order A-1 arrived broken", id="ticket-1")
    return run


async def start_function(app: sf.Surefoot) -> sf.Run:
    """Start the run of the durable function."""
    return await app.start("support", "A-1", id="ticket-1")
