"""Agents and what they share: the model reads the truth as a type, and knows nothing of leases."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import surefoot as sf


async def test_a_model_is_given_the_difference_and_decides_again(app: sf.Surefoot) -> None:
    """Catches a model that is told of a failure to try again, or whose refund is of what the order was."""
    order, sent, told = {"amount": 40, "etag": 1}, list[object](), list[Any]()

    @sf.versioned("order/{order_id}", version="etag")
    async def get_order(order_id: str) -> dict[str, int]:
        return dict(order)

    @sf.effect(key="refund:{order_id}", match=(), unchanged="order/{order_id}", resource="order/{order_id}")
    async def refund(order_id: str, amount: int) -> str:
        effect = sf.current_effect()
        sent.append((amount, effect.versions, list(effect.tokens)))
        return "refunded"

    def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        answers = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        told[:] = [part.content for part in answers]
        match len(answers):
            case 0:
                return ModelResponse([ToolCallPart("refund", {"order_id": "7", "amount": 40}, "a")])
            case 1:
                return ModelResponse([ToolCallPart("get_order", {"order_id": "7"}, "b")])
            case 2:
                order.update(amount=15, etag=2)
                return ModelResponse([ToolCallPart("refund", {"order_id": "7", "amount": 40}, "c")])
            case 3:
                return ModelResponse([ToolCallPart("refund", {"order_id": "7", "amount": 15}, "d")])
        return ModelResponse([TextPart("done")])

    support = app.agent(Agent(FunctionModel(model), name="support", tools=[get_order, refund]))
    assert await (await support.start("refund it", id="s")).result(timeout_s=20) == "done"
    assert sent == [(15, {"order/7": "2"}, ["order/7"])]
    assert [one["outcome"] for one in (told[0], told[2])] == ["stale", "stale"]
    assert "was not read in this run" in told[0]["reason"]
    assert {"path": "amount", "read": 40, "now": 15} in told[2]["changes"]
    assert told[3] == "refunded"
