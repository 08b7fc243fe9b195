"""What whole agents do under replay: delegate, count, remember, take any content, and change their model meanwhile."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent, ImageUrl, RunContext, UsageLimits, durable_exec
from pydantic_ai.exceptions import FallbackExceptionGroup, ModelHTTPError, UnexpectedModelBehavior, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage
from tests.support.agents import Script, call, said, text, twice

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable, payloads
from surefoot.runs.rows.desk import show


@dataclass
class Shop:
    """Structured dependencies."""

    name: str
    shelves: list[int]


class Connection:
    """Dependencies that are no data."""

    def __init__(self, address: str) -> None:
        self.address = address


# -- sub-agents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_crashed", [False, True], ids=["done", "crashed inside"])
async def test_sub_agents_run_in_parallel_and_replay_through(url: str, is_crashed: bool) -> None:
    """Catches decisions of one sub-agent given to another, delegates that wait for each other, usage that is lost, and a
    crash inside a delegate that asks it everything again."""
    both, asked = asyncio.Barrier(2), 0
    stuck = asyncio.Event()

    async def research(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal asked
        asked += 1
        if len(messages) == 1:
            async with asyncio.timeout(5):
                await both.wait()
            return ModelResponse(parts=[call("look", "look", what=said(messages[0])[-1])])
        if is_crashed and not stuck.is_set() and "b" in said(messages[0]):
            stuck.set()
            await asyncio.Event().wait()
        return ModelResponse(parts=text(f"found {said(messages[-1])[-1]}"))

    looks: list[str] = []

    async def look(what: str) -> str:
        looks.append(what)
        return f"saw {what}"

    researcher = Agent(FunctionModel(research), name="researcher", tools=[look], capabilities=[Durable(reads=["look"])])

    @sf.step
    async def delegate(ctx: RunContext[None], topic: str) -> str:
        return (await researcher.run(topic, usage=ctx.usage)).output

    script = Script([call("delegate", "a", topic="a"), call("delegate", "b", topic="b")], lambda m: text(said(m[-1])))
    chief = Agent(script.model, name="chief", tools=[delegate], capabilities=[Durable()])
    outputs: list[Any] = []
    is_first = True

    @sf.durable(name="work")
    async def work() -> None:
        result = await chief.run("go")
        outputs.append((result.output, result.usage.requests, result.usage.tool_calls))
        if is_first:
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            await app.start(work, id="work")
            while not (stuck.is_set() if is_crashed else outputs):
                await asyncio.sleep(0.005)
        is_first = False
        async with sf.Surefoot(url) as app:
            await (await app.run("work")).result()
            steps = {step.step for step in (await app.store.read(lambda db: show(db, "work"))).steps}
    assert outputs == [("tool-return: found a; tool-return: found b", 6, 4)] * (1 if is_crashed else 2)
    assert sorted(looks) == ["a", "b"]
    assert asked == (5 if is_crashed else 4), "only the request that had no answer is made again"
    assert "chief/decision[1]/a/delegate/researcher/decision[2]" in steps, "the lineage shows"


async def test_two_runs_of_one_agent_at_once_need_a_branch(url: str) -> None:
    """Catches two runs of one agent whose answers could be swapped on replay."""
    script = Script(text("done"))
    agent = Agent(script.model, name="clerk", capabilities=[Durable()])

    async def run(name: str) -> str:
        async with sf.branch(name):
            return (await agent.run(name)).output

    async def work() -> Any:
        return await asyncio.gather(run("a"), run("b"))

    assert await twice(url, work) == (["done", "done"],) * 2
    assert script.asked == 2


@pytest.mark.parametrize("is_overridden", [False, True])
async def test_an_agent_without_a_model_is_given_one_for_each_run(url: str, is_overridden: bool) -> None:
    """Catches an agent that is refused when it is built, though each of its runs has a model."""

    def look() -> str:
        return "seen"

    script = Script([call("look")], text("done"))
    agent: Agent[None, str] = Agent(name="clerk", tools=[look], capabilities=[Durable(reads=["look"])])
    assert agent.model is None

    async def work() -> Any:
        if is_overridden:
            with agent.override(model=script.model):
                return (await agent.run("go")).output
        return (await agent.run("go", model=script.model)).output

    assert await work() == "done", "outside a run"
    assert await twice(url, work) == ("done", "done")
    assert script.asked == 4
    with pytest.raises(UserError, match="model"):
        await agent.run("go")


# -- limits, errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [UsageLimits(request_limit=2), UsageLimits(tool_calls_limit=1), UsageLimits(total_tokens_limit=160)],
    ids=["requests", "tool calls", "tokens"],
)
async def test_usage_limits_end_a_run_at_the_same_point(url: str, limits: UsageLimits) -> None:
    """Catches limits that count anew on replay, so that an agent that was stopped goes on."""
    looks = 0

    def look() -> str:
        nonlocal looks
        looks += 1
        return "seen"

    script = Script(lambda messages: [call("look", f"call-{len(messages)}")])
    agent = Agent(script.model, name="clerk", tools=[look], capabilities=[Durable(reads=["look"])])

    async def work() -> Any:
        return (await agent.run("go", usage_limits=limits)).output

    first, again = await twice(url, work)
    assert first[0] == "UsageLimitExceeded", first
    assert first == again
    before = (script.asked, looks)
    assert before <= (4, 3)


@pytest.mark.parametrize(
    "error",
    [ModelHTTPError(429, "gpt", {"error": "slow down"}), UnexpectedModelBehavior("odd", "body")],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_a_model_is_of_its_type_on_replay(url: str, error: Exception) -> None:
    """Catches code that handles a provider's error the first time, and doesn't know it on replay."""
    asked = 0

    def fail(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal asked
        asked += 1
        raise error

    agent = Agent(FunctionModel(fail), name="clerk", capabilities=[Durable()])

    async def work() -> Any:
        try:
            return (await agent.run("go")).output
        except type(error) as caught:
            return str(caught), getattr(caught, "status_code", None), str(getattr(caught, "body", None))

    first, again = await twice(url, work)
    assert first == again
    assert first[0] == str(error)
    assert asked == 1


async def test_when_all_models_have_failed_it_is_told_of_each_on_replay(url: str) -> None:
    """Catches an outage of all providers of which a run says no more than that two errors came of it."""
    asked = 0

    def refuse(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal asked
        asked += 1
        raise ModelHTTPError(500 + asked, f"model-{asked}", {"error": "overloaded"})

    models = FallbackModel(FunctionModel(refuse), FunctionModel(refuse))
    agent = Agent(models, name="clerk", capabilities=[Durable()])

    async def work() -> Any:
        try:
            return (await agent.run("go")).output
        except FallbackExceptionGroup as group:
            errors: tuple[Any, ...] = group.exceptions
            return group.message, [(type(one), str(one), one.status_code, one.body) for one in errors]

    first, again = await twice(url, work)
    assert first == again
    assert [status for *_, status, _ in first[1]] == [501, 502]
    assert asked == 2


# -- input and history ------------------------------------------------------------------------------------------------


async def test_an_answer_with_half_a_character_in_it_is_kept(url: str) -> None:
    """Catches a run that fails, its answer paid for and lost, because a service has cut an emoji in two."""
    half, sent = "\ud83d", []

    def send(to: str) -> str:
        sent.append(to)
        return "sent"

    answers: list[list[ModelResponsePart]] = [
        [TextPart(f"so{half}"), ToolCallPart("send", {"to": f"ann{half}"}, f"call{half}")],
        [ToolCallPart("send", f'{{"to": "bob{half}"}}', "call-2")],
        [TextPart(f"thanks{half}")],
    ]

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        usage = RequestUsage(output_tokens=1)  # counted by the model itself, which would stumble over the half
        return ModelResponse(parts=answers[len(messages) // 2], usage=usage)

    agent = Agent(FunctionModel(answer), name="clerk", tools=[send], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    assert await twice(url, work) == ("thanks\\ud83d",) * 2
    assert sent == ["ann\\ud83d"], "in the text of JSON it is a mistake, and the model's to mend"


async def test_calls_that_a_service_gave_no_id_are_made_once_each(url: str) -> None:
    """Would catch a run that fails, or a call that is taken for another, because of a service that leaves ids away."""
    sent: list[str] = []

    def send(to: str) -> str:
        sent.append(to)
        return f"to {to}"

    ids = {"ann": "", "bob": "send", "carl": ""}
    script = Script([ToolCallPart("send", {"to": to}, call_id) for to, call_id in ids.items()], text("done"))
    agent = Agent(script.model, name="clerk", tools=[send], capabilities=[Durable()])

    async def work() -> Any:
        messages = (await agent.run("go")).new_messages()
        return [(part.content, part.tool_call_id) for part in messages[2].parts if isinstance(part, ToolReturnPart)]

    first, again = await twice(url, work)
    assert first == again
    assert [content for content, _ in first] == ["to ann", "to bob", "to carl"]
    assert sorted(sent) == ["ann", "bob", "carl"]


async def test_a_conversation_goes_on_in_a_second_run(url: str) -> None:
    """Catches history, usage or a conversation's id lost between two runs, and input that is another on restart."""
    script = Script(text("first"), text("second"))
    agent = Agent(script.model, name="clerk", deps_type=Shop, output_type=str)

    @agent.instructions
    def name_shop(ctx: RunContext[Shop]) -> str:
        return f"You work at {ctx.deps.name}, shelf {ctx.deps.shelves[0]}."

    shop = Shop("Corner", [7])
    pictures: list[Any] = [
        "what is this?",
        ImageUrl(url="https://example.org/a.png"),
        BinaryContent(b"\x01", media_type="image/png"),
    ]
    async with sf.Surefoot(url) as app:
        clerk = app.agent(agent)
        one = await clerk.start(pictures, id="one", deps=shop)
        history = await one.messages()
        two = await clerk.start("and now?", id="two", deps=shop, message_history=history, conversation_id="c-1")
        assert await two.result() == "second"
        assert (await two.usage()).requests == 1
        transcript = await two.transcript()
        assert len(transcript.messages) == 2
        assert len(await two.messages()) == 4
        assert transcript.conversation_id in ("c-1", None)
        content: Any = history[0].parts[0].content  # type: ignore[union-attr]  # the user's own
        assert [*content[:2], content[2].data] == [*pictures[:2], b"\x01"]
        assert history[0].instructions == "You work at Corner, shelf 7."  # type: ignore[union-attr]  # a request
    async with sf.Surefoot(url) as app:
        clerk = app.agent(agent)
        again = await clerk.start("and now?", id="two", deps=shop, message_history=history, conversation_id="c-1")
        assert [said(one) for one in (await again.messages())[2:]] == ["user-prompt: and now?", "text: second"]
        with pytest.raises(sf.RunConflict):
            await clerk.start("and now?", id="two", deps=Shop("Other", [7]), message_history=history)
    assert script.asked == 2


