"""Output functions and validators under replay: their code runs once, and what comes out of it comes out again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    ModelRetry,
    NativeOutput,
    PromptedOutput,
    RunContext,
    TextOutput,
    ToolOutput,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.usage import RunUsage
from tests.support.agents import Script, call, text, twice

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable


@dataclass
class Refund:
    order: str
    day: date


class Ask(BaseModel):
    order: str


RUNS: list[str] = []


def refund(order: str) -> Refund:
    """Refund an order."""
    RUNS.append(order)
    return Refund(order, date(2026, 11, len(RUNS)))


def refund_words(words: str) -> Refund:
    """Refund what the words say."""
    return refund(words)


async def refund_asked(asked: Ask) -> Refund:
    """Refund what is asked."""
    return refund(asked.order)


FORMS: dict[str, Any] = {
    "a function": (refund, call("final_result", order="A-1")),
    "a function of a model": (refund_asked, call("final_result", order="A-1")),
    "a marked function": (ToolOutput(refund, name="done"), call("done", order="A-1")),
    "one of several": ([refund, ToolOutput(Ask, name="ask")], call("final_result_refund", order="A-1")),
    "words": (TextOutput(refund_words), "A-1"),
    "prompted": (PromptedOutput(refund), '{"order": "A-1"}'),
    "prompted, one of several": (
        PromptedOutput[Any]([refund_asked, Ask]),
        '{"result": {"kind": "Ask", "data": {"order": "A-1"}}}',
    ),
}


@pytest.mark.parametrize("form", list(FORMS))
async def test_an_output_function_runs_once(url: str, form: str) -> None:
    """Catches an output function that acts again on each replay, or whose value comes back as something else."""
    RUNS.clear()
    output_type, answer = FORMS[form]
    script = Script([answer] if isinstance(answer, ToolCallPart) else text(answer))
    agent = Agent(script.model, name="clerk", output_type=output_type, capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert first == Refund("A-1", date(2026, 11, 1)), first
    assert again == first
    assert (RUNS, script.asked) == (["A-1"], 1)


async def test_a_validator_runs_once_and_asks_again_once(url: str) -> None:
    """Catches validators that look at the world again on replay and then say something else."""
    looks: list[str] = []
    script = Script([call("final_result", order="A-1")], [call("final_result", "c2", order="A-2")])
    agent: Agent[None, Ask] = Agent(script.model, name="clerk", output_type=Ask, capabilities=[Durable()])

    @agent.output_validator
    def look(ctx: RunContext[None], output: Ask) -> Ask:
        looks.append(output.order)
        if len(looks) == 1:
            raise ModelRetry("no such order")
        return Ask(order=f"{output.order}, seen {len(looks)}")

    async def work() -> Any:
        result = await agent.run("go")
        return result.output, len(result.all_messages())

    first, again = await twice(url, work)
    assert first[0] == Ask(order="A-2, seen 2")
    assert again == first
    assert (looks, script.asked) == (["A-1", "A-2"], 2)
    assert "no such order" in script.told[1]


async def test_what_an_output_function_used_before_it_asked_for_another_answer_counts(url: str) -> None:
    """Catches usage of a sub-agent that is gone on replay, because its report was not good enough."""

    def file(ctx: RunContext[None], order: str) -> str:
        ctx.usage.incr(RunUsage(requests=3, input_tokens=30))
        if order == "A-1":
            raise ModelRetry("no such order")
        return order

    script = Script([call("final_result", order="A-1")], [call("final_result", "c2", order="A-2")])
    agent = Agent(script.model, name="clerk", output_type=file, capabilities=[Durable()])

    async def work() -> Any:
        result = await agent.run("go")
        return result.output, result.usage.requests

    assert await twice(url, work) == (("A-2", 8),) * 2


@pytest.mark.parametrize("answer", ["tool", "text"])
async def test_retries_out_of_an_output_function_come_to_an_end(url: str, answer: str) -> None:
    """Catches a retry that is lost on replay, or an agent that fails the first time and goes on the next."""
    runs = 0

    def decide(words: str) -> str:
        nonlocal runs
        runs += 1
        raise ModelRetry("not that")

    output_type: Any = TextOutput(decide) if answer == "text" else decide
    script = Script(
        lambda messages: text("A") if answer == "text" else [call("final_result", f"c{len(messages)}", words="A")]
    )
    agent = Agent(script.model, name="clerk", output_type=output_type, retries=1, capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert first[0] == UnexpectedModelBehavior.__name__, first
    assert again == first
    assert (runs, script.asked) == (2, 2)
    assert "not that" in script.told[1]


async def test_an_error_out_of_an_output_function_is_the_same_on_replay(url: str) -> None:
    """Catches an error whose second occurrence is of another type, so that the code after it goes another way."""

    def decide(words: str) -> str:
        raise KeyError("A-1")

    script = Script(text("A"))
    agent = Agent(script.model, name="clerk", output_type=TextOutput(decide), capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert first[0] == "StepFailed"
    assert "KeyError" in first[1]
    assert again == first


async def test_an_output_function_that_is_an_effect_acts_once(url: str) -> None:
    """Catches a second act of one key, and a first outcome that is told to the model as a failure."""
    acts: list[str] = []

    @sf.effect(key="close:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def close(order: str, note: str) -> Refund:
        """Close the ticket."""
        acts.append(order)
        return Refund(order, date(2026, 11, 1))

    script = Script([call("final_result", order="A-1", note="ok")])
    agent: Agent[None, Any] = Agent(script.model, name="clerk", output_type=close, capabilities=[Durable()])

    async def work() -> Any:
        async with sf.branch("one"):
            first = (await agent.run("go")).output
        async with sf.branch("two"):
            return first, (await agent.run("go")).output

    first, again = await twice(url, work)
    assert first == (Refund("A-1", date(2026, 11, 1)),) * 2
    assert again == first
    assert acts == ["A-1"]


async def test_an_effect_that_is_not_done_is_told_to_the_model(url: str) -> None:
    """Catches a refusal that ends the run instead of reaching the model, which could do something else."""

    @sf.effect(key="close:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def close(order: str) -> str:
        """Close the ticket."""
        if order == "A-1":
            raise sf.NotDone("it has an open claim")
        return f"closed {order}"

    script = Script([call("final_result", order="A-1")], [call("final_result", "c2", order="A-2")])
    agent = Agent(script.model, name="clerk", output_type=close, capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    assert await twice(url, work) == ("closed A-2", "closed A-2")
    assert "NOT done" in script.told[1]
    assert "open claim" in script.told[1]


async def test_what_an_output_function_does_beside_its_result_is_done_once(url: str) -> None:
    """Catches usage of an output function's own that is counted twice the first time, or not at all on replay."""

    async def decide(ctx: RunContext[None], words: str) -> str:
        ctx.usage.incr(RunUsage(requests=2, input_tokens=30))
        return words

    script = Script([call("final_result", words="A")])
    agent = Agent(script.model, name="clerk", output_type=decide, capabilities=[Durable()])

    async def work() -> Any:
        usage = (await agent.run("go")).usage
        return usage.requests, usage.input_tokens

    first, again = await twice(url, work)
    assert first[0] == 3
    assert again == first


