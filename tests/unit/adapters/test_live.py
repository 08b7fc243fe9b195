"""Watching an agent: its words as they come, marked as provisional, and never twice from a record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from tests.support.agents import Script, call, text

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable, Elsewhere, LiveEvent
from surefoot.adapters.pydantic_ai.live import WAITING_MAX, Channel


class Talker:
    """A model that gives its answer word by word, and may be held before the last word."""

    def __init__(self) -> None:
        self.asked = 0
        self.held: asyncio.Event | None = None
        self.is_at_last_word = asyncio.Event()

    async def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        self.asked += 1
        if len(messages) == 1 and info.function_tools:
            yield {0: DeltaToolCall(name="look", json_args='{"what": "it"}', tool_call_id="call-1")}
            return
        for word in ("all", " is"):
            yield word
        self.is_at_last_word.set()
        if self.held is not None:
            await self.held.wait()
        yield " well"

    @property
    def model(self) -> FunctionModel:
        return FunctionModel(self.at_once, stream_function=self)

    async def at_once(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.asked += 1
        return ModelResponse(parts=[call("look", what="it")] if len(messages) == 1 else text("all is well"))


def words(events: list[LiveEvent]) -> str:
    """Return the text that was shown, as somebody would who heeds the markers."""
    shown: dict[str, list[str]] = {}
    for event in events:
        if event.kind == "again":
            shown.pop(event.step, None)
        delta = getattr(event.event, "delta", None) or getattr(event.event, "part", None)
        kind = getattr(event.event, "event_kind", "")
        if kind in ("part_start", "part_delta"):
            shown.setdefault(event.step, []).append(
                getattr(delta, "content_delta", None) or getattr(delta, "content", "") or ""
            )
    return " | ".join("".join(parts) for parts in shown.values() if any(parts))


async def look(what: str) -> str:
    return f"saw {what}"


async def test_words_and_tools_are_seen_as_they_come(app: sf.Surefoot) -> None:
    """Catches a stream that comes in one piece at the end, without tools, or out of order."""
    talker = Talker()
    talker.held = asyncio.Event()
    agent = Agent(talker.model, name="clerk", tools=[look])
    seen: list[LiveEvent] = []
    async with asyncio.timeout(20):
        async for event in app.agent(agent).stream("go", id="a"):
            seen.append(event)
            if words(seen) == "all is" and talker.is_at_last_word.is_set():
                talker.held.set()  # only who saw the first words before the last was given comes here
    assert words(seen) == "all is well"
    kinds = [event.event.event_kind for event in seen if event.kind == "event"]
    assert "function_tool_call" in kinds
    assert "function_tool_result" in kinds
    assert await (await app.run("a")).result() == "all is well"
    for step in {event.step for event in seen}:
        assert [one.seq for one in seen if one.step == step] == list(
            range(1, 1 + sum(one.step == step for one in seen))
        )
    assert {event.attempt for event in seen} == {1}


async def test_a_repeated_attempt_says_so_and_a_replay_shows_nothing(url: str) -> None:
    """Catches words of a lost attempt that stay on the screen, and recorded ones that are shown as if they came now."""
    talker = Talker()
    talker.held = asyncio.Event()
    agent = Agent(talker.model, name="clerk", tools=[look])
    first: list[LiveEvent] = []
    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            async for event in app.agent(agent).stream("go", id="a"):
                first.append(event)
                if words(first) == "all is":
                    break
        talker.held = None
        second: list[LiveEvent] = []
        async with sf.Surefoot(url) as app:
            async for event in app.agent(agent).stream("go", id="a"):
                second.append(event)
    assert talker.asked == 3
    assert [event.kind for event in second].count("again") == 1
    assert second[0].kind == "again"
    assert second[0].attempt > first[-1].attempt
    assert {event.step for event in second} == {first[-1].step}, "the first decision and its tool are on record"
    assert words([*first, *second]) == "all is well"


async def test_nobody_watching_means_no_streaming(app: sf.Surefoot) -> None:
    """Catches models asked for streams when nobody watches: not every model can."""
    script = Script([call("look", what="it")], text("done"))
    assert (
        await (await app.agent(Agent(script.model, name="clerk", tools=[look])).start("go", id="a")).result() == "done"
    )


async def test_watching_a_model_that_cannot_stream_changes_nothing(app: sf.Surefoot) -> None:
    """Catches a run that fails because somebody watches it."""
    script = Script([call("look", what="it")], text("done"))
    async with asyncio.timeout(20):
        seen = [one async for one in app.agent(Agent(script.model, name="clerk", tools=[look])).stream("go", id="a")]
    assert {event.event.event_kind for event in seen} <= {"function_tool_call", "function_tool_result"}
    assert await (await app.run("a")).result() == "done"


async def test_a_run_of_another_process_is_not_watched_here(url: str) -> None:
    """Catches a watcher that waits for ever for what it can't see."""
    talker = Talker()
    talker.held = asyncio.Event()
    agent = Agent(talker.model, name="clerk")
    async with sf.Surefoot(url) as app, sf.Surefoot(url) as other, asyncio.timeout(20):
        watched = aiter(app.agent(agent).stream("go", id="a"))
        await anext(watched)
        for elsewhere in (other, app):
            run = await elsewhere.agent(agent).run("a")
            if elsewhere is other:
                with pytest.raises(Elsewhere, match="not executed by this process"):
                    await anext(aiter(run.stream()))
        talker.held.set()
        assert await run.result() == "all is well"