async def test_dependencies_are_made_where_a_run_is_executed(app: sf.Surefoot) -> None:
    """Catches dependencies that can't be data, such as connections, and so can't be had at all."""

    agent = Agent(Script([call("look")], lambda m: text(said(m[-1]))).model, name="clerk", deps_type=Connection)

    @agent.tool
    async def look(ctx: RunContext[Connection]) -> str:
        return ctx.deps.address

    async def connect(address: str) -> Connection:
        return Connection(f"connected to {address}")

    run = await app.agent(agent, reads=["look"], deps=connect).start("go", id="a", deps="db-1")
    assert await run.result() == "tool-return: connected to db-1"


# -- what runs again --------------------------------------------------------------------------------------------------


async def test_what_runs_again_is_compared_as_drift_and_never_asked(url: str) -> None:
    """Catches instructions, history processors and prepared tools that differ on replay and go unnoticed, or make the
    engine ask the model once more."""
    looks = 0

    def look() -> str:
        nonlocal looks
        looks += 1
        return "seen"

    script = Script([call("look")], text("done"))
    round_ = 0

    async def shorten(messages: list[ModelMessage]) -> list[ModelMessage]:
        return messages

    agent = Agent(script.model, name="clerk", tools=[look], capabilities=[Durable(reads=["look"])])

    @agent.instructions
    def say_round() -> str:
        return f"round {round_}"

    async def work() -> Any:
        nonlocal round_
        round_ += 1
        return (await agent.run("go")).output

    assert await twice(url, work) == ("done", "done")
    assert (looks, script.asked) == (1, 2)
    async with sf.Surefoot(url, is_worker=False) as app:
        kinds = [step.kind for step in (await app.store.read(lambda db: show(db, "work"))).steps]
    assert kinds.count("drift") == 2