class Cancel(BaseModel):
    order: str


@pytest.mark.parametrize("marker", [PromptedOutput[Any], NativeOutput[Any]])
async def test_what_is_one_of_several_types_stays_of_its_type(url: str, marker: Any) -> None:
    """Catches a cancellation that comes out as a refund, because both are written the same."""

    async def work() -> Any:
        answers = [f'{{"result": {{"kind": "{kind}", "data": {{"order": "A-1"}}}}}}' for kind in ("Ask", "Cancel")]
        outputs = []
        for answer in answers:
            agent = Agent(Script(text(answer)).model, name="clerk", output_type=marker([Ask, Cancel]))
            agent.output_validator(lambda output: output)
            outputs.append((await agent.run("go", capabilities=[Durable()])).output)
        return outputs

    assert await twice(url, work) == ([Ask(order="A-1"), Cancel(order="A-1")],) * 2


async def test_an_output_that_cannot_be_kept_says_so(url: str) -> None:
    """Catches an unannotated value that is kept as something else without a word."""

    def decide(words: str):  # type: ignore[no-untyped-def]  # that is the case
        return {1: words}

    script = Script([call("final_result", words="A")])
    agent = Agent(script.model, name="clerk", output_type=decide, capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert "output function decide" in first[1]
    assert "annotate" in first[1]
    assert again[0] == first[0]
