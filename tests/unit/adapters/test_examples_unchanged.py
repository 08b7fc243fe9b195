"""Programs as people write them from Pydantic AI's documentation, unchanged in a durable run: what the same means there.

The whole public set of examples is run by `tools/pydantic_ai_examples`; `docs/pydantic-ai-examples.md` has the counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic_ai import Agent, ApprovalRequired, DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from tests.support.agents import Script, call, said, text, twice

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable


@pytest.fixture
def url(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path}/agents.db"


@dataclass
class Shelf:
    books: dict[str, int]


async def test_a_conversation_with_dependencies_tools_and_history_is_the_same(url: str) -> None:
    """Catches an agent that says something else in a run, or on replay, than without Surefoot."""

    def program(*capabilities: Durable) -> Any:
        clerk = Agent(
            Script([call("count", "c1", title="Emma")], lambda m: text(said(m[-1]))).model,
            deps_type=Shelf,
            name="clerk",
            capabilities=capabilities,
        )

        @clerk.tool
        def count(ctx: RunContext[Shelf], title: str) -> int:
            return ctx.deps.books[title]

        @clerk.instructions
        def polite(ctx: RunContext[Shelf]) -> str:
            return f"There are {len(ctx.deps.books)} titles."

        async def converse() -> Any:
            first = await clerk.run("How many of Emma?", deps=Shelf({"Emma": 3}))
            again = await clerk.run("Thanks", deps=Shelf({"Emma": 3}), message_history=first.all_messages())
            kinds = [part.part_kind for message in again.all_messages() for part in message.parts]
            return first.output, again.output, kinds, first.usage.requests, again.usage.requests

        return converse

    plain = await program()()
    assert plain[0] == "tool-return: 3"
    assert await program(Durable())() == plain, "outside a run"
    assert await twice(url, program(Durable())) == (plain, plain)


async def test_the_pieces_of_a_stream_in_a_run_are_those_of_its_replay(url: str) -> None:
    """Catches code that acts on half an answer in a run, where a replay shows it other pieces, or the whole at once."""

    async def talk(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "one "
        yield "two"

    agent = Agent(FunctionModel(stream_function=talk), name="clerk", capabilities=[Durable()])

    async def work() -> Any:
        async with agent.run_stream("count") as stream:
            return [words async for words in stream.stream_text(debounce_by=None)]

    assert await work() == ["one ", "one two"], "outside a run"
    first, again = await twice(url, work)
    assert first == again
    assert first[-1] == "one two"


async def test_runs_of_one_agent_beside_each_other_are_refused_with_the_way_out(url: str) -> None:
    """Catches answers of parallel runs that a replay would swap, and a refusal that doesn't say what to write."""
    agent = Agent(Script(text("done")).model, name="clerk", capabilities=[Durable()])

    async def work() -> Any:
        return await asyncio.gather(agent.run("a"), agent.run("b"))

    first, again = await twice(url, work)
    assert first == again
    assert first[0] == "AmbiguousStep"
    assert "async with sf.branch(" in first[1]


async def test_a_tool_that_asks_for_approval_itself_is_called_again_once_a_handler_gave_it(url: str) -> None:
    """Catches a call that is refused because the framework makes it again in a task of its own."""
    written: list[str] = []

    def update(ctx: RunContext[None], path: str) -> str:
        if path == ".env" and not ctx.tool_call_approved:
            raise ApprovalRequired
        written.append(path)
        return f"wrote {path}"

    def approve_all(ctx: RunContext[None], requests: DeferredToolRequests) -> DeferredToolResults:
        return requests.build_results(approve_all=True)

    calls: list[Any] = [call("update", "call-1", path="README.md"), call("update", "call-2", path=".env")]
    model = Script(calls, lambda messages: text(said(messages[-1]))).model
    agent = Agent(model, name="clerk", tools=[update], capabilities=[HandleDeferredToolCalls(approve_all), Durable()])

    async def work() -> Any:
        return (await agent.run("update both")).output

    plain = "tool-return: wrote README.md; tool-return: wrote .env"
    assert await twice(url, work) == (plain, plain)
    assert sorted(written) == [".env", "README.md"]


async def test_code_that_asks_its_model_what_it_was_asked_is_stopped_on_replay(url: str) -> None:
    """Catches a replay that goes another way in silence: nobody asks the model then, so it has nothing to tell."""
    is_first, heard = True, asyncio.Event()

    @sf.durable(name="work")
    async def work() -> None:
        model = TestModel()
        agent = Agent(model, name="clerk", capabilities=[Durable()])
        await agent.run("hello")
        if model.last_model_request_parameters is not None:
            await agent.run("and again")
        heard.set()
        if is_first:
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            await app.start(work, id="work")
            await heard.wait()
            await app.store.barrier()
        is_first = False
        heard.clear()
        async with sf.Surefoot(url):
            await heard.wait()
    async with sf.Surefoot(url, is_worker=False) as app:
        assert (await (await app.run("work")).status()).state == "pending", "not completed"