async def test_another_model_meanwhile_is_drift(url: str) -> None:
    """Catches a swapped model that is asked again for what is recorded, or whose swap leaves no trace."""
    first_script, second_script = Script([call("look")], text("done by one")), Script(text("never"))
    models = iter([first_script.model, FunctionModel(second_script, model_name="another")])

    def look() -> str:
        return "seen"

    async def work() -> Any:
        agent = Agent(next(models), name="clerk", tools=[look], capabilities=[Durable(reads=["look"])])
        return (await agent.run("go")).output

    assert await twice(url, work) == ("done by one", "done by one")
    assert second_script.asked == 0
    async with sf.Surefoot(url, is_worker=False) as app:
        kinds = [step.kind for step in (await app.store.read(lambda db: show(db, "work"))).steps]
    assert kinds.count("drift") == 2


@pytest.mark.parametrize("way", ["run", "override"])
async def test_a_model_instance_that_was_not_registered_is_used(url: str, way: str) -> None:
    """Catches an agent that works everywhere but in a run, because its model is given at run time."""
    script, other = Script(text("agent's own")), Script(text("the other's"))
    agent = Agent(script.model, name="clerk", capabilities=[Durable()])

    async def work() -> Any:
        if way == "run":
            return (await agent.run("go", model=other.model)).output
        with agent.override(model=other.model):
            return (await agent.run("go")).output

    assert await twice(url, work) == ("the other's", "the other's")
    assert (script.asked, other.asked) == (0, 1)


