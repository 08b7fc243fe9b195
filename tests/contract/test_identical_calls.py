"""A model that asks for an identical call again, without a key: which act it means follows from what it had before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.capabilities import ProcessHistory
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo
from tests.contract.conftest import Calls, kinds, until
from tests.support.agents import Part, Script, call, text, twice

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable
from surefoot.effects.live.perform import SAME_CALL_MAX


@pytest.fixture
def acts() -> Calls:
    return []


@pytest.fixture
def send(acts: Calls) -> Callable[..., Any]:
    """Send, and count; by a name that has to be escaped in the path of a step."""

    @sf.effect(name="mail/send")
    async def send(to: str) -> str:
        acts.append(to)
        return f"sent {len(acts)}"

    return send


def asking(times: int) -> list[list[Part]]:
    """Return answers that ask for one identical call after the other."""
    return [[call("send", f"call-{n}", to="ann")] for n in range(times)]


async def asked(url: str, script: Script, *tools: Any, capabilities: Any = ()) -> list[str]:
    """Let an agent answer, once for real and once from the record; return what its model was told, request by request."""
    agent = Agent(script.model, name="sender", tools=tools, capabilities=[Durable(), *capabilities])

    async def work() -> Any:
        return (await agent.run("send it")).output

    assert await twice(url, work) == ("thanks", "thanks")
    return script.told


async def test_two_identical_calls_in_one_answer_are_one_act(url: str, acts: Calls, send: Any) -> None:
    """Catches a message that is sent twice because a model stuttered."""
    calls = [call("send", f"call-{n}", to="ann") for n in range(SAME_CALL_MAX + 2)]
    other = call("send", "other", to="bob")
    told = await asked(url, Script([*calls, other], text("thanks")), send)
    assert acts == ["ann", "bob"]
    first, *again, last = told[1].split("; ")
    assert (first, last) == ("tool-return: sent 1", "tool-return: sent 2")
    assert all("sent 1" in one for one in again), again


async def test_a_call_whose_outcome_was_seen_is_another_act_until_it_is_a_loop(
    url: str, acts: Calls, send: Any
) -> None:
    """Catches a second message that is meant and not sent, and a model that sends for ever."""
    told = await asked(url, Script(*asking(SAME_CALL_MAX + 2), text("thanks")), send)
    assert acts == ["ann"] * SAME_CALL_MAX
    assert told[1 : SAME_CALL_MAX + 1] == [f"tool-return: sent {n + 1}" for n in range(SAME_CALL_MAX)]
    for refused in told[SAME_CALL_MAX + 1 :]:
        assert f"asked for this identical call {SAME_CALL_MAX} times and has seen each outcome" in refused


async def test_what_a_loop_was_refused_is_in_the_record(url: str, send: Any) -> None:
    """Catches a refusal that only the model has heard of."""
    script = Script(*asking(SAME_CALL_MAX + 2), text("thanks"))
    async with sf.Surefoot(url) as app:
        run = await app.agent(Agent(script.model, name="sender", tools=[send])).start("send it", id="r")
        assert await run.result(timeout_s=10) == "thanks"
        assert kinds(app, "r").count("denied") == 2


async def test_a_call_whose_outcome_the_model_has_forgotten_is_the_first_one(url: str, acts: Calls, send: Any) -> None:
    """Catches an act that is done again because the history was shortened."""
    answers = iter([*asking(SAME_CALL_MAX + 2), text("thanks")])

    def shorten(messages: list[ModelMessage]) -> list[ModelMessage]:
        return messages[:1]  # the question, and nothing of what came of it

    told = await asked(url, Script(lambda _: next(answers)), send, capabilities=[ProcessHistory(shorten)])
    assert acts == ["ann"]
    assert set(told) == {"user-prompt: send it"}


async def test_only_the_last_outcome_in_sight_is_not_all_of_them(url: str, acts: Calls, send: Any) -> None:
    """Catches a model that has forgotten its first act, and is taken for one that has seen it because it was told again."""
    answers = iter([*asking(3), text("thanks")])

    def shorten(messages: list[ModelMessage]) -> list[ModelMessage]:
        return [messages[0], *messages[1:][-2:]]

    await asked(url, Script(lambda _: next(answers)), send, capabilities=[ProcessHistory(shorten)])
    assert acts == ["ann", "ann"]  # the second has seen the first; the third has not


async def test_an_act_that_is_not_known_is_not_done_again(url: str, acts: Calls) -> None:
    """Catches a model that is told that nobody knows, asks again, and is obeyed."""

    @sf.effect(when_unknown="tell_model")
    async def send(to: str) -> str:
        acts.append(to)
        raise TimeoutError

    script = Script(*asking(4), text("thanks"))
    async with sf.Surefoot(url) as app:
        run = await app.agent(Agent(script.model, name="sender", tools=[send])).start("send it", id="r")
        await until(lambda: script.asked == 5)
        assert acts == ["ann"]
        assert ["NOT KNOWN" in told for told in script.told] == [False, True, True, True, True]
        (doubt,) = await app.unknowns()
        await app.resolve(doubt.id, is_done=True, by="ann", reason="saw it", value="sent")
        assert await run.result(timeout_s=10) == "thanks"


async def test_what_a_step_does_inside_an_identical_call_is_the_same_too(url: str, acts: Calls, send: Any) -> None:
    """Catches effects inside a tool that are done again, or taken for one another, when the tool is asked for twice."""

    @sf.step
    async def inform(to: str) -> list[str]:
        return [await send(to), await send("bob"), await send.keyed("last")(to)]

    script = Script([call("inform", f"call-{n}", to="ann") for n in range(2)], text("thanks"))
    told = await asked(url, script, inform)
    assert acts == ["ann", "bob", "ann"]
    assert told[1] == "; ".join(["tool-return: ['sent 1', 'sent 2', 'sent 3']"] * 2)


async def test_what_was_not_known_before_a_restart_is_not_done_again_after_it(url: str, acts: Calls) -> None:
    """Catches a process that was told that nobody knows, and a later one that has forgotten it was told."""
    has_asked, may_answer = asyncio.Event(), asyncio.Event()

    @sf.effect(when_unknown="tell_model")
    async def send(to: str) -> str:
        acts.append(to)
        raise TimeoutError

    class Slow(Script):
        async def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            if len(messages) == 5 and not may_answer.is_set():  # has asked twice
                has_asked.set()
                await may_answer.wait()
            return await super().__call__(messages, info)

    script = Slow(*asking(3), text("thanks"))
    async with sf.Surefoot(url) as app:
        await app.agent(Agent(script.model, name="sender", tools=[send])).start("send it", id="r")
        await has_asked.wait()
    may_answer.set()
    async with sf.Surefoot(url) as app:
        run = await app.run("r")
        await until(lambda: script.asked == 4)
        (doubt,) = await app.unknowns()
        await app.resolve(doubt.id, is_done=True, by="ann", reason="saw it", value="sent")
        assert await run.result(timeout_s=10) == "thanks"
    assert acts == ["ann"]


@pytest.mark.parametrize("declare", [lambda tool: tool, sf.effect], ids=["undeclared", "effect"])
async def test_calls_whose_ids_are_pages_long_are_kept_apart(url: str, acts: Calls, declare: Any) -> None:
    """Catches a run that fails, and then hangs, because a service writes more into a call's id than fits in a key."""

    async def send(to: str) -> str:
        acts.append(to)
        return f"sent to {to}"

    answer = [call("send", "call" * 500 + to, to=to) for to in ("ann", "bob")]
    script = Script([*answer, call("send", "call" * 501, to="ann")], text("thanks"))
    told = await asked(url, script, declare(send))
    assert sorted(acts) == ["ann", "bob"]
    assert [person in told[1] for person in ("sent to ann", "sent to bob")] == [True, True]


async def test_a_call_with_a_long_id_that_is_not_known_is_not_done_again(url: str, acts: Calls) -> None:
    """Catches an unknown that is not found again by the short form of its name."""

    @sf.effect(when_unknown="tell_model")
    async def send(to: str) -> str:
        acts.append(to)
        raise TimeoutError

    answers: list[list[Part]] = [[call("send", f"{n}" * 999, to="ann")] for n in range(3)]
    script = Script(*answers, text("thanks"))
    async with sf.Surefoot(url) as app:
        run = await app.agent(Agent(script.model, name="sender", tools=[send])).start("send it", id="r")
        await until(lambda: script.asked == 4)
        (doubt,) = await app.unknowns()
        await app.resolve(doubt.id, is_done=True, by="ann", reason="saw it", value="sent")
        assert await run.result(timeout_s=10) == "thanks"
    assert acts == ["ann"]
