"""A Pydantic AI agent, durable: its model's answers are recorded, its tools are effects and reads. No API key needed."""

import asyncio
import tempfile
from collections.abc import Sequence
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import surefoot as sf


@sf.read
async def lookup_order(order_id: str) -> dict[str, str]:
    return {"order": order_id, "total": "12.50"}


@sf.effect(key="refund:{order_id}", free_text=("reason",), in_doubt=sf.Resend(key_ttl="24h"))
async def refund(order_id: str, amount: str, reason: str) -> str:
    print("  the shop refunds", order_id, amount)
    return "receipt r-1"


def scripted(messages: Sequence[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Stand in for a model: look, refund, then refund once more in other words, as models do."""
    told: list[Any] = [
        part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)
    ]
    match told:
        case []:
            return ModelResponse([ToolCallPart("lookup_order", {"order_id": "A-4411"})])
        case [_]:
            words = {"order_id": "A-4411", "amount": "12.50", "reason": "arrived broken"}
            return ModelResponse([ToolCallPart("refund", words)])
        case [_, _]:
            words = {"order_id": "A-4411", "amount": "12.50", "reason": "the customer's parcel was damaged"}
            return ModelResponse([ToolCallPart("refund", words)])
    return ModelResponse([TextPart(f"told: {told[1]}, then {told[2]['outcome']}: {told[2]['meaning']}")])


async def main(url: str) -> None:
    agent = Agent(FunctionModel(scripted), name="support", tools=[lookup_order, refund])
    async with sf.Surefoot(url) as app:
        support = app.agent(agent)
        for _ in range(2):  # the same id is the same run: nothing is asked or done again
            run = await support.start("Order A-4411 arrived broken, refund it", id="ticket-991")
            print(await run.result(timeout_s=10))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(f"sqlite:///{folder}/agents.db"))

#   the shop refunds A-4411 12.50
# told: receipt r-1, then repeated: This had already been done before and was NOT done again. The first outcome is given.
# told: receipt r-1, then repeated: This had already been done before and was NOT done again. The first outcome is given.
