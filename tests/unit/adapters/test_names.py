"""Agents and tools that are called otherwise than when a run was begun: it goes on, or says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.function import FunctionModel
from tests.contract.conftest import kinds, until
from tests.support.agents import Script, call, text

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable, NameTaken

ACTS: list[str] = []


def _tool(name: str, declare: Callable[..., Any]) -> Any:
    async def act(order: str) -> str:
        ACTS.append(name)
        return "receipt"

    act.__name__ = name
    return declare(act)


@asynccontextmanager
async def _left_after_the_tool(url: str, agent: Callable[[Any], Any]) -> AsyncIterator[None]:
    """Let a run get as far as its second decision, and leave its process."""
    ACTS.clear()
    reached = asyncio.Event()

    async def wait_here(messages: Any, info: Any) -> Any:
        if len(messages) > 1:
            reached.set()
            await asyncio.Event().wait()
        return await Script([call("refund", order="A-1")])(messages, info)

    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            await agent(app)(FunctionModel(wait_here))
            await reached.wait()
        yield


async def _blocked(run: sf.Run) -> str:
    """Return why a run is blocked, once it is."""
    while (status := await run.status()).waiting_for != "blocked":
        assert status.state in ("pending", "running", "waiting"), status
        await asyncio.sleep(0.01)
    return status.reason


@pytest.mark.parametrize("declare", [lambda function: function, sf.read(name="refund")], ids=["undeclared", "read"])
async def test_a_renamed_tool_of_an_open_run(url: str, declare: Any) -> None:
    """Catches a rename after which the tool acts again, or the run can't go on though the old name is given."""

    def begin(app: sf.Surefoot) -> Any:
        async def start(model: Any) -> None:
            agent = Agent(model, name="clerk", tools=[_tool("refund", declare)])
            await app.agent(agent).start("go", id="a")

        return start

    async with _left_after_the_tool(url, begin):
        script = Script([call("refund_order", order="A-1")], text("done"))
        renamed = Agent(script.model, name="clerk", tools=[_tool("refund_order", declare)])
        async with sf.Surefoot(url) as app:
            app.agent(renamed)
            run = await app.run("a")
            reason = await _blocked(run)
            assert "tools_were={'refund': ...}" in reason
            assert (ACTS, script.asked) == (["refund"], 0)
        async with sf.Surefoot(url) as app:
            app.agent(renamed, tools_were={"refund": "refund_order"})
            await (run := await app.run("a")).wake()
            assert await run.result() == "done"
        assert (ACTS, script.asked) == (["refund"], 1)


async def test_a_renamed_agent_of_an_open_run(url: str) -> None:
    """Catches runs that nobody finds any more once their agent is called something else."""

    def begin(app: sf.Surefoot) -> Any:
        async def start(model: Any) -> None:
            await app.agent(Agent(model, name="clerk", tools=[_tool("refund", sf.effect)])).start("go", id="a")

        return start

    async with _left_after_the_tool(url, begin):
        script = Script([call("refund", order="A-1")], text("done"))
        agent = Agent(script.model, name="support", tools=[_tool("refund", sf.effect)])
        async with sf.Surefoot(url) as app:
            support = app.agent(agent, was=["clerk"])
            run = await app.run("a")
            assert await run.result() == "done"
            assert (await support.start("go", id="a")).id == "a", "the same id with the same input is the same run"
        assert (ACTS, script.asked) == (["refund"], 1)


async def test_a_renamed_agent_in_a_durable_function(url: str) -> None:
    """Catches an agent that begins anew under its new name, and acts again, before anybody notices."""

    def work(model: Any, name: str, **names: Any) -> Any:
        agent = Agent(model, name=name, tools=[_tool("refund", sf.effect)], capabilities=[Durable(**names)])

        @sf.durable(name="work")
        async def durable() -> str:
            return (await agent.run("go")).output

        return durable

    def begin(app: sf.Surefoot) -> Any:
        async def start(model: Any) -> None:
            await app.start(work(model, "clerk"), id="a")

        return start

    async with _left_after_the_tool(url, begin):
        script = Script([call("refund", order="A-1")], text("done"))
        async with sf.Surefoot(url) as app:
            work(script.model, "support")
            reason = await _blocked(await app.run("a"))
            assert "was=['clerk']" in reason
            assert (ACTS, script.asked) == (["refund"], 0)
        async with sf.Surefoot(url) as app:
            work(script.model, "support", was=["clerk"])
            await (run := await app.run("a")).wake()
            assert await run.result() == "done"
        assert (ACTS, script.asked) == (["refund"], 1)


async def test_an_agent_that_begins_in_a_task_of_its_own_is_no_renamed_one(url: str) -> None:
    """Catches a run that is blocked because an agent begins beside another whose decisions are recorded: which one of two
    tasks comes to a recorded step is not told by their order."""
    first, second = Script(text("one")), Script(text("two"))
    agents = {
        name: Agent(script.model, name=name, capabilities=[Durable()])
        for name, script in (("clerk", first), ("support", second))
    }
    is_waiting = True

    @sf.durable(name="two agents")
    async def work() -> list[str]:
        async def ask(name: str) -> str:
            return (await agents[name].run("go")).output

        clerk = asyncio.create_task(ask("clerk"))
        if is_waiting:
            await clerk
            await asyncio.Event().wait()
        return [await asyncio.create_task(ask("support")), await clerk]

    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            await app.start(work, id="a")
            await until(lambda: "decided" in kinds(app, "a"))
        is_waiting = False
        async with sf.Surefoot(url) as app:
            assert await (await app.run("a")).result() == ["two", "one"]
    assert (first.asked, second.asked) == (1, 1)


async def test_an_agent_that_is_started_though_another_has_taken_its_name_says_so_once(url: str) -> None:
    """Would catch runs of one agent that another executes, without a word."""
    async with sf.Surefoot(url) as app:
        first, second = (app.agent(Agent(Script(text(says)).model, name="clerk")) for says in ("one", "two"))
        with pytest.warns(
            NameTaken, match=r"two agents are called 'clerk': .*app\.agent\(\.\.\., name=\.\.\.\)"
        ) as found:
            runs = [await first.start("go", id=f"first {n}") for n in range(2)]
        assert [one.filename for one in found] == [__file__]
        runs.append(await second.start("go", id="second"))
        assert [await run.result() for run in runs] == ["two"] * 3


async def test_an_agent_that_is_made_anew_takes_the_place_of_the_one_before_in_silence(url: str) -> None:
    """Would catch a warning for each time that a notebook's cell is run again, or that one agent is used by two apps."""
    async with sf.Surefoot(url) as app:
        for says in ("one", "two"):
            agent = Agent(Script(text(says)).model, name="clerk")
            clerk = app.agent(agent)
            assert await (await clerk.start("go", id=says)).result() == says
        app.agent(agent)
        assert await (await clerk.start("go", id="again")).result() == "two"
