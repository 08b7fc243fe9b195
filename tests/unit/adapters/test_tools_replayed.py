"""Tools of every kind and origin under replay: their code runs once, and what they said is said again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import warnings
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import (
    AbstractToolset,
    Agent,
    CallDeferred,
    DeferredToolRequests,
    FunctionToolset,
    ModelRetry,
    RunContext,
    ToolFailed,
    ToolReturn,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import BinaryContent, ToolCallPart
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import DynamicToolset, ToolsetTool, WrapperToolset
from pydantic_ai.usage import RunUsage
from pydantic_core import SchemaValidator, core_schema
from tests.support.agents import Part, Script, call, said, text, twice

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable, tools
from surefoot.adapters.pydantic_ai.units import DepsChanged

DECLARED: dict[str, Any] = {
    "undeclared": lambda function: function,
    "read": sf.read,
    "step": sf.step,
    "effect": sf.effect,
}


class Guest(BaseModel):
    """An argument with a structure."""

    name: str


class Counted:
    """A tool that counts how often its code runs."""

    def __init__(self) -> None:
        self.runs = 0

    async def look(self, what: str = "it") -> str:
        self.runs += 1
        return f"saw {what} {self.runs}"


class Odd(AbstractToolset[Any]):
    """A toolset that is none of the framework's own."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted

    @property
    def id(self) -> str | None:
        return None

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        return {
            "look": ToolsetTool(
                toolset=self,
                tool_def=ToolDefinition(name="look"),
                max_retries=1,
                args_validator=SchemaValidator(schema=core_schema.any_schema()),
            )
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        return await self.counted.look(**tool_args)


def _functions(counted: Counted) -> FunctionToolset[Any]:
    toolset = FunctionToolset[Any]()  # without an id
    toolset.add_function(counted.look)
    return toolset


class Outer(WrapperToolset[Any]):
    """A wrapper of the user's around a leaf."""


ORIGINS: dict[str, Any] = {
    "a toolset without id": lambda counted: ({"toolsets": [_functions(counted)]}, {}),
    "a toolset of one run": lambda counted: ({}, {"toolsets": [_functions(counted)]}),
    "a class of the user's": lambda counted: ({"toolsets": [Odd(counted)]}, {}),
    "a class of the user's, of one run": lambda counted: ({}, {"toolsets": [Odd(counted)]}),
    "a dynamic toolset": lambda counted: ({"toolsets": [DynamicToolset(lambda ctx: _functions(counted), id="d")]}, {}),
    "a dynamic toolset of the run": lambda counted: (
        {"toolsets": [DynamicToolset(lambda ctx: Odd(counted), per_run_step=False, id="d")]},
        {},
    ),
    "a dynamic toolset of one run": lambda counted: (
        {},
        {"toolsets": [DynamicToolset(lambda ctx: _functions(counted))]},
    ),
    "a wrapped toolset": lambda counted: ({"toolsets": [Outer(_functions(counted)).prefixed("x")]}, {}),
}


@pytest.mark.parametrize("origin", list(ORIGINS))
async def test_a_tool_of_any_origin_runs_once(url: str, origin: str) -> None:
    """Catches a toolset whose calls are not steps: its code would act again on every replay."""
    counted = Counted()
    of_agent, of_run = ORIGINS[origin](counted)
    tool = "x_look" if "wrapped" in origin else "look"
    script = Script([call(tool, what="A-1")], text("done"))
    agent = Agent(script.model, name="clerk", capabilities=[Durable()], **of_agent)

    async def work() -> Any:
        result = await agent.run("look", **of_run)
        return result.output, result.usage.tool_calls, str(result.all_messages()[2].parts[0])[:80]

    first, again = await twice(url, work)
    assert first == again
    assert first[:2] == ("done", 1)
    assert (counted.runs, script.asked) == (1, 2)
    assert script.told[1] == "tool-return: saw A-1 1"


@pytest.mark.parametrize("how", ["undeclared", "read", "by name"])
async def test_a_tool_is_called_with_what_its_arguments_were_validated_to(url: str, how: str) -> None:
    """Catches a tool that can't be called in a run because its arguments are dates, decimals or models, or gets texts."""
    called: list[Any] = []

    def book(day: date, price: Decimal, guest: Guest) -> str:
        called.append((day, price, guest))
        return "booked"

    script = Script([call("book", day="2030-01-02", price="12.50", guest={"name": "Ada"})], text("done"))
    declared: dict[str, Any] = {
        "read": {"reads": ["book"]},
        "by name": {"effects": {"book": sf.effect(key="{day}", in_doubt=sf.Resend(key_ttl="1h"))}},
    }
    agent = Agent(script.model, name="clerk", tools=[book], capabilities=[Durable(**declared.get(how, {}))])

    async def work() -> Any:
        return (await agent.run("go")).output

    assert await twice(url, work) == ("done", "done")
    assert called == [(date(2030, 1, 2), Decimal("12.50"), Guest(name="Ada"))]
    assert script.told[1] == "tool-return: booked"


async def test_an_effect_in_a_dynamic_toolset_guards_itself(url: str) -> None:
    """Catches the declaration lost on the way through a dynamic toolset: a second claim, and the class of a default."""
    acts: list[str] = []

    @sf.effect(key="refund:{order}", in_doubt=sf.Resend(key_ttl="1h"))
    async def refund(order: str) -> str:
        acts.append(order)
        return "receipt"

    toolset = DynamicToolset[Any](lambda ctx: FunctionToolset([refund]), id="d")
    script = Script([call("refund", order="A-1")], [call("refund", "call-2", order="A-1")], text("done"))
    agent = Agent(script.model, name="clerk", toolsets=[toolset], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    assert await twice(url, work) == ("done", "done")
    assert acts == ["A-1"]
    assert "repeated" in script.told[2]


SAID = [
    pytest.param(declare, error, id=f"{name}, {type(error).__name__}")
    for name, declare in DECLARED.items()
    for error in (ModelRetry("which order?"), ToolFailed("which order?"))
    if not (
        name == "effect" and isinstance(error, ToolFailed)
    )  # of an effect it says too little: the outcome is unknown
]


@pytest.mark.parametrize(("declare", "error"), SAID)
async def test_what_a_tool_says_by_an_exception_is_said_again(url: str, declare: Any, error: Exception) -> None:
    """Catches a retry that is told as a result, or another way on replay than the first time."""
    runs = 0

    async def look(order: str) -> str:
        nonlocal runs
        runs += 1
        raise error

    script = Script([call("look", order="?")], text("I give up"))
    agent = Agent(script.model, name="clerk", tools=[declare(look)], capabilities=[Durable()])

    async def work() -> Any:
        return [str(part) for message in (await agent.run("go")).all_messages() for part in message.parts if part]

    first, again = await twice(url, work)
    assert [line for line in first if "which order?" in line]
    assert (runs, script.asked) == (1, 2)
    assert "which order?" in script.told[1]
    assert len(first) == len(again)


@pytest.mark.parametrize("declare", [lambda tool: tool, sf.effect, sf.read], ids=["undeclared", "effect", "read"])
@pytest.mark.parametrize("error", [ModelRetry("no \udcff.txt"), sf.NotDone("no \udcff.txt")], ids=["retry", "not done"])
async def test_a_reason_with_half_a_character_in_it_is_the_same_on_replay(
    url: str, declare: Any, error: Exception
) -> None:
    """Catches a reason that can be written only on replay, as of an odd file name; live, no request could carry it."""

    async def look(order: str) -> str:
        raise error

    script = Script([call("look", order="?")], lambda messages: text(said(messages[-1])))
    agent = Agent(script.model, name="clerk", tools=[declare(look)], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert first == again
    assert "udcff.txt" in first
    assert first.encode(), "it can be written"


@pytest.mark.parametrize("declare", [lambda tool: tool, sf.effect, sf.read], ids=["undeclared", "effect", "read"])
async def test_a_number_that_json_does_not_have_is_the_models_to_mend(url: str, declare: Any) -> None:
    """Catches a run that fails because a model has written NaN where a number belongs."""
    paid = []

    async def pay(amounts: list[float]) -> str:
        paid.append(amounts)
        return "paid"

    bad = ToolCallPart("pay", '{"amounts": [1.5, Infinity, NaN]}', "call-1")
    script = Script([bad], [call("pay", "call-2", amounts=[2.5])], text("thanks"))
    agent = Agent(script.model, name="clerk", tools=[declare(pay)], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    assert await twice(url, work) == ("thanks", "thanks")
    assert "amounts.1 is no number" in script.told[1]
    assert paid == [[2.5]]


@pytest.mark.parametrize("declare", DECLARED.values(), ids=DECLARED)
async def test_retries_come_to_an_end_the_same_way(url: str, declare: Any) -> None:
    """Catches a count of retries that starts anew on replay, so that an agent that had failed goes on."""
    runs = 0

    async def look(order: str) -> str:
        nonlocal runs
        runs += 1
        raise ModelRetry("which order?")

    script = Script(lambda messages: [call("look", f"call-{len(messages)}", order="?")])
    agent = Agent(script.model, name="clerk", tools=[declare(look)], retries=1, capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert first[0] == UnexpectedModelBehavior.__name__, first
    assert first == again
    assert (runs, script.asked) == (2, 2)


class Address(BaseModel):
    street: str


@dataclass
class Trip:
    legs: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    "value",
    [
        "text",
        3,
        None,
        {"kind": "tool-return", "x": 1},
        {"kind": "image-url", "url": "http://x/y.png"},
        [1, [2, {"a": None}]],
        Address(street="Main St"),
        Trip(["a", "b"]),
        ToolReturn(return_value={"a": 1}, content=["look at this"], metadata={"m": [1]}),
        BinaryContent(data=b"\x00\x01", media_type="image/png"),
        [BinaryContent(data=b"\x00\x01", media_type="image/png"), "x"],
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("is_read", [True, False], ids=["read", "effect"])
async def test_a_model_sees_the_same_value_on_replay(url: str, value: Any, is_read: bool) -> None:
    """Catches values that come back from the record as something else than the model was shown."""
    seen: list[Any] = []

    def look() -> Any:
        return value

    def note(messages: list[Any]) -> list[Any]:
        return text("done")

    script = Script([call("look")], note)
    agent = Agent(script.model, name="clerk", tools=[look], capabilities=[Durable(reads=["look"] if is_read else [])])

    async def work() -> Any:
        messages = (await agent.run("go")).all_messages()
        seen.append([part.content for message in messages[1:] for part in message.parts if hasattr(part, "content")])
        return None

    await twice(url, work)
    assert seen[0] == seen[1]
    assert [type(one) for one in seen[0]] == [type(one) for one in seen[1]]


@pytest.mark.parametrize("declare", [lambda function: function, sf.read, sf.step], ids=["undeclared", "read", "step"])
async def test_a_value_that_cannot_be_kept_is_refused_by_name(url: str, declare: Any) -> None:
    """Catches a value without a JSON form that fails later, or without saying which tool made it and where."""

    def look() -> dict[str, Any]:
        return {"a": [object()]}

    async def look_async() -> dict[str, Any]:
        return look()

    look_async.__name__ = "look"
    script = Script([call("look")], text("done"))
    agent = Agent(script.model, name="clerk", tools=[declare(look_async)], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert str(first).partition("hint")[0] == str(again).partition("hint")[0]
    said = script.told[1] if declare is sf.read else first[1]
    assert "look" in said
    assert "a[0]" in said, said
    assert (await _unknowns(url)) == 0, "the act is recorded as done"


async def _unknowns(url: str) -> int:
    async with sf.Surefoot(url, is_worker=False) as app:
        return len(await app.unknowns())


@pytest.mark.parametrize("declare", [lambda function: function, sf.step, sf.read], ids=["undeclared", "step", "read"])
async def test_what_a_tool_does_beside_its_result_is_done_again(url: str, declare: Any) -> None:
    """Catches usage that a tool added, and messages it queued, which are gone on replay."""

    async def look(ctx: RunContext[None]) -> str:
        ctx.usage.incr(RunUsage(requests=2, input_tokens=30, output_tokens=7, details={"thoughts": 5}))
        ctx.enqueue("and be quick")
        return "seen"

    script = Script([call("look")], text("done"))
    agent = Agent(script.model, name="clerk", tools=[declare(look)], capabilities=[Durable()])

    async def work() -> Any:
        result = await agent.run("go")
        usage = result.usage
        queued = [str(getattr(part, "content", "")) for message in result.all_messages() for part in message.parts
                  if "quick" in str(getattr(part, "content", ""))]  # fmt: skip
        return usage.requests, usage.tool_calls, usage.input_tokens, usage.details.get("thoughts"), queued

    first, again = await twice(url, work)
    assert first == again
    assert first[0] == 4
    assert first[3] == 5
    assert first[4] == ["and be quick"]


async def test_what_each_attempt_at_a_step_does_beside_its_result_is_done_again(url: str) -> None:
    """Catches a step that its tool takes twice, whose second usage is forgotten or whose first one counts twice."""
    attempts = 0

    @sf.step
    async def look(ctx: RunContext[None]) -> str:
        nonlocal attempts
        attempts += 1
        ctx.usage.incr(RunUsage(requests=2 if attempts == 1 else 5))
        if attempts == 1:
            raise ConnectionError("not yet")
        return "seen"

    @functools.wraps(look)
    async def patient(ctx: RunContext[None]) -> str:
        ctx.usage.incr(RunUsage(requests=10))
        with contextlib.suppress(sf.StepFailed):
            return await look(ctx)
        return await look(ctx)

    agent = Agent(Script([call("look")], text("done")).model, name="clerk", tools=[patient], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).usage.requests

    assert await twice(url, work) == (19, 19)
    assert attempts == 2


async def test_what_a_step_used_before_it_failed_counts(url: str) -> None:
    """Catches usage of a sub-agent that is gone on replay, because an error of the sub-agent's ended its parent too."""

    @sf.step
    async def look(ctx: RunContext[None]) -> str:
        ctx.usage.incr(RunUsage(requests=2))
        raise UnexpectedModelBehavior("odd")

    agent = Agent(Script([call("look")]).model, name="clerk", tools=[look], capabilities=[Durable()])

    async def work() -> Any:
        usage = RunUsage()
        with pytest.raises(sf.StepFailed):
            await agent.run("go", usage=usage)
        return usage.requests

    assert await twice(url, work) == (3, 3)


async def test_what_an_earlier_version_recorded_after_a_step_is_done_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches usage in the journal of an open run that is found no more, because it is now recorded elsewhere."""

    @sf.step
    async def look(ctx: RunContext[None]) -> str:
        ctx.usage.incr(RunUsage(requests=2))
        return "seen"

    agent = Agent(Script([call("look")], text("done")).model, name="clerk", tools=[look], capabilities=[Durable()])
    is_earlier = True

    async def work() -> Any:
        nonlocal is_earlier
        with monkeypatch.context() as patch:
            if is_earlier:
                patch.setattr(tools, "step_itself", lambda function: None)
            is_earlier = False
            return (await agent.run("go")).usage.requests

    assert await twice(url, work) == (4, 4)


async def test_dependencies_changed_in_place_are_warned_about_once(url: str) -> None:
    """Catches a change that a replay doesn't make, and nobody is told of."""

    def look(ctx: RunContext[Trip]) -> str:
        ctx.deps.legs.append("c")
        return "seen"

    def stay(ctx: RunContext[Trip]) -> str:
        return "stayed"

    calls: list[list[Part]] = [[call(tool, f"{tool}{n}")] for n in range(2) for tool in ("look", "stay")]
    script = Script(*calls, text("done"))
    agent = Agent(script.model, name="clerk", deps_type=Trip, tools=[look, stay], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go", deps=Trip(["a"]))).output

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await twice(url, work)
    found = [str(one.message) for one in caught if one.category is DepsChanged]
    assert len(found) == 1
    assert found[0].startswith("tool look has changed")


async def test_a_tool_cannot_cancel_what_a_replay_would_not(url: str) -> None:
    """Catches a cancellation by a tool that is forgotten on replay: the run would go on where it had been stopped."""

    async def look(ctx: RunContext[None]) -> str:
        ctx.cancel()
        return "seen"

    script = Script([call("look")], text("done"))
    agent = Agent(script.model, name="clerk", tools=[look], capabilities=[Durable(reads=["look"])])

    async def work() -> Any:
        return (await agent.run("go")).output

    first, again = await twice(url, work)
    assert "would not happen again on replay" in first[1]
    assert first == again


async def test_parallel_tools_stay_parallel(url: str) -> None:
    """Catches a guard that makes parallel calls wait for each other."""
    both = asyncio.Barrier(2)

    async def look(what: str) -> str:
        async with asyncio.timeout(5):
            await both.wait()
        return what

    script = Script([call("look", "a", what="a"), call("look", "b", what="b")], text("done"))
    agent = Agent(script.model, name="clerk", tools=[look], capabilities=[Durable()])

    async def work() -> Any:
        return (await agent.run("go")).output

    assert await twice(url, work) == ("done", "done")


async def test_a_deferred_call_of_an_undeclared_tool_is_kept(url: str) -> None:
    """Catches a deferral that is told to the model as a result."""

    async def look(what: str) -> str:
        raise CallDeferred

    script = Script([call("look", what="a")], text("done"))
    agent: Agent[None, Any] = Agent(
        script.model, name="clerk", tools=[look], output_type=[str, DeferredToolRequests], capabilities=[Durable()]
    )

    async def work() -> Any:
        output = (await agent.run("go")).output
        assert isinstance(output, DeferredToolRequests)
        return [one.tool_call_id for one in output.calls]

    assert await twice(url, work) == (["call-1"], ["call-1"])