# -- what can't be --------------------------------------------------------------------------------------------------


async def test_a_record_that_cannot_be_read_back_blocks_and_asks_nobody(url: str) -> None:
    """Catches a recorded tool result that no longer decodes and is told to the model as its mistake: it would act again."""
    acts = 0

    def act() -> list[str]:
        nonlocal acts
        acts += 1
        return ["receipt"]

    script = Script([call("act")], text("done"))
    agent = Agent(script.model, name="clerk", tools=[act])
    reached = asyncio.Event()

    async def wait_here(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            reached.set()
            await asyncio.Event().wait()
        return await script(messages, info)

    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            await app.agent(Agent(FunctionModel(wait_here), name="clerk", tools=[act])).start("go", id="a")
            await reached.wait()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(payloads, "ToolReturnPart", int)  # what was written no longer fits what is read
            async with sf.Surefoot(url) as app:
                run = await app.agent(agent).start("go", id="a")
                while (status := await run.status()).waiting_for != "blocked":
                    assert status.state != "failed", status
                    await asyncio.sleep(0.01)
                assert "act" in status.reason
                assert "can't be read back" in status.reason
        async with sf.Surefoot(url) as app:
            run = await app.agent(agent).start("go", id="a")
            await run.wake()
            assert await run.result() == "done"
    assert (acts, script.asked) == (1, 2)


@pytest.mark.skipif(not hasattr(durable_exec, "CallToolResult"), reason="the oldest Pydantic AI lets engines stack")
async def test_two_engines_do_not_stack() -> None:
    """Catches an agent that two engines drive at once, each without knowing of the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="durable execution engine"):
            Agent("test", name="clerk", capabilities=[Durable(), Durable(name="again")])
