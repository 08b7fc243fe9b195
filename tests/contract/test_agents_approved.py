"""Pydantic AI's own ways to ask for approval, inside durable runs: one gate, one trail, whatever asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent, ApprovalRequired, RunContext, Tool
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.toolsets import ApprovalRequiredToolset, FunctionToolset
from tests.contract.conftest import kinds, until
from tests.contract.test_approvals import one, states, waiting

import surefoot as sf
from surefoot.effects.rows import desk

Paid = list[tuple[str, int]]
CALLS = [("A", 500, "c-1"), ("B", 20, "c-2"), ("C", 900, "c-3")]


def scripted(calls: list[tuple[str, int, str]], name: str = "pay") -> FunctionModel:
    """Return a model that makes these calls in one response, and then says what it was told of each."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        told = {
            part.tool_call_id: str(part.content)
            for message in messages
            for part in message.parts
            if isinstance(part, ToolReturnPart)
        }
        if not told:
            return ModelResponse([ToolCallPart(name, {"order": order, "amount": amount}, id)
                                  for order, amount, id in calls])  # fmt: skip
        return ModelResponse([TextPart(" | ".join(told[id] for _, _, id in calls))])

    return FunctionModel(answer)


def tools(paid: Paid) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the ways to declare a tool that needs approval."""

    async def pay(order: str, amount: int) -> str:
        paid.append((order, amount))
        return f"paid {order}"

    @sf.effect(name="declared pay", key="agent pays {order}")
    async def declared(order: str, amount: int) -> str:
        return await pay(order, amount)

    @sf.effect(name="conditional pay", key="agent pays {order}", approve=sf.Approve(by="finance", when=lambda: False))
    async def conditional(order: str, amount: int) -> str:
        return await pay(order, amount)

    async def asks_itself(ctx: RunContext[None], order: str, amount: int) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired
        return await pay(order, amount)

    return {
        "undeclared": lambda: {"tools": [Tool(pay, requires_approval=True)]},
        "effect": lambda: {"tools": [Tool(declared, name="pay", requires_approval=True)]},
        "effect of its own": lambda: {"tools": [Tool(conditional, name="pay", requires_approval=True)]},
        "asks itself": lambda: {"tools": [Tool(asks_itself, name="pay")]},
        "toolset": lambda: {"toolsets": [ApprovalRequiredToolset(FunctionToolset([pay], id="bank"))]},
    }


@pytest.mark.parametrize("way", list(tools([])))
async def test_several_calls_of_one_response_are_decided_one_by_one(app: sf.Surefoot, way: str) -> None:
    """Catches a tool that acts before its approval, a denial that stops the others, and arguments nobody approved."""
    paid: Paid = []
    agent = Agent(scripted(CALLS), name=f"bank {way}", **tools(paid)[way]())
    run = await app.agent(agent).start("pay them all", id="r")
    await waiting(run)
    asked = {view.id: view for view in await app.approvals()}
    while len(asked) < 3:
        asked = {view.id: view for view in await app.approvals()}
        await asyncio.sleep(0.01)
    assert paid == []
    orders = {str(view.arguments).partition("'order': '")[2][0]: number for number, view in asked.items()}
    assert set(orders) == {"A", "B", "C"}
    await app.approve(orders["B"], by="anna", reason="fine")
    await until(lambda: paid == [("B", 20)])
    await app.deny(orders["A"], by="bob", reason="too much")
    await app.approve(orders["C"], by="anna", reason="fine")
    said = (await run.result(timeout_s=10)).split(" | ")
    assert said[1:] == ["paid B", "paid C"]
    assert "'outcome': 'denied'" in said[0]
    assert f"approval {orders['A']} was denied by bob: too much" in said[0]
    assert sorted(paid) == [("B", 20), ("C", 900)]
    assert sorted(states(app)) == ["denied", "used", "used"]
    if way == "effect of its own":
        assert {view.rule.by for view in asked.values()} == {("finance",)}


async def test_the_wait_outlives_the_process(url: str) -> None:
    """Catches an approval that a restart forgets, or a model that is asked again for what it has said."""
    paid, asked = Paid(), []

    def build() -> Agent[None, str]:
        model = scripted(CALLS[:1])
        inner = model.function
        assert inner is not None

        def counted(messages: list[ModelMessage], info: AgentInfo) -> Any:
            asked.append(os.getpid())
            return inner(messages, info)

        return Agent(FunctionModel(counted), name="patient bank", **tools(paid)["undeclared"]())

    async with sf.Surefoot(url) as app:
        await waiting(await app.agent(build()).start("pay", id="r"))
    async with sf.Surefoot(url, is_worker=False) as app:
        number = await one(app)
        await app.approve(number, by="anna", reason="fine")
        assert paid == []
    async with sf.Surefoot(url) as app:
        app.agent(build())
        assert await (await app.run("r")).result(timeout_s=10) == "paid A"
        assert (paid, len(asked), states(app)) == ([("A", 500)], 2, ["used"])
        assert "asked" in kinds(app, "r")


async def test_whoever_handles_them_is_left_alone(app: sf.Surefoot) -> None:
    """Catches a question of ours where the agent's caller, or a capability of the user's, answers by itself."""
    paid: Paid = []
    made = tools(paid)["undeclared"]()
    model = scripted(CALLS[:1])
    ends: list[Any] = []

    @sf.durable
    async def handled() -> str:
        agent: Agent[None, Any] = Agent(model, name="own", output_type=[str, DeferredToolRequests], **made)
        from surefoot.adapters.pydantic_ai import Durable

        result = await agent.run("pay", capabilities=[Durable(name="own")])
        assert isinstance(result.output, DeferredToolRequests)
        ends.append(result.output)
        again = await agent.run(
            message_history=result.all_messages(),
            deferred_tool_results=result.output.build_results(approve_all=True),
            capabilities=[Durable(name="own")],
        )
        return str(again.output)

    assert await (await app.start(handled, id="r")).result(timeout_s=10) == "paid A"
    assert (len(ends), paid, states(app)) == (1, [("A", 500)], [])

    def approve_all(ctx: RunContext[None], requests: DeferredToolRequests) -> DeferredToolResults:
        return requests.build_results(approve_all=True)

    theirs = Agent(model, name="theirs", capabilities=[HandleDeferredToolCalls(handler=approve_all)], **made)
    assert await (await app.agent(theirs).start("pay", id="t")).result(timeout_s=10) == "paid A"
    assert states(app) == []


async def test_what_a_caller_changes_or_denies_is_what_acts(app: sf.Surefoot) -> None:
    """Catches an act with other arguments than its approver gave, or a message of theirs that the model doesn't read."""
    paid: Paid = []
    made = tools(paid)["undeclared"]()

    def decide(ctx: RunContext[None], requests: DeferredToolRequests) -> DeferredToolResults:
        answers: dict[str, bool | ToolApproved | ToolDenied] = {
            "c-1": ToolApproved(override_args={"order": "A", "amount": 50}),
            "c-2": ToolDenied("not this one"),
            "c-3": True,
        }
        return requests.build_results(approvals=answers)

    theirs = Agent(scripted(CALLS), name="editing", capabilities=[HandleDeferredToolCalls(handler=decide)], **made)
    said = await (await app.agent(theirs).start("pay", id="r")).result(timeout_s=10)
    assert said == "paid A | not this one | paid C"
    assert sorted(paid) == [("A", 50), ("C", 900)]
    claimed = app.store.read_now(desk.list_effects)
    assert sorted(str(one.arguments) for one in claimed) == [
        "{'arguments': {'order': 'A', 'amount': 50}}",
        "{'arguments': {'order': 'C', 'amount': 900}}",
    ]
    assert states(app) == []


async def test_an_effect_that_declares_its_own_gate(app: sf.Surefoot) -> None:
    """Catches `approve=` of a tool that the agent's model can't wait for, or is told wrongly of."""
    paid: Paid = []

    @sf.effect(key="gated {order}", approve=sf.Approve(when=lambda amount: amount > 100))
    async def pay(order: str, amount: int) -> str:
        paid.append((order, amount))
        return f"paid {order}"

    run = await app.agent(Agent(scripted(CALLS), name="gated", tools=[pay])).start("pay", id="r")
    await until(lambda: len(app.store.read_now(_pending)) == 2 and paid == [("B", 20)])
    await waiting(run)
    for view in await app.approvals():
        await app.approve(view.id, by="anna", reason="fine")
    assert await run.result(timeout_s=10) == "paid A | paid B | paid C"


def _pending(connection: Any) -> list[int]:
    from surefoot.approvals import tables

    return tables.pending(connection)
