"""An agent's tool calls, told to its model as what became of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai import Agent, FunctionToolset, ModelRetry, RunContext, Tool
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.toolsets import ToolsetTool

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable

ANSWERS = ("tool-return", "retry-prompt")


async def told(app: sf.Surefoot, **tools: Any) -> str:
    """Return what the model was told of the one call it makes; the run itself may then wait for a doubt to end."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask_once(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answers = [part for message in messages for part in message.parts if part.part_kind in ANSWERS]
        if not answers:
            return ModelResponse(parts=[ToolCallPart("refund", {"order": "A-1"}, "call-1")])
        answer.set_result(f"{answers[-1].part_kind}: {answers[-1].content}")  # type: ignore[union-attr]  # by its kind
        return ModelResponse(parts=[TextPart("I see.")])

    await app.agent(Agent(FunctionModel(ask_once), name="refunds", **tools)).start("refund it", id="r")
    async with asyncio.timeout(10):
        return await answer


class Slow:
    """An effect that takes its time, and counts."""

    def __init__(self, duration_s: float, **options: Any) -> None:
        self.acts = 0

        async def refund(order: str) -> str:
            self.acts += 1
            await asyncio.sleep(
                duration_s
            )  # longer than the framework's patience: real time, as its timer has no other
            return "receipt r-1"

        self.tool = sf.effect(when_unknown="tell_model", **options)(refund)


class Impatient(FunctionToolset[None]):
    """A toolset with a patience of its own, which the adapter can't know of."""

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]
    ) -> Any:
        try:
            async with asyncio.timeout(0.02):
                return await super().call_tool(name, tool_args, ctx, tool)
        except TimeoutError:
            raise ModelRetry("Timed out. Try again.") from None


async def test_what_is_done_is_told_as_its_value(app: sf.Surefoot) -> None:
    """Catches an outcome lost on the way from the effect to the model."""
    slow = Slow(0.0)
    assert await told(app, tools=[slow.tool]) == "tool-return: receipt r-1"
    assert slow.acts == 1


async def test_a_timeout_of_the_framework_is_told_as_unknown(app: sf.Surefoot) -> None:
    """Catches "timed out", which a model takes for a failure to try again."""
    slow = Slow(0.5)
    toolset = FunctionToolset[None](id="tools", timeout=0.02)
    toolset.add_function(slow.tool)
    answer = await told(app, toolsets=[toolset])
    assert answer.startswith("tool-return: ")
    assert "NOT KNOWN" in answer
    assert slow.acts == 1


async def test_a_timeout_nobody_told_us_of_is_told_as_what_became_of_it(app: sf.Surefoot) -> None:
    """Catches a call without a task of its own under a toolset whose patience may end."""
    slow = Slow(0.2)
    toolset = Impatient(id="tools")
    toolset.add_function(slow.tool)
    assert await told(app, toolsets=[toolset]) == "tool-return: receipt r-1"
    assert slow.acts == 1


@pytest.mark.parametrize("declare", [sf.effect, sf.read], ids=["effect", "read"])
async def test_what_a_tools_own_code_calls_is_told_to_that_code(app: sf.Surefoot, declare: Any) -> None:
    """Catches words for a model in the place of a value or an error, in code that was never written for them."""

    @sf.effect
    async def look(order: str) -> int:
        if order == "A-2":
            raise sf.NotDone("no such order")
        return 7

    async def refund(order: str) -> str:
        found = await look(order)
        try:
            await look("A-2")
        except sf.NotDone as error:
            return f"{found + 1}, then {error.message}"
        return "both"

    assert await told(app, tools=[declare(refund)]) == "tool-return: 8, then no such order"


@pytest.mark.parametrize("timeout_s", [None, 5.0])
async def test_a_call_that_was_never_made_is_the_frameworks_to_tell(app: sf.Surefoot, timeout_s: float | None) -> None:
    """Catches an outcome told of an effect that nobody asked for."""

    async def refuse(ctx: RunContext[None], order: str) -> None:
        raise ModelRetry("which order?")

    slow = Slow(0.0)
    answer = await told(app, tools=[Tool(slow.tool, args_validator=refuse, timeout=timeout_s)])
    assert "which order?" in answer
    assert slow.acts == 0


@pytest.mark.parametrize("value", ["r-77", None, {"kind": "refund", "number": 77}])
async def test_a_value_by_hand_is_told_as_the_tools_own(app: sf.Surefoot, value: Any) -> None:
    """Catches a person's answer about an undeclared tool that the model is told as an error, so that it asks again."""

    async def refund(order: str) -> str:
        raise TimeoutError("no answer")

    async def ask_once(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[0]
        if last.part_kind == "tool-return":
            return ModelResponse(parts=[TextPart(f"told {last.content!r}")])
        assert len(messages) == 1, last
        return ModelResponse(parts=[ToolCallPart("refund", {"order": "A-1"}, "call-1")])

    run = await app.agent(Agent(FunctionModel(ask_once), name="by hand", tools=[refund])).start("go", id="a")
    async with asyncio.timeout(10):
        while (await run.status()).waiting_for != "doubt":
            await asyncio.sleep(0.01)
    (doubt,) = await app.unknowns()
    await app.resolve(doubt.id, is_done=True, by="ann", reason="in the books", value=value)
    assert await run.result(timeout_s=10) == f"told {value!r}"


@dataclass
class Receipt:
    """What a tool returns, as a type of the user's own."""

    number: str
    total: Decimal


@pytest.mark.parametrize("declare", [sf.effect, sf.read, lambda function: function])
async def test_a_replay_puts_the_same_values_in_front_of_the_model(url: str, declare: Any) -> None:
    """Catches a first execution that sees what no replay will see: the value itself instead of its recorded copy."""
    seen: list[Any] = []
    is_second_process = False

    async def ask_twice(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("refund", {"order": "A-1"}, "call-1")])
        seen.append(messages[-1].parts[0].content)  # type: ignore[union-attr]  # the tool's answer
        if not is_second_process:
            await asyncio.Event().wait()
        return ModelResponse(parts=[TextPart("I see.")])

    async def refund(order: str) -> Receipt:
        return Receipt("r-1", Decimal("12.50"))

    agent = Agent(FunctionModel(ask_twice), name="refunds", tools=[declare(refund)], capabilities=[Durable()])

    @sf.durable
    async def ticket() -> str:
        return (await agent.run("refund it")).output

    async with asyncio.timeout(10):
        async with sf.Surefoot(url) as app:
            await app.start(ticket, id="a")
            while not seen:
                await asyncio.sleep(0.01)
        is_second_process = True
        async with sf.Surefoot(url) as app:
            assert await (await app.start(ticket, id="a")).result() == "I see."
    assert seen[0] == seen[1]
    assert type(seen[0]) is type(seen[1])
