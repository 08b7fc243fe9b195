"""Agents before a deploy and in forks: walked without asking a model, simulated without calling a tool."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.contract.test_check_deploy import shadows_of
from tests.contract.test_runs import wait_state

import surefoot as sf

calls: list[str] = []
choice = ["A-1"]


@sf.effect(key="shadowed refund:{order}", in_doubt=sf.Resend())
async def refund(order: str) -> str:
    calls.append(f"refund {order}")
    return f"refunded {order}"


@sf.effect(key="shadowed mail:{order}")
async def mail(order: str) -> str:
    calls.append(f"mail {order}")
    raise OSError("no answer")


async def decide(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    calls.append("model")
    answers = [part for message in messages for part in message.parts if part.part_kind == "tool-return"]
    if len(answers) == len(info.function_tools):
        return ModelResponse(parts=[TextPart(f"done: {answers[0].content}")])
    tool = info.function_tools[len(answers)].name
    return ModelResponse(parts=[ToolCallPart(tool, {"order": choice[0]}, f"call-{len(answers)}-{choice[0]}")])


def agent_of(app: sf.Surefoot, tools: list[Any], **options: Any) -> Any:
    return app.agent(Agent(FunctionModel(decide), name="shadowed", tools=tools, **options))


async def test_an_agent_is_walked_without_asking_its_model(url: str) -> None:
    """Catches a check that asks a model, or calls a tool; and a change of an agent that would block its runs."""
    calls.clear()
    choice[:] = ["A-1"]
    async with sf.Surefoot(url) as app:
        run = await agent_of(app, [refund, mail]).start("refund it", id="r")
        await wait_state(run, "waiting", "doubt")
    calls.clear()
    agent_of(sf.Surefoot(url), [refund, mail])
    assert (await shadows_of(url))["r"].verdict.value == "same"
    agent_of(sf.Surefoot(url), [refund, mail], instructions="Be brief.")
    drifted = (await shadows_of(url))["r"]
    assert (drifted.verdict.value, bool(drifted.step), drifted.asked != drifted.recorded) == ("drift", True, True)
    agent_of(sf.Surefoot(url), [refund])
    other = (await shadows_of(url))["r"]
    assert other.verdict.value == "divergent", other
    assert "mail" in other.recorded
    assert calls == []


async def test_a_fork_of_an_agent_asks_its_model_and_calls_no_tool(url: str) -> None:
    """Catches a simulated agent that acts, or that is not told what is recorded."""
    calls.clear()
    choice[:] = ["A-1"]
    async with sf.Surefoot(url) as app:
        run = await agent_of(app, [refund]).start("refund it", id="r")
        assert await run.result(timeout_s=10) == "done: refunded A-1"
        calls.clear()
        rows = app.store.read_now(lambda c: next(c.execute("SELECT count(*) FROM ledger"))[0])
        steps = app.store.read_now(
            lambda c: [str(row[0]) for row in c.execute("SELECT step FROM journal WHERE kind = 2 ORDER BY id")]
        )
        same = await run.fork(steps[0], id="same")
        told = await same.result(timeout_s=10)
        assert "refunded A-1" in told
        assert calls == ["model", "model"]
        choice[:] = ["B-2"]
        other = await run.fork(steps[0], id="other")
        status = await wait_state(other, "waiting", "blocked")
        assert "would do refund" in status.reason
        assert app.store.read_now(lambda c: next(c.execute("SELECT count(*) FROM ledger"))[0]) == rows
        assert "refund B-2" not in calls