async def test_two_watchers_see_the_same_and_one_that_leaves_takes_nothing_along(app: sf.Surefoot) -> None:
    """Catches a run that ends, or a watcher that goes without, because another one left."""
    talker = Talker()
    talker.held = asyncio.Event()
    clerk = app.agent(Agent(talker.model, name="clerk"))

    async def watch(is_leaving: bool) -> list[LiveEvent]:
        seen = []
        async for event in clerk.stream("go", id="a"):
            seen.append(event)
            if is_leaving:
                break
        return seen

    async with asyncio.timeout(20):
        leaver, stayer = asyncio.create_task(watch(True)), asyncio.create_task(watch(False))
        assert len(await leaver) == 1
        talker.held.set()
        assert words(await stayer) == "all is well"


def test_a_slow_watcher_misses_events_and_is_told() -> None:
    """Catches events that pile up without limit behind a watcher that doesn't read."""
    channel = Channel()
    queue: asyncio.Queue[LiveEvent] = asyncio.Queue(WAITING_MAX)
    channel.watchers.append(queue)
    for number in range(WAITING_MAX + 10):
        channel.publish("step", 1, number)
    assert queue.qsize() == WAITING_MAX
    kinds = [queue.get_nowait() for _ in range(WAITING_MAX)]
    assert any(event.kind == "missed" for event in kinds)
    assert kinds[-1].event == WAITING_MAX + 9


async def test_a_handler_sees_each_event_once(url: str) -> None:
    """Catches a handler of the user's that is shown tool events again on each replay."""
    seen: list[str] = []
    talker = Talker()

    async def show(ctx: Any, events: Any) -> None:
        async for event in events:
            seen.append(event.event_kind)

    agent = Agent(talker.model, name="clerk", tools=[look], capabilities=[Durable(event_stream_handler=show)])
    outputs: list[str] = []
    is_first = True

    @sf.durable(name="work")
    async def work() -> None:
        outputs.append((await agent.run("go")).output)
        if is_first:
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            await app.start(work, id="a")
            while not outputs:
                await asyncio.sleep(0.005)
        is_first = False
        once = list(seen)
        async with sf.Surefoot(url) as app:
            await (await app.run("a")).result()
    assert outputs == ["all is well"] * 2
    assert "function_tool_result" in once
    assert "part_delta" in once
    assert seen == once


@pytest.mark.parametrize("form", ["run_stream", "run_stream_events", "iter"])
async def test_streams_inside_a_durable_function(url: str, form: str) -> None:
    """Catches code that reads a stream and goes another way on replay."""
    talker = Talker()
    agent = Agent(talker.model, name="clerk", tools=[look], capabilities=[Durable()])

    async def work() -> Any:
        if form == "run_stream":
            async with agent.run_stream("go") as stream:
                return [chunk async for chunk in stream.stream_text()][-1]
        if form == "run_stream_events":
            kinds = []
            streamed = agent.run_stream_events("go")
            async with streamed as events:
                async for event in events:
                    kinds.append(event.event_kind)
            return kinds
        async with agent.iter("go") as run:
            nodes = [type(node).__name__ async for node in run]
        assert run.result is not None
        return nodes, run.result.output

    from tests.support.agents import twice

    first, again = await twice(url, work)
    assert first == again
    assert "TimeoutError" not in first
    assert talker.asked == 2
